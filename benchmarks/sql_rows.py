"""A ledger of its own with one job, and two ways to write the measurements of its findings."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from sqlmodel import Session, delete, select

from store.analysed import END_COLUMNS, AnalysedFindings, Coded, Found, Measured
from store.database import Database
from store.findings import save
from store.tables import Finding, Job, Measurement, Patient, Revision, Study

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EACH = 10


class Ledger:
    """Two databases that begin alike."""

    def __init__(self, folder: Path, *, measurements: int) -> None:
        self.findings = measurements // EACH
        self._found = AnalysedFindings(found=tuple(_found(n) for n in range(self.findings)))
        self._ours = Database(f"sqlite:///{folder / 'ours.sqlite'}")
        raw = Database(f"sqlite:///{folder / 'raw.sqlite'}")
        for database in (self._ours, raw):
            database.upgrade()
            with database.transaction() as session:
                _job(session)
        with raw.transaction() as session:
            save(
                session,
                session.exec(select(Job)).one(),
                AnalysedFindings(found=self._found.found[:1]),
                {},
                NOW,
            )
            session.exec(delete(Measurement))
            finding = session.exec(select(Finding)).one().id
        raw.dispose()
        self._raw = sqlite3.connect(folder / "raw.sqlite", isolation_level=None)
        self._raw.execute("PRAGMA journal_mode=WAL")
        self._raw.execute("PRAGMA synchronous=FULL")
        self._raw.execute("PRAGMA foreign_keys=ON")
        rows = [
            _row(measured, finding or 0) for found in self._found.found for measured in found.measurements
        ]
        names = list(rows[0])
        self._sql = f"INSERT INTO measurement ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        self._values = [tuple(row.values()) for row in rows]

    def empty(self) -> None:
        """Delete what the last run wrote."""
        with self._ours.transaction() as session:
            session.exec(delete(Measurement))
            session.exec(delete(Finding))
        self._raw.execute("DELETE FROM measurement")

    def save(self) -> None:
        """Write findings and measurements as the node does."""
        with self._ours.transaction() as session:
            save(session, session.exec(select(Job)).one(), self._found, {}, NOW)

    def executemany(self) -> None:
        """Write the measurements with the driver alone."""
        self._raw.execute("BEGIN IMMEDIATE")
        self._raw.executemany(self._sql, self._values)
        self._raw.execute("COMMIT")


def _job(session: Session) -> None:
    """Add a job with the study that it is of."""
    patient = Patient(patient_id="P1")
    session.add(patient)
    session.flush()
    study = Study(
        patient_pk=patient.id or 0, study_instance_uid="1.2.3", first_arrival_at=NOW, last_arrival_at=NOW
    )
    session.add(study)
    session.flush()
    revision = Revision(study_pk=study.id or 0, number=1, manifest_sha256="m", settled_at=NOW)
    session.add(revision)
    session.flush()
    job = Job(
        revision_pk=revision.id or 0,
        key="k",
        plugin="lung_nodule",
        plugin_version="1.0.0",
        model_sha256="a" * 64,
        config_sha256="b" * 64,
        state="running",
        run_after=NOW,
        created_at=NOW,
    )
    session.add(job)


def _found(number: int) -> Found:
    nodule = Coded(value="27925004", scheme="SCT", meaning="Nodule")
    length = Coded(value="103339001", scheme="SCT", meaning="Long Axis")
    return Found(
        label=f"Finding {number}",
        tracking_identifier=f"Finding {number}",
        tracking_uid=f"2.25.{10**30 + number}",
        series_instance_uid="1.2.3.1",
        segment_number=number + 1,
        category=nodule,
        type=nodule,
        centroid_mm=(1.0, 2.0, float(number)),
        measurements=tuple(
            Measured(
                name=f"measure_{i}",
                concept=length,
                value=number + 0.1 * i,
                unit="mm",
                method="0.5-level contour, axial slice of largest long axis",
                end_points_mm=((1.0, 2.0, 3.0), (4.0, 5.0, float(number))) if i < 2 else None,
                sop_instance_uid=f"1.2.3.1.{number}",
            )
            for i in range(EACH)
        ),
    )


def _row(measured: Measured, finding: int) -> dict[str, object]:
    """Return the columns of a measurement, as the node writes them."""
    ends = measured.end_points_mm
    return {
        "finding_pk": finding,
        "name": measured.name,
        "concept_value": measured.concept.value,
        "concept_scheme": measured.concept.scheme,
        "concept_meaning": measured.concept.meaning,
        "value": measured.value,
        "unit": measured.unit,
        "method": measured.method,
        "derivation_meaning": measured.derivation_meaning,
        "uncertainty": measured.uncertainty,
        **dict(zip(END_COLUMNS, (None,) * 6 if ends is None else (*ends[0], *ends[1]), strict=True)),
        "sop_instance_uid": measured.sop_instance_uid,
        "plugin": "lung_nodule",
        "plugin_version": "1.0.0",
        "model_sha256": "a" * 64,
    }

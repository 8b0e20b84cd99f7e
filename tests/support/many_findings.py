"""A node after years of use: a hundred thousand findings in SQL, written in a few seconds, with no file behind them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlmodel import Session, SQLModel

from store import audit
from store.audit_tables import AuditRecord
from store.database import Database
from store.keys import job_key
from store.tables import (
    Delivery,
    Event,
    Finding,
    Instance,
    Job,
    Patient,
    Refusal,
    Result,
    Revision,
    RevisionInstance,
    Series,
    Study,
)

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
EACH, VISITS = 20, 4
PACS, ARCHIVE = "PACS@10.0.0.7:104", "https://archive.example/dicom-web"
PLUGINS = ("lung_nodule", "emphysema")
KINDS = ("seg", "sr-volumetric", "sr-planar")
CT, SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"
MEASURED = (
    ("long_axis", "103339001", "SCT", "Long Axis", "mm", "4.0 + (id % 400) / 10.0", ""),
    ("short_axis", "103340004", "SCT", "Short Axis", "mm", "3.0 + (id % 400) / 14.0", ""),
    ("volume", "118565006", "SCT", "Volume", "ml", "0.05 + (id % 400) * (id % 400) / 5000.0", ""),
    ("hu_mean", "112031", "DCM", "Attenuation Coefficient", "[hnsf''U]", "(id % 800) - 700.0", "Mean"),
)
STAGES = ("queued", "running", "delivering", "dead", "superseded", "failing", "parked", "pending")
"""What the newest studies are in, one after the other; `failing` waits for its next attempt."""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What was written."""

    patients: int
    studies: int
    jobs: int
    findings: int
    measurements: int
    deliveries: int


def fill(database: Database, *, findings: int = 100_000, now: datetime = NOW) -> Filled:
    """Write so many findings, 20 a study and four dates a patient, into an empty, migrated database.

    All that a node keeps of them is there: series, images, revisions, jobs in every state, measurements, links,
    results, deliveries, events and a whole audit trail. The newest studies are in all stages.
    """
    studies = max(1, findings // EACH)
    with database.transaction() as session:
        _write(session, Patient, _patients(-(-studies // VISITS)))
        _write(session, Study, _studies(studies, now))
        _write(session, Series, _series(studies))
        _write(session, Instance, _instances(studies, now))
        _write(session, Revision, _revisions(studies, now))
        _write(session, RevisionInstance, _contents(studies))
        _write(session, Job, _jobs(studies, now))
        _write(session, Finding, _findings(studies))
        _write(session, Refusal, _refusals(studies))
        _write(session, Result, _results(studies, now))
        _write(session, Delivery, _deliveries(studies, now))
        _write(session, Event, _events(studies, now))
        _write(session, AuditRecord, _audit(studies, now))
        for name, value, scheme, meaning, unit, number, derivation in MEASURED:
            session.connection().execute(
                text(_measuring(name, value, scheme, meaning, unit, number, derivation))
            )
        session.connection().execute(text(_linking()))
        if not database.is_sqlite:
            _count_on(session)
    with database.transaction() as session:
        session.connection().execute(text("ANALYZE"))
    return Filled(
        patients=-(-studies // VISITS),
        studies=studies,
        jobs=len(PLUGINS) * studies,
        findings=EACH * studies,
        measurements=len(MEASURED) * EACH * studies,
        deliveries=sum(1 for _ in _deliveries(studies, now)),
    )


def stage_of(study: int, studies: int) -> str:
    """Return what the `study`th of them, from 0, is in: the newest hundred in all stages, the others done."""
    return STAGES[study % len(STAGES)] if study >= studies - 100 else "done"


def _patients(count: int) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield {
            "id": n + 1,
            "issuer": "",
            "patient_id": f"MANY-{n:05d}",
            "patient_name": f"Made^Up {n:05d}",
            "patient_sex": "FM"[n % 2],
            "patient_birth_date": date(1940 + n % 50, 1 + n % 12, 1 + n % 28),
        }


def _studies(count: int, now: datetime) -> Iterator[dict[str, Any]]:
    """A patient's dates are three months apart, and the studies arrive in the order of their numbers."""
    for n in range(count):
        arrived = now - timedelta(minutes=10 * (count - n))
        visit = n * VISITS // count
        yield {
            "id": n + 1,
            "patient_pk": n % -(-count // VISITS) + 1,
            "study_instance_uid": f"2.25.1{n:06d}",
            "study_date": (now - timedelta(days=91 * (VISITS - 1 - visit) + 20 - n % 20)).date(),
            "study_description": ("CT chest", "PET/CT whole body", "CT chest follow-up")[n % 3],
            "accession_number": f"A{n:06d}",
            "state": "settled",
            "revision": 1,
            "first_arrival_at": arrived - timedelta(minutes=2),
            "last_arrival_at": arrived,
            "settle_now": False,
            "prior": False,
        }


def _series(studies: int) -> Iterator[dict[str, Any]]:
    for n in range(studies):
        for k, modality in enumerate(("CT", "PT") if n % 3 == 1 else ("CT",)):
            yield {
                "id": 2 * n + k + 1,
                "study_pk": n + 1,
                "series_instance_uid": f"2.25.2{n:06d}{k}",
                "modality": modality,
                "series_number": k + 1,
                "series_description": f"{modality} axial",
                "frame_of_reference_uid": f"2.25.3{n:06d}",
            }


def _instances(studies: int, now: datetime) -> Iterator[dict[str, Any]]:
    """Three images a series, where a real one has hundreds."""
    for series in _series(studies):
        n = series["id"]
        for k in range(3):
            yield {
                "id": 3 * (n - 1) + k + 1,
                "series_pk": n,
                "sop_instance_uid": f"2.25.4{n:07d}{k}",
                "sop_class_uid": CT,
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "sha256": _hash("object", n, k),
                "size_bytes": 525_000,
                "received_at": now - timedelta(minutes=10 * (studies - series["study_pk"] + 1)),
                "source": "CT1@10.0.0.5",
                "current": True,
                "own": False,
            }


def _revisions(studies: int, now: datetime) -> Iterator[dict[str, Any]]:
    for n in range(studies):
        yield {
            "id": n + 1,
            "study_pk": n + 1,
            "number": 1,
            "manifest_sha256": _hash("manifest", n),
            "settled_at": now - timedelta(minutes=10 * (studies - n) - 1),
            "forced": False,
        }


def _contents(studies: int) -> Iterator[dict[str, Any]]:
    for image in _instances(studies, NOW):
        yield {"revision_pk": (image["series_pk"] - 1) // 2 + 1, "instance_pk": image["id"]}


def _jobs(studies: int, now: datetime) -> Iterator[dict[str, Any]]:
    for n in range(studies):
        settled = now - timedelta(minutes=10 * (studies - n) - 1)
        for k, plugin in enumerate(PLUGINS):
            state = stage_of(n, studies) if k == 0 else "done"
            begun = state not in ("queued", "superseded")
            row = {
                "id": 2 * n + k + 1,
                "revision_pk": n + 1,
                "key": job_key(_hash("manifest", n), plugin, "1", "", ""),
                "plugin": plugin,
                "plugin_version": "1",
                "model_sha256": "",
                "config_sha256": "",
                "state": {"failing": "queued", "parked": "delivering", "pending": "delivering"}.get(
                    state, state
                ),
                "attempt": int(begun),
                "max_attempts": 5,
                "run_after": settled if state != "failing" else now + timedelta(minutes=5),
                "lease_until": now + timedelta(minutes=1) if state == "running" else None,
                "owner": "host:1 worker 0" if state == "running" else None,
                "error_code": "unavailable" if state in ("dead", "failing") else None,
                "error_text": "the disk is full" if state in ("dead", "failing") else None,
                "created_at": settled,
                "started_at": settled + timedelta(seconds=5) if begun else None,
                "finished_at": settled + timedelta(seconds=45 + n % 30),
            }
            if state in ("queued", "failing", "running"):
                row["finished_at"] = None
            if state == "running":
                row["started_at"] = now - timedelta(seconds=20)
            yield row


def _findings(studies: int) -> Iterator[dict[str, Any]]:
    """The same lesion of a patient has one Tracking UID on all dates."""
    patients = -(-studies // VISITS)
    for n in range(studies):
        for k in range(EACH):
            yield {
                "id": EACH * n + k + 1,
                "job_pk": 2 * n + 1,
                "study_pk": n + 1,
                "patient_pk": n % patients + 1,
                "series_instance_uid": f"2.25.2{n:06d}0",
                "label": f"Nodule {k + 1}",
                "tracking_identifier": f"Nodule {k + 1}",
                "tracking_uid": f"2.25.5{n % patients:06d}{k:02d}",
                "segment_number": k + 1,
                "category_value": "49755003",
                "category_scheme": "SCT",
                "category_meaning": "Morphologically Abnormal Structure",
                "type_value": "27925004",
                "type_scheme": "SCT",
                "type_meaning": "Nodule",
                "site_value": "39607008",
                "site_scheme": "SCT",
                "site_meaning": "Lung",
                "laterality_meaning": ("Left", "Right")[k % 2],
                "confidence": 0.5 + (n + k) % 50 / 100,
                "automatic": True,
                "centroid_x_mm": 10.0 * k - 100.0,
                "centroid_y_mm": 5.0 * k,
                "centroid_z_mm": 15.0 * k,
                "superseded": False,
            }


def _refusals(studies: int) -> Iterator[dict[str, Any]]:
    for n in range(0, studies, 10):
        sentence = "the series has gaps: 3 slices are missing"
        yield {"job_pk": 2 * n + 1, "code": "gaps", "sentence": sentence, "refused": True}


def _results(studies: int, now: datetime) -> Iterator[dict[str, Any]]:
    for job in _jobs(studies, now):
        if job["state"] in ("done", "delivering"):
            for k, kind in enumerate(KINDS):
                yield {
                    "id": 3 * job["id"] + k,
                    "job_pk": job["id"],
                    "kind": kind,
                    "sop_instance_uid": f"2.25.6{job['id']:07d}{k}",
                    "sop_class_uid": SEG,
                    "series_instance_uid": f"2.25.7{job['id']:07d}{k}",
                    "sha256": _hash("result", job["id"], k),
                    "size_bytes": 60_000,
                    "created_at": job["finished_at"],
                }


def _deliveries(studies: int, now: datetime) -> Iterator[dict[str, Any]]:
    """Every result goes to the PACS, those of every other study to the archive too."""
    for result in _results(studies, now):
        study = (result["job_pk"] - 1) // 2
        stage = stage_of(study, studies) if result["job_pk"] % 2 else "done"
        for k, destination in enumerate((PACS, ARCHIVE)[: 1 + study % 2]):
            is_open = stage in ("delivering", "pending", "parked") and k == 0
            state = ("parked" if stage == "parked" else "pending") if is_open else "confirmed"
            yield {
                "id": 2 * result["id"] + k,
                "result_pk": result["id"],
                "job_pk": result["job_pk"],
                "destination": destination,
                "state": state,
                "attempt": 3 if is_open else 1,
                "run_after": now + timedelta(minutes=5) if is_open else result["created_at"],
                "last_status": None if is_open else "0x0000",
                "last_error": "the connection was refused" if is_open else None,
                "refusals": 3 if state == "parked" else 0,
                "give_up_at": result["created_at"] + timedelta(days=7),
                "created_at": result["created_at"],
                "delivered_at": None if is_open else result["created_at"] + timedelta(seconds=2),
                "confirm_attempt": 0,
                "confirmed_at": None if is_open else result["created_at"] + timedelta(seconds=20),
                "confirmed_by": None if is_open else "commitment",
                "resends": 0,
            }


def _events(studies: int, now: datetime) -> Iterator[dict[str, Any]]:
    count = min(studies, 2000)
    kinds = ("quarantined", "rejected", "conflict", "schedule-missed")
    for n in range(count):
        at = now - timedelta(minutes=7 * (count - n))
        yield {
            "at": at,
            "kind": kinds[n % 4],
            "subject": f"subject {n}",
            "text": f"what happened, number {n}",
        }


def _audit(studies: int, now: datetime) -> Iterator[dict[str, Any]]:
    sha256 = audit.BEGINNING
    for n in range(studies):
        at = now - timedelta(minutes=3 * (studies - n))
        message = (
            f'<AuditMessage><EventIdentification EventActionCode="C" EventDateTime="{at.isoformat()}" '
            'EventOutcomeIndicator="0"><EventID csd-code="110104" codeSystemName="DCM" '
            'originalText="DICOM Instances Transferred"/></EventIdentification>'
            f'<ActiveParticipant UserID="CT{n % 7}" UserIsRequestor="true"/>'
            '<AuditSourceIdentification AuditSourceID="NADIR"/></AuditMessage>'
        )
        sha256 = audit.link(sha256, message)
        yield {"at": at, "message": message, "sha256": sha256}


def _measuring(
    name: str, value: str, scheme: str, meaning: str, unit: str, number: str, derivation: str
) -> str:
    told = f"'{derivation}'" if derivation else "NULL"
    return (  # the parts are those of this file
        f"INSERT INTO measurement (finding_pk, name, concept_value, concept_scheme, concept_meaning, value, unit, "
        f"method, derivation_meaning, plugin, plugin_version, model_sha256) SELECT id, '{name}', '{value}', "
        f"'{scheme}', '{meaning}', {number}, '{unit}', 'made up', {told}, 'lung_nodule', '1', '' FROM finding"
    )


def _linking() -> str:
    first = "SELECT min(study_pk) FROM finding f WHERE f.patient_pk = finding.patient_pk"
    return (
        "INSERT INTO lesion_link (job_pk, patient_pk, finding_pk, kind, tracking_uid, tracking_identifier, earlier, "
        "earlier_study_instance_uid, confidence, reason, superseded) SELECT job_pk, patient_pk, finding.id, 'same', "
        "tracking_uid, tracking_identifier, '[\"' || tracking_uid || '\"]', '', 0.9, 'made up', superseded "
        f"FROM finding WHERE study_pk > ({first})"
    )


def _count_on(session: Session) -> None:
    """Let PostgreSQL go on counting after the numbers that were given."""
    for table in (Patient, Study, Series, Instance, Revision, Job, Finding, Result, Delivery):
        name = str(table.__tablename__)
        session.connection().execute(
            text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), (SELECT max(id) FROM {name}))")
        )


def _write(session: Session, table: type[SQLModel], rows: Iterator[dict[str, Any]]) -> None:
    """Insert in pieces; columns that a row does not name are as the table has them."""
    given: Sequence[dict[str, Any]] = list(rows)
    for start in range(0, len(given), 10_000):
        session.connection().execute(table.__table__.insert(), given[start : start + 10_000])  # type: ignore[attr-defined]


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def main() -> None:
    """Fill the home folder that is named: `python tests/support/many_findings.py HOME`."""
    from time import perf_counter

    home = Path(sys.argv[1])
    home.mkdir(parents=True, exist_ok=True)
    database = Database(f"sqlite:///{home / 'nadir.sqlite'}")
    database.upgrade()
    began = perf_counter()
    filled = fill(database, now=database.now())
    sys.stdout.write(f"{filled}\n{perf_counter() - began:.1f} s\n")
    database.dispose()


if __name__ == "__main__":
    main()


__all__ = ["ARCHIVE", "NOW", "PACS", "Filled", "fill", "stage_of"]

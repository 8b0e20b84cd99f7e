"""Visits of a patient written straight into the database: studies, findings and links."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from ledger import at, header, kept
from sqlmodel import Session, col, select, update

from store import instances, jobs, studies
from store.analysed import AnalysedFindings, Coded, Found, Measured, Written
from store.findings import save
from store.tables import Finding, Job, LesionLink, Patient, Study
from store.tracking.link import Kind

ABNORMAL = Coded(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure")
ANATOMY = Coded(value="91723000", scheme="SCT", meaning="Anatomical Structure")
NODULE = Coded(value="27925004", scheme="SCT", meaning="Nodule")
NODE = Coded(value="59441001", scheme="SCT", meaning="Lymph Node")
SPATIAL = Coded(value="309825002", scheme="SCT", meaning="Spatial and Relational Concept")
REFERENCE = Coded(value="C94970", scheme="NCIt", meaning="Reference Region")
LIVER = Coded(value="10200004", scheme="SCT", meaning="Liver")
LUNG = Coded(value="39607008", scheme="SCT", meaning="Lung")
UNITS = {
    "volume": "ml",
    "suv_peak": "g/ml{SUVbw}",
    "tlg": "g",
    "sul_peak": "g/ml{SUVlbm(Janma)}",
    "sul_mean": "g/ml{SUVlbm(Janma)}",
    "sul_sd": "g/ml{SUVlbm(Janma)}",
    "uptake_time": "min",
    "injected_activity": "MBq",
}


@dataclass(frozen=True, kw_only=True)
class Linked:
    """A link of the tracking, of the drawn lesion with this UID, or of one that is not drawn."""

    kind: Kind
    uid: str
    earlier: Sequence[str] = ()
    study: str = ""
    is_drawn: bool = True
    confidence: float = 0.9
    reason: str = "2.0 mm from where it was expected"


@dataclass
class Clock:
    """Seconds since the start of the tests; every visit takes ten."""

    seconds: float = 0.0
    studies: int = field(default=0)


def lesion(uid: str, long_mm: float = 20.0, **changes: object) -> Found:
    """Return a nodule with axes, the short one half of the long one, and what else is named (`volume=1.2`)."""
    names = {name: changes.pop(name) for name in list(changes) if name in (*UNITS, "short_axis")}
    measures = {"long_axis": long_mm, "short_axis": long_mm / 2, **names}
    values: dict[str, object] = {
        "label": f"Nodule {uid[-2:]}",
        "tracking_identifier": changes.get("label", f"Nodule {uid[-2:]}"),
        "tracking_uid": uid,
        "series_instance_uid": "series",
        "segment_number": 1,
        "category": ABNORMAL,
        "type": NODULE,
        "site": LUNG,
        "confidence": 0.9,
        "centroid_mm": (1.0, 2.0, 3.0),
        "measurements": tuple(_measured(name, value) for name, value in measures.items()),
    }
    return Found(**{**values, **changes})  # type: ignore[arg-type]


def liver(uid: str, **numbers: Any) -> Found:
    """Return a liver reference with these numbers (`sul_mean=1.6`)."""
    found = lesion(uid, **numbers)
    named = tuple(one for one in found.measurements if one.name in numbers)
    return replace(
        found, category=SPATIAL, type=REFERENCE, site=LIVER, confidence=None, measurements=named
    )  # fmt: skip


def _measured(name: str, value: object) -> Measured:
    return Measured(
        name=name,
        concept=Coded(value=name, scheme="99TEST", meaning=name),
        value=float(value),  # type: ignore[arg-type]
        unit=UNITS.get(name, "mm"),
        method="by hand",
        uncertainty=0.5,
    )


def visit(
    session: Session,
    clock: Clock,
    on: date,
    found: Sequence[Found] = (),
    links: Sequence[Linked] = (),
    *,
    study: str = "",
    plugin: str = "lung_nodule",
    patient: Mapping[str, object] | None = None,
) -> str:
    """Write one study that was analysed, and return its Study Instance UID; links compare with `study` of theirs."""
    clock.seconds += 10
    clock.studies += 1
    uid = study or f"1.2.{clock.studies}"
    now = at(clock.seconds)
    one = header(clock.studies, uid, study_date=on, **(patient or {}))
    recorded = instances.record(session, one, kept(f"{uid} {plugin}"), source="CT1@127.0.0.1", now=now)
    revision = studies.settle(session, recorded.study_pk, now=now, forced=False)
    assert revision is not None
    own = jobs.enqueue(
        session, revision, plugin=plugin, plugin_version="1", model_sha256="m", config_sha256="c", now=now
    )
    assert own is not None
    of_other_clocks = update(Job).where(col(Job.state) == jobs.QUEUED, col(Job.run_after) > now)
    session.exec(of_other_clocks.values(run_after=now + timedelta(minutes=1)))
    job = jobs.claim(session, "w", now, 60)
    assert job is not None and job.id == own.id
    seg = Written(
        kind="seg",
        sop_instance_uid=f"{uid}.9.{int(clock.seconds)}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        series_instance_uid=f"{uid}.9",
        path="x",
    )
    analysed = AnalysedFindings(found=tuple(found), written=(seg,))
    save(session, job, analysed, {seg.sop_instance_uid: kept(f"seg {uid}")}, now)
    rows = {
        row.tracking_uid: row for row in session.exec(select(Finding).where(col(Finding.job_pk) == job.id))
    }
    owner = session.exec(select(Study).where(col(Study.study_instance_uid) == uid)).one().patient_pk
    for link in links:
        session.add(
            LesionLink(
                job_pk=int(job.id or 0),
                patient_pk=owner,
                finding_pk=rows[link.uid].id if link.is_drawn else None,
                kind=link.kind.value,
                tracking_uid=link.uid,
                tracking_identifier=f"Nodule {link.uid[-2:]}",
                earlier=json.dumps(list(link.earlier)),
                earlier_study_instance_uid=link.study,
                confidence=link.confidence,
                reason=link.reason,
            )
        )
    session.flush()
    jobs.finish(session, int(job.id or 0), job.attempt, jobs.DONE, now)
    return uid


def patient_pk(session: Session, patient_id: str = "P1") -> int:
    """Return the row of a patient."""
    return int(session.exec(select(Patient).where(col(Patient.patient_id) == patient_id)).one().id or 0)


__all__ = ["ABNORMAL", "ANATOMY", "LUNG", "NODE", "Clock", "Linked", "lesion", "liver", "patient_pk", "visit"]

"""What an analysis found, as rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement
from sqlmodel import Session, SQLModel, col, delete, select

from plugins.errors import Broken
from store.analysed import (
    CENTROID_COLUMNS,
    END_COLUMNS,
    AnalysedFindings,
    Coded,
    Found,
    Linked,
    Measured,
    SeriesFacts,
    Told,
    Written,
)
from store.charset import storable
from store.database import aware_utc
from store.jobs import require_held
from store.model_tables import FindingDoubt, SeriesFact
from store.objects import Kept
from store.tables import Finding, Job, LesionLink, Measurement, Patient, Refusal, Result, Revision, Study
from store.wanted_findings import Wanted, how_many, wanted_findings

NOWHERE = (None, None, None)
FINDING_COLUMNS = (
    "series_instance_uid",
    "segment_number",
    "label",
    "tracking_identifier",
    "tracking_uid",
    "type_meaning",
    "site_meaning",
    "laterality_meaning",
    "confidence",
    "automatic",
    *CENTROID_COLUMNS,
)
MEASUREMENT_COLUMNS = (
    "name",
    "value",
    "unit",
    "method",
    "concept_value",
    "concept_scheme",
    "concept_meaning",
    "derivation_meaning",
    "uncertainty",
    *END_COLUMNS,
    "sop_instance_uid",
)
LINK_COLUMNS = {"link": "kind", "link_confidence": "confidence", "link_reason": "reason"}
"""What the link of a finding is called in a flat row, and in its own."""
BY_PATIENT = (col(Patient.id), col(Study.study_date), col(Study.id), col(Finding.id))


def save(
    session: Session, job: Job, analysed: AnalysedFindings, kept: Mapping[str, Kept], now: datetime
) -> list[Result]:
    """Write all rows of a job and return its results, in the order of `written`, for the outbox.

    `kept` maps the SOP Instance UID of every written object to where the object store has it. To be called in the
    transaction that ends in `store.jobs.finish`. What an earlier attempt of the same job left is replaced.
    Raises Broken when an object was not kept, and `jobs.Fenced` when another worker has the job, whose rows stay.
    """
    now = aware_utc(now)
    job_pk = int(job.id or 0)
    require_held(session, job_pk, job.attempt)
    _forget(session, job_pk)
    revision = session.get_one(Revision, job.revision_pk)
    study = session.get_one(Study, revision.study_pk)
    told = analysed.told + tuple(flag for found in analysed.found for flag in found.flags)
    _insert(session, Refusal, [_refusal(job_pk, one) for one in told])
    _insert(session, Finding, [_finding(job_pk, study, found) for found in analysed.found])
    # One by one and in order they were numbered, and a job has no other findings.
    numbers = session.exec(select(Finding.id).where(col(Finding.job_pk) == job_pk).order_by(col(Finding.id)))
    rows = list(zip([int(n or 0) for n in numbers], analysed.found, strict=True))
    of_lesion = {found.tracking_uid: number for number, found in rows}
    _insert(session, LesionLink, [_link(job_pk, study.patient_pk, of_lesion, one) for one in analysed.links])
    made_by = {"plugin": job.plugin, "plugin_version": job.plugin_version, "model_sha256": job.model_sha256}
    measurements = [_measurement(n, made_by, m) for n, f in rows for m in f.measurements]
    _insert(session, Measurement, measurements)
    doubts = [{"finding_pk": n, "name": name, "value": v} for n, f in rows for name, v in f.uncertainties]
    _insert(session, FindingDoubt, doubts)
    _insert(session, SeriesFact, [_fact(job, facts, now) for facts in analysed.series])
    results = [_result(job_pk, written, kept, now) for written in analysed.written]
    for result in results:
        # One by one: the order of the rows is the order of sending.
        session.add(result)
        session.flush()
    return results


def list_findings(
    session: Session, patient_id: str | None = None, superseded: bool = False
) -> list[dict[str, Any]]:
    """Return one flat row per measurement (one without numbers for a finding that has none), by date and label.

    `link`, `link_confidence` and `link_reason` tell what the lesion was at earlier times; None when nobody asked.
    `patient_id` is as received; `superseded` True gives the findings of superseded revisions too.
    """
    pks = finding_pks(session, Wanted(patient_id=patient_id, superseded=superseded))
    return [row for some in stretches(pks) for row in rows_of(session, some)]


def finding_pks(session: Session, wanted: Wanted) -> list[int]:
    """Return the findings that are asked for by their rows, in the order of `list_findings`."""
    statement = select(Finding.id).join(Patient, col(Patient.id) == col(Finding.patient_pk))
    statement = statement.join(Study, col(Study.id) == col(Finding.study_pk)).where(*wanted_findings(wanted))
    return [int(pk or 0) for pk in session.exec(statement.order_by(*BY_PATIENT))]


def stretches(pks: Sequence[int], size: int = 500) -> Iterator[Sequence[int]]:
    """Yield findings in parts small enough to be held with all that was measured of them."""
    return (pks[start : start + size] for start in range(0, len(pks), size))


def rows_of(session: Session, pks: Collection[int]) -> list[dict[str, Any]]:
    """Return the rows of `list_findings` of these findings."""
    return _rows(session, [col(Finding.id).in_(pks)], BY_PATIENT)


def whose(session: Session, wanted: Wanted) -> list[tuple[str, str]]:
    """Return IssuerOfPatientID and PatientID of everybody whose findings are asked for, sorted."""
    found = select(Finding.patient_pk).where(*wanted_findings(wanted))
    people = select(Patient.issuer, Patient.patient_id).where(col(Patient.id).in_(found))
    return sorted((issuer, patient_id) for issuer, patient_id in session.exec(people))


def findings_page(
    session: Session, wanted: Wanted, *, after: int = 0, limit: int = 100
) -> tuple[list[dict[str, Any]], int, int | None]:
    """Return the rows of at most `limit` findings after that of row `after`, how many there are, the last of more.

    Rows are those of `list_findings`, in the order in which the findings were kept.
    """
    clauses = wanted_findings(wanted)
    total = how_many(session, wanted)
    page = select(Finding.id).where(*clauses, col(Finding.id) > after).order_by(col(Finding.id))
    page = page.limit(limit + 1)
    pks = [int(pk or 0) for pk in session.exec(page)]
    rows = _rows(session, [col(Finding.id).in_(pks[:limit])], (col(Finding.id),))
    return rows, total, pks[limit - 1] if len(pks) > limit else None


def _rows(
    session: Session, wanted: Sequence[ColumnElement[bool]], order: Sequence[Any]
) -> list[dict[str, Any]]:
    statement = (
        select(Finding, Measurement, Patient, Study)
        .join(Patient, col(Patient.id) == col(Finding.patient_pk))
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .join(Measurement, col(Measurement.finding_pk) == col(Finding.id), isouter=True)
        .where(*wanted)
        .order_by(*order, col(Measurement.id))
    )
    rows = session.exec(statement).all()
    jobs: dict[int, tuple[Job, int]] = {}
    linked: dict[int | None, LesionLink] = {}
    made_by = select(Job, Revision.number).join(Revision, col(Revision.id) == col(Job.revision_pk))
    for some in _batched({finding.job_pk for finding, *_ in rows}):
        jobs |= {int(job.id or 0): (job, n) for job, n in session.exec(made_by.where(col(Job.id).in_(some)))}
        links = select(LesionLink).where(col(LesionLink.job_pk).in_(some))
        linked |= {link.finding_pk: link for link in session.exec(links)}
    return [
        {
            **_flat(finding, measurement, patient, study, *jobs[finding.job_pk]),
            **{name: getattr(linked.get(finding.id), key, None) for name, key in LINK_COLUMNS.items()},
        }
        for finding, measurement, patient, study in rows
    ]


def _batched(pks: Collection[int], size: int = 5000) -> Iterator[list[int]]:
    """Yield row numbers in parts: a question takes a bounded number of values."""
    ordered = sorted(pks)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _forget(session: Session, job_pk: int) -> None:
    """Delete what an attempt left that told its reasons and then died; such a job has no deliveries."""
    findings = select(col(Finding.id)).where(col(Finding.job_pk) == job_pk)
    for of_finding in (Measurement, FindingDoubt):
        session.exec(delete(of_finding).where(col(of_finding.finding_pk).in_(findings)))
    for table in (LesionLink, Finding, Refusal, Result, SeriesFact):
        session.exec(delete(table).where(col(table.job_pk) == job_pk))


def _flat(
    finding: Finding,
    measurement: Measurement | None,
    patient: Patient,
    study: Study,
    job: Job,
    revision: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "patient_id": patient.patient_id,
        "issuer": patient.issuer,
        "study_date": study.study_date.isoformat() if study.study_date else None,
        "study_instance_uid": study.study_instance_uid,
        "revision": revision,
        "job": job.id,
        "plugin": job.plugin,
        "plugin_version": job.plugin_version,
        "model_sha256": job.model_sha256,
        "finding": finding.id,
        "superseded": finding.superseded,
    }
    row.update({name: getattr(finding, name) for name in FINDING_COLUMNS})
    row.update({name: getattr(measurement, name, None) for name in MEASUREMENT_COLUMNS})
    return row


def _insert(session: Session, table: type[SQLModel], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows without an object for each; a thousand findings have ten thousand measurements."""
    if rows:
        session.connection().execute(table.__table__.insert(), rows)  # type: ignore[attr-defined]


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    return {name: storable(value) if isinstance(value, str) else value for name, value in row.items()}


def _refusal(job_pk: int, told: Told) -> dict[str, Any]:
    return _clean(
        {
            "job_pk": job_pk,
            "code": told.code,
            "sentence": told.sentence,
            "series_instance_uid": told.series_instance_uid,
            "refused": told.refused,
        }
    )


def _finding(job_pk: int, study: Study, found: Found) -> dict[str, Any]:
    return _clean(
        {
            "job_pk": job_pk,
            "study_pk": study.id,
            "patient_pk": study.patient_pk,
            "series_instance_uid": found.series_instance_uid,
            "label": found.label,
            "tracking_identifier": found.tracking_identifier,
            "tracking_uid": found.tracking_uid,
            "before_uid": found.before_uid,
            "segment_number": found.segment_number,
            "category_value": found.category.value,
            "category_scheme": found.category.scheme,
            "category_meaning": found.category.meaning,
            "type_value": found.type.value,
            "type_scheme": found.type.scheme,
            "type_meaning": found.type.meaning,
            "site_value": found.site.value if found.site else None,
            "site_scheme": found.site.scheme if found.site else None,
            "site_meaning": found.site.meaning if found.site else None,
            "laterality_meaning": found.laterality.meaning if found.laterality else None,
            "confidence": found.confidence,
            "automatic": found.automatic,
            **dict(zip(CENTROID_COLUMNS, found.centroid_mm, strict=True)),
            "superseded": False,
        }
    )


def _link(job_pk: int, patient_pk: int, of_lesion: Mapping[str, int], link: Linked) -> dict[str, Any]:
    x, y, z = link.expected_mm or NOWHERE
    return _clean(
        {
            "job_pk": job_pk,
            "patient_pk": patient_pk,
            "finding_pk": of_lesion[link.tracking_uid] if link.is_found else None,
            "kind": link.kind,
            "tracking_uid": link.tracking_uid,
            "tracking_identifier": link.tracking_identifier,
            "earlier": json.dumps(link.earlier),
            "earlier_study_instance_uid": link.study_instance_uid,
            "confidence": link.confidence,
            "reason": link.reason,
            "expected_x_mm": x,
            "expected_y_mm": y,
            "expected_z_mm": z,
            "superseded": False,
        }
    )


def _measurement(finding_pk: int, made_by: Mapping[str, str], measured: Measured) -> dict[str, Any]:
    concept = measured.concept
    first, last = measured.end_points_mm or (NOWHERE, NOWHERE)
    return {
        "finding_pk": finding_pk,
        "name": measured.name,
        "concept_value": concept.value,
        "concept_scheme": concept.scheme,
        "concept_meaning": concept.meaning,
        "value": measured.value,
        "unit": measured.unit,
        "method": measured.method,
        "derivation_meaning": measured.derivation_meaning,
        "uncertainty": measured.uncertainty,
        "x1_mm": first[0],
        "y1_mm": first[1],
        "z1_mm": first[2],
        "x2_mm": last[0],
        "y2_mm": last[1],
        "z2_mm": last[2],
        "sop_instance_uid": measured.sop_instance_uid,
        **made_by,
    }


def _fact(job: Job, facts: SeriesFacts, now: datetime) -> dict[str, Any]:
    made_by = {"job_pk": job.id, "plugin": job.plugin, "model_sha256": job.model_sha256, "at": now}
    return _clean({**made_by, **asdict(facts), "histogram": json.dumps(facts.histogram)})


def _result(job_pk: int, written: Written, kept: Mapping[str, Kept], now: datetime) -> Result:
    object_kept = kept.get(written.sop_instance_uid)
    if object_kept is None:
        raise Broken("A written object is not in the object store; keep it before saving its row.")
    return Result(
        job_pk=job_pk,
        kind=written.kind,
        sop_instance_uid=written.sop_instance_uid,
        sop_class_uid=written.sop_class_uid,
        series_instance_uid=written.series_instance_uid,
        sha256=object_kept.sha256,
        size_bytes=object_kept.size_bytes,
        created_at=now,
    )


__all__ = [
    "AnalysedFindings",
    "Coded",
    "Found",
    "Linked",
    "Measured",
    "Told",
    "Wanted",
    "Written",
    "finding_pks",
    "findings_page",
    "how_many",
    "list_findings",
    "rows_of",
    "save",
    "stretches",
    "wanted_findings",
    "whose",
]

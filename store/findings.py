"""What an analysis found, as plain values that cross a process border, and as rows."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Self, TypeVar

from sqlmodel import Session, SQLModel, col, delete, select

from plugins.errors import Broken
from store.charset import storable
from store.database import aware_utc
from store.objects import Kept
from store.tables import Finding, Job, Measurement, Patient, Refusal, Result, Revision, Study

Point = tuple[float, float, float]
Row = TypeVar("Row", bound=SQLModel)
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
    "centroid_x_mm",
    "centroid_y_mm",
    "centroid_z_mm",
)
END_COLUMNS = ("x1_mm", "y1_mm", "z1_mm", "x2_mm", "y2_mm", "z2_mm")
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


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A coded concept."""

    value: str
    """Code value."""
    scheme: str
    """Coding scheme designator."""
    meaning: str
    """Code meaning."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number of a finding."""

    name: str
    """Our name (`long_axis`)."""
    concept: Coded
    """What was measured."""
    value: float
    """The number; finite."""
    unit: str
    """UCUM code."""
    method: str
    """The convention in words."""
    derivation_meaning: str | None = None
    """Meaning of the derivation (`Mean`), when there is one."""
    uncertainty: float | None = None
    """One standard deviation, in `unit`."""
    end_points_mm: tuple[Point, Point] | None = None
    """Where a length begins and ends, LPS mm."""
    sop_instance_uid: str | None = None
    """Image on which the end points lie."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise Broken(f"The measurement {self.name} is not a finite number.")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One lesion or region."""

    label: str
    """What people read."""
    tracking_identifier: str
    """Tracking ID, as in SEG and SR."""
    tracking_uid: str
    """Tracking UID, as in SEG and SR."""
    series_instance_uid: str
    """The series that it lies on."""
    segment_number: int
    """Its segment in the SEG of that series."""
    category: Coded
    """Segmented property category."""
    type: Coded
    """Segmented property type."""
    site: Coded | None = None
    """Anatomic site."""
    laterality: Coded | None = None
    """Laterality of the site."""
    confidence: float | None = None
    """0 to 1, or None when no claim is made."""
    automatic: bool = True
    """False when a person drew it."""
    centroid_mm: Point
    """Centre, LPS mm."""
    measurements: tuple[Measured, ...] = ()
    """What was measured."""
    flags: tuple[Told, ...] = ()
    """Doubts about this finding."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A refusal or a doubt, with its coded reason."""

    code: str
    """Lower-case word with hyphens."""
    sentence: str
    """One sentence for people."""
    series_instance_uid: str | None = None
    """The series it speaks of, if one."""
    refused: bool = False
    """True when something was refused, False when it is a doubt about something accepted."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A DICOM object that the analysis wrote."""

    kind: str
    """seg, sr-volumetric or sr-planar."""
    sop_instance_uid: str
    """Its SOP Instance UID."""
    sop_class_uid: str
    """Its SOP Class UID."""
    series_instance_uid: str
    """Its series."""
    path: str
    """Where the analysis put the file."""


@dataclass(frozen=True, kw_only=True)
class AnalysedFindings:
    """All that one job made."""

    found: tuple[Found, ...] = ()
    """Findings, in the order of the segments."""
    told: tuple[Told, ...] = ()
    """Refusals and doubts about the study."""
    written: tuple[Written, ...] = ()
    """Objects, in the order in which they are to be sent."""

    def to_json(self) -> str:
        """Return it as JSON; `from_json` gives an equal value back."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the value of a JSON text. Raises Broken when it is not one of ours."""
        try:
            value = _build(cls, json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Broken("The analysis handed over something that cannot be read.") from error
        assert isinstance(value, cls)
        return value


def save(
    session: Session, job: Job, analysed: AnalysedFindings, kept: Mapping[str, Kept], now: datetime
) -> list[Result]:
    """Write all rows of a job and return its results, in the order of `written`, for the outbox.

    `kept` maps the SOP Instance UID of every written object to where the object store has it. To be called in the
    transaction that ends in `store.jobs.finish`. What an earlier attempt of the same job left is replaced.
    Raises Broken when an object was not kept.
    """
    now = aware_utc(now)
    job_pk = int(job.id or 0)
    _forget(session, job_pk)
    revision = session.get_one(Revision, job.revision_pk)
    study = session.get_one(Study, revision.study_pk)
    for told in analysed.told + tuple(flag for found in analysed.found for flag in found.flags):
        session.add(_clean(_refusal(job_pk, told)))
    for found in analysed.found:
        finding = _clean(_finding(job_pk, study, found))
        session.add(finding)
        session.flush()
        session.add_all(
            [_measurement(int(finding.id or 0), job, measured) for measured in found.measurements]
        )
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

    `patient_id` is as received; `superseded` True gives the findings of superseded revisions too.
    """
    statement = (
        select(Finding, Measurement, Patient, Study)
        .join(Patient, col(Patient.id) == col(Finding.patient_pk))
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .join(Measurement, col(Measurement.finding_pk) == col(Finding.id), isouter=True)
        .order_by(col(Patient.id), col(Study.study_date), col(Study.id), col(Finding.id), col(Measurement.id))
    )
    if patient_id is not None:
        statement = statement.where(col(Patient.patient_id) == patient_id)
    if not superseded:
        statement = statement.where(~col(Finding.superseded))
    rows = session.exec(statement).all()
    made_by = select(Job, Revision.number).join(Revision, col(Revision.id) == col(Job.revision_pk))
    wanted = {finding.job_pk for finding, *_ in rows}
    jobs = {job.id: (job, number) for job, number in session.exec(made_by) if job.id in wanted}
    return [
        _flat(finding, measurement, patient, study, *jobs[finding.job_pk])
        for finding, measurement, patient, study in rows
    ]


def _forget(session: Session, job_pk: int) -> None:
    """Delete what an attempt left that told its reasons and then died; such a job has no deliveries."""
    findings = select(col(Finding.id)).where(col(Finding.job_pk) == job_pk)
    session.exec(delete(Measurement).where(col(Measurement.finding_pk).in_(findings)))
    for table in (Finding, Refusal, Result):
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


def _clean(row: Row) -> Row:
    for name in type(row).model_fields:
        value = getattr(row, name)
        if isinstance(value, str):
            setattr(row, name, storable(value))
    return row


def _refusal(job_pk: int, told: Told) -> Refusal:
    return Refusal(
        job_pk=job_pk,
        code=told.code,
        sentence=told.sentence,
        series_instance_uid=told.series_instance_uid,
        refused=told.refused,
    )


def _finding(job_pk: int, study: Study, found: Found) -> Finding:
    x_mm, y_mm, z_mm = found.centroid_mm
    return Finding(
        job_pk=job_pk,
        study_pk=int(study.id or 0),
        patient_pk=study.patient_pk,
        series_instance_uid=found.series_instance_uid,
        label=found.label,
        tracking_identifier=found.tracking_identifier,
        tracking_uid=found.tracking_uid,
        segment_number=found.segment_number,
        category_value=found.category.value,
        category_scheme=found.category.scheme,
        category_meaning=found.category.meaning,
        type_value=found.type.value,
        type_scheme=found.type.scheme,
        type_meaning=found.type.meaning,
        site_value=found.site.value if found.site else None,
        site_scheme=found.site.scheme if found.site else None,
        site_meaning=found.site.meaning if found.site else None,
        laterality_meaning=found.laterality.meaning if found.laterality else None,
        confidence=found.confidence,
        automatic=found.automatic,
        centroid_x_mm=x_mm,
        centroid_y_mm=y_mm,
        centroid_z_mm=z_mm,
    )


def _measurement(finding_pk: int, job: Job, measured: Measured) -> Measurement:
    ends: dict[str, Any] = {}
    if measured.end_points_mm is not None:
        first, last = measured.end_points_mm
        ends = dict(zip(END_COLUMNS, (*first, *last), strict=True))
    return Measurement(
        finding_pk=finding_pk,
        name=measured.name,
        concept_value=measured.concept.value,
        concept_scheme=measured.concept.scheme,
        concept_meaning=measured.concept.meaning,
        value=measured.value,
        unit=measured.unit,
        method=measured.method,
        derivation_meaning=measured.derivation_meaning,
        uncertainty=measured.uncertainty,
        **ends,
        sop_instance_uid=measured.sop_instance_uid,
        plugin=job.plugin,
        plugin_version=job.plugin_version,
        model_sha256=job.model_sha256,
    )


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


def _build(kind: Any, value: Any) -> Any:
    """Return `value`, plain JSON, as the dataclass, tuple or scalar that `kind` names."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (kind,) = [option for option in typing.get_args(kind) if option is not types.NoneType]
        return _build(kind, value)
    if origin is tuple:
        options = typing.get_args(kind)
        if options[-1] is Ellipsis:
            return tuple(_build(options[0], item) for item in value)
        return tuple(_build(option, item) for option, item in zip(options, value, strict=True))
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: _build(hints[field.name], value[field.name]) for field in fields(kind)})  # type: ignore[operator]
    return float(value) if kind is float else kind(value)

"""What the node holds of a study, to be shown: the images that came and the results that were made."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select
from sqlmodel import Session, col

from store import jobs
from store.tables import Instance, Job, Patient, Result, Revision, Series, Study
from store.upload_files import source_of


@dataclass(frozen=True, kw_only=True)
class HeldStudy:
    """One study as a query finds it."""

    study_instance_uid: str
    """Study Instance UID."""
    study_date: date | None
    """Its date."""
    study_time: str
    """Its time, HHMMSS as far as it is told."""
    study_description: str
    """StudyDescription."""
    accession_number: str
    """AccessionNumber."""
    issuer: str
    """IssuerOfPatientID."""
    patient_id: str
    """PatientID."""
    patient_name: str
    """PatientName."""
    patient_sex: str
    """PatientSex."""
    patient_birth_date: date | None
    """PatientBirthDate."""
    modalities: tuple[str, ...]
    """Modalities of the series that came, sorted."""
    series: int
    """Number of those series."""
    instances: int
    """Number of instances in them."""


@dataclass(frozen=True, kw_only=True)
class StudyQuery:
    """What studies have to match; empty is anything. Texts may have the wildcards `*` and `?`, and case counts not."""

    study_instance_uids: tuple[str, ...] = ()
    """One of these."""
    patient_id: str = ""
    """PatientID."""
    issuer: str = ""
    """IssuerOfPatientID."""
    patient_name: str = ""
    """PatientName, whole or one of its groups."""
    accession_number: str = ""
    """AccessionNumber."""
    study_description: str = ""
    """StudyDescription."""
    modalities: tuple[str, ...] = ()
    """One of these among the series that came."""
    since: date | None = None
    """StudyDate, at the earliest."""
    until: date | None = None
    """StudyDate, at the latest."""


@dataclass(frozen=True, kw_only=True)
class HeldObject:
    """One object of a study."""

    series_instance_uid: str
    """Series Instance UID."""
    sop_instance_uid: str
    """SOP Instance UID."""
    sop_class_uid: str
    """SOP Class UID."""
    sha256: str
    """Name of its file in the object store."""


def patient_of(session: Session, study_instance_uid: str) -> Patient | None:
    """Return whose study it is; None for a study that is not here."""
    statement = (
        select(Patient)
        .join(Study, col(Study.patient_pk) == col(Patient.id))
        .where(col(Study.study_instance_uid) == study_instance_uid)
    )
    return session.scalars(statement).first()


def is_uploaded(session: Session, study_instance_uid: str) -> bool:
    """Return whether a study came by hand, so that no PACS need hold it."""
    statement = (
        select(col(Instance.source))
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .join(Study, col(Study.id) == col(Series.study_pk))
        .where(col(Study.study_instance_uid) == study_instance_uid, col(Instance.current), ~col(Instance.own))
        .order_by(col(Instance.id))
    )
    return str(session.scalars(statement.limit(1)).first() or "").startswith(source_of(""))


def held_studies(session: Session, query: StudyQuery, limit: int, offset: int) -> list[HeldStudy]:
    """Return the studies that a query finds, the newest first."""
    statement = select(Study, Patient).join(Patient, col(Study.patient_pk) == col(Patient.id))
    newest = statement.where(*_matching(query)).order_by(col(Study.study_date).desc(), col(Study.id).desc())
    found = session.execute(newest.limit(limit).offset(offset)).all()
    counts = _counts(session, [study.id or 0 for study, _ in found])
    return [_held_study(study, patient, counts.get(study.id or 0, ())) for study, patient in found]


def count_studies(session: Session, query: StudyQuery) -> int:
    """Return how many studies a query finds."""
    statement = select(func.count(col(Study.id))).join(Patient, col(Study.patient_pk) == col(Patient.id))
    return session.scalar(statement.where(*_matching(query))) or 0


def _matching(query: StudyQuery) -> Iterator[ColumnElement[bool]]:
    """Give what a study and its patient have to meet."""
    if query.study_instance_uids:
        yield col(Study.study_instance_uid).in_(query.study_instance_uids)
    for text, column in (
        (query.patient_id, Patient.patient_id),
        (query.issuer, Patient.issuer),
        (query.accession_number, Study.accession_number),
        (query.study_description, Study.study_description),
    ):
        if text:
            yield func.lower(col(column)).like(_pattern(text), escape="\\")
    if query.patient_name:
        yield _named(query.patient_name)
    if query.modalities:
        having = select(col(Series.study_pk)).where(col(Series.modality).in_(query.modalities))
        yield col(Study.id).in_(having)
    if query.since:
        yield col(Study.study_date) >= query.since
    if query.until:
        yield col(Study.study_date) <= query.until


def _named(text: str) -> ColumnElement[bool]:
    """Give that a name, or one of its groups (alphabetic, ideographic, phonetic), is like a text (PS3.4 C.2.2.2.1)."""
    column = col(Patient.patient_name)
    name, pattern = func.lower(column), _pattern(text)
    of_a_group = (literal("=") + name + "=").like(f"%={pattern}=%", escape="\\")
    return or_(name.like(pattern, escape="\\"), and_(column.contains("="), of_a_group))


def held_objects(
    session: Session, study_instance_uid: str, series_instance_uid: str = "", sop_instance_uid: str = ""
) -> list[HeldObject]:
    """Return what is shown of a study: the content that counts, and the newest results of each analysis, by series.

    Only of one series or one instance when they are given.
    """
    came = (
        select(
            col(Series.series_instance_uid),
            col(Instance.sop_instance_uid),
            col(Instance.sop_class_uid),
            col(Instance.sha256),
        )
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .join(Study, col(Study.id) == col(Series.study_pk))
        .where(
            col(Study.study_instance_uid) == study_instance_uid,
            col(Instance.current),
            col(Instance.sop_instance_uid).not_in(select(col(Result.sop_instance_uid))),
        )
        .order_by(col(Series.id), col(Instance.id))
    )
    made = (
        select(
            col(Result.series_instance_uid),
            col(Result.sop_instance_uid),
            col(Result.sop_class_uid),
            col(Result.sha256),
        )
        .where(col(Result.job_pk).in_(_newest_jobs(study_instance_uid)))
        .order_by(col(Result.id))
    )
    if series_instance_uid:
        came = came.where(col(Series.series_instance_uid) == series_instance_uid)
        made = made.where(col(Result.series_instance_uid) == series_instance_uid)
    if sop_instance_uid:
        came = came.where(col(Instance.sop_instance_uid) == sop_instance_uid)
        made = made.where(col(Result.sop_instance_uid) == sop_instance_uid)
    objects: dict[str, HeldObject] = {}
    for series, sop, kind, sha256 in (*session.execute(came), *session.execute(made)):
        one = HeldObject(series_instance_uid=series, sop_instance_uid=sop, sop_class_uid=kind, sha256=sha256)
        objects.setdefault(sop, one)
    return list(objects.values())


def _newest_jobs(study_instance_uid: str) -> Select[Any]:
    """Return a query for the newest job of each analysis that has results."""
    return (
        select(func.max(Job.id))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Study, col(Study.id) == col(Revision.study_pk))
        .join(Result, col(Result.job_pk) == col(Job.id))
        .where(
            col(Study.study_instance_uid) == study_instance_uid,
            col(Job.state).in_((jobs.DELIVERING, jobs.DONE)),
        )
        .group_by(col(Job.plugin))
    )


def _counts(session: Session, study_pks: Sequence[int]) -> dict[int, tuple[tuple[str, int, int], ...]]:
    """Return (modality, series, instances) of each study."""
    statement = (
        select(
            col(Series.study_pk),
            col(Series.modality),
            func.count(func.distinct(Series.id)),
            func.count(col(Instance.id)),
        )
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .where(col(Series.study_pk).in_(study_pks), col(Instance.current))
        .group_by(col(Series.study_pk), col(Series.modality))
    )
    found: dict[int, tuple[tuple[str, int, int], ...]] = {}
    for study_pk, modality, series, instances in session.execute(statement):
        found[study_pk] = (*found.get(study_pk, ()), (modality, series, instances))
    return found


def _held_study(study: Study, patient: Patient, counts: Sequence[tuple[str, int, int]]) -> HeldStudy:
    return HeldStudy(
        study_instance_uid=study.study_instance_uid,
        study_date=study.study_date,
        study_time=study.study_time,
        study_description=study.study_description,
        accession_number=study.accession_number,
        issuer=patient.issuer,
        patient_id=patient.patient_id,
        patient_name=patient.patient_name,
        patient_sex=patient.patient_sex,
        patient_birth_date=patient.patient_birth_date,
        modalities=tuple(sorted({modality for modality, _, _ in counts if modality})),
        series=sum(series for _, series, _ in counts),
        instances=sum(instances for _, _, instances in counts),
    )


def _pattern(text: str) -> str:
    """Return a text with wildcards as SQL has it, small and composed as the rows are (`store.charset`)."""
    small = unicodedata.normalize("NFC", text).lower()
    escaped = small.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


__all__ = [
    "HeldObject",
    "HeldStudy",
    "StudyQuery",
    "count_studies",
    "held_objects",
    "held_studies",
    "is_uploaded",
    "patient_of",
]

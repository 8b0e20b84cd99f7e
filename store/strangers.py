"""What an analysis found for somebody else: a study may have been another patient's when it was made."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, exists, func, or_, select

from store.patients import ever_one
from store.tables import Finding, Job, LesionLink, PatientMerge, Study


@dataclass(frozen=True, kw_only=True)
class Apart:
    """What is left in a patient's studies of the time when others were declared to be one person with him."""

    since: datetime | None = None
    """When somebody of them was last parted from another one; None when nobody was."""
    uids: frozenset[str] = frozenset()
    """Tracking UIDs of the others' lesions."""
    jobs: frozenset[int] = frozenset()
    """Rows of the jobs on the patient's studies that gave such a Tracking UID, or compared with a study of theirs."""


def of_others(members: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition on `Job` that what it found, or linked, is of another patient than these rows."""
    return or_(
        *(
            exists().where(col(table.job_pk) == col(Job.id), col(table.patient_pk).not_in(members))
            for table in (Finding, LesionLink)
        )
    )


def first_given(session: Session, patient_pks: Collection[int]) -> dict[str, list[int]]:
    """Return by Tracking UID in the lesions of which of these patients it was given, the first one first."""
    given: dict[str, list[int]] = {}
    for uid, pk, _ in _given(session, patient_pks):
        if pk not in (rows := given.setdefault(uid, [])):
            rows.append(pk)
    return given


def apart(session: Session, members: Sequence[int]) -> Apart:
    """Return what is left of the time when others were one person with these rows, who are so no more.

    A lesion is of whom its Tracking UID was given first; what these rows had before anybody was merged stays theirs.
    """
    people = ever_one(session, members)
    others = people - set(members)
    if not others:
        return Apart()
    declared = select(func.min(PatientMerge.at)).where(col(PatientMerge.patient_pk).in_(people))
    merged_at = session.exec(declared.where(col(PatientMerge.into_pk).is_not(None))).one()
    parted_at = session.exec(
        select(func.max(PatientMerge.at)).where(
            col(PatientMerge.patient_pk).in_(people), col(PatientMerge.into_pk).is_(None)
        )
    ).one()
    rows = _given(session, people)
    own = {uid for uid, pk, began_at in rows if pk in members and began_at < merged_at}
    first = {uid: pk for uid, pk, _ in reversed(rows)}
    uids = frozenset(uid for uid, pk in first.items() if pk in others) - own
    found = select(Finding.job_pk, Finding.tracking_uid).where(col(Finding.patient_pk).in_(members))
    their_studies = select(Study.study_instance_uid).where(col(Study.patient_pk).in_(others))
    linked = select(LesionLink.job_pk).where(
        col(LesionLink.patient_pk).in_(members),
        col(LesionLink.earlier_study_instance_uid).in_(their_studies),
    )
    named = {job_pk for job_pk, uid in session.exec(found) if uid in uids}
    return Apart(since=parted_at, uids=uids, jobs=frozenset(named | set(session.exec(linked))))


def _given(session: Session, patient_pks: Collection[int]) -> list[tuple[str, int, datetime]]:
    """Return each Tracking UID with the row of the patient and when its job began, as they were given."""
    began_at = func.coalesce(Job.started_at, Job.created_at)
    statement = (
        select(Finding.before_uid, Finding.tracking_uid, Finding.patient_pk, began_at)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .where(col(Finding.patient_pk).in_(patient_pks))
        .order_by(col(Finding.id))
    )
    return [
        (uid, pk, at)
        for before_uid, tracking_uid, pk, at in session.exec(statement)
        for uid in (before_uid, tracking_uid)
        if uid
    ]


__all__ = ["Apart", "apart", "first_given", "of_others"]

"""When a patient's response is to be told anew: after each result, each choice and each merge.

A report on response is a job like any other, of the analysis `response`, on the newest study of the patient in which a
lesion counts. Its settings' hash is that of everything it tells, so that each state of affairs is told once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, func, select

from store import jobs
from store.course import Course, course
from store.database import aware_utc
from store.objects import ObjectStore
from store.patients import same_person
from store.tables import Choice, Finding, Job, LesionLink, Patient, PatientMerge, Revision, Study
from store.taken_back import take_back, takes_back, taking_back, untold
from store.told import looks_at
from store.turn import REPORT

PLUGIN: Final = REPORT
VERSION: Final = "1"


def state_of(session: Session, patient_pk: int) -> str:
    """Return the hash of all rows that a report on this patient is made of.

    Choices, merges and what is superseded are only ever added, so a state that was left does not come back.
    """
    patients = same_person(session, patient_pk)
    counting = [_pks(session, table, patients) for table in (Finding, LesionLink)]
    gone = [
        session.exec(
            select(func.count()).where(col(table.patient_pk).in_(patients), col(table.superseded))
        ).one()
        for table in (Finding, LesionLink)
    ]
    newest_choice = session.exec(
        select(func.max(Choice.id)).where(col(Choice.patient_pk).in_(patients))
    ).one()
    newest_merge = session.exec(
        select(func.max(PatientMerge.id)).where(
            col(PatientMerge.patient_pk).in_(patients) | col(PatientMerge.into_pk).in_(patients)
        )
    ).one()
    told = [sorted(patients), *counting, *gone, newest_choice, newest_merge]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def ask(
    session: Session,
    patient_pk: int,
    now: datetime,
    *,
    objects: ObjectStore | None = None,
    criteria: str = "recist1.1",
    max_attempts: int = 5,
) -> Job | None:
    """Put a report on the patient's response into the queue, in place of one that waits; return it.

    None for a patient without PatientID, when lesions are known of fewer than two dates, when the criteria look at none
    of them, or when this state was told already. With the object store what was measured elsewhere counts too, and
    reports that can no longer be told where they lie are taken back (`store.taken_back`). To be called in the
    transaction that changes what is told.
    """
    now = aware_utc(now)
    if not session.get_one(Patient, patient_pk).patient_id:
        return None  # whoever comes without an identifier shares this row with others
    known = course(session, patient_pk, objects)
    where = told_in(known, criteria)
    asked = _report(session, patient_pk, where, now, max_attempts) if where else None
    if objects is not None:
        reports = untold(session, known, where, objects)
        take_back(session, reports, now, version=VERSION, max_attempts=max_attempts)
    return asked


def told_in(known: Course, criteria: str) -> str:
    """Return the Study Instance UID of the study in which the response is told, empty when there is none to tell."""
    seen = known.sightings
    if len({sighting.date for sighting in seen}) < 2 or not looks_at(known, criteria):
        return ""
    return seen[-1].study_instance_uid


def is_due(session: Session, job: Job, objects: ObjectStore, criteria: str) -> bool:
    """Return whether what a job tells is so now: the state of its patient, or that a report is to be taken back."""
    study_pk = session.get_one(Revision, job.revision_pk).study_pk
    patient_pk = session.get_one(Study, study_pk).patient_pk
    if state_of(session, patient_pk) == job.config_sha256:
        return True
    if not takes_back(session, job):
        return False
    known = course(session, patient_pk, objects)
    reports = untold(session, known, told_in(known, criteria), objects)
    return any(taking_back(one.key) == job.config_sha256 for _, one in reports)


def _report(
    session: Session, patient_pk: int, study_instance_uid: str, now: datetime, max_attempts: int
) -> Job | None:
    revision = session.exec(
        select(Revision)
        .join(Study, col(Study.id) == col(Revision.study_pk))
        .where(col(Study.study_instance_uid) == study_instance_uid)
        .where(col(Revision.number) == col(Study.revision))
    ).first()
    if revision is None:
        return None  # an earlier study that was only fetched is not answered to
    asked = jobs.enqueue(
        session,
        revision,
        plugin=PLUGIN,
        plugin_version=VERSION,
        model_sha256="",
        config_sha256=state_of(session, patient_pk),
        now=now,
        max_attempts=max_attempts,
    )
    if asked is not None:
        patients = same_person(session, patient_pk)
        studies = session.exec(select(Study.id).where(col(Study.patient_pk).in_(patients)))
        jobs.take_off(session, PLUGIN, [int(pk or 0) for pk in studies], int(asked.id or 0), now)
    return asked


def _pks(
    session: Session, table: type[Finding] | type[LesionLink], patients: Sequence[int]
) -> list[int | None]:
    statement = select(table.id).where(col(table.patient_pk).in_(patients), ~col(table.superseded))
    return list(session.exec(statement.order_by(col(table.id))))


__all__ = ["PLUGIN", "VERSION", "ask", "is_due", "state_of", "told_in"]

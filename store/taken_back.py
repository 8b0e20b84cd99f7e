"""Reports on response that went out and can no longer be told where they lie: which these are, and taking them back.

A report lies in the newest study that a lesion of its patient had. It holds there no longer when the study is another
patient's now, and when fewer than two dates with lesions are left up to it, its own among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, or_, select

from plugins.errors import NadirError
from store import jobs
from store.course import Course
from store.keys import job_key
from store.objects import ObjectStore
from store.part10 import scan_header
from store.patients import is_another, same_person
from store.sightings import COUNTING
from store.tables import Finding, Job, Patient, Result, Revision, Study
from store.turn import REPORT

KIND: Final = "sr-response"


def taking_back(key: str) -> str:
    """Return the hash that stands for the state of a job which takes back what another one reported."""
    return hashlib.sha256(f"taken back {key}".encode()).hexdigest()


def takes_back(session: Session, job: Job) -> bool:
    """Return whether a job takes a report back, and does not tell one."""
    of_study = select(Revision.study_pk).where(col(Revision.id) == job.revision_pk).scalar_subquery()
    keys = (
        select(Job.key)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk) == of_study, col(Job.plugin) == REPORT, col(Job.id) != job.id)
    )
    return job.config_sha256 in map(taking_back, session.exec(keys))


def untold(
    session: Session, known: Course, told_in: str, objects: ObjectStore
) -> tuple[tuple[Study, Job], ...]:
    """Return in which studies a report stands that can no longer be told there, each with the job that wrote it.

    Of the studies that are the patient's, or were, but for the one in which the response is told now.
    """
    members = same_person(session, known.patient.pk)
    were = select(Finding.study_pk).where(col(Finding.patient_pk).in_(members))
    rows = session.exec(
        select(Study, Job, Result.sha256)
        .join(Revision, col(Revision.study_pk) == col(Study.id))
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .join(Result, col(Result.job_pk) == col(Job.id))
        .where(col(Job.plugin) == REPORT, col(Job.state).in_(COUNTING), col(Result.kind) == KIND)
        .where(or_(col(Study.patient_pk).in_(members), col(Study.id).in_(were)))
        .where(col(Study.study_instance_uid) != told_in)
        .order_by(col(Job.id))
    ).all()
    standing = {study.id: (study, job, sha256) for study, job, sha256 in rows}
    return tuple(
        (study, job)
        for study, job, sha256 in standing.values()
        if not takes_back(session, job)
        and (
            _is_of_another(session, study, objects, sha256)
            or (study.patient_pk in members and not _can_be_told(known, study))
        )
    )


def take_back(
    session: Session,
    reports: Sequence[tuple[Study, Job]],
    now: datetime,
    *,
    version: str,
    max_attempts: int,
) -> None:
    """Put what takes these reports back into the queue, each once."""
    for study, job in reports:
        newest = (col(Revision.study_pk) == study.id, col(Revision.number) == study.revision)
        revision = session.exec(select(Revision).where(*newest)).first()
        if revision is None:
            continue
        state = taking_back(job.key)
        made = jobs.enqueue(
            session,
            revision,
            plugin=REPORT,
            plugin_version=version,
            model_sha256="",
            config_sha256=state,
            now=now,
            max_attempts=max_attempts,
        )
        if made is None:  # a report that was asked for later may have taken it off the list
            jobs.take_up(session, job_key(revision.manifest_sha256, REPORT, version, "", state), now)


def _is_of_another(session: Session, study: Study, objects: ObjectStore, sha256: str) -> bool:
    """Return whether a report names another patient than the study's; False where it cannot be read."""
    try:
        header = scan_header(objects.path(sha256))
    except NadirError:
        return False
    if not session.get_one(Patient, study.patient_pk).patient_id:
        return True
    return is_another(session, study.patient_pk, header.patient_id, header.issuer)


def _can_be_told(known: Course, study: Study) -> bool:
    """Return whether lesions are known of the study and of an earlier date."""
    on = study.study_date
    here = any(one.study_instance_uid == study.study_instance_uid for one in known.sightings)
    return here and on is not None and any(one.date < on for one in known.sightings)


__all__ = ["take_back", "takes_back", "taking_back", "untold"]

"""What a person wants not to be analysed now: a study with all that would come to run of it, or one job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement
from sqlmodel import Session, and_, col, select, update

from plugins.errors import Refused
from store import jobs
from store.database import aware_utc
from store.jobs import PARKED, QUEUED, RUNNING
from store.succession import change
from store.tables import Job, Revision, Study


def park_study(session: Session, study_instance_uid: str, by: str, now: datetime) -> int:
    """Park a study: its jobs that wait or run, and all that are asked for until it is unparked; return how many now.

    A running one is given back: its worker finds out at its next heartbeat. One that ends at this moment ends.
    Refuses `no-such-study` and `parked-already`.
    """
    values = {"parked_at": aware_utc(now), "parked_by": by}
    study_pk = _change_study(session, study_instance_uid, values, is_parked=False)
    return _park(session, col(Job.revision_pk).in_(_revisions(study_pk)), by)


def unpark_study(session: Session, study_instance_uid: str, now: datetime) -> int:
    """Let a study be analysed again and return how many jobs go back into the queue.

    Refuses `no-such-study` and `not-parked`.
    """
    values = {"parked_at": None, "parked_by": None}
    study_pk = _change_study(session, study_instance_uid, values, is_parked=True)
    return _unpark(session, col(Job.revision_pk).in_(_revisions(study_pk)), now)


def park_job(session: Session, job_id: int, by: str) -> Job:
    """Park a job that waits or runs and return it. Refuses `no-such-job` and `illegal-transition`."""
    job = jobs.get(session, job_id)
    if not _park(session, col(Job.id) == job_id, by):
        raise Refused(
            "illegal-transition", f"Job {job_id} is {job.state}; only one that waits or runs can be parked."
        )
    return jobs.get(session, job_id)


def unpark_job(session: Session, job_id: int, now: datetime) -> Job:
    """Put a parked job back into the queue and return it.

    Refuses `no-such-job`, `illegal-transition`, and `study-parked` when all of its study is parked.
    """
    job = jobs.get(session, job_id)
    parked_at = session.exec(
        select(Study.parked_at)
        .join(Revision, col(Revision.study_pk) == col(Study.id))
        .where(col(Revision.id) == job.revision_pk)
        .with_for_update(of=Study, key_share=True)
    ).one()
    if parked_at is not None:
        raise Refused("study-parked", f"The study of job {job_id} is parked; unpark the study.")
    if not _unpark(session, col(Job.id) == job_id, now):
        raise Refused(
            "illegal-transition", f"Job {job_id} is {job.state}; only a parked one can be unparked."
        )
    return jobs.get(session, job_id)


def _park(session: Session, which: ColumnElement[bool], by: str) -> int:
    values: dict[str, Any] = {"state": PARKED, "owner": by, "lease_until": None, "finished_at": None}
    count = change(session, and_(which, col(Job.state) == QUEUED), values)
    # Who stores the results of a running one holds its row and then asks for the study's, which is locked here.
    running = (
        select(col(Job.id)).where(which, col(Job.state) == RUNNING).with_for_update(skip_locked=True, of=Job)
    )
    given_back = {**values, "max_attempts": col(Job.max_attempts) + 1}
    return count + change(session, and_(col(Job.id).in_(running), col(Job.state) == RUNNING), given_back)


def _unpark(session: Session, which: ColumnElement[bool], now: datetime) -> int:
    values = {"state": QUEUED, "owner": None, "run_after": aware_utc(now)}
    return change(session, and_(which, col(Job.state) == PARKED), values)


def _change_study(
    session: Session, study_instance_uid: str, values: dict[str, Any], *, is_parked: bool
) -> int:
    """Change a study that is parked, or is not, and return its row."""
    named = col(Study.study_instance_uid) == study_instance_uid
    state = col(Study.parked_at).is_not(None) if is_parked else col(Study.parked_at).is_(None)
    statement = update(Study).where(named, state).values(**values).returning(col(Study.id))
    found = session.exec(statement, execution_options={"synchronize_session": False}).first()
    if found is not None:
        return int(found[0])
    if session.exec(select(Study.id).where(named)).first() is None:
        raise Refused("no-such-study", f"There is no study {study_instance_uid}.")
    if is_parked:
        raise Refused("not-parked", "The study is not parked.")
    raise Refused("parked-already", "The study is parked already.")


def _revisions(study_pk: int) -> Any:
    return select(col(Revision.id)).where(col(Revision.study_pk) == study_pk)


__all__ = ["park_job", "park_study", "unpark_job", "unpark_study"]

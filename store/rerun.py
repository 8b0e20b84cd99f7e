"""An analysis once more, although it is done: a job of its own whose results supersede those before."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, func, select

from plugins.errors import Refused
from store import jobs
from store.jobs import DEAD, DELIVERING, DONE, PARKED, QUEUED, RUNNING
from store.tables import Job, Revision


def rerun(session: Session, job_id: int, now: datetime, max_attempts: int = 5) -> Job:
    """Ask for the work of a job that is done once more, and return the new job.

    It has a number of its own (`Job.run`) and so a key and UIDs of its own. When it ends, what the one before found is
    superseded, its undelivered results are taken back, and the new reports name the old ones as their predecessors; the
    worker puts the analysis as it is installed now in its place when that has changed. Refuses `no-such-job`,
    `illegal-transition` for a job that is not done, `superseded-revision` when the study has newer content, and
    `asked-already` when the same analysis of the study waits, runs or is parked.
    """
    job = jobs.get(session, job_id)
    if jobs.is_superseded(session, job_id):  # the study's row is locked from here on
        sentence = f"The study of job {job_id} has newer content, which is analysed by jobs of its own."
        raise Refused("superseded-revision", sentence)
    if job.state not in (DONE, DELIVERING):
        hint = "retry it" if job.state == DEAD else "only one that is done can be run again"
        raise Refused("illegal-transition", f"Job {job_id} is {job.state}; {hint}.")
    same = (col(Job.revision_pk) == job.revision_pk, col(Job.plugin) == job.plugin)
    open_one = select(Job.id).where(*same, col(Job.state).in_((QUEUED, RUNNING, PARKED))).limit(1)
    other = session.exec(open_one).first()
    if other is not None:
        raise Refused("asked-already", f"Job {other} does this already: it waits, runs or is parked.")
    newest = session.exec(select(func.max(Job.run)).where(*same)).one()
    made = jobs.enqueue(
        session,
        session.get_one(Revision, job.revision_pk),
        plugin=job.plugin,
        plugin_version=job.plugin_version,
        model_sha256=job.model_sha256,
        config_sha256=job.config_sha256,
        now=now,
        max_attempts=max_attempts,
        run=newest + 1,
    )
    if made is None:
        raise Refused("asked-already", "Somebody else asked for the same at this moment.")
    return made


__all__ = ["rerun"]

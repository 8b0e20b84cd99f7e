"""Whose turn it is: which queued jobs wait, because what is known of the patient's past is still to come."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import and_, col, exists, or_

from store.order import is_before
from store.prior_tables import Prior, PriorSearch
from store.tables import Job, Revision, Study

WAITING = "waiting"
REPORT = "response"
"""Name of the job that reports on a patient."""


def held_back(now: datetime, priors_wait_seconds: float) -> ColumnElement[bool]:
    """Return the condition on `Job` that it is not to begin yet; for a job whose own time has come.

    It waits for the same analysis of an earlier study of its patient that is due or runs, so that lesions get their
    identity in the order of the study dates; and, at most `priors_wait_seconds` after its study settled, for earlier
    studies that are being received, or that were asked for and are not here. A report on a patient waits for all
    analyses of the patient that are due or run.
    """
    return or_(*reasons(now, priors_wait_seconds).values())


def reasons(now: datetime, priors_wait_seconds: float) -> dict[str, ColumnElement[bool]]:
    """Return the conditions of `held_back` by name: `priors`, `arriving`, `order` and `report`."""
    since = now - timedelta(seconds=priors_wait_seconds)
    own, study = aliased(Revision), aliased(Study)
    is_own = and_(col(own.id) == col(Job.revision_pk), col(study.id) == col(own.study_pk))
    asked_for = and_(is_own, col(own.settled_at) > since, col(PriorSearch.study_pk) == col(study.id))
    is_coming = exists().where(col(Prior.search_pk) == col(PriorSearch.id), col(Prior.state) == WAITING)

    other_study, other_revision, other = aliased(Study), aliased(Revision), aliased(Job)
    of_patient = and_(is_own, col(other_study.patient_pk) == col(study.patient_pk))
    is_earlier = and_(of_patient, is_before(other_study, study))
    arrives = and_(col(other_study.state) == "receiving", col(own.settled_at) > since)
    is_due = and_(
        col(other_revision.study_pk) == col(other_study.id),
        col(other.revision_pk) == col(other_revision.id),
        _is_due(other, now),
    )
    found = {
        "priors": exists().where(asked_for, or_(col(PriorSearch.state) == WAITING, is_coming)),
        "arriving": exists().where(is_earlier, arrives),
        "order": exists().where(is_earlier, is_due, col(other.plugin) == col(Job.plugin)),
        "report": exists().where(of_patient, is_due, col(Job.plugin) == REPORT, col(other.plugin) != REPORT),
    }
    return {name: reason.correlate(Job) for name, reason in found.items()}


def _is_due(job: type[Job], now: datetime) -> ColumnElement[bool]:
    """Return the condition that a job runs or may; one that failed and pauses before its next attempt does not."""
    # Of a plain column SQLite takes the index of states: every queued job is then laid beside every other one.
    state = col(job.state).concat("")
    return or_(state == "running", and_(state == "queued", col(job.run_after) <= now))


__all__ = ["held_back", "reasons"]

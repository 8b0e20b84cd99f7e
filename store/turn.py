"""Whose turn it is: which queued jobs wait, because what is known of the patient's past is still to come."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import and_, col, exists, or_

from store.tables import Job, Prior, PriorSearch, Revision, Study

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
    revision = aliased(Revision)
    since = now - timedelta(seconds=priors_wait_seconds)
    waiting_for = and_(
        col(revision.id) == col(Job.revision_pk),
        col(revision.settled_at) > since,
        col(PriorSearch.study_pk) == col(revision.study_pk),
    )
    is_coming = exists().where(col(Prior.search_pk) == col(PriorSearch.id), col(Prior.state) == WAITING)
    priors = exists().where(waiting_for, or_(col(PriorSearch.state) == WAITING, is_coming)).correlate(Job)
    return or_(priors, _earlier_is_due(now), _earlier_arrives(since), _more_is_to_come(now))


def _more_is_to_come(now: datetime) -> ColumnElement[bool]:
    own, own_study = aliased(Revision), aliased(Study)
    other, other_revision, other_study = aliased(Job), aliased(Revision), aliased(Study)
    return and_(
        col(Job.plugin) == REPORT,
        exists()
        .where(
            col(own.id) == col(Job.revision_pk),
            col(own_study.id) == col(own.study_pk),
            col(other_study.patient_pk) == col(own_study.patient_pk),
            col(other_revision.study_pk) == col(other_study.id),
            col(other.revision_pk) == col(other_revision.id),
            col(other.plugin) != REPORT,
            _is_due(other, now),
        )
        .correlate(Job),
    )


def _is_due(job: type[Job], now: datetime) -> ColumnElement[bool]:
    """Return the condition that a job runs or may; one that failed and pauses before its next attempt does not."""
    queued = and_(col(job.state) == "queued", col(job.run_after) <= now)
    return or_(col(job.state) == "running", queued)


def _earlier_arrives(since: datetime) -> ColumnElement[bool]:
    own, own_study, other_study = aliased(Revision), aliased(Study), aliased(Study)
    return (
        exists()
        .where(
            col(own.id) == col(Job.revision_pk),
            col(own_study.id) == col(own.study_pk),
            col(other_study.patient_pk) == col(own_study.patient_pk),
            col(other_study.study_date) < col(own_study.study_date),
            col(other_study.state) == "receiving",
            col(own.settled_at) > since,
        )
        .correlate(Job)
    )


def _earlier_is_due(now: datetime) -> ColumnElement[bool]:
    own, own_study = aliased(Revision), aliased(Study)
    other, other_revision, other_study = aliased(Job), aliased(Revision), aliased(Study)
    return (
        exists()
        .where(
            col(own.id) == col(Job.revision_pk),
            col(own_study.id) == col(own.study_pk),
            col(other_study.patient_pk) == col(own_study.patient_pk),
            col(other_study.study_date) < col(own_study.study_date),
            col(other_revision.study_pk) == col(other_study.id),
            col(other.revision_pk) == col(other_revision.id),
            col(other.plugin) == col(Job.plugin),
            _is_due(other, now),
        )
        .correlate(Job)
    )


__all__ = ["held_back"]

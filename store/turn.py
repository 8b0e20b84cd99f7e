"""Whose turn it is: which queued jobs wait, because what is known of the patient's past is still to come."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import and_, col, exists, or_

from store.tables import Job, Prior, PriorSearch, Revision, Study

WAITING = "waiting"


def held_back(now: datetime, priors_wait_seconds: float) -> ColumnElement[bool]:
    """Return the condition on `Job` that it is not to begin yet; for a job whose own time has come.

    It waits for the same analysis of an earlier study of its patient that is due or runs, so that lesions get their
    identity in the order of the study dates; and, at most `priors_wait_seconds` after its study settled, for earlier
    studies that are being received, or that were asked for and are not here.
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
    return or_(priors, _earlier_is_due(now), _earlier_arrives(since))


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
            # One that failed and pauses before its next attempt holds nobody back.
            or_(
                col(other.state) == "running",
                and_(col(other.state) == "queued", col(other.run_after) <= now),
            ),
        )
        .correlate(Job)
    )


__all__ = ["held_back"]

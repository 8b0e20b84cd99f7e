"""What is still to be fetched of a study, and what never came of it."""

from __future__ import annotations

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, exists, or_

from store.tables import Pull, Revision, Study
from store.workitems import FETCHING, Workitem

GIVEN_UP = (
    "the PACS told of this study and did not give all of it, and its pull was given up; images may be missing"
)
NOT_ENDED = "the study settled by its longest time, before its pull had ended; images may be missing"


def is_to_come() -> ColumnElement[bool]:
    """Return the condition that a study is still being fetched, also between two attempts.

    The PACS told of it and its pull has not ended, or an archive began to give it as the input of a workitem.
    """
    uid = col(Study.study_instance_uid)
    pulled = exists().where(col(Pull.study_instance_uid) == uid, col(Pull.state) == "waiting")
    given = exists().where(
        col(Workitem.study_instance_uid) == uid,
        col(Workitem.state) == FETCHING,
        col(Workitem.source) != "",
    )
    return or_(pulled, given)


def lacking(session: Session, revision: Revision) -> str:
    """Return in a sentence why images of a revision may be missing: its pull was given up, or the hard cap came first.

    Empty when no pull of its study failed.
    """
    pull = session.get(Pull, session.get_one(Study, revision.study_pk).study_instance_uid)
    if pull is None:
        return ""
    if pull.state == "parked":
        return GIVEN_UP
    return NOT_ENDED if pull.state == "waiting" and revision.forced else ""


__all__ = ["is_to_come", "lacking"]

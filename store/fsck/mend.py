"""What `nadir fsck --repair` changes in the rows: nothing is deleted, and every change is one the node makes itself."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, select, update

from store import jobs, outbox
from store.instances import RECEIVING, SETTLED
from store.tables import Instance, Result, Series, Study

PUT_BACK = "put back by nadir fsck"


def one_current(session: Session, instance_pk: int, now: datetime) -> None:
    """Let the newest of the instances of a SOP Instance UID be the current one, and its study settle again.

    Where several are current it is the newest of those: what was found on disk without a row may have a newer one.
    """
    uid = session.get_one(Instance, instance_pk).sop_instance_uid
    statement = (
        select(Instance)
        .where(col(Instance.sop_instance_uid) == uid)
        .order_by(col(Instance.current), col(Instance.id))
    )
    *older, newest = session.exec(statement).all()
    for old in older:
        old.current = False
    newest.current = True
    session.flush()
    reopen(session, session.get_one(Series, newest.series_pk).study_pk, now)


def reopen(session: Session, study_pk: int, now: datetime) -> None:
    """Let a study settle again after its quiet time; nothing happens then when its content was analysed."""
    study = session.exec(select(Study).where(col(Study.id) == study_pk).with_for_update(key_share=True)).one()
    study.state, study.settle_now = RECEIVING, False
    study.first_arrival_at = study.last_arrival_at = max(study.last_arrival_at, now)
    session.flush()


def known_state(session: Session, study_pk: int, now: datetime) -> None:
    """Let a study in an unknown state settle again; one that is here only as an earlier one is settled."""
    reopen(session, study_pk, now)
    study = session.get_one(Study, study_pk)
    if study.prior:
        study.state = SETTLED
        session.flush()


def true_size(session: Session, sha256: str, size_bytes: int) -> None:
    """Let the rows of an object say the length that it has."""
    for table in (Instance, Result):
        session.exec(update(table).where(col(table.sha256) == sha256).values(size_bytes=size_bytes))


def put_back_job(session: Session, job_pk: int, now: datetime) -> None:
    """Give a job that nobody holds back to the queue; the attempt is not held against it."""
    jobs.release(session, job_pk, jobs.get(session, job_pk).attempt, now)


def end_job(session: Session, job_pk: int, now: datetime) -> None:
    """End a job that waits for no delivery."""
    jobs.close_delivered(session, job_pk, now)


def put_back_delivery(session: Session, delivery_pk: int, now: datetime) -> None:
    """Let a delivery that nobody holds be sent again: the same bytes, which a destination keeps once."""
    attempt = outbox.get(session, delivery_pk).attempt
    outbox.failed(session, delivery_pk, attempt, None, PUT_BACK, now)


__all__ = [
    "end_job",
    "known_state",
    "one_current",
    "put_back_delivery",
    "put_back_job",
    "reopen",
    "true_size",
]

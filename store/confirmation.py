"""Whether a destination keeps what it took: `delivered` becomes `confirmed`, or the same bytes are sent again.

A destination is asked by storage commitment (PS3.4 Annex J), whose answer comes when it comes and is matched by its
Transaction UID, or by a query. No answer is never an error: it is asked again, with growing pauses, for a week.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement
from sqlmodel import Session, and_, col, func, select

from store import jobs
from store.charset import storable
from store.database import aware_utc
from store.due import has_come, is_past
from store.outbox import CONFIRMED, DELIVERED, PARKED, PENDING, TEXT_LIMIT, backoff, change, untried
from store.statuses import DUPLICATE_TRANSACTION
from store.tables import Delivery, Event, Job, Result, Revision, Study

COMMITMENT, QUERY = "commitment", "query"
ANSWER_WITHIN = timedelta(hours=24)
PAUSE = timedelta(minutes=5)
STOP_ASKING = timedelta(days=7)
MISSING_TIMES = 3
MAX_RESENDS = 3
MISSED = "a query does not find it, though it was taken with success"


@dataclass(frozen=True, kw_only=True)
class Unconfirmed:
    """One delivery that is to be proved."""

    delivery_pk: int
    """Its row."""
    sop_class_uid: str
    """SOP Class UID of the result."""
    sop_instance_uid: str
    """SOP Instance UID of the result."""
    series_instance_uid: str
    """Its series."""
    study_instance_uid: str
    """Its study."""
    is_unanswered: bool
    """True when it was asked for by storage commitment and no answer came in time, or a query missed it since."""
    transaction_uid: str | None = None
    """Transaction UID under which it was asked for last, None when it never was since it was delivered."""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a storage commitment report, or a query, changed."""

    confirmed: int = 0
    """Deliveries that are confirmed now."""
    again: int = 0
    """Deliveries that are sent again."""
    parked: int = 0
    """Deliveries that were lost too often; an event tells a person of each."""
    studies: tuple[int, ...] = ()
    """Rows of the studies that it is about."""


def due(session: Session, destination: str, now: datetime, limit: int = 500) -> list[Unconfirmed]:
    """Return what was delivered to `destination` and is now to be asked for."""
    statement = (
        select(Delivery, Result, Study.study_instance_uid)
        .join(Result, col(Result.id) == col(Delivery.result_pk))
        .join(Job, col(Job.id) == col(Delivery.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Study, col(Study.id) == col(Revision.study_pk))
        .where(col(Delivery.destination) == destination, col(Delivery.state) == DELIVERED)
        .where(has_come(Delivery.confirm_after, now, ANSWER_WITHIN))
        .order_by(col(Delivery.id))
        .limit(limit)
    )
    return [
        Unconfirmed(
            delivery_pk=int(delivery.id or 0),
            sop_class_uid=result.sop_class_uid,
            sop_instance_uid=result.sop_instance_uid,
            series_instance_uid=result.series_instance_uid,
            study_instance_uid=study_instance_uid,
            is_unanswered=delivery.confirm_error == MISSED or _is_unanswered(delivery, now),
            transaction_uid=delivery.transaction_uid,
        )
        for delivery, result, study_instance_uid in session.exec(
            statement, execution_options={"populate_existing": True}
        )
    ]


def asked(session: Session, delivery_pks: Collection[int], transaction_uid: str, now: datetime) -> None:
    """Record a storage commitment request, before it goes out: its answer may be quicker than its response."""
    values = {
        "transaction_uid": transaction_uid,
        "asked_at": func.coalesce(col(Delivery.asked_at), aware_utc(now)),
        "confirm_after": aware_utc(now) + ANSWER_WITHIN,
        "confirm_attempt": col(Delivery.confirm_attempt) + 1,
        "confirm_error": "asked by storage commitment; no answer yet",
    }
    change(session, _of(delivery_pks), values)


def withdrawn(session: Session, delivery_pks: Collection[int], why: str, now: datetime) -> None:
    """Take back that a storage commitment was asked for: the destination knows none, and why; it is asked otherwise."""
    values = {
        "asked_at": None,
        "confirm_after": aware_utc(now),
        "confirm_attempt": col(Delivery.confirm_attempt) - 1,
        "confirm_error": storable(f"no storage commitment: {why}")[:TEXT_LIMIT],
    }
    change(session, _of(delivery_pks), values)


def postpone(
    session: Session, delivery_pks: Collection[int], why: str, now: datetime, *, is_open: bool = False
) -> None:
    """Ask again after a pause that doubles from 5 min to 24 h; after a week, leave it at delivered.

    `is_open`: the 24 h in which storage commitment may be answered go on, and it is asked again at their end. A time in
    which nobody asked for what was due (`store.outbox.untried`) is no part of the week.
    """
    for delivery in _locked(session, _of(delivery_pks)):
        asked_at = delivery.asked_at if is_open else None
        _postpone(delivery, why, aware_utc(now))
        delivery.asked_at = asked_at
        if asked_at is not None and delivery.confirm_after is not None:
            delivery.confirm_after = min(delivery.confirm_after, asked_at + ANSWER_WITHIN)


def confirmed(session: Session, delivery_pks: Collection[int], how: str, now: datetime) -> int:
    """Record that the destination keeps these, and how that is known; return how many are new."""
    values = {
        "state": CONFIRMED,
        "confirmed_at": aware_utc(now),
        "confirmed_by": how,
        "confirm_after": None,
        "confirm_error": None,
        "asked_at": None,
    }
    return change(session, _of(delivery_pks), values)


def missing(session: Session, delivery_pks: Collection[int], now: datetime) -> Reported:
    """Record that a query did not find these, and return what became of those missing for the third time.

    A PACS may take a while before what it took can be found.
    """
    now, states = aware_utc(now), []
    for delivery in _locked(session, _of(delivery_pks)):
        if delivery.confirm_error != MISSED:
            delivery.confirm_attempt = 0
        if delivery.confirm_attempt + 1 >= MISSING_TIMES:
            states.append(_again(session, delivery, MISSED, now))
        else:
            _postpone(delivery, MISSED, now)
    return Reported(again=states.count(PENDING), parked=states.count(PARKED))


def known(session: Session, transaction_uid: str) -> str | None:
    """Return the destination that was last asked under this Transaction UID, None when none was."""
    statement = select(Delivery.destination).where(col(Delivery.transaction_uid) == transaction_uid)
    return session.exec(statement.limit(1)).first()


def report(
    session: Session, transaction_uid: str, kept: Collection[str], lost: Mapping[str, int], now: datetime
) -> Reported:
    """Take in the answer to a storage commitment request, and return what it changed; a repeated one changes nothing.

    `kept` are SOP Instance UIDs, `lost` those that the destination does not keep, with the Failure Reason.
    """
    now = aware_utc(now)
    asked_for = and_(col(Delivery.transaction_uid) == transaction_uid, col(Delivery.state) == DELIVERED)
    held = _locked(session, asked_for)
    uids = _uids(session, held)
    proved = [int(d.id or 0) for d in held if uids[d.result_pk] in kept and uids[d.result_pk] not in lost]
    states = []
    for delivery in held:
        reason = lost.get(uids[delivery.result_pk])
        if reason is None:
            continue
        if reason == DUPLICATE_TRANSACTION:
            _postpone(delivery, "the Transaction UID was used before", now)
        else:
            text = f"storage commitment failed with reason 0x{reason:04X}"
            states.append(_again(session, delivery, text, now))
    studies = study_pks(session, [int(d.id or 0) for d in held])
    return Reported(
        confirmed=confirmed(session, proved, COMMITMENT, now),
        again=states.count(PENDING),
        parked=states.count(PARKED),
        studies=studies,
    )


def study_pks(session: Session, delivery_pks: Collection[int]) -> tuple[int, ...]:
    """Return the rows of the studies whose results these are, in whatever state."""
    of_delivery = (
        select(Revision.study_pk)
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .join(Delivery, col(Delivery.job_pk) == col(Job.id))
    )
    return tuple(sorted(set(session.exec(of_delivery.where(col(Delivery.id).in_(list(delivery_pks)))))))


def _is_unanswered(delivery: Delivery, now: datetime) -> bool:
    return delivery.asked_at is not None and is_past(delivery.asked_at + ANSWER_WITHIN, now, ANSWER_WITHIN)


def _again(session: Session, delivery: Delivery, text: str, now: datetime) -> str:
    """Put a delivery back into the outbox, or park one that was lost again and again and tell it; return the state."""
    delivery.resends += 1
    is_hopeless = delivery.resends > MAX_RESENDS
    delivery.state = PARKED if is_hopeless else PENDING
    delivery.last_status = delivery.last_status if is_hopeless else None
    delivery.last_error = f"{text}; sent {delivery.resends} times" if is_hopeless else text
    delivery.confirm_after = delivery.confirm_error = delivery.asked_at = None
    pause = timedelta(0) if delivery.resends == 1 else backoff(int(delivery.id or 0), delivery.resends)
    delivery.run_after, delivery.give_up_at = now + pause, now + STOP_ASKING
    session.add(delivery)
    if is_hopeless:
        told = f"a person must look at delivery {delivery.id}: {delivery.last_error}"
        session.add(Event(at=now, kind="delivery-parked", subject=delivery.destination, text=told))
    session.flush()
    jobs.reopen(session, delivery.job_pk)
    return delivery.state


def _postpone(delivery: Delivery, why: str, now: datetime) -> None:
    delivery.confirm_attempt += 1
    delivery.confirm_error = storable(why)[:TEXT_LIMIT]
    delivery.asked_at = None
    if delivery.delivered_at is not None:
        delivery.give_up_at = max(delivery.give_up_at, delivery.delivered_at + STOP_ASKING)
    if delivery.confirm_after is not None:
        delivery.give_up_at += untried(delivery.confirm_after, now)
    is_over = now >= delivery.give_up_at
    pause = min(ANSWER_WITHIN, PAUSE * 2 ** min(delivery.confirm_attempt - 1, 10))
    delivery.confirm_after = None if is_over else now + pause


def _uids(session: Session, deliveries: Sequence[Delivery]) -> dict[int, str]:
    statement = select(Result).where(col(Result.id).in_([d.result_pk for d in deliveries]))
    return {int(result.id or 0): result.sop_instance_uid for result in session.exec(statement)}


def _of(delivery_pks: Collection[int]) -> ColumnElement[bool]:
    return and_(col(Delivery.id).in_(list(delivery_pks)), col(Delivery.state) == DELIVERED)


def _locked(session: Session, condition: ColumnElement[bool]) -> Sequence[Delivery]:
    statement = select(Delivery).where(condition).order_by(col(Delivery.id)).with_for_update()
    return session.exec(statement, execution_options={"populate_existing": True}).all()


__all__ = [
    "Reported",
    "Unconfirmed",
    "asked",
    "confirmed",
    "due",
    "known",
    "missing",
    "postpone",
    "report",
    "withdrawn",
]

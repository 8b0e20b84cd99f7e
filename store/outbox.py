"""The outbox: one row per result and destination, sent as the same bytes until the destination has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case
from sqlalchemy.orm import aliased
from sqlmodel import Session, and_, col, func, or_, select, update
from sqlmodel.sql.expression import SelectOfScalar

from plugins.errors import Refused
from store import jobs
from store.charset import storable
from store.database import aware_utc, insert_new
from store.due import has_come
from store.keys import destination_key
from store.tables import Delivery, Job, Result, Revision

PENDING, SENDING, DELIVERED, CONFIRMED = "pending", "sending", "delivered", "confirmed"
PARKED, SUPERSEDED, ABANDONED = "parked", "superseded", "abandoned"
STATES = (PENDING, SENDING, DELIVERED, CONFIRMED, PARKED, SUPERSEDED, ABANDONED)
UNREACHABLE = "unreachable"
"""Last status of what did not even come to being sent."""
BACKOFF_SECONDS = 30.0
BACKOFF_CAP_SECONDS = 900.0
JITTER = 0.2
MAX_REFUSALS = 3
GIVE_UP = timedelta(days=7)
UNTRIED = timedelta(hours=1)
TEXT_LIMIT = 4000


def add(session: Session, result: Result, destinations: Iterable[str], now: datetime) -> int:
    """Return how many deliveries were added: one per destination, each at most once, kept without its password.

    None for a job whose study has a newer revision: its results are stored and not sent.
    """
    now = aware_utc(now)
    if jobs.is_superseded(session, result.job_pk):
        return 0
    common = {"result_pk": result.id, "job_pk": result.job_pk, "run_after": now, "created_at": now}
    keys = map(destination_key, destinations)
    rows = [{**common, "destination": key, "give_up_at": now + GIVE_UP} for key in keys]
    return sum(insert_new(session, Delivery, row) is not None for row in rows)


def claim(
    session: Session, destination: str, owner: str, now: datetime, lease_seconds: float
) -> Delivery | None:
    """Return the next delivery to `destination`, now leased to `owner`, or None when nothing is due.

    Within one study the order of writing is kept: a row waits until the earlier ones are delivered or parked. Of
    several studies, what the destination was not shown yet goes before what it did not take.
    """
    now = aware_utc(now)
    is_new = or_(col(Delivery.last_status).is_(None), col(Delivery.last_status) == UNREACHABLE)
    due = or_(
        and_(col(Delivery.state) == PENDING, has_come(Delivery.run_after, now)),
        and_(
            col(Delivery.state) == SENDING,
            has_come(Delivery.lease_until, now, timedelta(seconds=lease_seconds)),
        ),
    )
    first = (
        select(col(Delivery.id))
        .where(col(Delivery.id).in_(_first_of_each_study(destination)), due)
        .order_by(case((is_new, 0), else_=1), col(Delivery.run_after), col(Delivery.id))
        .limit(1)
        .with_for_update(skip_locked=True, of=Delivery)
        .scalar_subquery()
    )
    values = {
        "state": SENDING,
        "attempt": col(Delivery.attempt) + 1,
        "owner": owner,
        "lease_until": now + timedelta(seconds=lease_seconds),
    }
    statement = update(Delivery).where(col(Delivery.id) == first).values(values).returning(col(Delivery.id))
    row = session.exec(statement, execution_options={"synchronize_session": False}).first()
    if row is None:
        return None
    delivery = get(session, row[0])
    session.expunge(delivery)
    return delivery


def heartbeat(session: Session, delivery_id: int, attempt: int, now: datetime, lease_seconds: float) -> bool:
    """Lengthen the lease of a long transfer; return False when the delivery is no longer this attempt's."""
    until = aware_utc(now) + timedelta(seconds=lease_seconds)
    return change(session, _held(delivery_id, attempt), {"lease_until": until}) == 1


def delivered(
    session: Session,
    delivery_id: int,
    attempt: int,
    status: str,
    now: datetime,
    *,
    confirm_after: datetime | None = None,
    quiet: timedelta = timedelta.max,
) -> str:
    """Record that the destination answered success, and return the state of the job then.

    `status` keeps a warning status too; `confirm_after` is when it is asked whether the bytes are kept; `quiet` is for
    how long it took nothing. The job is done with its last open delivery, and the other deliveries that wait for this
    destination may go at once, but for those that it did not take either before that time (`wake`). Raises Fenced when
    another sender has the row.
    """
    now = aware_utc(now)
    delivery = get(session, delivery_id)
    # Two senders may end the last two deliveries at once: the job's row decides who is last.
    session.exec(select(Job.id).where(col(Job.id) == delivery.job_pk).with_for_update(key_share=True)).one()
    values = {
        "last_status": status,
        "last_error": None,
        "refusals": 0,
        "delivered_at": now,
        "confirm_after": confirm_after,
        "confirm_attempt": 0,
        "confirm_error": None,
        "transaction_uid": None,
        "asked_at": None,
    }
    _leave(session, delivery_id, attempt, DELIVERED, values)
    jobs.close_delivered(session, delivery.job_pk, now)
    wake(session, delivery.destination, now, quiet=quiet)
    return jobs.get(session, delivery.job_pk).state


def failed(
    session: Session,
    delivery_id: int,
    attempt: int,
    status: str | None,
    error: str,
    now: datetime,
    permanent: bool = False,
) -> str:
    """Record that a delivery failed, or that its outcome is unknown, and return its state: pending or parked.

    The pause doubles from 30 s to 15 min, 20 % more or less. Parked after three permanent refusals in a row, or
    seven days. A time in which nobody tried what was due (the node was off, its clock was put on) is no part of these.
    Raises Fenced when another sender has the row.
    """
    now = aware_utc(now)
    delivery = get(session, delivery_id)
    give_up_at = delivery.give_up_at + untried(delivery.run_after, now)
    refusals = delivery.refusals + 1 if permanent else 0
    state = PARKED if refusals >= MAX_REFUSALS or now >= give_up_at else PENDING
    values = {
        "last_status": status,
        "last_error": storable(error)[:TEXT_LIMIT],
        "refusals": refusals,
        "give_up_at": give_up_at,
        "run_after": now + backoff(delivery_id, attempt),
    }
    _leave(session, delivery_id, attempt, state, values)
    return state


def untried(due_at: datetime, now: datetime) -> timedelta:
    """Return for how long nobody tried what was due: the node was off, or its clock was put on; none up to an hour."""
    overdue = now - due_at
    return overdue if overdue > UNTRIED else timedelta()


def backoff(delivery_id: int, attempt: int) -> timedelta:
    """Return the pause after an attempt; the jitter comes from the row, so that a test can know it."""
    digest = hashlib.sha256(f"{delivery_id}:{attempt}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 0xFFFFFFFF
    return timedelta(seconds=_pause_seconds(attempt) * (1 - JITTER + 2 * JITTER * share))


def retry_parked(
    session: Session,
    now: datetime,
    *,
    delivery_id: int | None = None,
    job_pk: int | None = None,
    destination: str | None = None,
) -> int:
    """Put parked deliveries back to pending (all, or those that match) and return how many."""
    now = aware_utc(now)
    conditions = [col(Delivery.state) == PARKED]
    for column, wanted in (
        (Delivery.id, delivery_id),
        (Delivery.job_pk, job_pk),
        (Delivery.destination, destination),
    ):
        if wanted is not None:
            conditions.append(col(column) == wanted)
    values = {"state": PENDING, "run_after": now, "refusals": 0, "resends": 0, "give_up_at": now + GIVE_UP}
    return change(session, and_(*conditions), values)


def abandon(session: Session, destination: str, now: datetime, *, job_pk: int | None = None) -> int:
    """Give up what waits for a destination, or is parked there, and return how many deliveries that were.

    A job that waited for nothing else is done. What is being sent at this moment is left to its sender.
    """
    now = aware_utc(now)
    given_up = and_(col(Delivery.destination) == destination, _is_idle(now))
    if job_pk is not None:
        given_up = and_(given_up, col(Delivery.job_pk) == job_pk)
    values = {"state": ABANDONED, "abandoned_at": now, "lease_until": None, "owner": None}
    statement = update(Delivery).where(given_up).values(values).returning(col(Delivery.job_pk))
    found = session.exec(statement, execution_options={"synchronize_session": False}).all()
    for job in sorted({int(row[0]) for row in found}):
        session.exec(select(Job.id).where(col(Job.id) == job).with_for_update(key_share=True)).one()
        jobs.close_delivered(session, job, now)
    return len(found)


def require_delivery(session: Session, destination: str, job_pk: int | None = None) -> None:
    """Return when anything, of this job if one is given, ever was for a destination.

    Refuses `no-such-job`, and `no-such-destination`, which names where something waits.
    """
    if job_pk is not None:
        jobs.get(session, job_pk)
    named = [col(Delivery.destination) == destination]
    if job_pk is not None:
        named.append(col(Delivery.job_pk) == job_pk)
    if session.exec(select(Delivery.id).where(*named).limit(1)).first() is not None:
        return
    waiting = col(Delivery.state).in_((PENDING, SENDING, PARKED))
    places = session.exec(
        select(Delivery.destination).where(waiting).distinct().order_by(Delivery.destination)
    )
    what = "no result is" if job_pk is None else f"no result of job {job_pk} is"
    sentence = f"{what} for {destination}; something waits for: {', '.join(places) or 'nobody'}"
    raise Refused("no-such-destination", sentence)


def release(session: Session, destination: str, owners: Iterable[str], now: datetime) -> int:
    """Let others send at once what these owners, who are dead, had begun to send; return how many that were."""
    held = and_(
        col(Delivery.destination) == destination,
        col(Delivery.state) == SENDING,
        col(Delivery.owner).in_(list(owners)),
    )
    return change(session, held, {"lease_until": aware_utc(now)})


def owners(session: Session, destination: str) -> set[str]:
    """Return who is sending to a destination now, or was when it died."""
    statement = select(Delivery.owner).where(
        col(Delivery.destination) == destination, col(Delivery.state) == SENDING
    )
    return {owner for owner in session.exec(statement) if owner is not None}


def wake(
    session: Session,
    destination: str,
    now: datetime,
    last_status: str | None = None,
    quiet: timedelta = timedelta.max,
) -> None:
    """Let what waits for a destination that just answered go at once, but not what it refused.

    Only what failed last with `last_status`, when that is given. What was tried more often than fits into the time
    `quiet` in which the destination took nothing failed while it took others: it keeps its own pause.
    """
    waiting = _waiting(destination, aware_utc(now), last_status)
    is_outage = or_(col(Delivery.last_status) == UNREACHABLE, col(Delivery.attempt) <= _tries_within(quiet))
    ids = select(col(Delivery.id)).where(waiting, is_outage).with_for_update(skip_locked=True)
    change(session, col(Delivery.id).in_(ids), {"run_after": now})


def is_waiting(session: Session, destination: str, now: datetime, last_status: str | None = None) -> bool:
    """Return whether anything waits out a pause that `wake` would end."""
    waiting = _waiting(destination, aware_utc(now), last_status)
    return session.exec(select(Delivery.id).where(waiting).limit(1)).first() is not None


def unserved(session: Session, destinations: Iterable[str]) -> dict[str, int]:
    """Return how many open deliveries wait for each destination that is none of these: nobody sends them."""
    statement = (
        select(Delivery.destination, func.count(col(Delivery.id)))
        .where(
            col(Delivery.state).in_((PENDING, SENDING)), col(Delivery.destination).not_in(list(destinations))
        )
        .group_by(col(Delivery.destination))
        .order_by(col(Delivery.destination))
    )
    return {destination: count for destination, count in session.exec(statement)}


def list_deliveries(session: Session, state: str | None = None, job_pk: int | None = None) -> list[Delivery]:
    """Return the deliveries in order of writing. Refuses `no-such-state`."""
    if state is not None and state not in STATES:
        raise Refused("no-such-state", f"'{state}' is not a delivery state; use one of {', '.join(STATES)}.")
    statement = select(Delivery).order_by(col(Delivery.id))
    if state is not None:
        statement = statement.where(col(Delivery.state) == state)
    if job_pk is not None:
        statement = statement.where(col(Delivery.job_pk) == job_pk)
    return list(session.exec(statement))


def get(session: Session, delivery_id: int) -> Delivery:
    """Return one delivery as it is in the database now. Refuses `no-such-delivery`."""
    delivery = session.get(Delivery, delivery_id, populate_existing=True)
    if delivery is None:
        raise Refused("no-such-delivery", f"There is no delivery {delivery_id}.")
    return delivery


def study_of(session: Session, delivery: Delivery) -> int:
    """Return the row of the study whose result is delivered."""
    of_job = select(Revision.study_pk).join(Job, col(Job.revision_pk) == col(Revision.id))
    return session.exec(of_job.where(col(Job.id) == delivery.job_pk)).one()


def change(session: Session, condition: ColumnElement[bool], values: dict[str, Any]) -> int:
    """Return how many deliveries met a condition and were given these values; what the session holds stays as it is."""
    session.flush()
    statement = update(Delivery).where(condition).values(values)
    return int(session.exec(statement, execution_options={"synchronize_session": False}).rowcount)


def _first_of_each_study(destination: str) -> SelectOfScalar[int | None]:
    """Return the first of the open deliveries of each study to a destination; the others of the study wait for it."""
    waiting = aliased(Delivery)
    return (
        select(func.min(waiting.id))
        .join(Job, col(Job.id) == waiting.job_pk)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(waiting.destination == destination, col(waiting.state).in_((PENDING, SENDING)))
        .group_by(col(Revision.study_pk))
    )


def _pause_seconds(attempt: int) -> float:
    return min(BACKOFF_CAP_SECONDS, BACKOFF_SECONDS * 2.0 ** min(attempt - 1, 10))


def _tries_within(lasting: timedelta) -> int:
    """Return how many tries of one delivery fit into a time, at the shortest pauses; at least one."""
    tries, left = 1, min(lasting, GIVE_UP).total_seconds()
    while (left := left - (1 - JITTER) * _pause_seconds(tries)) >= 0:
        tries += 1
    return tries


def _held(delivery_id: int, attempt: int) -> ColumnElement[bool]:
    return and_(
        col(Delivery.id) == delivery_id, col(Delivery.attempt) == attempt, col(Delivery.state) == SENDING
    )


def _leave(session: Session, delivery_id: int, attempt: int, state: str, values: dict[str, Any]) -> None:
    values = {**values, "state": state, "lease_until": None, "owner": None}
    if change(session, _held(delivery_id, attempt), values) != 1:
        raise jobs.Fenced


def _is_idle(now: datetime) -> ColumnElement[bool]:
    expired = and_(col(Delivery.state) == SENDING, col(Delivery.lease_until) <= now)
    return or_(col(Delivery.state).in_((PENDING, PARKED)), expired)


def _waiting(destination: str, now: datetime, last_status: str | None) -> ColumnElement[bool]:
    waiting = and_(
        col(Delivery.destination) == destination,
        col(Delivery.state) == PENDING,
        col(Delivery.run_after) > now,
        col(Delivery.refusals) == 0,
    )
    return waiting if last_status is None else and_(waiting, col(Delivery.last_status) == last_status)

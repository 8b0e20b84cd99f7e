"""Storage commitment as a scanner asks for it (PS3.4 Annex J): requests that wait, and what may be committed to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from store.charset import storable
from store.database import aware_utc, insert_new
from store.due import has_come
from store.objects import ObjectStore
from store.outbox import TEXT_LIMIT, backoff, untried
from store.statuses import CLASS_CONFLICT, NO_SUCH_INSTANCE, PROCESSING_FAILURE
from store.tables import Commitment, Event, Instance

WAITING, ANSWERED, GIVEN_UP = "waiting", "answered", "given-up"
GIVE_UP = timedelta(hours=24)
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Referenced:
    """One instance that is asked for."""

    sop_class_uid: str
    """Its SOP Class UID."""
    sop_instance_uid: str
    """Its SOP Instance UID."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request that waits for its answer."""

    pk: int
    """Its row."""
    transaction_uid: str
    """Its Transaction UID."""
    requestor: str
    """`AE@host:port` that the answer goes to."""
    references: tuple[Referenced, ...]
    """What is asked for."""


def ask(
    session: Session, transaction_uid: str, requestor: str, references: Iterable[Referenced], now: datetime
) -> bool:
    """Keep a request to be answered; one that is known is answered again.

    Returns False, and keeps nothing, when the Transaction UID is that of another request of the same caller.
    """
    now = aware_utc(now)
    pairs = [[r.sop_class_uid, r.sop_instance_uid] for r in references]
    values = {
        "transaction_uid": transaction_uid,
        "requestor": requestor,
        "references": json.dumps(pairs),
        "requested_at": now,
        "run_after": now,
    }
    if insert_new(session, Commitment, values) is not None:
        return True
    same = (col(Commitment.transaction_uid) == transaction_uid, col(Commitment.requestor) == requestor)
    row = session.exec(select(Commitment).where(*same)).one()
    if sorted(json.loads(row.references)) != sorted(pairs):
        return False
    row.state, row.attempt, row.requested_at, row.run_after = WAITING, 0, now, now
    row.answered_at = row.last_error = None
    session.add(row)
    return True


def due(session: Session, now: datetime) -> Request | None:
    """Return the request that is to be answered next, None when none is due."""
    row = session.exec(
        select(Commitment)
        .where(col(Commitment.state) == WAITING, has_come(Commitment.run_after, now))
        .order_by(col(Commitment.run_after), col(Commitment.id))
        .limit(1)
    ).first()
    if row is None:
        return None
    pairs = json.loads(row.references)
    return Request(
        pk=int(row.id or 0),
        transaction_uid=row.transaction_uid,
        requestor=row.requestor,
        references=tuple(Referenced(sop_class_uid=c, sop_instance_uid=i) for c, i in pairs),
    )


def answered(session: Session, pk: int, now: datetime) -> None:
    """Record that the scanner has its answer."""
    row = session.get_one(Commitment, pk)
    row.state, row.answered_at, row.last_error = ANSWERED, aware_utc(now), None
    session.add(row)


def failed(session: Session, pk: int, error: str, now: datetime) -> str:
    """Record that the answer could not be given, and return the state: waiting, or given-up after a day.

    A time in which nobody tried what was due (`store.outbox.untried`) is no part of it. An event tells of the end.
    """
    row, now = session.get_one(Commitment, pk), aware_utc(now)
    row.attempt += 1
    row.last_error = storable(error)[:TEXT_LIMIT]
    row.requested_at += untried(row.run_after, now)
    row.run_after = now + backoff(pk, row.attempt)
    row.state = GIVEN_UP if now - row.requested_at >= GIVE_UP else WAITING
    session.add(row)
    if row.state == GIVEN_UP:
        count = len(json.loads(row.references))
        told = f"no answer to a storage commitment request for {count} instances reached it: {row.last_error}"
        session.add(Event(at=now, kind="commitment-given-up", subject=row.requestor, text=told))
    return row.state


def judge(session: Session, objects: ObjectStore, asked: Referenced) -> int | None:
    """Return None when the instance is held, whole to its last byte, else the Failure Reason (PS3.3 C.14.1.1)."""
    row = session.exec(
        select(Instance)
        .where(col(Instance.sop_instance_uid) == asked.sop_instance_uid)
        .order_by(col(Instance.current).desc(), col(Instance.id).desc())
        .limit(1)
    ).first()
    if row is None:
        return NO_SUCH_INSTANCE
    if row.sop_class_uid != asked.sop_class_uid:
        return CLASS_CONFLICT
    digest = hashlib.sha256()
    try:
        with objects.path(row.sha256).open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    except FileNotFoundError:
        return NO_SUCH_INSTANCE
    except OSError:
        return PROCESSING_FAILURE
    return None if digest.hexdigest() == row.sha256 else PROCESSING_FAILURE


__all__ = ["Referenced", "Request", "answered", "ask", "due", "failed", "judge"]

"""The audit trail in SQL: appended, never changed, each row holding the hash of the one before and of itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func
from sqlmodel import Session, col, or_, select, update

from store.audit_tables import AuditRecord, AuditSink
from store.database import insert_new
from store.due import has_come

CHAIN_LOCK = 0x41756469
BEGINNING = "0" * 64
PAGE = 1000
TOLD_TIME = re.compile(r' EventDateTime="([^"]*)"')
TIME_STEP = timedelta(milliseconds=1)
"""How precisely a message tells its time; the row has microseconds."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a walk along the chain has shown."""

    records: int
    """How many rows there are."""
    last_sha256: str
    """Hash of the last one: kept elsewhere, it shows later whether the end was cut off."""
    broken_pk: int | None
    """First row that does not follow from those before; None when all do."""


def append(session: Session, messages: Sequence[tuple[datetime, str]]) -> str:
    """Add messages at the end of the chain and return its last hash; one process at a time."""
    if session.get_bind().dialect.name == "postgresql":
        session.exec(select(func.pg_advisory_xact_lock(CHAIN_LOCK)))
    last = session.exec(select(AuditRecord.sha256).order_by(col(AuditRecord.id).desc()).limit(1)).first()
    sha256 = last or BEGINNING
    for at, message in messages:
        sha256 = link(sha256, message)
        session.add(AuditRecord(at=at, message=message, sha256=sha256))
        session.flush()  # row numbers rise in the order of the chain
    return sha256


def holds(session: Session, at: datetime, sha256: str) -> bool:
    """Return True when a row of this time has this hash: so an append is there whose commit was not answered."""
    same = (col(AuditRecord.at) == at, col(AuditRecord.sha256) == sha256)
    return session.exec(select(AuditRecord.id).where(*same)).first() is not None


def link(before: str, message: str) -> str:
    """Return the hash of a row: of the hash before it, a blank and its message."""
    return hashlib.sha256(f"{before} {message}".encode()).hexdigest()


def follows(row: AuditRecord, before: str) -> bool:
    """Return whether a row has the hash that follows from the one before, and the time that its message tells."""
    if link(before, row.message) != row.sha256:
        return False
    told = TOLD_TIME.search(row.message)
    try:
        return told is None or abs(row.at - datetime.fromisoformat(told[1])) < TIME_STEP
    except (ValueError, TypeError):
        return False


def verify(session: Session) -> Verdict:
    """Return whether every row follows from the one before: none changed, taken out, or put in between."""
    count, sha256, broken = 0, BEGINNING, None
    for row in records(session):
        if not follows(row, sha256):
            broken = row.id
            break
        count, sha256 = count + 1, row.sha256
    return Verdict(records=count, last_sha256=sha256, broken_pk=broken)


def records(session: Session, *, after_pk: int = 0, limit: int | None = None) -> Iterator[AuditRecord]:
    """Yield the rows after one, in the order of the chain, a page at a time."""
    given = 0
    while limit is None or given < limit:
        page = min(PAGE, PAGE if limit is None else limit - given)
        statement = (
            select(AuditRecord)
            .where(col(AuditRecord.id) > after_pk)
            .order_by(col(AuditRecord.id))
            .limit(page)
        )
        rows = session.exec(statement).all()
        yield from rows
        if len(rows) < page:
            return
        given += len(rows)
        after_pk = rows[-1].id or 0


def claim_sink(session: Session, name: str, owner: str, now: datetime, seconds: float) -> int | None:
    """Return the last row that a sink was given, and keep others from it for a while; None when another has it."""
    insert_new(session, AuditSink, {"name": name})
    table = AuditSink
    free = or_(
        col(table.owner).is_(None),
        col(table.owner) == owner,
        has_come(table.lease_until, now, timedelta(seconds=seconds)),
    )
    statement = (
        update(table)
        .where(col(table.name) == name, free)
        .values(owner=owner, lease_until=now + timedelta(seconds=seconds))
        .returning(col(table.sent_pk))
    )
    found = session.exec(statement).first()
    return None if found is None else int(found[0])


def handed_on(session: Session, name: str, owner: str, sent_pk: int) -> None:
    """Note how far a sink has come."""
    mine = (col(AuditSink.name) == name, col(AuditSink.owner) == owner)
    session.exec(update(AuditSink).where(*mine).values(sent_pk=sent_pk))


def release_sink(session: Session, name: str, owner: str) -> None:
    """Let another process go on at once."""
    mine = (col(AuditSink.name) == name, col(AuditSink.owner) == owner)
    session.exec(update(AuditSink).where(*mine).values(owner=None, lease_until=None))


__all__ = [
    "Verdict",
    "append",
    "claim_sink",
    "follows",
    "handed_on",
    "holds",
    "link",
    "records",
    "release_sink",
    "verify",
]

"""Who alone does something at a time, across processes and hosts: a row that is kept alive, or given up, or ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session, col, delete, or_, update

from store.database import aware_utc, dialect_insert
from store.due import has_come
from store.model_tables import Lease

SCHEDULER: Final = "scheduler"
"""The lease of whoever schedules."""


def take(session: Session, name: str, owner: str, now: datetime, seconds: float) -> bool:
    """Take what is free, has ended or is one's own already, for so many seconds; return whether it is ours now."""
    now = aware_utc(now)
    values = {"owner": owner, "until": now + timedelta(seconds=seconds)}
    free = or_(col(Lease.owner) == owner, has_come(Lease.until, now, timedelta(seconds=seconds)))
    statement = update(Lease).where(col(Lease.name) == name, free).values(values)
    if session.exec(statement, execution_options={"synchronize_session": False}).rowcount:
        return True
    new = dialect_insert(session)(Lease).values({"name": name, **values})
    first = new.on_conflict_do_nothing().returning(col(Lease.name))
    return session.exec(first).first() is not None


def give_back(session: Session, name: str, owner: str) -> None:
    """Let somebody else take what is ours at once; nothing happens when it is not."""
    session.exec(delete(Lease).where(col(Lease.name) == name, col(Lease.owner) == owner))


def holder(session: Session, name: str, now: datetime) -> str | None:
    """Return who holds it at this time; None when nobody does."""
    lease = session.get(Lease, name, populate_existing=True)
    return lease.owner if lease is not None and lease.until > aware_utc(now) else None


__all__ = ["SCHEDULER", "give_back", "holder", "take"]

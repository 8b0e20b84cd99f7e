"""Runs of retraining that a person asked for: the scheduler begins them, for pages have neither memory nor time for it.

Only this file writes `asked_run`.
"""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, Session, SQLModel, col, delete, select

from plugins.errors import Refused
from store import runs
from store.database import aware_utc, insert_new
from store.tables import UtcDateTime


class AskedRun(SQLModel, table=True):
    """A run that nobody has begun yet; one of a family at a time."""

    __tablename__ = "asked_run"
    id: int | None = Field(default=None, primary_key=True)
    family: str = Field(unique=True)
    author: str = Field(description="who asked, in words for people")
    at: datetime = Field(sa_type=UtcDateTime)


def ask(session: Session, family: str, author: str, now: datetime) -> None:
    """Ask for a run. Refuses `already-running`: one of the family goes on, or was asked for and has not begun."""
    running = runs.newest(session, family)
    if running is not None and runs.is_alive(running, now):
        since = running.begun_at.isoformat(timespec="seconds")
        raise Refused("already-running", f"{running.owner} has been retraining {family} since {since}")
    if insert_new(session, AskedRun, {"family": family, "author": author, "at": aware_utc(now)}) is None:
        raise Refused("already-running", f"a run of {family} was asked for already and begins in a moment")


def asked(session: Session, family: str) -> AskedRun | None:
    """Return the run of a family that waits to be begun."""
    return session.exec(select(AskedRun).where(col(AskedRun.family) == family)).first()


def take(session: Session) -> tuple[str, ...]:
    """Return the families whose runs were asked for, which are nobody's any more: whoever takes them begins them."""
    taken = session.exec(delete(AskedRun).returning(col(AskedRun.family)))
    return tuple(sorted(taken.scalars()))


__all__ = ["AskedRun", "ask", "asked", "take"]

"""The studies that the PACS told of: where they stand, and those that were given up back on the list."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select, update

from plugins.errors import Refused
from store.tables import Pull

STATES = ("waiting", "pulled", "parked")
SHOWN = {
    "study_instance_uid",
    "state",
    "attempt",
    "run_after",
    "requested_at",
    "pulled_at",
    "error_code",
    "error_text",
}


def listed(session: Session, state: str | None = None, newest: int | None = None) -> list[dict[str, Any]]:
    """Return the studies that were told, as plain data, those that were told last at the end.

    With `newest` only so many of those that were told last. Refuses `no-such-state`.
    """
    told = select(Pull).where(*_in_state(state)).limit(newest)
    rows = session.exec(told.order_by(col(Pull.requested_at).desc(), col(Pull.study_instance_uid).desc()))
    return [row.model_dump(include=SHOWN) for row in rows.all()[::-1]]


def how_many(session: Session, state: str | None = None) -> int:
    """Return how many studies `listed` tells of. Refuses `no-such-state`."""
    return session.exec(select(func.count()).select_from(Pull).where(*_in_state(state))).one()


def retry_parked(session: Session, now: datetime) -> int:
    """Put every study that was given up back on the list, and return how many there were."""
    parked = update(Pull).where(col(Pull.state) == "parked")
    return session.exec(parked.values(state="waiting", attempt=0, run_after=now)).rowcount


def _in_state(state: str | None) -> tuple[ColumnElement[bool], ...]:
    if state is not None and state not in STATES:
        raise Refused("no-such-state", f"'{state}' is not a state; use one of {', '.join(STATES)}.")
    return () if state is None else (col(Pull.state) == state,)


__all__ = ["how_many", "listed", "retry_parked"]

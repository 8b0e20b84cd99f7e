"""Whether a time has come, also for what was written while the clock ran ahead of what it is now."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, or_
from sqlmodel import col

from store.database import aware_utc

AHEAD = timedelta(minutes=10)
"""How far the clocks that write into one database may lie apart."""
LONGEST_PAUSE = timedelta(hours=1)
"""More than any pause between two attempts."""


def has_come(time: Any, now: datetime, within: timedelta = LONGEST_PAUSE) -> ColumnElement[bool]:
    """Return whether a time has come, or lies further ahead than the `within` that anybody waits for.

    Then the clock was wrong when it was written: what waits for it would wait for as long as it was ahead.
    """
    now = aware_utc(now)
    return or_(col(time) <= now, col(time) > now + within + AHEAD)


def is_past(time: datetime, now: datetime, within: timedelta = LONGEST_PAUSE) -> bool:
    """Return of a time what `has_come` returns of a column."""
    now = aware_utc(now)
    return time <= now or time > now + within + AHEAD


def is_over(began: Any, now: datetime, lasts: timedelta) -> ColumnElement[bool]:
    """Return whether what began at a time and lasts so long is over, or began while the clock was wrong."""
    return has_come(began, aware_utc(now) - lasts, within=lasts)


__all__ = ["AHEAD", "has_come", "is_over", "is_past"]

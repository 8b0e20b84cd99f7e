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


__all__ = ["has_come"]

"""Histories visit by visit, for criteria that need more than one length a lesion."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from store.response.history import History, Reference, Role, Seen, Status, Visit

START = date(2025, 1, 1)
GONE = Status.ABSENT
UNKNOWN = Status.NOT_EVALUABLE


def lesion(name: str, long_mm: float | None = None, short_mm: float | None = None, **rest: Any) -> Seen:
    """Return a target that was measured, unless `rest` says otherwise."""
    return Seen(
        **{"role": Role.TARGET, "status": Status.MEASURED, **rest},
        lesion=name,
        long_axis_tenths=None if long_mm is None else round(long_mm * 10),
        short_axis_tenths=None if short_mm is None else round(short_mm * 10),
    )


def history(
    *visits: tuple[Seen, ...], references: tuple[Reference | None, ...] = (), days: int = 56
) -> History:
    """Return a history with a visit every `days` days; the last reference holds for the visits after it too."""
    given = references or (None,)
    return History(
        patient="P1",
        visits=tuple(
            Visit(date=START + timedelta(days=days * at), seen=seen, reference=given[min(at, len(given) - 1)])
            for at, seen in enumerate(visits)
        ),
    )

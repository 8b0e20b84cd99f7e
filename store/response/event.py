"""Which verdict of a course is the progression that counts.

By iRECIST (Seymour 2017) an iUPD counts, dated by its own visit, when an iCPD confirms it, or when it is told again and
nothing better ever is. One that a better verdict takes back is none, nor is one that no visit has judged again yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PROGRESSIVE: Final = frozenset({"PD", "PMD"})
UNCONFIRMED, CONFIRMED = "iUPD", "iCPD"
PASSED_OVER: Final = frozenset({"NE", "ND", ""})
"""What neither confirms a progression nor takes it back."""


def progression_at(verdicts: Sequence[str]) -> int | None:
    """Return the place of the progression that counts among verdicts in order of time; None without one."""
    waiting: list[int] = []
    for place, verdict in enumerate(verdicts):
        if verdict in PROGRESSIVE:
            return place
        if verdict == CONFIRMED:
            return waiting[0] if waiting else place
        if verdict == UNCONFIRMED:
            waiting.append(place)
        elif verdict not in PASSED_OVER:
            waiting.clear()
    return waiting[0] if len(waiting) > 1 else None


__all__ = ["progression_at"]

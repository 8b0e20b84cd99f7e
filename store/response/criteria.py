"""The sets of criteria by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from plugins.errors import Refused
from store.response import irecist, lugano, percist, recist, volumetric, who
from store.response.history import History, Role
from store.response.rules import Rules
from store.response.verdict import Response


class Judge(Protocol):
    """One set of criteria."""

    def __call__(self, history: History, rules: Rules = ...) -> Response:
        """Return the verdicts of a patient's visits."""
        ...


CRITERIA: Mapping[str, Judge] = {
    "recist1.1": recist.judge,
    "irecist": irecist.judge,
    "percist": percist.judge,
    "lugano": lugano.judge,
    "who": who.judge,
    "volume": volumetric.judge,
}
"""What judges, by the name that a person gives."""

_BOTH = ("long_axis_mm", "short_axis_mm")
_EITHER = (("long_axis_mm",), ("short_axis_mm",))
NEEDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "recist1.1": _EITHER,
    "irecist": _EITHER,
    "percist": (("suv_peak",),),
    "lugano": (("deauville",), ("suv_peak",), _BOTH),
    "who": (_BOTH,),
    "volume": (("volume_mm3",), ("volume_ml",)),
}
"""Columns of a table of which each set of criteria needs one at least, or those that belong together."""


def check_columns(criteria: str, columns: Collection[str], histories: Iterable[History]) -> None:
    """Refuse (`missing-column`) a table that has targets, and no column that the criteria measure them by."""
    needs = NEEDS[criteria]
    if any(set(together) <= set(columns) for together in needs):
        return
    if any(seen.role is Role.TARGET for one in histories for visit in one.visits for seen in visit.seen):
        told = " or ".join(" and ".join(together) for together in needs)
        lacking = sorted({name for together in needs for name in together} - set(columns))
        raise Refused(
            "missing-column", f"{criteria} measures by {told}; the table has no column {' or '.join(lacking)}"
        )


__all__ = ["CRITERIA", "Judge", "check_columns"]

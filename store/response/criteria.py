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

NEEDS: Mapping[str, tuple[str, ...]] = {
    "recist1.1": ("long_axis_mm", "short_axis_mm"),
    "irecist": ("long_axis_mm", "short_axis_mm"),
    "percist": ("suv_peak",),
    "lugano": ("deauville", "suv_peak", "long_axis_mm"),
    "who": ("long_axis_mm",),
    "volume": ("volume_mm3", "volume_ml"),
}
"""Columns of a table of which each set of criteria needs one at least."""


def check_columns(criteria: str, columns: Collection[str], histories: Iterable[History]) -> None:
    """Refuse (`missing-column`) a table that has targets, and no column that the criteria measure them by."""
    needs = NEEDS[criteria]
    if set(needs) & set(columns):
        return
    if any(seen.role is Role.TARGET for one in histories for visit in one.visits for seen in visit.seen):
        raise Refused("missing-column", f"{criteria} needs a column {' or '.join(needs)}; the table has none")


__all__ = ["CRITERIA", "Judge", "check_columns"]

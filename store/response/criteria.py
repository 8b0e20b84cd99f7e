"""The sets of criteria by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Protocol, cast

from plugins.errors import Refused
from store.response.history import History
from store.response.rules import Rules
from store.response.verdict import Response


class Judge(Protocol):
    """One set of criteria."""

    def __call__(self, history: History, rules: Rules = ...) -> Response:
        """Return the verdicts of a patient's visits."""
        ...


def _judge(module: str) -> Judge:
    def judge(history: History, rules: Rules | None = None) -> Response:
        return cast(Judge, import_module(f"store.response.{module}").judge)(history, rules or Rules())

    return judge


CRITERIA: Mapping[str, Judge] = {
    "recist1.1": _judge("recist"),
    "irecist": _judge("irecist"),
    "percist": _judge("percist"),
    "lugano": _judge("lugano"),
    "who": _judge("who"),
    "volume": _judge("volumetric"),
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


def check_columns(criteria: str, columns: Collection[str]) -> None:
    """Refuse (`missing-column`) a table with no column that the criteria measure by."""
    needs = NEEDS[criteria]
    if not set(needs) & set(columns):
        raise Refused("missing-column", f"{criteria} needs a column {' or '.join(needs)}; the table has none")


__all__ = ["CRITERIA", "Judge", "check_columns"]

"""The sets of criteria by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

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

__all__ = ["CRITERIA", "Judge"]

"""The figures of a model's card: taken from a judgement, and held against a new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.evaluate.learning import CURVE

TASKS = ("segmentation", "detection", "classification", "survival")
LEAVES_OUT = ("cases", "groups", "confusion", "threshold")
"""Parts of a judgement that do not go on a card."""
PART_OF_INTERVAL = 0.1
"""A figure is reproduced when it is off by less than this part of its interval: other processors round otherwise."""


def card_figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a card keeps of a `report.json`: every figure with its interval, by task and setting, and on what."""
    kept = {
        task: {key: value for key, value in part.items() if key not in LEAVES_OUT}
        for task, part in report.items()
        if task in TASKS
    }
    also = {key: report[key] for key in ("data", "made", CURVE) if key in report}
    return {**also, **kept}


def differences(said: Mapping[str, Any], found: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yield one sentence for each figure of a card (nested; a figure has a `value`) that a new judgement does not have.

    A figure without an interval has to be equal to six digits.
    """
    for key, value in said.items():
        name = f"{place}{key}"
        if not isinstance(value, Mapping) or (not place and key not in TASKS):
            continue
        now = found.get(key)
        if "value" not in value:
            yield from differences(value, now if isinstance(now, Mapping) else {}, f"{name} / ")
        elif not isinstance(now, Mapping) or "value" not in now:
            yield f"{name}: {value['value']:.6g} on the card, nothing now"
        elif abs(now["value"] - value["value"]) > _allowed(value):
            yield f"{name}: {value['value']:.6g} on the card, {now['value']:.6g} now"


def _allowed(value: Mapping[str, Any]) -> float:
    exact = 1e-6 * abs(float(value["value"]))
    if value.get("low") is None or value.get("high") is None:
        return exact
    return max(exact, PART_OF_INTERVAL * float(value["high"] - value["low"]))


__all__ = ["TASKS", "card_figures", "differences"]

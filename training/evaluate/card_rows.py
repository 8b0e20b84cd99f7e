"""The figures on a model's card, a row each, for tables that people read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = {
    "dice": "Dice",
    "surface_dice_1mm": "surface Dice, 1 mm",
    "hd95_median_mm": "HD95, median, mm",
    "long_axis_error_median_mm": "long axis, median error, mm",
    "volume_error_median": "volume, median relative error",
    "ece": "ECE",
    "auc": "AUC",
    "f1": "F1",
    "specificity": "specificity",
    "c_index": "C-index on simulated outcomes",
}
"""What is shown of a card, and how it is called."""
NEEDED = {"value", "low", "high", "cases", "patients"}


@dataclass(frozen=True, kw_only=True)
class CardRow:
    """One figure."""

    model: str
    """Name and version."""
    name: str
    """What was measured, and how the case was shown to the model where that makes a difference."""
    value: float
    """The figure."""
    low: float
    """Lower end of its 95 % interval over patients."""
    high: float
    """Upper end."""
    cases: int
    """How many cases it rests on."""
    patients: int
    """Of how many patients."""


def card_rows(weights: Path) -> tuple[CardRow, ...]:
    """Return the figures of every card below a folder, by model; those without an interval are left out."""
    rows = []
    for path in sorted(weights.glob("*/card.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        model = f"{card['name']} {card['version']}"
        for name, said in _figures(card["figures"]):
            told = {key: said[key] for key in NEEDED}
            rows.append(CardRow(model=model, name=name, **told))
    return tuple(rows)


def _figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for where, said in figures.get("segmentation", {}).get("settings", {}).items():
        yield from ((f"{NAMES[key]} ({where})", said[key]) for key in NAMES if _is_told(said.get(key)))
    rated = figures.get("classification", {})
    for where, said in rated.get("settings", {"": rated.get("figures", {})}).items():
        how = f" ({where})" if where else ""
        yield from ((NAMES[key] + how, said[key]) for key in NAMES if _is_told(said.get(key)))
    said = figures.get("survival", {}).get("figures", {})
    yield from ((NAMES[key], said[key]) for key in NAMES if _is_told(said.get(key)))
    found = figures.get("detection", {}).get("sensitivity_at_false_positives_per_scan", {})
    yield from ((f"sensitivity at {rate} false positives a scan", value) for rate, value in found.items())


def _is_told(said: object) -> bool:
    return isinstance(said, Mapping) and set(said) >= NEEDED


__all__ = ["CardRow", "card_rows"]

"""Units of lengths and volumes, and what a number in one of them is in another."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

MM3: Final = {"mm3": 1.0, "um3": 1e-9, "cm3": 1e3, "ml": 1e3, "mL": 1e3, "dm3": 1e6, "l": 1e6, "L": 1e6}
"""Cubic millimetres of each unit of volume."""
MM: Final = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3}
"""Millimetres of each unit of length."""


def converted(value: float, unit: str, to: str, units: Mapping[str, float]) -> float | None:
    """Return a number of one unit in another of `units`, exact in decimals; None when the unit is none of them."""
    if unit not in units:
        return None
    return float(Decimal(repr(value)) * Decimal(repr(units[unit])) / Decimal(repr(units[to])))


__all__ = ["MM", "MM3", "converted"]

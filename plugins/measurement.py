"""What an analysis measured: one number. Taken from `plugins.contract`, like all of the contract.

Numbers of numpy are kept as plain ones, which SQL, JSON and DICOM can hold.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import SupportsIndex

from pydicom.sr.coding import Code

from plugins.errors import OffContract

Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number with everything that is needed to read it again in ten years."""

    name: str
    """Our name: `long_axis`, `short_axis`, `volume`, `suv_max`, `laa_950`, ..."""
    concept: Code
    """What was measured."""
    value: float
    """The number, in `unit`; never NaN."""
    unit: Code
    """UCUM unit."""
    method: str
    """The convention in words (`0.5-level contour, slice of the largest long axis`)."""
    derivation: Code | None = None
    """Mean, maximum, ... when the number is derived from many voxels."""
    uncertainty: float | None = None
    """One standard deviation, in `unit`, when it is known."""
    end_points_mm: tuple[Point, Point] | None = None
    """Where a length begins and ends, LPS mm."""
    slice_index: int | None = None
    """Slice k in which the end points lie."""

    def __post_init__(self) -> None:
        held: dict[str, object] = {"value": finite(self.value, f"the value of measurement '{self.name}'")}
        if self.uncertainty is not None:
            held["uncertainty"] = finite(self.uncertainty, f"the uncertainty of measurement '{self.name}'")
        if self.end_points_mm is not None:
            held["end_points_mm"] = _ends(self.end_points_mm, f"the end points of measurement '{self.name}'")
        if self.slice_index is not None:
            held["slice_index"] = whole(self.slice_index, f"the slice index of measurement '{self.name}'")
        for name, value in held.items():
            object.__setattr__(self, name, value)


def finite(value: object, what: str) -> float:
    """Return a number, also one of numpy, as a plain float. Raises OffContract when it is none, or not finite."""
    if not isinstance(value, Real):
        raise OffContract(f"{what} is a {type(value).__name__}, not a number")
    if not math.isfinite(value):
        raise OffContract(f"{what} is {float(value)}, not a finite number")
    return float(value)


def whole(value: SupportsIndex, what: str) -> int:
    """Return a number that counts, also one of numpy, as a plain int. Raises OffContract when it is none."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise OffContract(f"{what} is a {type(value).__name__}, not a whole number") from error
    if number < 0:
        raise OffContract(f"{what} is {number}, not a whole number from 0")
    return number


def _ends(ends: Iterable[Iterable[object]], what: str) -> tuple[Point, Point]:
    try:
        first, second = ((x, y, z) for x, y, z in ends)
    except (TypeError, ValueError) as error:
        raise OffContract(f"{what} are not two points of three numbers") from error
    one, two = (tuple(finite(x, f"one of {what}") for x in point) for point in (first, second))
    return (one[0], one[1], one[2]), (two[0], two[1], two[2])


__all__ = ["Measurement", "Point", "finite", "whole"]

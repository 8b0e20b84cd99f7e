"""What an analysis measured: one number. Taken from `plugins.contract`, like all of the contract."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        if not math.isfinite(self.value):
            raise OffContract(f"measurement {self.name} is not a finite number")


__all__ = ["Measurement", "Point"]

"""What an analysis measured: one number. Taken from `plugins.contract`, like all of the contract.

Numbers of numpy are kept as plain ones, which SQL, JSON and DICOM can hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.sr.coding import Code

from plugins.given_values import Point, ends, finite, whole, writable


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
            held["end_points_mm"] = ends(self.end_points_mm, f"the end points of measurement '{self.name}'")
        if self.slice_index is not None:
            held["slice_index"] = whole(self.slice_index, f"the slice index of measurement '{self.name}'")
        for name, value in held.items():
            object.__setattr__(self, name, value)
        for name in ("concept", "unit") if self.derivation is None else ("concept", "unit", "derivation"):
            writable(getattr(self, name), f"the {name} of measurement '{self.name}'")


__all__ = ["Measurement", "Point"]

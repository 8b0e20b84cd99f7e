"""Looking at any series along the axes of the patient: Z to the head, Y to the back, X to the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from plugins.contract import Volume

AnyArray = TypeVar("AnyArray", bound=NDArray[Any])


@dataclass(frozen=True, kw_only=True)
class PatientAxes:
    """How the array axes (k, r, c) of a series lie in the patient, to the nearest axis when they are oblique."""

    order: tuple[int, int, int]
    """Array axis that runs along head, back, left."""
    flipped: tuple[bool, bool, bool]
    """True where that axis runs the other way (to the feet, the front, the right)."""

    @classmethod
    def of(cls, volume: Volume) -> PatientAxes:
        """Return the axes of a volume, from its affine."""
        return cls.along(volume.geometry.affine)

    @classmethod
    def along(cls, affine: NDArray[Any]) -> PatientAxes:
        """Return the axes of an array by the affine from its index to LPS."""
        directions = np.asarray(affine, dtype=np.float64)[:3, :3]
        cosines = directions / np.linalg.norm(directions, axis=0)
        order: list[int] = []
        for patient_axis in (2, 1, 0):
            ranked = np.argsort(-np.abs(cosines[patient_axis]))
            order.append(next(int(a) for a in ranked if int(a) not in order))
        flipped = [bool(cosines[p, a] < 0) for p, a in zip((2, 1, 0), order, strict=True)]
        return cls(order=(order[0], order[1], order[2]), flipped=(flipped[0], flipped[1], flipped[2]))

    def to_patient(self, array: AnyArray) -> AnyArray:
        """Return the view `(Z, Y, X)` of an array `(K, R, C)`."""
        view: AnyArray = array.transpose(self.order)[self._step()]  # type: ignore[assignment]
        return view

    def from_patient(self, array: AnyArray) -> AnyArray:
        """Return the view `(K, R, C)` of an array `(Z, Y, X)`: the inverse of `to_patient`."""
        view: AnyArray = array[self._step()].transpose(tuple(int(a) for a in np.argsort(self.order)))  # type: ignore[assignment]
        return view

    def index(self, place: tuple[int, int, int], shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the index (k, r, c) of a voxel (z, y, x) of a view of this `shape` (Z, Y, X)."""
        found = [0, 0, 0]
        for axis, flip, i, n in zip(self.order, self.flipped, place, shape, strict=True):
            found[axis] = n - 1 - i if flip else i
        return (found[0], found[1], found[2])

    def spacing(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the spacing (z, y, x) of a spacing (k, r, c), mm."""
        return (spacing_mm[self.order[0]], spacing_mm[self.order[1]], spacing_mm[self.order[2]])

    def _step(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return (z, y, x)


UPRIGHT = PatientAxes(order=(0, 1, 2), flipped=(False, False, False))
"""The axes of an axial series that runs from the feet to the head."""

"""How much two lesions lie in the same place, from their masks or, where one has none, from balls of their volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import pi

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from plugins.contract import Mask, Point

Spacing = tuple[float, float, float]
WIDEST_MM = 8.0
"""Masks are dilated at most so far, mm."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How two lesions, an earlier one as expected and a present one, lie in each other."""

    iou: float
    """Intersection over union of both, dilated; 0 to 1."""
    held: float
    """Share of the present one that lies in the dilated earlier one, 0 to 1."""
    covered: float
    """Share of the earlier one that lies in the dilated present one, 0 to 1."""


NONE = Overlap(iou=0.0, held=0.0, covered=0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """What a lesion fills."""

    centre_mm: Point
    """Centre of gravity, LPS mm."""
    volume_mm3: float
    """Volume; 0 when it is not known."""
    mask: Mask | None
    """Its mask; None when there is none."""
    spacing_mm: Spacing
    """Distance of two voxels of the mask along k, r, c; mm."""

    @property
    def radius_mm(self) -> float:
        """Return the radius of the ball of equal volume, mm."""
        return float((3 * self.volume_mm3 / (4 * pi)) ** (1 / 3))

    @cached_property
    def away(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the index of the first voxel of a box around the mask, and the distances (k, r, c) to it, mm."""
        if self.mask is None:
            raise ValueError("a body without a mask has no distances")
        margin = np.array([int(np.ceil(WIDEST_MM / s)) for s in self.spacing_mm])
        wide = np.pad(~self.mask.voxels, [(m, m) for m in margin], constant_values=True)
        away = ndimage.distance_transform_edt(wide, sampling=self.spacing_mm).astype(np.float32)
        return np.asarray(self.mask.origin) - margin, away

    def box(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the distances to the mask, mm, of the voxels from `low` to `high`, both inside its wide box."""
        first, away = self.away
        return away[tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))]


def overlap(earlier: Body, present: Body, dilated_mm: float) -> Overlap:
    """Return how an earlier lesion, as expected, and a present one overlap when dilated by `dilated_mm` (at most 8 mm).

    Of a lesion without a mask on the same grid as the other's, the ball of its volume is taken, for both of them.
    """
    masks = earlier.mask, present.mask
    if masks[0] is None or masks[1] is None or masks[0].shape != masks[1].shape:
        return _of_balls(earlier, present, dilated_mm)
    spans = [(first, first + np.asarray(away.shape)) for first, away in (earlier.away, present.away)]
    low, high = np.maximum(spans[0][0], spans[1][0]), np.minimum(spans[0][1], spans[1][1])
    if (low >= high).any():
        return NONE
    a, b = earlier.box(low, high), present.box(low, high)
    both = int(np.count_nonzero((a <= dilated_mm) & (b <= dilated_mm)))
    if both == 0:
        return NONE
    either = sum(int(np.count_nonzero(body.away[1] <= dilated_mm)) for body in (earlier, present)) - both
    return Overlap(
        iou=both / either,
        held=int(np.count_nonzero((a <= dilated_mm) & (b == 0))) / masks[1].count,
        covered=int(np.count_nonzero((b <= dilated_mm) & (a == 0))) / masks[0].count,
    )


def _of_balls(earlier: Body, present: Body, dilated_mm: float) -> Overlap:
    apart = float(np.linalg.norm(np.subtract(earlier.centre_mm, present.centre_mm)))
    small, large = earlier.radius_mm, present.radius_mm
    both = lens_mm3(small + dilated_mm, large + dilated_mm, apart)
    either = _ball_mm3(small + dilated_mm) + _ball_mm3(large + dilated_mm) - both
    return Overlap(
        iou=both / either if either else 0.0,
        held=_share(lens_mm3(small + dilated_mm, large, apart), large, apart <= small + dilated_mm),
        covered=_share(lens_mm3(small, large + dilated_mm, apart), small, apart <= large + dilated_mm),
    )


def _share(part_mm3: float, radius_mm: float, centre_inside: bool) -> float:
    return part_mm3 / _ball_mm3(radius_mm) if radius_mm else float(centre_inside)


def _ball_mm3(radius_mm: float) -> float:
    return 4 / 3 * pi * radius_mm**3


def lens_mm3(a_mm: float, b_mm: float, apart_mm: float) -> float:
    """Return the volume, mm^3, that two balls of radius a and b share whose centres are so far apart.

    Source: https://mathworld.wolfram.com/Sphere-SphereIntersection.html, equation 16.
    """
    if apart_mm >= a_mm + b_mm:
        return 0.0
    if apart_mm <= abs(a_mm - b_mm):
        return _ball_mm3(min(a_mm, b_mm))
    squares = apart_mm**2 + 2 * apart_mm * (a_mm + b_mm) - 3 * (a_mm - b_mm) ** 2
    return pi * (a_mm + b_mm - apart_mm) ** 2 * squares / (12 * apart_mm)


__all__ = ["NONE", "Body", "Overlap", "lens_mm3", "overlap"]

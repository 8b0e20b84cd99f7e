"""How much two lesions lie in the same place, from their masks or, where one has none, from balls of their volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import pi

import highdicom
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from plugins.contract import Mask

Floats = NDArray[np.float64]
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

    volume_mm3: float
    """Volume; 0 when it is not known."""
    mask: Mask | None
    """Its mask; None when there is none."""
    geometry: highdicom.VolumeGeometry
    """The grid of the mask."""

    @property
    def radius_mm(self) -> float:
        """Return the radius of the ball of equal volume, mm."""
        return ball_radius_mm(self.volume_mm3)

    @cached_property
    def away(self) -> NDArray[np.float32]:
        """Return the distance (k, r, c) of each voxel of the wide box to the mask, mm; ValueError without a mask."""
        if self.mask is None:
            raise ValueError("a body without a mask has no distances")
        wide = np.pad(~self.mask.voxels, [(m, m) for m in self._margin], constant_values=True)
        return np.asarray(
            ndimage.distance_transform_edt(wide, sampling=self.geometry.spacing), dtype=np.float32
        )

    def box(self, mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the index of the first voxel of the wide box, and of the first beyond it; it may leave the grid."""
        low = np.asarray(mask.origin, dtype=np.int64)
        return low - self._margin, low + mask.voxels.shape + self._margin

    @property
    def _margin(self) -> NDArray[np.int64]:
        return np.ceil(WIDEST_MM / np.asarray(self.geometry.spacing)).astype(np.int64)

    def voxels(self, way_mm: Floats) -> NDArray[np.int64]:
        """Return the way (x, y, z), mm, in whole voxels (k, r, c)."""
        way = np.linalg.solve(self.geometry.affine[:3, :3], way_mm)
        return np.asarray(np.rint(way), dtype=np.int64)


def overlap(earlier: Body, present: Body, apart_mm: float, dilated_mm: float, shift_mm: Floats) -> Overlap:
    """Return how an earlier lesion, moved by `shift_mm` (x, y, z), and a present one overlap, both dilated.

    The shift is rounded to whole voxels, and the dilation is at most 8 mm. Of a lesion without a mask on the same grid
    as the other's, the ball of its volume is taken, for both of them, with their centres `apart_mm`.
    """
    masks = earlier.mask, present.mask
    if masks[0] is None or masks[1] is None or masks[0].shape != masks[1].shape:
        return _of_balls(earlier.radius_mm, present.radius_mm, apart_mm, dilated_mm)
    step = earlier.voxels(shift_mm)
    (low_a, high_a), (low_b, high_b) = earlier.box(masks[0]), present.box(masks[1])
    low_a, high_a = low_a + step, high_a + step
    low, high = np.maximum(low_a, low_b), np.minimum(high_a, high_b)
    if (low >= high).any():
        return NONE
    a, b = earlier.away, present.away
    near_a, near_b = (
        far[tuple(slice(p, q) for p, q in zip(low - first, high - first, strict=True))]
        for first, far in ((low_a, a), (low_b, b))
    )
    both = int(np.count_nonzero((near_a <= dilated_mm) & (near_b <= dilated_mm)))
    if both == 0:
        return NONE
    either = int(np.count_nonzero(a <= dilated_mm)) + int(np.count_nonzero(b <= dilated_mm)) - both
    return Overlap(
        iou=both / either,
        held=int(np.count_nonzero((near_a <= dilated_mm) & (near_b == 0))) / masks[1].count,
        covered=int(np.count_nonzero((near_b <= dilated_mm) & (near_a == 0))) / masks[0].count,
    )


def _of_balls(earlier_mm: float, present_mm: float, apart_mm: float, dilated_mm: float) -> Overlap:
    """Return the overlap of two balls of such radii."""
    both = lens_mm3(earlier_mm + dilated_mm, present_mm + dilated_mm, apart_mm)
    either = _ball_mm3(earlier_mm + dilated_mm) + _ball_mm3(present_mm + dilated_mm) - both
    held = lens_mm3(earlier_mm + dilated_mm, present_mm, apart_mm)
    covered = lens_mm3(earlier_mm, present_mm + dilated_mm, apart_mm)
    return Overlap(
        iou=both / either if either else 0.0,
        held=_share(held, present_mm, apart_mm <= earlier_mm + dilated_mm),
        covered=_share(covered, earlier_mm, apart_mm <= present_mm + dilated_mm),
    )


def _share(part_mm3: float, radius_mm: float, centre_inside: bool) -> float:
    return part_mm3 / _ball_mm3(radius_mm) if radius_mm else float(centre_inside)


def ball_radius_mm(volume_mm3: float) -> float:
    """Return the radius of the ball of a volume, mm."""
    return float((3 * volume_mm3 / (4 * pi)) ** (1 / 3))


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


__all__ = ["NONE", "Body", "Overlap", "ball_radius_mm", "lens_mm3", "overlap"]

"""What surrounds a point or a mask of a chest CT: lung, or something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]

LUNG_HU = -500.0
DENSE_HU = -400.0
AIRY_HU = -850.0
"""Aerated lung itself."""
DEEP_MM = 10.0
"""Nearer to the middle of a mass there is no lung; the first look shows whatever is not so deep whole, or its edge."""
LUNG_MM3 = 300.0
"""So much lung is lung, not a bubble."""


def is_dense(image: Array, spacing_mm: Spacing, point: Sequence[float]) -> bool:
    """Return whether there is tissue at a point, and not lung alone."""
    k, r, c = (
        slice(max(0, round(p - 2 / s)), round(p + 2 / s) + 1) for p, s in zip(point, spacing_mm, strict=True)
    )
    return float(np.median(image[k, r, c])) > DENSE_HU


def is_deep(image: Array, spacing_mm: Spacing, point: Sequence[float]) -> bool:
    """Return whether there is no lung within `DEEP_MM` of a point, noise smoothed away."""
    reach = [DEEP_MM / s for s in spacing_mm]
    box = tuple(slice(max(0, int(p - r)), int(p + r) + 2) for p, r in zip(point, reach, strict=True))
    at = np.argwhere(smoothed(image[box], spacing_mm) < LUNG_HU) + [side.start for side in box]
    near = np.linalg.norm((at - np.asarray(point)) * np.asarray(spacing_mm), axis=1) <= DEEP_MM
    return bool(np.count_nonzero(near) * np.prod(spacing_mm) < LUNG_MM3)


def smoothed(image: Array, spacing_mm: Sequence[float]) -> Array:
    """Return an image `(K, R, C)` without its noise: a Gaussian of 1 mm, of one voxel where these are smaller."""
    return np.asarray(ndimage.gaussian_filter(image, [min(1.0, 1.0 / s) for s in spacing_mm]))


def aeration(part: Array, mask: BoolArray, spacing_mm: Spacing) -> float:
    """Return the part of what lies 1 to 3.5 mm (a voxel at least) beyond a mask that is lung; 1 when nothing does."""
    if not mask.any():
        return 1.0
    far_mm = max(3.5, max(spacing_mm) + 0.5)
    box = box_around(mask, far_mm, spacing_mm)
    away = ndimage.distance_transform_edt(~mask[box], sampling=spacing_mm)
    around = part[box][(away > 1.0) & (away <= far_mm)]
    return float(np.mean(around < LUNG_HU)) if around.size else 1.0


def box_around(mask: BoolArray, reach_mm: float, spacing_mm: Spacing) -> tuple[slice, slice, slice]:
    """Return the box of a mask `(K, R, C)` that is not empty, with all that lies within `reach_mm` and a voxel more."""
    held, reach = np.argwhere(mask), np.ceil(reach_mm / np.asarray(spacing_mm)).astype(int) + 1
    low, high = np.maximum(held.min(axis=0) - reach, 0), held.max(axis=0) + reach + 1
    k, r, c = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (k, r, c)


__all__ = ["AIRY_HU", "aeration", "box_around", "is_deep", "is_dense", "smoothed"]

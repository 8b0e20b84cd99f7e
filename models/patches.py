"""Patches: a grid of its own spacing around a point of an image, there and back.

Positions are voxel indices `(k, r, c)`, not whole; spacings and offsets are mm; the axes of a patch run as those of the
image do. The middle of a patch of n voxels lies at (n - 1) / 2. Both ways are linear and axis by axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PatchGrid:
    """A grid of voxels that is laid around a point."""

    shape: tuple[int, int, int]
    """Voxels `(K, R, C)`."""
    spacing_mm: tuple[float, float, float]
    """Distance of two voxels along k, r, c; mm."""

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Return the length of the patch along k, r, c; mm."""
        k, r, c = (n * s for n, s in zip(self.shape, self.spacing_mm, strict=True))
        return (k, r, c)


def cut(image: Array, spacing_mm: Sequence[float], point: Sequence[float], grid: PatchGrid) -> Array:
    """Return the patch of an image `(K, R, C)` around a point (voxel index, not whole), shape `grid.shape`.

    Linear; beyond the image its outermost voxels are repeated. Where the patch is coarser than the image nothing is
    averaged.
    """
    out = image
    for axis in range(3):
        n, s = grid.shape[axis], grid.spacing_mm[axis]
        at = point[axis] + (np.arange(n) - (n - 1) / 2) * (s / spacing_mm[axis])
        out = _sampled(out, axis, np.clip(at, 0, image.shape[axis] - 1))
    return np.ascontiguousarray(out, dtype=np.float32)


def put_back(
    patch: Array,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    point: Sequence[float],
    grid: PatchGrid,
    outside: float = 0.0,
) -> Array:
    """Return a patch that was cut around a point, on the grid `(K, R, C)` of the image: linear between its voxels.

    Voxels of the image further than half a voxel beyond the patch have the value `outside`.
    """
    out = np.full(tuple(shape), outside, dtype=np.float32)
    box: list[slice] = []
    inner: Array = patch
    for axis in range(3):
        n, s = grid.shape[axis], grid.spacing_mm[axis]
        at = (np.arange(shape[axis]) - point[axis]) * (spacing_mm[axis] / s) + (n - 1) / 2
        held = np.flatnonzero((at >= -0.5) & (at <= n - 0.5))
        if held.size == 0:
            return out
        box.append(slice(int(held[0]), int(held[-1]) + 1))
        inner = _sampled(inner, axis, np.clip(at[held], 0, n - 1))
    out[tuple(box)] = inner
    return out


def point_channel(grid: PatchGrid, sigma_mm: float, offset_mm: Sequence[float] = (0.0, 0.0, 0.0)) -> Array:
    """Return a Gaussian of height 1 at `offset_mm` (k, r, c) from the middle of the patch, shape `grid.shape`."""
    parts = [
        np.exp(-0.5 * (((np.arange(n) - (n - 1) / 2) * s - o) / sigma_mm) ** 2)
        for n, s, o in zip(grid.shape, grid.spacing_mm, offset_mm, strict=True)
    ]
    product = parts[0][:, None, None] * parts[1][None, :, None] * parts[2][None, None, :]
    return np.asarray(product, dtype=np.float32)


def scaled(hu: Array, low_hu: float, high_hu: float) -> Array:
    """Return HU clipped to a window and scaled so that its ends are -1 and 1; same shape."""
    half = (high_hu - low_hu) / 2
    return np.asarray((np.clip(hu, low_hu, high_hu) - low_hu) / half - 1, dtype=np.float32)


def _sampled(image: Array, axis: int, at: Floats) -> Array:
    """Return the image at positions along one axis, linear between its voxels."""
    low = np.minimum(at.astype(np.int64), max(image.shape[axis] - 2, 0))
    high = np.minimum(low + 1, image.shape[axis] - 1)
    part = [1, 1, 1]
    part[axis] = -1
    weight = (at - low).astype(np.float32).reshape(part)
    between = np.take(image, low, axis) * (1 - weight) + np.take(image, high, axis) * weight
    return np.asarray(between, dtype=np.float32)

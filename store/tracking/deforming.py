"""The smooth deformation that is left between two images of a patient after a rigid motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from store.tracking.motion import Deformation
from store.tracking.thinned import Thinned

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]

WINDOW = 5
"""Side of the neighbourhood in which both images are correlated, grid points."""
STEP = 0.6
"""Longest step of one iteration, grid points."""
UPDATE_SIGMA = 2.0
"""Smoothing of every step (Gaussian), grid points."""
FIELD_SIGMA = 0.7
"""Smoothing of the whole deformation after every step, grid points."""
FLAT = 1e-4
"""Variance, of values from 0 to 1, below which a neighbourhood says nothing."""
STIFF = 1.0
"""What is added to the squared slope of the normalised image: steps are short where it is flat."""
SETTLED = 0.02
"""No step longer than this, grid points: the search has come to its end."""
STRUCTURED = 1e-3
"""Variance from which on a neighbourhood is asked whether it is alike."""
LEAST_SHAPE = 6
"""Fewer grid points along an axis show no deformation."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One round of the search."""

    factor: int
    """How many times coarser than the images that are given."""
    iterations: int
    """How many steps."""


LEVELS = (Level(factor=4, iterations=30), Level(factor=2, iterations=30), Level(factor=1, iterations=15))


def deform(new: Thinned, earlier: Thinned, matrix: Floats, levels: tuple[Level, ...] = LEVELS) -> Deformation:
    """Return the deformation of the earlier study that lays it on the new one, before the rigid motion `matrix`.

    Steps go uphill on the squared local correlation, are smoothed and added up, on finer and finer grids (Avants et
    al., Med Image Anal 12 (2008) 26, with Newton's steps, and sums instead of compositions, so that it may fold). What
    the new image does not show pulls nowhere and follows its surroundings.
    """
    around = earlier.around_body()
    field: Array | None = None
    grid = around
    for level in levels:
        fixed = around.coarser(level.factor)
        if min(fixed.values.shape) < LEAST_SHAPE:
            continue
        start = (
            np.zeros((3, *fixed.values.shape), dtype=np.float32)
            if field is None
            else _refined(field, grid, fixed)
        )
        field, grid = _climb(new.coarser(level.factor), fixed, matrix, start, level.iterations), fixed
    if field is None:
        field = np.zeros((3, *grid.values.shape), dtype=np.float32)
    return Deformation(mm=field, origin_mm=grid.origin_mm, spacing_mm=grid.spacing_mm)


def _refined(field: Array, grid: Thinned, finer: Thinned) -> Array:
    """Return a field on another grid."""
    index = (finer.points() - np.asarray(grid.origin_mm, dtype=np.float32).reshape(3, 1, 1, 1)) / np.float32(
        grid.spacing_mm
    )
    return np.stack([ndimage.map_coordinates(part, index[::-1], order=1, mode="nearest") for part in field])


def _climb(new: Thinned, fixed: Thinned, matrix: Floats, field: Array, iterations: int) -> Array:
    """Return the field after `iterations` steps on one grid."""
    turn, shift = matrix[:3, :3].astype(np.float32), matrix[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    points = fixed.points()
    near = ndimage.binary_dilation(fixed.body, iterations=2) & fixed.view
    for _ in range(iterations):
        warped = new.at(np.tensordot(turn, points + field, axes=1) + shift)
        step = _newton(fixed.values, warped, near & np.isfinite(warped))
        longest = float(np.sqrt((step * step).sum(axis=0)).max())
        if longest < SETTLED:
            break
        field += step * np.float32(fixed.spacing_mm * min(1.0, STEP / longest))
        for part in field:
            ndimage.gaussian_filter(part, FIELD_SIGMA, output=part, mode="nearest", truncate=3)
    return field


def _newton(fixed: Array, warped: Array, seen: BoolArray) -> Array:
    """Return the step x, y, z `(3, K, R, C)`, grid points, towards a larger local correlation where both are seen."""
    moved = np.where(seen, warped, np.float32(0))
    fixed_mean, moved_mean, fixed_variance, moved_variance, both = _moments(fixed, moved, seen)
    likeness = both / np.sqrt(fixed_variance * moved_variance)
    differs = (fixed - fixed_mean) / np.sqrt(fixed_variance) - likeness * (moved - moved_mean) / np.sqrt(
        moved_variance
    )
    slopes = np.stack(list(np.gradient(moved))[::-1]) / np.sqrt(moved_variance)
    slopes *= ndimage.binary_erosion(seen, border_value=1)
    steep = ndimage.gaussian_filter((slopes * slopes).sum(axis=0), UPDATE_SIGMA, truncate=3) + np.float32(
        STIFF
    )
    slopes *= differs * likeness
    for part in slopes:
        ndimage.gaussian_filter(part, UPDATE_SIGMA, output=part, truncate=3)
    return np.asarray(slopes / steep, dtype=np.float32)


def local_likeness(fixed: Array, warped: Array, seen: BoolArray) -> Array:
    """Return the correlation `(K, R, C)` of two images in the neighbourhood of each point; NaN where one is flat."""
    moments = _moments(fixed, np.where(seen, warped, np.float32(0)), seen)
    _, _, fixed_variance, moved_variance, both = moments
    told = seen & (fixed_variance > STRUCTURED)
    return np.where(told, both / np.sqrt(fixed_variance * moved_variance), np.float32(np.nan))


def _moments(fixed: Array, moved: Array, seen: BoolArray) -> tuple[Array, ...]:
    """Return local means, variances (never 0) and covariance of two images where both are seen."""
    kept = np.where(seen, fixed, np.float32(0))
    count = np.asarray(np.maximum(_mean(seen.astype(np.float32)), 1e-3), dtype=np.float32)
    fixed_mean, moved_mean = _mean(kept) / count, _mean(moved) / count
    fixed_variance = np.maximum(_mean(kept * kept) / count - fixed_mean**2, 0) + np.float32(FLAT)
    moved_variance = np.maximum(_mean(moved * moved) / count - moved_mean**2, 0) + np.float32(FLAT)
    both = np.asarray(_mean(kept * moved) / count - fixed_mean * moved_mean, dtype=np.float32)
    return fixed_mean, moved_mean, fixed_variance, moved_variance, both


def _mean(array: Array) -> Array:
    return np.asarray(ndimage.uniform_filter(array, WINDOW, mode="constant"), dtype=np.float32)


__all__ = ["LEVELS", "Level", "deform", "local_likeness"]

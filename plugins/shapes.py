"""Shapes of masks in millimetres: boxes, depth, closing by a ball, holes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def deeper_than(mask: BoolArray, depth_mm: float, spacing_mm: Spacing) -> BoolArray:
    """Return the voxels deeper than `depth_mm` inside the mask; the edge of the grid is no surface."""
    deep: BoolArray = depth_in_mm(mask, spacing_mm) > depth_mm
    return deep


def depth_in_mm(mask: BoolArray, spacing_mm: Spacing) -> Array:
    """Return the distance (mm) of each voxel of the mask to what is not mask, computed in its box."""
    depth = np.zeros(mask.shape, dtype=np.float32)
    box = bounding_box(mask, 1)
    depth[box] = ndimage.distance_transform_edt(mask[box], sampling=spacing_mm)
    return depth


def bounding_box(mask: BoolArray, margin: int) -> tuple[slice, slice, slice]:
    """Return the box of a mask with `margin` voxels around it, cut at the grid; empty for an empty mask."""
    bounds: list[slice] = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        first, last = (int(hit[0]), int(hit[-1])) if hit.size else (0, -1)
        bounds.append(slice(max(0, first - margin), min(mask.shape[axis], last + 1 + margin)))
    return (bounds[0], bounds[1], bounds[2])


def without_holes(mask: BoolArray) -> BoolArray:
    """Return the mask with the holes of each of its slices along the first axis filled."""
    out = mask.copy()
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        out[z] = ndimage.binary_fill_holes(mask[z])
    return out


def closing_by_ball(mask: BoolArray, radius_mm: float, spacing_mm: Spacing) -> BoolArray:
    """Return the closing of the mask by a ball; large balls roll on a coarser grid, for speed."""
    step = [max(1, int(radius_mm / 8.0 / s)) for s in spacing_mm]
    margin = [int(np.ceil(radius_mm / s)) + n for s, n in zip(spacing_mm, step, strict=True)]
    box = bounding_box(mask, 0)
    part = np.pad(mask[box], [(m, m + n) for m, n in zip(margin, step, strict=True)])
    small = part[tuple(slice(n // 2, None, n) for n in step)]
    sampling = [s * n for s, n in zip(spacing_mm, step, strict=True)]
    near = ndimage.distance_transform_edt(~small, sampling=sampling) <= radius_mm
    shut = ndimage.distance_transform_edt(near, sampling=sampling) > radius_mm
    index = [
        np.minimum(np.arange(n) // f, m - 1) for n, f, m in zip(part.shape, step, shut.shape, strict=True)
    ]
    whole = shut[np.ix_(*index)][
        tuple(slice(m, m + b.stop - b.start) for m, b in zip(margin, box, strict=True))
    ]
    out = mask.copy()
    out[box] |= whole
    return out

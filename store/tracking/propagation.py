"""Where a lesion of an earlier study is expected in a new one, and whether tissue like it is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from plugins.contract import Mask, Point, Volume
from plugins.errors import Refused
from store.tracking.motion import Motion

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]

PADDING_HU = -1500.0
"""No tissue and no air is below."""
MOST_POINTS = 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where an earlier lesion is expected."""

    expected_mm: Point
    """Centre of gravity of its voxels after the motion, LPS mm in the new study."""
    mask: Mask
    """Its region on the grid of the new volume; empty when no voxel of it lies on that grid."""
    in_view: float
    """Share of it that the new volume shows, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """Whether tissue like the earlier lesion is near the expected place."""

    visible: bool
    """True when both the likeness and the contrast say so."""
    score: float
    """0 to 1: likeness (normalised cross-correlation) times what is left of the contrast."""
    likeness: float
    """Best normalised cross-correlation, -1 to 1."""
    contrast: float
    """Contrast of the region to its surroundings, as a share of the earlier one's; 0 none, 1 the same."""
    scale: float
    """Size of the best match, as a multiple of the earlier one's."""
    found_mm: Point
    """Where the best match lies, LPS mm in the new study."""
    offset_mm: float
    """How far that is from the expected place."""
    sentence: str
    """The same in words."""


def propagate(mask: Mask, earlier: Volume, new: Volume, motion: Motion) -> Place:
    """Return where a region of the earlier volume is expected in the new one.

    A voxel of the new grid belongs to the region when its centre, taken back through the motion, lies in a voxel of
    `mask`; when no centre does, as for a small lesion between thick slices, the voxels into which centres of `mask`
    fall belong to it. The expected centre and the share in view come from the centres of `mask` taken forward, so
    that they also know of places that the new grid does not have. Refuses `empty-mask`.
    """
    points = motion.to_new(earlier.to_mm(_centres(mask)))
    x, y, z = points.mean(axis=0)
    return Place(
        expected_mm=(float(x), float(y), float(z)),
        mask=_on_grid(mask, earlier, new, motion, new.to_index(points)),
        in_view=float(in_view(new, points).mean()),
    )


def _centres(mask: Mask) -> Floats:
    """Return the index points of a mask that is not empty; evenly fewer of very many."""
    if mask.count == 0:
        raise Refused("empty-mask", "an empty region has no place")
    points = np.argwhere(mask.voxels) + np.asarray(mask.origin, dtype=np.float64)
    return np.asarray(points[:: 1 + len(points) // MOST_POINTS], dtype=np.float64)


def in_view(volume: Volume, points_mm: Floats) -> BoolArray:
    """Return for points (N, 3), LPS mm, whether the volume shows them (N,).

    It does not beyond its bounds, nor in padding: below -1500 HU in CT, or in a neighbourhood of one value throughout
    that is the lowest of the volume, as outside a circular field of view and in slices that were not filled.
    """
    index = np.rint(volume.to_index(points_mm)).astype(np.int64)
    shape = np.asarray(volume.array.shape)
    inside = np.asarray(((index >= 0) & (index < shape)).all(axis=1), dtype=np.bool_)
    if not inside.any():
        return inside
    low = np.maximum(index[inside].min(axis=0) - 1, 0)
    high = np.minimum(index[inside].max(axis=0) + 2, shape)
    box = volume.array[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
    padding = ~np.isfinite(box)
    if volume.role == "ct":
        padding |= box < PADDING_HU
    lowest = box == volume.array.min()
    padding |= ndimage.binary_erosion(lowest, np.ones((3, 3, 3)), border_value=1)
    inside[inside] = ~padding[tuple((index[inside] - low).T)]
    return inside


def _on_grid(mask: Mask, earlier: Volume, new: Volume, motion: Motion, forward: Floats) -> Mask:
    """Return the region on the grid of the new volume; `forward` (N, 3) are its points there, as indices (k, r, c)."""
    shape = (int(new.array.shape[0]), int(new.array.shape[1]), int(new.array.shape[2]))
    margin = 1 + np.ceil(max(earlier.spacing_mm) / np.asarray(new.spacing_mm))
    low = np.clip(np.floor(forward.min(axis=0) - margin), 0, shape).astype(int)
    high = np.clip(np.ceil(forward.max(axis=0) + margin) + 1, 0, shape).astype(int)
    box = tuple(int(b - a) for a, b in zip(low, high, strict=True))
    if min(box) <= 0:
        return Mask.from_full(np.zeros(shape, dtype=np.bool_))
    grid = np.indices(box).reshape(3, -1).T + low
    back = np.rint(earlier.to_index(motion.to_earlier(new.to_mm(grid)))).astype(int) - np.asarray(mask.origin)
    inside = ((back >= 0) & (back < mask.voxels.shape)).all(axis=1)
    hit = np.zeros(len(grid), dtype=np.bool_)
    hit[inside] = mask.voxels[tuple(back[inside].T)]
    region = hit.reshape(box)
    if not region.any():
        cells = np.rint(forward).astype(int) - low
        cells = cells[((cells >= 0) & (cells < box)).all(axis=1)]
        region[tuple(cells.T)] = True
    cropped = Mask.from_full(region)
    if cropped.count == 0:
        return Mask(shape=shape, origin=(0, 0, 0), voxels=cropped.voxels)
    k, r, c = (int(a) + b for a, b in zip(low, cropped.origin, strict=True))
    return Mask(shape=shape, origin=(k, r, c), voxels=cropped.voxels)


__all__ = ["Place", "Visibility", "in_view", "propagate"]

"""How many voxels two regions of one grid have in common, each of them a box of voxels that begins somewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plugins.contract import BoolArray, Mask


def common(origin: ArrayLike, box: BoolArray, other_origin: ArrayLike, other_box: BoolArray) -> int:
    """Return how many voxels are in both boxes, which have any number of axes; origins are their first voxels."""
    first, second = (np.asarray(one, dtype=np.int64) for one in (origin, other_origin))
    low = np.maximum(first, second)
    high = np.minimum(first + box.shape, second + other_box.shape)
    if (high <= low).any():
        return 0
    return int(
        np.count_nonzero(_cut(box, low - first, high - first) & _cut(other_box, low - second, high - second))
    )


def overlaps(a: Mask, b: Mask) -> bool:
    """Return whether two masks are on grids of one shape and share a voxel."""
    return a.shape == b.shape and common(a.origin, a.voxels, b.origin, b.voxels) > 0


def _cut(box: BoolArray, low: NDArray[Any], high: NDArray[Any]) -> BoolArray:
    return box[tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))]


__all__ = ["common", "overlaps"]

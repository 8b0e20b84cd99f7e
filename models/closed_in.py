"""What a lesion closes in belongs to it: a dead core takes up nothing, and its rim does.

From a voxel one looks along the 26 directions to its neighbours, as far as `REACH_MM`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BoolArray = NDArray[np.bool_]
Number = TypeVar("Number", bound=np.generic)
DIRECTIONS = tuple(step for step in itertools.product((-1, 0, 1), repeat=3) if any(step))
"""To the neighbours of a voxel, (k, r, c)."""
MOST, THREE_QUARTERS = 14, 20
"""More than half of the directions, and about three quarters."""
REACH_MM = 80.0


def closed_in(mask: BoolArray, spacing_mm: Sequence[float]) -> BoolArray:
    """Return a mask `(K, R, C)` with every voxel from which it is seen in `MOST` directions.

    A hole is closed in, and so is one whose rim has a gap or is open at one end; of a bay only the bottom.
    """
    if not mask.any():
        return mask
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    out = mask.copy()
    out[box] = seen(mask[box].astype(np.uint8), spacing_mm, [MOST])[0] > 0
    return out


def seen(image: NDArray[Number], spacing_mm: Sequence[float], counts: Sequence[int]) -> list[NDArray[Number]]:
    """Return for each count the highest value that is seen in so many directions from each voxel, `(K, R, C)`.

    A voxel sees itself in all directions, and nothing beyond the edge of the image.
    """
    looks = np.stack([_highest(image, step, spacing_mm) for step in DIRECTIONS])
    places = [len(DIRECTIONS) - count for count in counts]
    looks.partition(places, axis=0)
    return [looks[place].copy() for place in places]


def _highest(image: NDArray[Number], step: Sequence[int], spacing_mm: Sequence[float]) -> NDArray[Number]:
    """Return the highest value of each voxel and those that a walk in such steps comes to within the reach."""
    steps = round(REACH_MM / float(np.hypot.reduce(np.multiply(step, spacing_mm))))
    found, walked = image, 0
    while walked < min(steps, max(image.shape)):
        more = min(walked + 1, steps - walked)
        found, walked = _with(found, [more * one for one in step]), walked + more
    return found


def _with(image: NDArray[Number], moved: Sequence[int]) -> NDArray[Number]:
    """Return the higher one of each value and of that at its place moved so."""
    out = image.copy()
    if all(abs(by) < n for n, by in zip(image.shape, moved, strict=True)):
        there = tuple(slice(max(0, by), n + min(0, by)) for n, by in zip(image.shape, moved, strict=True))
        here = tuple(slice(max(0, -by), n - max(0, by)) for n, by in zip(image.shape, moved, strict=True))
        np.maximum(image[here], image[there], out=out[here])
    return out


__all__ = ["DIRECTIONS", "MOST", "REACH_MM", "THREE_QUARTERS", "closed_in", "seen"]

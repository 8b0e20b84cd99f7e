"""The closed contours of one slice to pixels: which of them are holes, which stand twice, which cross.

Pixels are inside by the even-odd rule over all contours (PS3.3 C.8.8.6.3: inner contours are holes). What the rule
would erase by mistake is kept: a contour that stands twice counts once, and contours of which neither holds the other
are taken together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plugins.contract import BoolArray
from store.dicom.common_voxels import common

FloatArray = NDArray[np.float64]

SAME_PIXELS = 0.25
"""Outlines no further apart than this on the whole are one contour that stands twice."""
HELD_FRACTION = 0.1
HELD_PIXELS = 2
"""A hole at the border reaches out of what holds it by no more than such a part of itself, or so many pixels."""
HOLE_WALL = 4
"""How many times what a hole reaches out lies around it at least; two contours that were shifted have it alike."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Enclosed:
    """The pixels that the contours of a slice enclose, and what was doubtful in them."""

    pixels: BoolArray
    """`(rows, columns)`."""
    are_doubled: bool
    """Whether a contour stood there more than once."""
    do_cross: bool
    """Whether contours overlap of which neither holds the other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ring:
    """One contour by itself."""

    length: float
    """Of its outline."""
    ends: FloatArray
    """Least and greatest row and column, `(2, 2)`."""
    origin: NDArray[np.int64]
    """Row and column of its first pixel."""
    pixels: BoolArray
    """What it encloses, within its ends."""

    @classmethod
    def of(cls, polygon: FloatArray, shape: tuple[int, ...]) -> _Ring:
        ends = np.stack([polygon.min(axis=0), polygon.max(axis=0)])
        low = np.clip(np.floor(ends[0]), 0, shape).astype(np.int64)
        high = np.clip(np.ceil(ends[1]) + 1, low, shape).astype(np.int64)
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        length = np.linalg.norm(polygon - np.roll(polygon, 1, axis=0), axis=1).sum()
        return cls(length=float(length), ends=ends, origin=low, pixels=inside([polygon - low], size))

    def window(self) -> tuple[slice, slice]:
        """Return which rows and columns of the slice its pixels are."""
        (row, column), (rows, columns) = self.origin, self.pixels.shape
        return slice(row, row + rows), slice(column, column + columns)

    def common(self, other: _Ring) -> int:
        """Return how many pixels both enclose."""
        return common(self.origin, self.pixels, other.origin, other.pixels)

    def is_same(self, other: _Ring) -> bool:
        """Return whether the other is this contour again: the same pixels, but for some where it was rounded."""
        common = self.common(other)
        apart = np.count_nonzero(self.pixels) + np.count_nonzero(other.pixels) - 2 * common
        if not common or not apart:
            return not apart and common > 0
        ends_meet = (np.abs(self.ends - other.ends) <= SAME_PIXELS).all()
        return bool(ends_meet and apart <= max(1.0, SAME_PIXELS * self.length))

    def holds(self, other: _Ring) -> bool:
        """Return whether the other lies in this one, as a hole does, but for a few pixels at the border."""
        common, size = self.common(other), np.count_nonzero(other.pixels)
        out, rest = size - common, np.count_nonzero(self.pixels) - common
        few = out <= max(HELD_PIXELS, HELD_FRACTION * size) and out < min(common, rest / HOLE_WALL)
        return bool(common > 0 and (out == 0 or few))


def enclosed(polygons: Sequence[FloatArray], shape: tuple[int, ...]) -> Enclosed:
    """Return the pixels inside contours `(n, 2)` of (row, column) on a slice of a shape."""
    near = _near(polygons)
    rings = {i: _Ring.of(polygons[i], shape) for i in sorted({i for pair in near for i in pair})}
    doubled = {j for i, j in near if rings[i].is_same(rings[j])}
    kept = [i for i in range(len(polygons)) if i not in doubled]
    pairs = [(i, j) for i, j in near if not {i, j} & doubled and rings[i].common(rings[j])]
    held = {(i, j) for a, b in pairs for i, j in ((a, b), (b, a)) if rings[i].holds(rings[j])}
    do_cross = any((i, j) not in held and (j, i) not in held for i, j in pairs)
    if do_cross:
        rings = {i: rings[i] if i in rings else _Ring.of(polygons[i], shape) for i in kept}
        return Enclosed(pixels=_together(rings, held, shape), are_doubled=bool(doubled), do_cross=True)
    pixels = inside([polygons[i] for i in kept], shape)
    return Enclosed(pixels=pixels, are_doubled=bool(doubled), do_cross=False)


def _near(polygons: Sequence[FloatArray]) -> list[tuple[int, int]]:
    """Return the pairs of contours, by index and the first one first, whose extents overlap."""
    if len(polygons) < 2:
        return []
    low = np.array([polygon.min(axis=0) for polygon in polygons])
    high = np.array([polygon.max(axis=0) for polygon in polygons])
    overlap = (low[:, None] <= high[None]).all(axis=2) & (high[:, None] >= low[None]).all(axis=2)
    first, second = np.nonzero(np.triu(overlap, k=1))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def _together(rings: Mapping[int, _Ring], held: set[tuple[int, int]], shape: tuple[int, ...]) -> BoolArray:
    """Return what the outermost of some contours enclose, each without what those that it holds enclose."""
    pixels = np.zeros(shape, dtype=np.bool_)
    inner = {j for i, j in held if i in rings}
    for i in rings.keys() - inner:
        own, window = rings[i].pixels, rings[i].window()
        if within := {j: ring for j, ring in rings.items() if (i, j) in held}:
            own = own & ~_together(within, held, shape)[window]
        pixels[window] |= own
    return pixels


def inside(polygons: Sequence[FloatArray], shape: tuple[int, ...]) -> BoolArray:
    """Return which pixel centres lie inside polygons `(n, 2)` of (row, column), by the even-odd rule over all.

    Each edge toggles, in every row whose centre it crosses, all pixels right of the crossing.
    """
    rows, columns = shape
    starts = np.concatenate(polygons)
    ends = np.concatenate([np.roll(p, -1, axis=0) for p in polygons])
    low = np.ceil(np.minimum(starts[:, 0], ends[:, 0])).astype(np.int64).clip(0, rows)
    high = np.ceil(np.maximum(starts[:, 0], ends[:, 0])).astype(np.int64).clip(0, rows)
    counts = high - low
    edge = np.repeat(np.arange(len(starts)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + low[edge]
    slope = (ends[edge, 1] - starts[edge, 1]) / (ends[edge, 0] - starts[edge, 0])
    crossing = starts[edge, 1] + (row - starts[edge, 0]) * slope
    column = np.ceil(crossing).astype(np.int64).clip(0, columns)
    toggles = np.bincount(row * (columns + 1) + column, minlength=rows * (columns + 1))
    parity = np.cumsum(toggles.reshape(rows, columns + 1), axis=1) % 2 == 1
    return np.asarray(parity[:, :columns], dtype=np.bool_)

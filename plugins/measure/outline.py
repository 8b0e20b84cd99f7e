"""The outline of a planar region as line segments, and the chords that lie inside it.

Points are (r, c) in pixels, whole numbers at pixel centres. `reach` says how far the outline lies outside the centres
of the outermost pixels: 0.5 is the 0.5-level contour of the mask by marching squares, 0 runs through the centres.
Pixels that touch at a corner only are joined.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from plugins.contract import BoolArray

Segments = NDArray[np.float64]
"""Shape (n, 2, 2): segment, end, coordinate. The order and the direction mean nothing."""

_GAP = 1e-9
# Which two sides of a square of four pixel centres the outline joins, by which corners are inside. Bits: 1 (r, c),
# 2 (r, c + 1), 4 (r + 1, c + 1), 8 (r + 1, c). Sides: 0 upper, 1 right, 2 lower, 3 left.
_JOINS = {
    (3, 0): (1, 14),
    (0, 1): (2, 13),
    (1, 2): (4, 11),
    (2, 3): (8, 7),
    (1, 3): (3, 12),
    (0, 2): (6, 9),
}
_PAIRS = {5: ((0, 1), (2, 3)), 10: ((3, 0), (1, 2))} | {
    kind: (sides,) for sides, kinds in _JOINS.items() for kind in kinds
}
_COUNTS = np.array([len(_PAIRS.get(kind, ())) for kind in range(16)])


def extremes(pixels: BoolArray, reach: float) -> NDArray[np.float64]:
    """Return the outline's points (r, c), shape (n, 2), that can be corners of its convex hull.

    Those are the ends of every row and of every column. `pixels` is (r, c), every row and column occupied.
    """
    rows, columns = pixels.shape
    r, c = np.arange(rows, dtype=np.float64), np.arange(columns, dtype=np.float64)
    left, right = pixels.argmax(axis=1), columns - 1 - pixels[:, ::-1].argmax(axis=1)
    upper, lower = pixels.argmax(axis=0), rows - 1 - pixels[::-1].argmax(axis=0)
    return np.concatenate(
        [
            np.column_stack([r, left - reach]),
            np.column_stack([r, right + reach]),
            np.column_stack([upper - reach, c]),
            np.column_stack([lower + reach, c]),
        ]
    )


def outline(pixels: BoolArray, reach: float) -> Segments:
    """Return the outline of `pixels` (r, c) as segments, shape (n, 2, 2), in pixels.

    Source: marching squares; in the ambiguous squares the pixels that are inside are joined.
    """
    rows, columns = pixels.shape
    padded = np.zeros((rows + 2, columns + 2), dtype=np.uint8)
    padded[1:-1, 1:-1] = pixels
    kind = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, 1:] + 8 * padded[1:, :-1]
    where = np.argwhere(_COUNTS[kind])
    kinds = kind[where[:, 0], where[:, 1]]
    squares = np.repeat(where, _COUNTS[kinds], axis=0)
    ends = _ends(reach)
    first = ends[kinds, 0]
    second = np.flatnonzero(_COUNTS[kinds] == 2)
    inside = np.repeat(first, _COUNTS[kinds], axis=0)
    at = np.cumsum(_COUNTS[kinds])[second] - 1
    inside[at] = ends[kinds[second], 1]
    return np.asarray(squares[:, None, :] + inside - 1.0, dtype=np.float64)


@lru_cache(maxsize=8)
def _ends(reach: float) -> NDArray[np.float64]:
    """Return where the segments of a square of each kind end, from its first pixel centre; shape (16, 2, 2, 2)."""
    ends = np.zeros((16, 2, 2, 2))
    for kind, pairs in _PAIRS.items():
        for number, sides in enumerate(pairs):
            ends[kind, number] = [_crossing(side, kind, reach) for side in sides]
    return ends


def _crossing(side: int, kind: int, reach: float) -> tuple[float, float]:
    """Return where the outline crosses one side of a square, from its first pixel centre (r, c)."""
    bit, start, step = {
        0: (1, (0, 0), (0, 1)),
        1: (2, (0, 1), (1, 0)),
        2: (8, (1, 0), (0, 1)),
        3: (1, (0, 0), (1, 0)),
    }[side]
    fraction = reach if kind & bit else 1.0 - reach
    return start[0] + fraction * step[0], start[1] + fraction * step[1]


def chords(segments: Segments, along: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the longest chord inside the outline perpendicular to the unit vector `along`, and its length.

    The chord has shape (2, 2). Exact: between two neighbouring corners of the outline the length of a chord changes
    linearly, so the longest begins or ends its gap; each gap is looked at from both of its sides.
    """
    across = np.array([-along[1], along[0]])
    t, s = segments @ along, segments @ across
    swap = t[:, 0] > t[:, 1]
    t[swap], s[swap] = t[swap, ::-1], s[swap, ::-1]
    levels = np.unique(t)
    gaps = np.flatnonzero(np.diff(levels) > _GAP)
    low, high = levels[gaps], levels[gaps + 1]
    middle = (low + high) / 2
    first = np.searchsorted(middle, t[:, 0])
    counts = np.searchsorted(middle, t[:, 1]) - first
    edge = np.repeat(np.arange(len(t)), counts)
    gap = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (s[edge, 1] - s[edge, 0]) / (t[edge, 1] - t[edge, 0])
    order = np.lexsort((s[edge, 0] + slope * (middle[gap] - t[edge, 0]), gap))
    edge, gap, slope = edge[order], gap[order], slope[order]
    best_length, best = -1.0, np.zeros((2, 2))
    for level in (low, high):
        at = s[edge, 0] + slope * (level[gap] - t[edge, 0])
        lengths = at[1::2] - at[0::2]
        widest = int(np.argmax(lengths))
        if lengths[widest] > best_length:
            best_length = float(lengths[widest])
            position = level[gap[2 * widest]]
            best = position * along + np.outer(at[2 * widest : 2 * widest + 2], across)
    return best, best_length

"""From the probability of each voxel to the mask of one lesion, without a level that somebody chose.

The mask is that of the best expected overlap: a plain lesion begins at a probability of about one half, one of which
readers would draw differently lower. A long axis is measured between the two outermost voxels, and those such a mask
leaves out more often than readers do: each for itself is unlikely. So it is drawn out along that one line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from models.nodule_passes import nearest_piece

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]

REACH_MM = 3.0
"""A drawing that comes no nearer to the point than this, or than one voxel, is of something else."""
LEAST = 0.03
"""What is less probable belongs to nothing."""
END_MM, END_LEVELS = 1.8, (0.09, 0.3)
"""The ends of a line of so many mm are where lesion is certain; of a longer one less probable, within these levels.
Chosen on held-out nodules, so that lines of small and of large ones are right on average."""
THICK_MM = 2.5
"""The scans that networks learned on have slices up to this thick; thicker ones were only made of these."""
THIN_MM, HELD_BACK = 1.25, 0.4
"""On thicker ones the logit of lesion is too high by the second for each doubling of the slice distance over the first.
Chosen on held-out nodules set into aerated lung on slices of 2 to 5 mm, so that their volume is right on average."""
HALF_WIDTH_MM = 0.5
LARGEST_PIXEL_MM = 1.0
"""On larger pixels, which the levels were not chosen on, one more at each end is more than what is missing."""
FEWEST_OF_HULL = 8


def held_back(probability: Array, mask: BoolArray, spacing_mm: Spacing) -> Array:
    """Return the probability of a lesion, drawn as `mask`, lower on slices above `THICK_MM`, `(K, R, C)`.

    Networks take a slice that holds a part of the lesion for one that holds it all. A drawing that reaches the first or
    the last slice of the image does not end there, and nothing is changed.
    """
    if mask[0].any() or mask[-1].any() or spacing_mm[0] <= THICK_MM:
        return probability
    factor = np.float32(np.exp(HELD_BACK * np.log2(spacing_mm[0] / THIN_MM)))
    return np.asarray(probability / (probability + (1 - probability) * factor), dtype=np.float32)


def best_overlap(
    probability: Array, point: Floats, spacing_mm: Spacing, reach_mm: float = REACH_MM
) -> tuple[BoolArray, float]:
    """Return the mask at a point whose expected Dice is highest, `(K, R, C)`, and that Dice; empty where none is near.

    Voxels are taken in the order of their probability p for as long as 2 sum(p) / (count + sum of all p) grows.
    Source: Lipton 2014, arXiv:1402.1892 (the best level is half the Dice that it reaches); the expectation of the ratio
    is taken as the ratio of expectations.
    """
    there = probability > LEAST
    if not there.any():
        return there, 0.0
    there = nearest_piece(there, point, spacing_mm)
    falling = np.sort(probability[there].astype(np.float64))[::-1]
    gained = np.cumsum(falling)
    dice = 2 * gained / (np.arange(1, len(falling) + 1) + gained[-1])
    best = int(dice.argmax())
    return piece_at(there & (probability >= falling[best]), point, spacing_mm, reach_mm), float(dice[best])


def drawn_out(mask: BoolArray, probability: Array, spacing_mm: Spacing) -> BoolArray:
    """Return a mask with the ends of its longest line: the longer it is, the less probable they may be.

    The line joins two pixels of one in-plane piece of voxels above the level that `END_MM` and the mask's own length
    give; only pieces that hold some of the mask count. It is drawn `HALF_WIDTH_MM` to each side, as far as it
    hangs together with the mask. An empty mask stays empty, and one on pixels above `LARGEST_PIXEL_MM` as it is.
    """
    own = _longest_line(mask, mask, spacing_mm)
    if own is None or max(spacing_mm[1:]) > LARGEST_PIXEL_MM:
        return mask
    level = np.clip(END_MM / (own.length_mm + spacing_mm[1]), *END_LEVELS)
    line = _longest_line((probability > level) | mask, mask, spacing_mm)
    assert line is not None
    start, end = line.ends_mm
    along = (end - start) / max(line.length_mm, 1e-9)
    away = (line.pixels * spacing_mm[1:] - start) @ np.array([-along[1], along[0]])
    out = mask.copy()
    out[line.k][tuple(line.pixels[np.abs(away) <= HALF_WIDTH_MM].T)] = True
    return nearest_piece(out, np.argwhere(mask)[0], spacing_mm)


def piece_at(mask: BoolArray, point: Floats, spacing_mm: Spacing, reach_mm: float = REACH_MM) -> BoolArray:
    """Return the piece of a mask `(K, R, C)` that lies at a point (voxel index); empty when none is near."""
    if not mask.any():
        return mask
    piece = nearest_piece(mask, point, spacing_mm)
    far = np.linalg.norm((np.argwhere(piece) - point) * np.asarray(spacing_mm), axis=1).min()
    return piece if far <= max(reach_mm, *spacing_mm) else np.zeros_like(mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Line:
    """The longest line between two pixels of an in-plane piece."""

    k: int
    """The slice."""
    pixels: NDArray[np.intp]
    """The pixels (r, c) of the piece, `(V, 2)`."""
    ends_mm: Floats
    """Both ends (r, c), mm, `(2, 2)`."""
    length_mm: float
    """Between the middles of both pixels."""


def _longest_line(wide: BoolArray, mask: BoolArray, spacing_mm: Spacing) -> _Line | None:
    """Return the longest line of the in-plane pieces of `wide` that hold some of the mask; None for an empty mask."""
    best: _Line | None = None
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        labels, _ = ndimage.label(wide[k], structure=np.ones((3, 3)))
        for label in np.unique(labels[mask[k]]):
            pixels = np.argwhere(labels == label)
            points = _hull(pixels * np.asarray(spacing_mm[1:]))
            between = squareform(pdist(points))
            one, other = np.unravel_index(int(between.argmax()), between.shape)
            if best is None or between[one, other] > best.length_mm:
                length_mm = float(between[one, other])
                best = _Line(k=int(k), pixels=pixels, ends_mm=points[[one, other]], length_mm=length_mm)
    return best


def _hull(points: Floats) -> Floats:
    """Return the corners of points `(N, 2)`; all of them when they are few, both ends when they lie on one line."""
    if len(points) < FEWEST_OF_HULL:
        return points
    try:
        corners = ConvexHull(points).vertices
    except QhullError:
        corners = np.lexsort(points.T)[[0, -1]]
    return np.asarray(points[corners])


__all__ = ["best_overlap", "drawn_out", "held_back", "piece_at"]

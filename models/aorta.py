"""A round tube as wide as an aorta that runs through the slices of a chest CT: what no lesion beside it goes on into.

Only its shape is known: in every slice it is an even disc with less dense tissue around it, and the next slice has
about the same disc at about the same place for at least `LENGTH_MM`. So the descending aorta is found with contrast or
without; its arch, an aneurysm and what runs in the plane of the slices are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.patches import PatchGrid, cut

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]

GRID_MM = (3.0, 2.0, 2.0)
"""It is searched on such voxels."""
RADII_MM = tuple(np.arange(9.0, 19.0, 1.5).tolist())
LENGTH_MM = 75.0
SEEN_HU = (-150.0, 100.0)
"""Lung and fat are the same to it, and so are contrast and bone."""
EDGE_MM, EDGE_HU = 2.0, 50.0
"""A whole edge is a fall of so many HU from so far inside to so far outside."""
BLOOD_HU = (15.0, 450.0)
EVEN_HU, UNEVEN_HU = 12.0, 60.0
"""Deviation of a smoothed disc that costs nothing, and how much more of it costs as much as all of the edge."""
DIRECTIONS = 24
A_TUBE = 0.5
"""Slices with less of a disc than this speak against a tube."""
TURN_COST, WIDTH_COST = 0.03, 0.1
"""What a step of the middle to a next pixel costs, and one of the radius."""
AS_GOOD = 0.1
"""Discs that have less than this less of a disc are about as good as the best."""
REACH_MM = 30.0
"""It is searched so far around a lesion, and twice as far along the slices."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tube:
    """Discs, one for each of the slices that it runs through."""

    slices: NDArray[np.intp]
    """Their indices, one after the other."""
    middles: Floats
    """Voxel index (r, c) of the middle of each disc, `(N, 2)`."""
    radii_mm: Floats
    """Radius of each disc, `(N,)`."""

    def mask(self, shape: Sequence[int], spacing_mm: Spacing, wall_mm: float = 0.0) -> BoolArray:
        """Return its voxels on a grid `(K, R, C)`, and those of a wall around it."""
        out = np.zeros(tuple(shape), dtype=np.bool_)
        rows, columns = (np.arange(n) for n in shape[1:])
        for k, (row, column), radius_mm in zip(self.slices, self.middles, self.radii_mm, strict=True):
            across = np.hypot(((rows - row) * spacing_mm[1])[:, None], (columns - column) * spacing_mm[2])
            out[k] = across <= radius_mm + wall_mm
        return out


def tube_beside(image: Array, spacing_mm: Spacing, mask: BoolArray) -> Tube | None:
    """Return the tube within `REACH_MM` of a lesion in an image `(K, R, C)` in HU; None where there is none."""
    held = np.argwhere(mask)
    shape, steps = np.asarray(image.shape), np.asarray(spacing_mm)
    reach = np.array([2.0, 1.0, 1.0]) * REACH_MM / steps
    low = np.maximum(held.min(axis=0) - reach, 0).astype(int)
    high = np.minimum(held.max(axis=0) + reach + 1, shape).astype(int)
    if (high[0] - low[0]) * steps[0] < LENGTH_MM:
        return None
    part = image[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
    smooth = ndimage.gaussian_filter(part, [mm / s for mm, s in zip((1.0, 1.2, 1.2), steps, strict=True)])
    k, r, c = np.maximum(2, (high - low) * steps / GRID_MM).astype(int).tolist()
    grid = PatchGrid(shape=(k, r, c), spacing_mm=GRID_MM)
    middle = (np.asarray(part.shape) - 1) / 2
    found = discs(cut(smooth, spacing_mm, middle.tolist(), grid))
    path = best_path(found)
    if len(path) * GRID_MM[0] < LENGTH_MM:
        return None
    fine = _refined(path, found)
    radii_mm = np.interp(fine[:, 0], np.arange(len(RADII_MM)), RADII_MM)
    at = np.column_stack([path[:, 0], fine[:, 1:]]) * GRID_MM / steps
    at += low + middle - (np.asarray(grid.shape) - 1) / 2 * GRID_MM / steps
    slices = np.arange(int(np.ceil(at[0, 0])), int(at[-1, 0]) + 1)
    rows, columns, radii = (np.interp(slices, at[:, 0], x) for x in (at[:, 1], at[:, 2], radii_mm))
    return Tube(slices=slices, middles=np.stack([rows, columns], axis=1), radii_mm=radii)


def discs(hu: Array) -> Array:
    """Return how much of a disc each voxel of a CT on `GRID_MM` `(K, R, C)` is the middle of: `(radius, K, R, C)`.

    It is 1 where all around the density falls by `EDGE_HU` and the disc is even, and -1 where it is not of blood.
    """
    step = GRID_MM[1]
    seen = np.clip(hu, *SEEN_HU)
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    out = np.zeros((len(RADII_MM), *hu.shape), dtype=np.float32)
    for angle in angles:
        along = np.array([np.sin(angle), np.cos(angle)]) / step
        for found, radius in zip(out, RADII_MM, strict=True):
            fall = _moved(seen, along * (radius - EDGE_MM)) - _moved(seen, along * (radius + EDGE_MM))
            found += np.clip(fall / EDGE_HU, -0.5, 1.0) / DIRECTIONS
    plain = np.clip(hu, -300.0, 500.0)
    for found, radius in zip(out, RADII_MM, strict=True):
        reach = np.arange(-int(radius / step), int(radius / step) + 1) * step
        disc = (np.hypot(reach[:, None], reach) <= radius - EDGE_MM).astype(np.float32)
        mean, square = (ndimage.convolve(x, disc[None] / disc.sum()) for x in (plain, plain * plain))
        deviation = np.sqrt(np.maximum(square - mean * mean, 0))
        found -= np.clip((deviation - EVEN_HU) / UNEVEN_HU, 0, 1)
        found[(mean < BLOOD_HU[0]) | (mean > BLOOD_HU[1])] = -1
    return out


def best_path(found: Array) -> NDArray[np.intp]:
    """Return the discs (k, radius, r, c) `(N, 4)`, one a slice, that are most of a tube; the first slice first.

    From slice to slice the middle moves by a pixel and the radius by a step at most. What a disc has above `A_TUBE` is
    summed, less what moves cost, and the best sum of any run of slices counts. Source: Smith and Waterman 1981,
    J Mol Biol 147:195, with slices in place of letters.
    """
    moves = list(product((0, -1, 1), repeat=3))
    costs = [WIDTH_COST * abs(wider) + TURN_COST * (abs(r) + abs(c)) for wider, r, c in moves]
    best, came = np.zeros_like(found[:, 0]), list[NDArray[np.int8]]()
    sums = list[Array]()
    for k in range(found.shape[1]):
        wide = np.pad(best, 1, constant_values=-np.inf)
        shape = best.shape
        before = np.stack(
            [
                wide[tuple(slice(1 - d, 1 - d + n) for d, n in zip(move, shape, strict=True))] - cost
                for move, cost in zip(moves, costs, strict=True)
            ]
        )
        move = before.argmax(axis=0)
        gained = np.take_along_axis(before, move[None], axis=0)[0]
        came.append(np.where(gained > 0, move, -1).astype(np.int8))
        best = np.asarray(np.maximum(gained, 0) + found[:, k] - np.float32(A_TUBE), dtype=np.float32)
        sums.append(best)
    k = int(np.argmax([one.max() for one in sums]))
    at = np.unravel_index(int(sums[k].argmax()), sums[k].shape)
    path = [(k, *map(int, at))]
    while (move_there := int(came[k][at])) >= 0:
        at = tuple(np.subtract(at, moves[move_there]))
        k -= 1
        path.append((k, *map(int, at)))
    return np.asarray(path[::-1], dtype=np.intp)


def _refined(path: NDArray[np.intp], found: Array) -> Floats:
    """Return radius (index) and middle (r, c) of the discs of a path, `(N, 3)`, between those that are about as good.

    Neighbours count by what they have above the best less `AS_GOOD`; what jitters from slice to slice is smoothed.
    """
    near = np.array(list(product((-1, 0, 1), (-2, -1, 0, 1, 2), (-2, -1, 0, 1, 2))))
    beside = path[:, None, 1:] + near
    inside = np.all((beside >= 0) & (beside < np.array(found.shape)[[0, 2, 3]]), axis=-1)
    n, r, c = np.where(inside[..., None], beside, path[:, None, 1:]).transpose(2, 0, 1)
    score = np.where(inside, found[n, path[:, :1], r, c], -1.0)
    weight = np.maximum(score - score.max(axis=1, keepdims=True) + AS_GOOD, 0)
    middles = (beside * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    return np.asarray(ndimage.gaussian_filter1d(middles, 1.0, axis=0, mode="nearest"))


def _moved(hu: Array, by: Floats) -> Array:
    """Return what lies so many pixels (r, c) from each voxel, linear; beyond the image its outermost pixels."""
    low = np.floor(by).astype(int)
    margin = int(np.abs(low).max()) + 1
    wide = np.pad(hu, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    rows, columns = hu.shape[1:]
    out = np.zeros_like(hu)
    for r, c in product((0, 1), repeat=2):
        weight = np.prod(np.where([r, c], by - low, 1 - (by - low)))
        top, left = margin + low[0] + r, margin + low[1] + c
        out += np.float32(weight) * wide[:, top : top + rows, left : left + columns]
    return out


__all__ = ["Tube", "tube_beside"]

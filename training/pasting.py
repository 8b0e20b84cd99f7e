"""Pieces of one CT set into another, so softly that the seam tells nothing: nodules, and places without one.

A piece is set in with the shape of a nodule: whole up to some millimetres around it, then fading. Where the donor's
crop ends it fades at once, and its lung is brought to the density of the lung that it is set into. Pieces that hold no
nodule go the same way with the shape of somebody else's nodule, so that a network that learns from both cannot tell
one from the other by how it was set in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.patches import PatchGrid, cut
from training.lidc import Nodule
from training.scans import Scan

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Spacing = tuple[float, float, float]
SLAB_MM = 1.25
"""A thicker slice is the mean of parts that are no thicker than this."""
CROP_FADE_MM = 1.5
"""Within this distance of the donor's edge a piece has faded, mm."""
LUNG_BELOW_HU = -500.0
ATTACHED_MM = (0.5, 1.5)
"""What is dense nearer to a nodule than the first is its own edge, beyond the second it is something else."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Donor:
    """Where a piece comes from."""

    hu: Array
    """HU, `(K, R, C)`."""
    spacing_mm: Spacing
    """Distance of two voxels along k, r, c; mm."""
    point: tuple[float, float, float]
    """Middle of the piece, voxel index."""
    lung_hu: float
    """Density of the lung around it, HU."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """The shape of a nodule: how far each voxel around it is from it."""

    away_mm: Array
    """Distance from the nodule, mm, 0 inside, `(K, R, C)`."""
    spacing_mm: Spacing
    """Distance of two voxels along k, r, c; mm."""
    centre: tuple[float, float, float]
    """Its centre of gravity, voxel index."""


@dataclass(frozen=True, kw_only=True)
class Fade:
    """How a piece is set in."""

    whole_mm: float
    """So far around the shape the piece is whole, mm."""
    fade_mm: float
    """Over this distance it fades, mm."""
    mirrored: tuple[bool, bool, bool] = (False, False, False)
    """Which axes of the donor are mirrored."""
    zoom: float = 1.0
    """How many times larger it becomes."""


PLAIN = Fade(whole_mm=0.0, fade_mm=1.0)
"""Nothing mirrored, nothing zoomed."""


def shape_of(nodule: Nodule) -> Shape:
    """Return the shape of a nodule with room around it."""
    margin = [int(np.ceil(12.0 / s)) for s in nodule.spacing_mm]
    mask = np.pad(nodule.mask, [(m, m) for m in margin])
    away = ndimage.distance_transform_edt(~mask, sampling=nodule.spacing_mm)
    k, r, c = (p + m for p, m in zip(nodule.centre, margin, strict=True))
    return Shape(away_mm=away.astype(np.float32), spacing_mm=nodule.spacing_mm, centre=(k, r, c))


def donor_of(nodule: Nodule, point: Sequence[float] | None = None) -> Donor:
    """Return the crop of a nodule as donor, of the nodule itself or of another point (voxel index) of the crop."""
    k, r, c = nodule.centre if point is None else point
    return Donor(
        hu=nodule.image,
        spacing_mm=nodule.spacing_mm,
        point=(k, r, c),
        lung_hu=lung_level(nodule.image),
    )


def donor_alone(nodule: Nodule) -> Donor:
    """Return the crop of a nodule as donor in which nothing else is dense: what it is attached to has become lung.

    Pleura or vessel that a shape brings along would hang in the lung into which it is set, like a part of the nodule.
    Its own edge stays, no denser than what is half lung. The donor is one voxel of lung wider than the crop on every
    side, so that a nodule of its first or last slice ends half-way to the next, as its mask does.
    """
    mask = np.pad(nodule.mask, 1)
    away = ndimage.distance_transform_edt(~mask, sampling=nodule.spacing_mm)
    level = lung_level(nodule.image)
    aerated = nodule.image[~nodule.mask & (nodule.image < LUNG_BELOW_HU)]
    lung = (
        np.random.default_rng(nodule.mask.size).choice(aerated, mask.shape)
        if aerated.size > 30
        else np.full(mask.shape, level)
    )
    hu = lung.copy()
    hu[1:-1, 1:-1, 1:-1] = nodule.image
    begin, end = ATTACHED_MM
    attached = ~mask & (hu > LUNG_BELOW_HU)
    other = LUNG_BELOW_HU + np.clip((away - begin) / (end - begin), 0, 1) * (lung - LUNG_BELOW_HU)
    hu = np.where(attached, other, hu).astype(np.float32)
    k, r, c = nodule.centre
    return Donor(hu=hu, spacing_mm=nodule.spacing_mm, point=(k + 1, r + 1, c + 1), lung_hu=level)


def lung_level(hu: Array) -> float:
    """Return the median HU of what is aerated; -850 where nothing is."""
    aerated = hu[hu < LUNG_BELOW_HU]
    return float(np.median(aerated)) if aerated.size > 30 else -850.0


def raise_lung(hu: Array, by_hu: float) -> None:
    """Raise the lung of a piece in place, what is denser the less, nothing from -400 HU on."""
    hu += np.float32(by_hu) * np.clip((-400 - hu) / 400, 0, 1)


def window_of(scan: Scan, point: Sequence[float] | Floats, half_mm: float) -> tuple[Array, Floats]:
    """Return a copy of the scan around a point (voxel index), and where the point lies in it."""
    low, high = _window(point, half_mm, scan.spacing_mm, scan.hu.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return scan.hu[box].copy(), np.asarray(point, dtype=np.float64) - low


def set_in(
    hu: Array, spacing_mm: Spacing, point: Floats, donor: Donor, shape: Shape, fade: Fade
) -> tuple[Array, float]:
    """Set a piece into `hu` `(K, R, C)` at `point` (voxel index), in place.

    Returns the share of each voxel of `hu` that is the shape itself, before fading `(K, R, C)`, and the largest share
    of the donor in any voxel (0: the piece did not fit anywhere).
    """
    reach = reach_mm(shape) * fade.zoom + fade.whole_mm + fade.fade_mm
    low, high = _window(point, reach, spacing_mm, hu.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    at = point - low
    k, r, c = (high - low).tolist()
    size = (int(k), int(r), int(c))
    piece = on_grid(donor.hu, donor.spacing_mm, donor.point, size, spacing_mm, at, fade)
    away = fade.zoom * on_grid(shape.away_mm, shape.spacing_mm, shape.centre, size, spacing_mm, at, fade)
    share = np.clip(1 - (away - fade.whole_mm) / fade.fade_mm, 0, 1)
    share *= _support(donor, size, spacing_mm, at, fade)
    target = hu[box]
    raise_lung(piece, lung_level(target) - donor.lung_hu)
    target += share.astype(np.float32) * (piece - target)
    lies, held = np.zeros(hu.shape, dtype=np.float32), (shape.away_mm == 0).astype(np.float32)
    lies[box] = on_grid(held, shape.spacing_mm, shape.centre, size, spacing_mm, at, fade)
    return lies, float(share.max(initial=0.0))


def held_by(share: Array) -> BoolArray:
    """Return the voxels that hold most of a shape, as many as it has volume, from the share of each that is the shape.

    Where a shape is thin for the grid, the voxels of which it is half or more would have less volume than it has.
    """
    count = round(float(share.sum()))
    if count == 0:
        return np.zeros(share.shape, dtype=np.bool_)
    limit = np.partition(share, share.size - count, axis=None)[share.size - count]
    return np.asarray(share >= max(float(limit), 1e-3))


def shape_on(size: Sequence[int], spacing_mm: Spacing, at: Floats, shape: Shape) -> Array:
    """Return how far each voxel of a grid is from a shape whose centre lies `at` (voxel index), mm, `(K, R, C)`."""
    k, r, c = size
    return on_grid(shape.away_mm, shape.spacing_mm, shape.centre, (k, r, c), spacing_mm, at)


def _window(
    point: Sequence[float] | Floats, half_mm: float, spacing_mm: Spacing, shape: Sequence[int]
) -> tuple[Ints, Ints]:
    at, reach = np.asarray(point, dtype=np.float64), half_mm / np.asarray(spacing_mm)
    low = np.clip(np.floor(at - reach), 0, np.asarray(shape) - 1).astype(np.int64)
    high = np.clip(np.ceil(at + reach) + 1, low + 1, shape).astype(np.int64)
    return low, high


def reach_mm(shape: Shape) -> float:
    """Return how far a shape reaches from its centre along the axes, mm."""
    held = np.argwhere(shape.away_mm == 0)
    return float((np.abs(held - np.asarray(shape.centre)).max(axis=0) * np.asarray(shape.spacing_mm)).max())


def on_grid(
    source: Array,
    source_mm: Spacing,
    centre: Sequence[float],
    size: tuple[int, int, int],
    spacing_mm: Spacing,
    at: Floats,
    fade: Fade = PLAIN,
) -> Array:
    """Return a source on a grid of `size` on which its `centre` lies `at` (voxel indices), `(K, R, C)`, linear.

    Slices thicker than `SLAB_MM` are means of thinner ones; of `fade` mirrors and zoom count.
    """
    parts = [max(1, int(np.ceil(s / SLAB_MM))) if axis == 0 else 1 for axis, s in enumerate(spacing_mm)]
    fine = [n * p for n, p in zip(size, parts, strict=True)]
    steps = [s / p / fade.zoom for s, p in zip(spacing_mm, parts, strict=True)]
    signs = [-1 if m else 1 for m in fade.mirrored]
    middle = [
        c + sign * ((n - 1) / 2 - a) * s / fade.zoom / own
        for c, sign, n, a, s, own in zip(centre, signs, size, at, spacing_mm, source_mm, strict=True)
    ]
    grid = PatchGrid(shape=(fine[0], fine[1], fine[2]), spacing_mm=(steps[0], steps[1], steps[2]))
    out = cut(source, source_mm, middle, grid)[tuple(slice(None, None, sign) for sign in signs)]
    out = out.reshape(size[0], parts[0], size[1], size[2]).mean(axis=1)
    return np.ascontiguousarray(out, dtype=np.float32)


def _support(donor: Donor, size: tuple[int, int, int], spacing_mm: Spacing, at: Floats, fade: Fade) -> Array:
    """Return 1 where the donor is known, fading to 0 at and beyond its edges, `(K, R, C)`."""
    share = np.ones(size, dtype=np.float32)
    for axis in range(3):
        sign = -1 if fade.mirrored[axis] else 1
        offset_mm = (np.arange(size[axis]) - at[axis]) * spacing_mm[axis] / fade.zoom * sign
        place_mm = offset_mm + donor.point[axis] * donor.spacing_mm[axis]
        outside = np.maximum(-place_mm, place_mm - (donor.hu.shape[axis] - 1) * donor.spacing_mm[axis])
        line = np.clip(1 - outside / CROP_FADE_MM, 0, 1).astype(np.float32)
        share *= line.reshape([-1 if a == axis else 1 for a in range(3)])
    return share


__all__ = [
    "Donor",
    "Fade",
    "Shape",
    "donor_alone",
    "donor_of",
    "held_by",
    "lung_level",
    "on_grid",
    "raise_lung",
    "reach_mm",
    "set_in",
    "shape_of",
    "shape_on",
    "window_of",
]

"""The trachea and main bronchi in a chest CT: found from the top, grown until just before the growth leaks."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]

LUMEN_HU = -880.0
AREA_MM2 = (50.0, 800.0)
WIDTH_MM = 45.0
OFF_MIDDLE_MM = 70.0
LENGTH_MM = 15.0
ROI_MM = (90.0, 55.0, 75.0)
LEAK_ML = 110.0
THRESHOLDS_HU = (
    -960.0,
    -940.0,
    -920.0,
    -900.0,
    -880.0,
    -860.0,
    -840.0,
    -820.0,
    -800.0,
    -770.0,
    -740.0,
    -700.0,
)


@dataclass(frozen=True, kw_only=True)
class Seed:
    """Where the trachea is: one index of its lumen for each slice, from the head downwards."""

    points: tuple[tuple[int, int, int], ...]
    """Index (z, y, x) of the centre of the lumen in each slice it was seen in."""


def trachea(hu: Array, inner_air: BoolArray, spacing_mm: Spacing, mid_x: float) -> Seed | None:
    """Return where the trachea runs, or None when no such tube is seen.

    `hu` and `inner_air` are `(Z, Y, X)` with Z towards the head, Y towards the back, X towards the left of the
    patient; `mid_x` is the index of the middle of the body. The tube is a chain of slices in which a compact dark
    disc of 0.5 to 8 cm^2 lies near the midline; the longest chain that is at least 15 mm long wins.
    """
    dz, dy, dx = spacing_mm
    dark = inner_air & (hu < LUMEN_HU)
    keep = np.zeros_like(dark)
    for z in range(dark.shape[0]):
        if dark[z].any():
            keep[z] = _discs(dark[z], (dy, dx), mid_x)
    labels = cc3d.connected_components(keep, connectivity=26)
    if labels.max() == 0:
        return None
    best: tuple[float, int] | None = None
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        length = (box[0].stop - box[0].start) * dz
        centre_mm = abs((box[2].start + box[2].stop - 1) / 2 - mid_x) * dx
        score = length - 0.5 * centre_mm
        if length >= max(LENGTH_MM, 3 * dz if dz < LENGTH_MM else 2 * dz) and (
            best is None or score > best[0]
        ):
            best = (score, label)
    return None if best is None else Seed(points=_axis(labels == best[1]))


def _discs(dark: BoolArray, spacing_mm: tuple[float, float], mid_x: float) -> BoolArray:
    """Return the compact dark discs of one slice `(Y, X)` that could be a trachea."""
    dy, dx = spacing_mm
    labels, count = ndimage.label(dark)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * dy * dx
    good = np.zeros(count + 1, dtype=np.bool_)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        height, width = (box[0].stop - box[0].start) * dy, (box[1].stop - box[1].start) * dx
        middle = (box[1].start + box[1].stop - 1) / 2
        compact = areas[label] > 0.5 * height * width
        near = abs(middle - mid_x) * dx < OFF_MIDDLE_MM
        size = AREA_MM2[0] <= areas[label] <= AREA_MM2[1] and max(height, width) <= WIDTH_MM
        good[label] = compact and near and size
    found: BoolArray = good[labels]
    return found


def _axis(tube: BoolArray) -> tuple[tuple[int, int, int], ...]:
    points: list[tuple[int, int, int]] = []
    for z in np.flatnonzero(tube.any(axis=(1, 2)))[::-1]:
        inside = np.argwhere(tube[z])
        nearest = inside[np.argmin(((inside - inside.mean(axis=0)) ** 2).sum(axis=1))]
        points.append((int(z), int(nearest[0]), int(nearest[1])))
    return tuple(points)


def grow(hu: Array, seed: Seed, spacing_mm: Spacing) -> BoolArray:
    """Return the lumen of trachea and main bronchi, boolean `(Z, Y, X)`, grown from the seed without a leak.

    The threshold is raised step by step; growth stops before the lumen passes 110 ml or jumps by half of its
    volume (and more than 12 ml) in one step, which is what a leak into the lung looks like.
    """
    seeds = np.asarray(seed.points)
    reach = [round(mm / s) for mm, s in zip(ROI_MM, spacing_mm, strict=True)]
    low = np.maximum(seeds.min(axis=0) - reach, 0)
    high = np.minimum(seeds.max(axis=0) + np.array([1, *reach[1:]]), np.asarray(hu.shape) - 1) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    roi = ndimage.gaussian_filter(hu[box], sigma=[0.4 if s < 2 else 0.0 for s in spacing_mm])
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    grown, volume_ml = np.zeros(roi.shape, dtype=np.bool_), 0.0
    inside = tuple((seeds - low).T)
    for threshold in THRESHOLDS_HU:
        labels = cc3d.connected_components(roi < threshold, connectivity=6)
        hit = np.bincount(labels[inside])
        hit[0] = 0
        if hit.sum() == 0:
            continue
        lumen: BoolArray = labels == int(hit.argmax())
        new_ml = float(np.count_nonzero(lumen)) * voxel_ml
        if new_ml > LEAK_ML or (volume_ml > 0 and new_ml > 1.5 * volume_ml and new_ml - volume_ml > 12.0):
            break
        grown, volume_ml = lumen, new_ml
    airways = np.zeros(hu.shape, dtype=np.bool_)
    airways[box] = grown
    return airways

"""Where a lesion of an earlier study is expected in a new one, and whether tissue like it is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from plugins.contract import Mask, Point, Volume
from plugins.errors import Refused
from store.tracking.motion import Motion

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]

PADDING_HU = -1500.0
"""No tissue and no air is below."""
MOST_POINTS = 20_000
REACH_MM = 8.0
"""How far around the expected place is looked."""
MARGIN_MM = 5.0
"""What is compared around the lesion."""
STEPS_ACROSS = 20
"""So many sample points lie across what is compared, no nearer than 1 mm to each other."""
SCALES = (1.0, 0.75, 0.5, 1.33)
LIKE = 0.5
CONTRASTED = 0.4
"""Likeness and contrast from which on a lesion is called visible."""
WINDOW_HU = (-1000.0, 400.0)
FAINT = {"ct": 15.0, "pet_suv": 0.2}
"""A lesion that differs by less from its surroundings cannot be told from them by contrast."""


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


def visible(mask: Mask, earlier: Volume, new: Volume, motion: Motion) -> Visibility:
    """Return whether tissue like a lesion of the earlier volume is within 8 mm of where it is expected in the new one.

    The lesion with 5 mm around it is laid over the new volume at sizes from half to 4/3 (normalised cross-correlation:
    Lewis, Vision Interface 1995, 120). The pleura alone is like itself, so what is inside must also stand out from what
    is around as it did; the best place is that of the largest product of both, nearer ones before farther ones.
    Refuses `empty-mask`.
    """
    points = earlier.to_mm(_centres(mask))
    centre = points.mean(axis=0)
    half = float(np.abs(points - centre).max()) + max(*earlier.spacing_mm, MARGIN_MM)
    step = max(1.0, 2 * half / STEPS_ACROSS)
    box = centre + _cube(half, step)
    sought = _Sought(
        template=_values_at(earlier, box), region=_region_at(mask, earlier, box), role=earlier.role
    )
    found = []
    for scale in SCALES:
        around = scale * _cube(half + REACH_MM / scale, step)
        image = _values_at(new, motion.to_new((centre + around).reshape(-1, 3)).reshape(around.shape))
        found.append(_best(sought, image, scale, step * scale))
    best = max(found, key=lambda one: one.worth)
    expected, place = motion.to_new(np.stack([centre, centre + best.offset_mm]))
    return _told(best, place, float(np.linalg.norm(place - expected)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sought:
    """A lesion with its surroundings, on a cube of points."""

    template: Array
    region: BoolArray
    role: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Match:
    """The best place of one size."""

    worth: float
    likeness: float
    contrast: float
    scale: float
    offset_mm: Floats


def _best(sought: _Sought, image: Array, scale: float, step_mm: float) -> _Match:
    """Return the best place of what is sought in an image around its expected place."""
    likeness = _likeness(image, sought.template)
    contrast = _kept_contrast(sought, image)
    half = [(n - 1) / 2 for n in likeness.shape]
    away = np.stack(
        np.meshgrid(*[np.arange(n) - h for n, h in zip(likeness.shape, half, strict=True)], indexing="ij")
    )
    away_mm = step_mm * np.linalg.norm(away, axis=0)
    worth = np.clip(likeness, 0, 1) * contrast * np.exp(-0.5 * (away_mm / REACH_MM) ** 2)
    worth[away_mm > REACH_MM] = -1
    k, r, c = (int(i) for i in np.unravel_index(int(worth.argmax()), worth.shape))
    return _Match(
        worth=float(worth[k, r, c]),
        likeness=float(likeness[k, r, c]),
        contrast=float(contrast[k, r, c]),
        scale=scale,
        offset_mm=np.asarray(step_mm * away[::-1, k, r, c], dtype=np.float64),
    )


def _kept_contrast(sought: _Sought, image: Array) -> Array:
    """Return at each place the contrast of the region to the rest of the cube, as a share of the earlier one."""
    shape = tuple(a - b + 1 for a, b in zip(image.shape, sought.template.shape, strict=True))
    inside, outside = np.count_nonzero(sought.region), np.count_nonzero(~sought.region)
    if not inside or not outside:
        return np.zeros(shape, dtype=np.float32)
    kernel = np.where(sought.region, 1 / inside, -1 / outside).astype(np.float32)
    had = float((sought.template * kernel).sum(dtype=np.float64))
    if abs(had) <= FAINT.get(sought.role, 0.0):
        return np.ones(shape, dtype=np.float32)
    has = signal.fftconvolve(image, kernel[::-1, ::-1, ::-1], mode="valid")
    return np.asarray(np.clip(has / had, 0, 1), dtype=np.float32)


def _told(best: _Match, place: Floats, offset_mm: float) -> Visibility:
    is_visible = best.likeness >= LIKE and best.contrast >= CONTRASTED
    where = f"tissue like it is seen {offset_mm:.0f} mm from where it was expected"
    sentence = (
        f"{where if is_visible else 'nothing like it is seen where it was expected'} (likeness {best.likeness:.2f}, "
        f"{100 * best.contrast:.0f} % of its contrast, {best.scale:g} times its size)"
    )
    x, y, z = (float(v) for v in place)
    return Visibility(
        visible=is_visible,
        score=float(np.clip(best.likeness, 0, 1)) * best.contrast,
        likeness=best.likeness,
        contrast=best.contrast,
        scale=best.scale,
        found_mm=(x, y, z),
        offset_mm=offset_mm,
        sentence=sentence,
    )


def _cube(half_mm: float, step_mm: float) -> Floats:
    """Return the points x, y, z `(n, n, n, 3)` of a cube around 0 with an odd number of points along each side."""
    side = np.arange(-np.ceil(half_mm / step_mm), np.ceil(half_mm / step_mm) + 1) * step_mm
    z, y, x = np.meshgrid(side, side, side, indexing="ij")
    return np.stack([x, y, z], axis=-1)


def _values_at(volume: Volume, points_mm: Floats) -> Array:
    """Return the values at points `(..., 3)`, LPS mm, linear between voxels; of the nearest voxel beyond the bounds."""
    index = np.moveaxis(volume.to_index(points_mm), -1, 0)
    low = np.clip(np.floor(index.reshape(3, -1).min(axis=1)), 0, np.array(volume.array.shape) - 1).astype(int)
    high = np.clip(np.ceil(index.reshape(3, -1).max(axis=1)) + 1, low + 1, volume.array.shape).astype(int)
    box = volume.array[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
    box = np.nan_to_num(box) if volume.role != "ct" else np.clip(np.nan_to_num(box, nan=-1000.0), *WINDOW_HU)
    return np.asarray(
        ndimage.map_coordinates(box, index - low.reshape(3, 1, 1, 1), order=1, mode="nearest"),
        dtype=np.float32,
    )


def _region_at(mask: Mask, volume: Volume, points_mm: Floats) -> BoolArray:
    """Return whether points `(..., 3)`, LPS mm, lie in a voxel of the mask."""
    index = np.rint(volume.to_index(points_mm)).astype(int) - np.asarray(mask.origin)
    inside = ((index >= 0) & (index < mask.voxels.shape)).all(axis=-1)
    inside[inside] = mask.voxels[tuple(index[inside].T)]
    return np.asarray(inside, dtype=np.bool_)


def _likeness(image: Array, template: Array) -> Array:
    """Return the normalised cross-correlation of a template at each place at which it lies inside the image."""
    from skimage.feature import match_template

    if float(np.ptp(template)) < 1e-6 or float(np.ptp(image)) < 1e-6:
        return np.zeros(
            tuple(a - b + 1 for a, b in zip(image.shape, template.shape, strict=True)), dtype=np.float32
        )
    return np.asarray(match_template(image, template), dtype=np.float32)


__all__ = ["Place", "Visibility", "in_view", "propagate", "visible"]

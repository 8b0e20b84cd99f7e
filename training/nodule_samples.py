"""What the nodule segmenter sees while it learns: a turned patch around a point near a nodule, surroundings unknown.

A crop of the data set is little longer than its nodule, so its edge would tell where the nodule ends. Therefore what
lies outside of the crop is drawn anew each time (its edge, a constant, lung with noise, slices of the same crop with
the nodule taken out, made lung with vessels into which the crop or its nodule alone is set), and the loss counts there
like everywhere. Some are seen on another grid, on which the edge of a nodule is softer and its last slice may hold
little of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.patches import PatchGrid
from plugins.shapes import Spacing
from training.lidc import Nodule
from training.made_lung import lung_on
from training.pasting import LUNG_BELOW_HU, held_by, on_grid, raise_lung

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CROP_SET_IN, NODULE_SET_IN = "crop in made lung", "nodule in made lung"
FILLS = ("edge", "lung", "constant", "slices", CROP_SET_IN, NODULE_SET_IN)
LUNG_HU = (-930.0, -720.0)
REGRIDDED_MM = ((0.7, 5.0), (0.5, 1.0))
"""Thinnest and thickest slices, smallest and largest pixels of another grid, mm."""
THINNER, SMALLER = (-0.9, 1.3), (-0.25, 0.35)
"""Logarithm of how many times thicker its slices and larger its pixels are than those of the crop."""
Box = tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a sample may be from its crop."""

    fill_weights: tuple[float, ...] = (0.25, 0.3, 0.1, 0.35)
    """How often each of `FILLS` is drawn; those at the end that have no number, never."""
    jitter_mm: float = 4.0
    """The point lies at most so far from the centre of the nodule."""
    zoom: float = 0.1
    """Lengths in plane and across are stretched by at most this part."""
    noise_hu: float = 25.0
    """Standard deviation of the noise that every other sample gets, at most."""
    shift_hu: float = 25.0
    """Added to all values, at most."""
    gain: float = 0.06
    """Values are multiplied by 1 plus or minus at most this."""
    regridded: float = 0.0
    """Share of the samples that are seen on another grid, thinner or thicker, with all that surrounds the crop."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surroundable:
    """A nodule crop with what its surroundings are made of."""

    nodule: Nodule
    """The crop."""
    without: Array
    """The image with the nodule taken out, `(K, R, C)`, HU."""
    away_mm: Array
    """How far each voxel is from the nodule, mm, 0 inside, `(K, R, C)`."""
    lung_hu: float
    """Density of the lung in the crop, HU."""


def surroundable(nodule: Nodule) -> Surroundable:
    """Return the crop with a copy in which lung values of the crop stand where the nodule is."""
    spacing = nodule.spacing_mm
    near = ndimage.distance_transform_edt(~nodule.mask, sampling=spacing) <= 2.0 + spacing[1]
    lung = nodule.image[~near & (nodule.image < -600)]
    if lung.size < 50:
        lung = np.full(50, -850.0, dtype=np.float32)
    drawn = np.random.default_rng(nodule.mask.size)
    without = nodule.image.copy()
    without[near] = ndimage.gaussian_filter1d(drawn.choice(lung, int(near.sum())), 1.0)
    away = ndimage.distance_transform_edt(~nodule.mask, sampling=spacing).astype(np.float32)
    return Surroundable(nodule=nodule, without=without, away_mm=away, lung_hu=float(np.median(lung)))


def another_grid(spacing_mm: Spacing, rng: np.random.Generator) -> Spacing:
    """Return the spacing of a grid with thinner or thicker slices and smaller or larger pixels, mm."""
    k_mm = float(np.clip(spacing_mm[0] * np.exp(rng.uniform(*THINNER)), *REGRIDDED_MM[0]))
    r_mm = float(np.clip(spacing_mm[1] * np.exp(rng.uniform(*SMALLER)), *REGRIDDED_MM[1]))
    return (k_mm, r_mm, r_mm)


def regridded(
    image: Array, mask: Array, spacing_mm: Spacing, point: Floats, other_mm: Spacing, rng: np.random.Generator
) -> tuple[Array, Array, Floats]:
    """Return image and mask (0, 1) on a grid of another spacing, thick slices as means of thin ones, and the point.

    The mask keeps its volume, so that slices which hold little of a nodule are none of it; it may be empty.
    `point` is a voxel index, there and here.
    """
    lengths = list(zip(image.shape, spacing_mm, other_mm, strict=True))
    k, r, c = (int((n - 1) * mm / new) + 1 for n, mm, new in lengths)
    at = point * np.asarray(spacing_mm) / np.asarray(other_mm) + rng.uniform(-0.5, 0.5, 3)
    seen, share = (on_grid(one, spacing_mm, point.tolist(), (k, r, c), other_mm, at) for one in (image, mask))
    return seen, held_by(share).astype(np.float32), at


def surround(
    source: Surroundable, low: Ints, high: Ints, fill: str, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return image (HU) and mask (0, 1) of the crop's grid from index `low` to below `high`, filled outside the crop.

    `fill` is one of `FILLS`; the mask is 0 outside of the crop. Only in made lung the crop fades toward its edges.
    """
    image, mask = source.nodule.image, source.nodule.mask
    at = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    inside = [(i >= 0) & (i < n) for i, n in zip(at, image.shape, strict=True)]
    shape = (len(at[0]), len(at[1]), len(at[2]))
    if fill == "edge":
        filled = image[np.ix_(*[np.clip(i, 0, n - 1) for i, n in zip(at, image.shape, strict=True)])]
    elif fill == "lung":
        noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(rng.uniform(0, 70))
        filled = noise + np.float32(rng.uniform(*LUNG_HU))
    elif fill == "constant":
        filled = np.full(shape, rng.choice([-1024, -1000, -850, rng.uniform(-1024, 100)]), dtype=np.float32)
    elif fill == "slices":
        filled = _slices(source.without, at, inside[0], rng)
    else:
        filled = lung_on(shape, source.nodule.spacing_mm, rng)
    box = tuple(slice(int(i.argmax()), int(i.argmax() + i.sum())) for i in inside)
    own = tuple(slice(int(i[h][0]), int(i[h][-1]) + 1) for i, h in zip(at, inside, strict=True))
    out_mask = np.zeros(shape, dtype=np.float32)
    out_mask[box] = mask[own]
    if fill in (CROP_SET_IN, NODULE_SET_IN):
        _set_in(filled[box], source, own, fill == NODULE_SET_IN, rng)
    else:
        filled[box] = image[own]
    return filled, out_mask


def _set_in(target: Array, source: Surroundable, own: Box, alone: bool, rng: np.random.Generator) -> None:
    """Set the crop, or the nodule `alone`, into lung, in place; what is `own` of the crop has the target's shape."""
    crop, away = source.nodule.image[own].copy(), source.away_mm[own]
    aerated = target[target < LUNG_BELOW_HU]
    level = float(np.median(aerated)) if aerated.size else source.lung_hu
    raise_lung(crop, level - source.lung_hu)
    share = _toward_the_edge(source, own, rng.uniform(0.5, 2.5))
    if alone:
        how = rng.random()
        if how < 0.25:  # along its outline, sharp or softened
            share = ndimage.gaussian_filter((away == 0).astype(np.float32), rng.uniform(0, 0.7))
        else:
            whole, fade = rng.uniform(0.3, 1.5) if how < 0.5 else rng.uniform(1.5, 4.0), rng.uniform(0.5, 3.0)
            share = share * np.clip(1 - (away - whole) / fade, 0, 1)
        if rng.random() < 0.7:  # what is attached stays behind
            share = np.where((away > 0) & (crop > LUNG_BELOW_HU), share * np.clip(1.6 - away, 0, 1), share)
    share = np.maximum(share, away == 0)
    target += share.astype(np.float32) * (crop - target)


def _toward_the_edge(source: Surroundable, own: Box, over_mm: float) -> Array:
    """Return 1, fading to 0 over so many mm toward the edges of the crop."""
    lines = []
    for n, mm, part in zip(source.away_mm.shape, source.nodule.spacing_mm, own, strict=True):
        lines.append((np.minimum(np.arange(n), n - 1 - np.arange(n))[part] + 0.5) * mm)
    k, r, c = lines
    near = np.minimum(np.minimum(k[:, None, None], r[None, :, None]), c[None, None, :])
    return np.asarray(np.clip(near / over_mm, 0, 1), dtype=np.float32)


def _slices(without: Array, at: list[Ints], inside: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """Return slices without nodule: its own beside each of the crop, turned ones of any height above and below."""
    mirrored = [
        np.abs((i + n - 1) % max(2 * n - 2, 1) - (n - 1)) for i, n in zip(at, without.shape, strict=True)
    ]
    mirrored[0] = np.where(
        inside, np.clip(at[0], 0, without.shape[0] - 1), rng.integers(0, len(without), len(at[0]))
    )
    filled = without[np.ix_(*mirrored)]
    turned = [rng.random() < 0.5, rng.random() < 0.5]
    for k in np.flatnonzero(~inside):
        if rng.random() < 0.3:
            turned = [rng.random() < 0.5, rng.random() < 0.5]
        filled[k] = filled[k, :: -1 if turned[0] else 1, :: -1 if turned[1] else 1]
    return filled


def draw_sample(
    source: Surroundable, grid: PatchGrid, how: Augmentation, rng: np.random.Generator
) -> tuple[Array, Array, Floats]:
    """Return image (HU) and mask (0..1) on a patch around a point near the nodule, and where the point lies in mm.

    The patch is turned in plane by any angle, mirrored and stretched; the point is its middle. The last value is the
    distance of each row of the patch to the nearest acquired slice, mm, shape `(K,)`.
    """
    nodule = source.nodule
    other_mm = nodule.spacing_mm
    if how.regridded and rng.random() < how.regridded:
        other_mm = another_grid(nodule.spacing_mm, rng)
    spacing = np.asarray(nodule.spacing_mm)
    point = np.asarray(nodule.centre) + _jitter(how.jitter_mm, rng) / spacing
    turn = _turn(rng)
    zoom_k, zoom_rc = 1 + rng.uniform(-how.zoom, how.zoom, 2)
    half_mm = (np.asarray(grid.shape) - 1) / 2 * np.asarray(grid.spacing_mm) * (zoom_k, zoom_rc, zoom_rc)
    reach = np.ceil((half_mm * (1, 1.4143, 1.4143) + np.asarray(other_mm)) / spacing)
    low = np.floor(point - reach).astype(np.int64)
    high = np.ceil(point + reach).astype(np.int64) + 1
    fill = FILLS[rng.choice(len(how.fill_weights), p=how.fill_weights)]
    image, mask = surround(source, low, high, fill, rng)
    at = point - low
    if other_mm != nodule.spacing_mm:
        seen, held, there = regridded(image, mask, nodule.spacing_mm, at, other_mm, rng)
        if held.any():
            image, mask, at, spacing = seen, held, there, np.asarray(other_mm)
    flip = 1 if rng.random() < 0.5 else -1
    at_k = at[0] + flip * np.linspace(-half_mm[0], half_mm[0], grid.shape[0]) / spacing[0]
    hu, truth = _planes(image, mask, at, at_k, turn * zoom_rc, grid, spacing)
    hu = hu * np.float32(1 + rng.uniform(-how.gain, how.gain)) + np.float32(
        rng.uniform(-how.shift_hu, how.shift_hu)
    )
    if rng.random() < 0.5:
        hu += rng.standard_normal(hu.shape, dtype=np.float32) * np.float32(rng.uniform(0, how.noise_hu))
    return hu, truth, np.abs(at_k - np.rint(at_k)) * spacing[0]


def _jitter(reach_mm: float, rng: np.random.Generator) -> Floats:
    """Return an offset in mm: half of the time near, half of the time anywhere within the reach."""
    way = rng.standard_normal(3)
    way /= np.linalg.norm(way)
    far = rng.random() ** (1 / 3) if rng.random() < 0.5 else 0.4 * rng.random()
    return np.asarray(way * far * reach_mm)


def _turn(rng: np.random.Generator) -> Floats:
    """Return a rotation in plane, mirrored or not, shape (2, 2)."""
    angle = rng.uniform(0, 2 * np.pi)
    mirror = 1 if rng.random() < 0.5 else -1
    return np.array([[np.cos(angle), -np.sin(angle)], [mirror * np.sin(angle), mirror * np.cos(angle)]])


def _planes(
    image: Array, mask: Array, point: Floats, at_k: Floats, turn: Floats, grid: PatchGrid, spacing: Floats
) -> tuple[Array, Array]:
    """Return both on the patch: linear across the slices, then in each plane along the turned axes."""
    import torch

    low = np.clip(at_k.astype(np.int64), 0, len(image) - 2)
    weight = (at_k - low).astype(np.float32)[:, None, None]
    pair = np.stack([image, mask])
    planes = pair[:, low] * (1 - weight) + pair[:, low + 1] * weight
    steps = [
        (np.arange(n) - (n - 1) / 2) * s for n, s in zip(grid.shape[1:], grid.spacing_mm[1:], strict=True)
    ]
    offsets = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1) @ turn.T / spacing[1:] + point[1:]
    size = np.asarray(image.shape[1:])
    at = torch.from_numpy((offsets[..., ::-1] / (size[::-1] - 1) * 2 - 1).astype(np.float32))
    flat = torch.from_numpy(planes.reshape(1, -1, *image.shape[1:]))
    out = torch.nn.functional.grid_sample(flat, at[None], align_corners=True, padding_mode="border")
    hu, truth = out.numpy().reshape(2, *grid.shape)
    return hu, truth


__all__ = [
    "FILLS",
    "Augmentation",
    "Surroundable",
    "another_grid",
    "draw_sample",
    "regridded",
    "surround",
    "surroundable",
]

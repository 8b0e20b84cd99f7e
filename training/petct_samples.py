"""What the PET/CT network sees while it learns: a turned patch around a tumour, in a window that tells nothing.

A crop of the data set ends 5 cm from its tumour, so its edge would tell where the tumour ends. Therefore each sample
cuts the window anew on every side, and what lies outside of it is drawn: its edge, a constant with noise, another
patient. The loss counts there like everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from models.petct import PetctView, channels
from training.sts import Sarcoma

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
FILLS = ("edge", "constant", "another patient")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a sample may be from its crop."""

    fill_weights: tuple[float, float, float] = (0.35, 0.3, 0.35)
    """How often each of `FILLS` is drawn."""
    least_margin_mm: float = 5.0
    """The window ends at least so far from the tumour."""
    jitter_mm: float = 10.0
    """The point lies so far from the middle of the tumour's box, standard deviation along each axis."""
    anywhere: float = 0.3
    """How often the point is any voxel of the tumour instead."""
    zoom: float = 0.12
    """Lengths are stretched by at most this part."""
    gain: float = 0.25
    """SUV is multiplied by a factor whose logarithm is at most this."""
    noise: float = 0.1
    """Standard deviation of the noise as a part of the SUV, at most."""
    without_ct: float = 0.3
    """How often a CT that is there is not shown."""


def draw_sample(
    case: Sarcoma, others: Sequence[Sarcoma], view: PetctView, how: Augmentation, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return what the network is shown `(5, K, R, C)` and the mask (0..1) `(K, R, C)` of one sample of a case."""
    low, high = window(case, how, rng)
    at = (_point(case, how, rng) + _offsets_mm(view, how, rng) / np.asarray(case.spacing_mm)).astype(
        np.float32
    )
    held = np.clip(at, low.astype(np.float32), high.astype(np.float32))
    suv, truth, hu = _sampled(case, held)
    off = np.abs(at - held)
    beyond = np.maximum(np.maximum(off[..., 0], off[..., 1]), off[..., 2]) > 0.5
    truth[beyond] = 0.0
    suv, hu = _filled(suv, hu, beyond, others, rng, how)
    suv = suv * np.float32(np.exp(rng.uniform(-how.gain, how.gain)))
    if rng.random() < 0.5:
        noise = ndimage.gaussian_filter(rng.standard_normal(suv.shape, dtype=np.float32), 0.7) * 2.0
        suv = suv * (1 + noise * np.float32(rng.uniform(0, how.noise)))
    if hu is not None:
        hu = None if rng.random() < how.without_ct else hu + np.float32(rng.uniform(-15, 15))
    return channels(view, suv.astype(np.float32), hu), truth


def window(case: Sarcoma, how: Augmentation, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the first and last index (k, r, c) of a part of the crop that holds the whole tumour."""
    inside = np.argwhere(case.mask)
    least = how.least_margin_mm / np.asarray(case.spacing_mm)
    first, last = inside.min(axis=0), inside.max(axis=0)
    end = np.asarray(case.mask.shape) - 1.0
    room = [np.maximum(first - least, 0), np.maximum(end - last - least, 0)]
    cut = [np.floor(r * rng.random(3)) * (rng.random(3) < 0.75) for r in room]
    return cut[0], end - cut[1]


def _point(case: Sarcoma, how: Augmentation, rng: np.random.Generator) -> Floats:
    inside = np.argwhere(case.mask)
    if rng.random() < how.anywhere:
        return np.asarray(inside[rng.integers(len(inside))], dtype=np.float64)
    middle = (inside.min(axis=0) + inside.max(axis=0)) / 2
    point: Floats = middle + rng.standard_normal(3) * how.jitter_mm / np.asarray(case.spacing_mm)
    return point


def _offsets_mm(view: PetctView, how: Augmentation, rng: np.random.Generator) -> Floats:
    """Return where the voxels of the patch lie around the point (k, r, c), mm: turned, mirrored, stretched."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = 1 + rng.uniform(-how.zoom, how.zoom, 2)
    k, r, c = (
        (np.arange(n) - (n - 1) / 2) * view.voxel_mm * side
        for n, side in zip(view.shape, rng.choice((-1.0, 1.0), 3), strict=True)
    )
    plane = np.stack(np.meshgrid(r, c, indexing="ij"), axis=-1) @ turn.T * stretch[1]
    out = np.empty((*view.shape, 3))
    out[..., 0] = (k * stretch[0])[:, None, None]
    out[..., 1:] = plane
    return out


def _sampled(case: Sarcoma, at: Array) -> tuple[Array, Array, Array | None]:
    """Return SUV, mask and HU (None without CT) at voxel indices `(K, R, C, 3)`, linear."""
    layers = [case.suv, case.mask.astype(np.float32), *([] if case.hu is None else [case.hu])]
    size = np.asarray(case.mask.shape)
    places = at[..., ::-1] * (2 / np.maximum(size[::-1] - 1, 1)).astype(np.float32) - 1
    stack, where = torch.from_numpy(np.stack(layers)), torch.from_numpy(places)
    found = torch.nn.functional.grid_sample(
        stack[None], where[None], align_corners=True, padding_mode="border"
    ).numpy()[0]
    return found[0], found[1], found[2] if len(found) == 3 else None


def _filled(
    suv: Array,
    hu: Array | None,
    beyond: NDArray[np.bool_],
    others: Sequence[Sarcoma],
    rng: np.random.Generator,
    how: Augmentation,
) -> tuple[Array, Array | None]:
    """Return both with values of their own beyond the window."""
    fill = FILLS[rng.choice(len(FILLS), p=how.fill_weights)]
    count = int(beyond.sum())
    if fill == "constant":
        level, spread = rng.uniform(0, 1.0), rng.uniform(0, 0.3)
        suv[beyond] = np.maximum(level + spread * rng.standard_normal(count, dtype=np.float32), 0)
        if hu is not None:
            hu[beyond] = rng.choice((-1000.0, -100.0, 40.0)) + 20 * rng.standard_normal(
                count, dtype=np.float32
            )
    elif fill == "another patient" and others:
        other = others[int(rng.integers(len(others)))]
        shift = rng.integers(0, other.suv.shape)
        at = [np.arange(n) + s for n, s in zip(suv.shape, shift, strict=True)]
        folded = [
            np.abs((i + n - 1) % max(2 * n - 2, 1) - (n - 1))
            for i, n in zip(at, other.suv.shape, strict=True)
        ]
        suv[beyond] = other.suv[np.ix_(*folded)][beyond]
        if hu is not None:
            hu[beyond] = 40.0 if other.hu is None else other.hu[np.ix_(*folded)][beyond]
    return suv, hu

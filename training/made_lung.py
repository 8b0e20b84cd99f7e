"""Lung that was never scanned, with vessels, bronchi, pleura and fissures: what a nodule of a crop is set into.

A crop ends a few millimetres beside its nodule, so a network that knew crops alone would take the next vessel of a
whole scan for a part of it. Everything here is drawn from a generator of random numbers; no patient is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
SIDE = 112
"""Voxels along each side of a block."""
VOXEL_MM = 0.8
"""Side of its voxels, mm."""
BLOCKS = 64
"""So many blocks are made; each sample takes a part of one, mirrored and with its axes exchanged."""
LUNG_HU = (-930.0, -760.0)
VESSEL_HU = (-20.0, 180.0)
STEP_MM = 6.0
"""A vessel bends from step to step."""
KINDS = ((40, 100, 0.4, 0.9), (14, 40, 0.9, 2.0), (0, 8, 2.0, 5.0))
"""Thin, middle and thick vessels: fewest, most, smallest and largest radius where they begin, mm."""
WALL_SHARE, FISSURE_SHARE, BRONCHUS_SHARE = 0.4, 0.3, 0.25
EDGE_MM = 0.8
"""Over this distance the edge of a vessel is blurred."""


@dataclass(frozen=True, kw_only=True)
class _Piece:
    start: Floats
    end: Floats
    radius_mm: float


def lung_on(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Array:
    """Return a part of a block on a grid of that shape and spacing, HU `(K, R, C)`; mirrored where the block ends."""
    made = np.transpose(block(int(rng.integers(BLOCKS))), rng.permutation(3))
    at = []
    for n, mm in zip(shape, spacing_mm, strict=True):
        place = (np.arange(n) - (n - 1) / 2) * mm / VOXEL_MM + SIDE / 2 + rng.uniform(-12, 12)
        turned = np.abs((np.rint(place).astype(np.int64) + SIDE - 1) % (2 * SIDE - 2) - (SIDE - 1))
        at.append(turned[::-1] if rng.random() < 0.5 else turned)
    return made[np.ix_(*at)].astype(np.float32) + np.float32(rng.uniform(-40, 40))


@cache
def block(number: int) -> NDArray[np.int16]:
    """Return one block, always the same and made once, HU `(K, R, C)`, `SIDE` voxels of `VOXEL_MM` along each side."""
    rng = np.random.default_rng((7, number))
    level = rng.uniform(*LUNG_HU)
    hu = np.full((SIDE,) * 3, level, dtype=np.float32)
    hu += ndimage.zoom(rng.normal(0, 25, (6, 6, 6)), SIDE / 6, order=1).astype(np.float32)
    for fewest, most, thin, thick in KINDS:
        for _ in range(rng.integers(fewest, most + 1)):
            blood, hollow = rng.uniform(*VESSEL_HU), thin >= 0.9 and rng.random() < BRONCHUS_SHARE
            for piece in _vessel(np.exp(rng.uniform(np.log(thin), np.log(thick))), rng):
                _paint(hu, piece, blood)
                if hollow:
                    _paint(
                        hu, _Piece(start=piece.start, end=piece.end, radius_mm=0.65 * piece.radius_mm), -980.0
                    )
    for share, thick_mm in ((WALL_SHARE, np.inf), (FISSURE_SHARE, 0.4)):
        if rng.random() < share:
            _paint_wall(hu, thick_mm, rng)
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape), rng.uniform(0.3, 1.1))
    hu += (rng.uniform(8, 45) * noise / noise.std()).astype(np.float32)
    return np.asarray(np.rint(hu), dtype=np.int16)


def _vessel(radius_mm: float, rng: np.random.Generator) -> Iterator[_Piece]:
    """Yield the pieces of a vessel and its branches, thinner from step to step."""
    waiting = [(rng.uniform(0, SIDE * VOXEL_MM, 3), _way(rng), radius_mm)]
    for _ in range(24):
        if not waiting:
            return
        here, way, wide = waiting.pop()
        if wide < 0.35:
            continue
        there = here + way * STEP_MM * rng.uniform(0.6, 1.4)
        yield _Piece(start=here, end=there, radius_mm=wide)
        ahead = way + 0.3 * _way(rng)
        waiting.append((there, ahead / np.linalg.norm(ahead), wide * rng.uniform(0.9, 1.0)))
        if rng.random() < 0.25:
            aside = way + 0.9 * _way(rng)
            waiting.insert(0, (there, aside / np.linalg.norm(aside), wide * rng.uniform(0.5, 0.8)))


def _way(rng: np.random.Generator) -> Floats:
    way = rng.standard_normal(3)
    return np.asarray(way / np.linalg.norm(way))


def _paint(hu: Array, piece: _Piece, value: float) -> None:
    """Paint a round piece into a block, in place; its edge is blurred."""
    reach = piece.radius_mm + EDGE_MM
    low = np.floor((np.minimum(piece.start, piece.end) - reach) / VOXEL_MM).astype(int)
    high = np.ceil((np.maximum(piece.start, piece.end) + reach) / VOXEL_MM).astype(int) + 1
    box = tuple(slice(max(0, a), max(0, min(SIDE, b))) for a, b in zip(low, high, strict=True))
    if any(part.stop <= part.start for part in box):
        return
    axes = [np.arange(part.start, part.stop) * VOXEL_MM for part in box]
    way = piece.end - piece.start
    gaps = [a.reshape([-1 if i == n else 1 for i in range(3)]) - piece.start[n] for n, a in enumerate(axes)]
    along = np.clip(sum(g * w for g, w in zip(gaps, way, strict=True)) / float(way @ way), 0, 1)
    square = sum((g - along * w) ** 2 for g, w in zip(gaps, way, strict=True))
    share = np.clip(0.5 - (np.sqrt(square) - piece.radius_mm) / EDGE_MM, 0, 1).astype(np.float32)
    hu[box] += share * (np.float32(value) - hu[box])


def _paint_wall(hu: Array, thick_mm: float, rng: np.random.Generator) -> None:
    """Paint what lies behind a slightly bent surface, so thick, in place."""
    way, middle = _way(rng), (SIDE - 1) / 2 * VOXEL_MM
    axes = [
        (np.arange(SIDE) * VOXEL_MM - middle).reshape([-1 if i == n else 1 for i in range(3)])
        for n in range(3)
    ]
    bend = rng.normal(0, 0.004, 3)
    behind = sum(a * w + b * a * a for a, w, b in zip(axes, way, bend, strict=True)) - rng.uniform(6, 36)
    share = np.clip(0.5 + behind / EDGE_MM, 0, 1) * np.clip(0.5 + (thick_mm - behind) / EDGE_MM, 0, 1)
    hu += share.astype(np.float32) * (np.float32(rng.uniform(0, 70) if thick_mm > 5 else -300) - hu)


__all__ = ["block", "lung_on"]

"""Whole scans with nodules of other patients set into their lungs: where a detector can be judged on known places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.lidc import Nodule
from training.pasting import Fade, donor_of, set_in, shape_of
from training.scans import Scan

Array = NDArray[np.float32]
APART_MM = 40.0
"""Nodules lie at least so far from each other and from the surface of a known lesion, mm."""
DEPTH_MM = 4.0
"""They lie at least so deep in the lung, mm."""
TRIES = 400
WHOLE_MM, FADE_MM = (1.5, 3.5), (2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A nodule that was set in."""

    nodule: Nodule
    """Which one."""
    centre: tuple[float, float, float]
    """Where, voxel index of the scan."""


def placed_in(
    scan: Scan, nodules: Sequence[Nodule], seed: int, at_most: int = 12
) -> Iterator[tuple[Array, tuple[Placed, ...]]]:
    """Yield copies of a scan's HU `(K, R, C)` with the nodules set in, at most so many in each, until all had a place.

    Places, mirrors and fading are drawn by the seed. A nodule for which an empty scan has no place is left out.
    """
    rng = np.random.default_rng(seed)
    deep = np.argwhere(ndimage.distance_transform_edt(scan.inside, sampling=scan.spacing_mm) >= DEPTH_MM)
    waiting = list(nodules)
    while waiting:
        hu, placed = scan.hu.copy(), list[Placed]()
        later = []
        for nodule in waiting:
            if len(placed) == at_most or (point := _place(scan, deep, placed, rng)) is None:
                later.append(nodule)
                continue
            fade = Fade(
                whole_mm=rng.uniform(*WHOLE_MM),
                fade_mm=rng.uniform(*FADE_MM),
                mirrored=(rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.5),
            )
            set_in(hu, scan.spacing_mm, np.asarray(point), donor_of(nodule), shape_of(nodule), fade)
            placed.append(Placed(nodule=nodule, centre=point))
        if not placed:
            return
        yield hu, tuple(placed)
        waiting = later


def _place(
    scan: Scan, deep: NDArray[np.int64], placed: Sequence[Placed], rng: np.random.Generator
) -> tuple[float, float, float] | None:
    """Return a voxel of the lung that is far from everything that is known; None when none was found."""
    steps = np.asarray(scan.spacing_mm)
    for index in rng.integers(0, len(deep), TRIES):
        point = deep[index].astype(np.float64)
        gaps = [float(np.linalg.norm((point - np.asarray(p.centre)) * steps)) for p in placed]
        if min(gaps, default=np.inf) >= APART_MM and scan.away_mm(point) >= APART_MM / 2:
            k, r, c = point.tolist()
            return (k, r, c)
    return None


__all__ = ["Placed", "placed_in"]

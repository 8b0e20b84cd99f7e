"""Nodules set into the lungs of whole CTs: what surrounds them there is real, and no crop tells where they end.

A nodule comes alone, without the pleura or vessel that it is attached to, and where its surroundings are aerated: what
lies in the lung beside its truth is the scan's own. It has the scan's grid there, which alone costs some Dice.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from plugins.contract import Array, BoolArray
from plugins.shapes import Spacing
from training.evaluate.crops import Point, inner_point
from training.lidc import Nodule
from training.pasting import (
    LUNG_BELOW_HU,
    Fade,
    Shape,
    donor_alone,
    held_by,
    reach_mm,
    set_in,
    shape_of,
    shape_on,
    window_of,
)
from training.scans import Scan, load_scan, present

DEPTH_MM, APART_MM = 6.0, 20.0
"""How deep in the lung, and how far from the surface of a known tumour, a nodule is set."""
TRIES, BESIDE_MM = 30, 3.0
"""Of so many places that one is taken in which the scan is least dense within so many mm of the nodule."""
FADE = Fade(whole_mm=2.5, fade_mm=3.0)
HALF_MM = 50.0
"""How much of the scan the model is shown on each side of the nodule; it looks no further than this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """A scan, and where in it a nodule can be set."""

    scan: Scan
    """The scan."""
    points: NDArray[np.int64]
    """Voxels (k, r, c) of the lung, `(N, 3)`, in an order that is always the same."""

    @property
    def setting(self) -> str:
        """Return how the setting is called in a report."""
        return f"set into {self.scan.name}"

    def with_nodule(self, nodule: Nodule) -> tuple[Array, BoolArray, Point]:
        """Return a part of the scan with a nodule in it, its truth `(K, R, C)` and a point in it.

        The place depends on the nodule only. The truth is empty when the slices are too thick to hold it.
        """
        nodule = nodule.upright()
        shape = shape_of(nodule)
        chosen = zlib.crc32(nodule.case.case_id.encode()) + np.arange(TRIES)
        near = self.points[chosen % len(self.points)]
        image, at = window_of(self.scan, self._clearest(shape, near), HALF_MM)
        lies, _ = set_in(image, self.scan.spacing_mm, at, donor_alone(nodule), shape, FADE)
        truth = held_by(lies)
        return image, truth, inner_point(truth, self.scan.spacing_mm) if truth.any() else (0.0, 0.0, 0.0)

    def _clearest(self, shape: Shape, near: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the first of those voxels (of `(N, 3)`) at which the fewest voxels beside a shape are dense."""
        beside = _beside(shape, self.scan.spacing_mm)
        dense = []
        for voxel in near:
            at = beside + voxel
            at = at[((at >= 0) & (at < self.scan.hu.shape)).all(axis=1)]
            dense.append(int(np.count_nonzero(self.scan.hu[tuple(at.T)] > LUNG_BELOW_HU)))
        return np.asarray(near[int(np.argmin(dense))], dtype=np.float64)


def _beside(shape: Shape, spacing_mm: Spacing) -> NDArray[np.int64]:
    """Return how far the voxels beside a shape are from the one that its centre lies in, voxels, `(V, 3)`."""
    half = np.ceil((reach_mm(shape) + BESIDE_MM) / np.asarray(spacing_mm)).astype(np.int64)
    away = shape_on((2 * half + 1).tolist(), spacing_mm, half.astype(np.float64), shape)
    return np.argwhere((away > 0) & (away <= BESIDE_MM)) - half


def places(root: Path) -> Iterator[Places]:
    """Yield every scan that a folder of data sets holds (`training.scans`); reading one takes seconds."""
    for name in present(root):
        scan = load_scan(name, root)
        depth = ndimage.distance_transform_edt(scan.inside, sampling=scan.spacing_mm)
        deep = np.argwhere(depth >= DEPTH_MM)
        drawn = deep[np.random.default_rng(0).permutation(len(deep))[:5000]]
        free = [scan.away_mm(point.astype(np.float64)) >= APART_MM for point in drawn]
        yield Places(scan=scan, points=drawn[free])


__all__ = ["Places", "places"]

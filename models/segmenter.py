"""Drawing one lesion from one point inside it: the door that any segmenter fits through, and a classical one.

Arrays in, arrays out: a learned model replaces the inside of this door without the analysis noticing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.card import ModelCard

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Index = tuple[int, int, int]


@runtime_checkable
class LesionSegmenter(Protocol):
    """What draws one lesion around one point."""

    @property
    def card(self) -> ModelCard:
        """Return who draws, with every number that changes what it draws."""

    def segment(
        self, image: Array, spacing_mm: Spacing, seed: Index, within: BoolArray | None = None
    ) -> BoolArray:
        """Return the lesion that holds (or lies next to) `seed`, boolean `(K, R, C)` like `image`; empty when none.

        `image` is float32 HU `(K, R, C)` with spacing (k, r, c) in mm. `within`, boolean of the same shape, is where
        a lesion may lie (the closed lungs); what is drawn outside of it is cut off.
        """


@dataclass(frozen=True, kw_only=True)
class ClassicalNoduleSegmenter:
    """A lung nodule by an adaptive threshold half-way between nodule and lung, cut loose from vessels and wall.

    Cutting loose is an opening with a ball that is a fraction of the largest ball which fits around the seed, then
    a limit on how far from that ball's centre the lesion may reach. What the opening takes away grows back at least one
    voxel along each axis, for slices may lie further apart than it is wide. Spiculae thinner than the opening are
    lost, and a nodule that is no thicker than the vessel or wall it sits on is cut by a guess.
    """

    opening: float = 0.5
    """Radius of the opening, as a part of the radius of the largest inscribed ball."""
    reach: float = 2.2
    """How far the lesion may reach from the centre of that ball, in radii of it."""
    lowest_hu: float = -700.0
    """The threshold is never below this (ground glass)."""
    highest_hu: float = -300.0
    """The threshold is never above this (solid)."""
    largest_mm: float = 120.0
    """Nothing further than half of this from the seed is looked at."""

    @property
    def card(self) -> ModelCard:
        """Return the card: a fixed procedure with these settings."""
        return ModelCard(
            name="classical-nodule-segmenter",
            version="0.2.0",
            kind="classical",
            intended_use="lung nodules of 4 to 60 mm on CT in HU, from one point inside; research use only",
            parameters=asdict(self),
        )

    def segment(
        self, image: Array, spacing_mm: Spacing, seed: Index, within: BoolArray | None = None
    ) -> BoolArray:
        """Return the lesion around `seed`, boolean `(K, R, C)`: see `LesionSegmenter.segment`."""
        out = np.zeros(image.shape, dtype=np.bool_)
        for half_mm in (16.0, 32.0, self.largest_mm / 2):
            box = _around(seed, half_mm, spacing_mm, image.shape)
            inside = None if within is None else within[box]
            local: Index = (seed[0] - box[0].start, seed[1] - box[1].start, seed[2] - box[2].start)
            found = self._in_box(image[box], spacing_mm, local, inside)
            cut = _touches_inner_edge(found, box, image.shape)
            out[:] = False
            out[box] = found
            if not cut:
                break
        return out

    def _in_box(self, image: Array, spacing_mm: Spacing, seed: Index, within: BoolArray | None) -> BoolArray:
        """Return the lesion in a box that is just large enough."""
        threshold = self._threshold(image, spacing_mm, seed, within)
        dense = image > threshold
        if within is not None:
            dense &= within
        nothing = np.zeros(image.shape, dtype=np.bool_)
        start = _nearest(dense, seed, spacing_mm, 3.0)
        if start is None:
            return nothing
        labels = cc3d.connected_components(dense, connectivity=6)
        piece: BoolArray = labels == labels[start]
        depth = _depth(piece, spacing_mm)
        centre = _climb(depth, start)
        return self._cut_loose(piece, depth, centre, spacing_mm)

    def _threshold(self, image: Array, spacing_mm: Spacing, seed: Index, within: BoolArray | None) -> float:
        """Return the HU half-way between the core at the seed and the lung around it."""
        distance = _distance_to(seed, image.shape, spacing_mm)
        core = image[distance <= max(1.5, 0.75 * min(spacing_mm))]
        around = image if within is None else image[within]
        lung = around[around < -500.0]
        background = float(np.median(lung)) if lung.size > 20 else -850.0
        half = (float(np.median(core)) + background) / 2.0
        return float(np.clip(half, self.lowest_hu, self.highest_hu))

    def _cut_loose(self, piece: BoolArray, depth: Array, centre: Index, spacing_mm: Spacing) -> BoolArray:
        radius_mm = float(depth[centre])
        distance = _distance_to(centre, piece.shape, spacing_mm)
        opened_mm = self.opening * radius_mm
        labels = cc3d.connected_components(depth > opened_mm, connectivity=26)
        core = (labels == labels[centre]) & (distance <= self.reach * radius_mm)
        regrown_mm = opened_mm + 0.5 * min(spacing_mm)
        steps_mm = [min(s, regrown_mm) for s in spacing_mm]
        away = ndimage.distance_transform_edt(~core, sampling=steps_mm)
        grown = piece & (away <= regrown_mm) & (distance <= self.reach * radius_mm + opened_mm)
        pieces = cc3d.connected_components(grown, connectivity=6)
        loose: BoolArray = pieces == pieces[centre]
        return ndimage.binary_fill_holes(loose) if loose.any() else loose


def _around(
    seed: Index, half_mm: float, spacing_mm: Spacing, shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    k, r, c = (
        slice(max(0, i - max(2, round(half_mm / s))), min(n, i + max(2, round(half_mm / s)) + 1))
        for i, s, n in zip(seed, spacing_mm, shape, strict=True)
    )
    return (k, r, c)


def _touches_inner_edge(mask: BoolArray, box: tuple[slice, slice, slice], shape: tuple[int, ...]) -> bool:
    """Return True when the mask touches a face of its box that is not a face of the image."""
    faces = (
        (mask[0], box[0].start > 0),
        (mask[-1], box[0].stop < shape[0]),
        (mask[:, 0], box[1].start > 0),
        (mask[:, -1], box[1].stop < shape[1]),
        (mask[:, :, 0], box[2].start > 0),
        (mask[:, :, -1], box[2].stop < shape[2]),
    )
    return any(inner and bool(face.any()) for face, inner in faces)


def _depth(mask: BoolArray, spacing_mm: Spacing) -> Array:
    """Return the distance of each voxel of the mask to its surface, mm; beyond the box counts as outside."""
    padded = np.pad(mask, 1)
    depth: Array = ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1].astype(
        np.float32
    )
    return depth


def _distance_to(point: Index, shape: tuple[int, ...], spacing_mm: Spacing) -> Array:
    squares = [((np.arange(n) - p) * s) ** 2 for n, p, s in zip(shape, point, spacing_mm, strict=True)]
    distance: Array = np.sqrt(
        squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]
    ).astype(np.float32)
    return distance


def _nearest(mask: BoolArray, point: Index, spacing_mm: Spacing, limit_mm: float) -> Index | None:
    """Return the voxel of the mask nearest to the point, or None when it is further than the limit."""
    if mask[point]:
        return point
    inside = np.argwhere(mask)
    if inside.size == 0:
        return None
    distance = np.linalg.norm((inside - np.asarray(point)) * np.asarray(spacing_mm), axis=1)
    if float(distance.min()) > max(limit_mm, *spacing_mm):
        return None
    k, r, c = (int(i) for i in inside[int(distance.argmin())])
    return (k, r, c)


def _climb(depth: Array, start: Index) -> Index:
    """Return the local maximum of depth that is reached from `start` by steepest ascent."""
    here = start
    while True:
        low = [max(0, i - 1) for i in here]
        window = depth[tuple(slice(a, i + 2) for a, i in zip(low, here, strict=True))]
        k, r, c = (int(i) for i in np.unravel_index(int(window.argmax()), window.shape))
        there: Index = (low[0] + k, low[1] + r, low[2] + c)
        if depth[there] <= depth[here]:
            return here
        here = there

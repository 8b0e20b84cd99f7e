"""How a network draws one nodule from one point: a coarse pass finds size and centre, then others look around there.

The first pass looks at a wide patch; where it found the nodule, the next one looks, on a finer grid when the nodule is
small. So a point that is some millimetres off gives nearly what the centre gives. Training makes its samples with
`channels`, so that a network always sees what it learned from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from models.patches import PatchGrid, cut, point_channel, put_back, scaled

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]
Network = Callable[[Array], Array]
"""float32 `(N, C, K, R, C)` to logits `(N, 1, K, R, C)`."""
MIRRORS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4))
REFERENCE_MM = (1.25, 0.7, 0.8)
"""Slice distance, pixel and patch spacing at which the channels that tell them are 0."""


@dataclass(frozen=True, kw_only=True)
class NoduleView:
    """What a nodule network is shown, and in how many passes."""

    shape: tuple[int, int, int]
    """Voxels of a patch `(K, R, C)`."""
    voxels_mm: tuple[float, ...]
    """Voxel sizes that are used, the same in all directions, the finest first, mm."""
    fits_mm: tuple[float, ...]
    """For each voxel size but the last: the longest side of the box around a nodule that is drawn with it, mm."""
    first: int
    """Which voxel size the first pass has."""
    windows_hu: tuple[tuple[float, float], ...]
    """One channel for each window, lowest and highest HU."""
    point_sigma_mm: float
    """Width of the Gaussian that marks the point, mm."""
    tells_acquisition: bool = False
    """Four more channels: distance to the nearest acquired slice, slice distance, pixel and voxel size."""
    passes: int = 3
    """How often the nodule is looked at; from the second pass on around its own centre."""
    furthest_mm: float = 8.0
    """One pass moves the point by at most this, mm."""
    level: float = 0.4
    """Probability from which a voxel counts when size and centre are found."""

    @property
    def channels(self) -> int:
        """Return the number of channels: the windows, the point, and what tells the acquisition."""
        return len(self.windows_hu) + (5 if self.tells_acquisition else 1)

    def voxel_mm(self, extent_mm: float) -> float:
        """Return the voxel size with which a nodule is drawn whose box has a longest side of `extent_mm`."""
        return self.voxels_mm[sum(extent_mm > limit for limit in self.fits_mm)]

    def grid(self, spacing_mm: float) -> PatchGrid:
        """Return the patch with cubes of that size."""
        return PatchGrid(shape=self.shape, spacing_mm=(spacing_mm,) * 3)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> NoduleView:
        """Return the view that a card or an experiment describes. Raises KeyError, TypeError and ValueError."""
        k, r, c = plain["shape"]
        windows = tuple((float(low), float(high)) for low, high in plain["windows_hu"])
        sizes = {key: tuple(float(mm) for mm in plain[key]) for key in ("voxels_mm", "fits_mm")}
        view = cls(**{**plain, **sizes, "shape": (int(k), int(r), int(c)), "windows_hu": windows})
        view._require_usable()
        return view

    def levels_of(self, said: Any) -> tuple[float, ...]:
        """Return the level of each voxel size; a card says one for all, or each. Raises TypeError and ValueError."""
        levels, sizes = tuple(float(level) for level in said), len(self.voxels_mm)
        if len(levels) not in (1, sizes) or not all(0 <= level <= 1 for level in levels):
            raise ValueError(f"not one probability for each of {sizes} voxel sizes")
        return levels * sizes if len(levels) == 1 else levels

    def _require_usable(self) -> None:
        """Raise ValueError, or TypeError, when nothing can be shown so."""
        voxels_mm, fits_mm, windows = self.voxels_mm, self.fits_mm, self.windows_hu
        if not voxels_mm or len(fits_mm) != len(voxels_mm) - 1 or self.first not in range(len(voxels_mm)):
            raise ValueError("first is one of voxels_mm, and each of them but the last has one of fits_mm")
        lengths_mm = (*voxels_mm, *fits_mm, self.point_sigma_mm, self.furthest_mm)
        if not all(0 < mm < math.inf for mm in lengths_mm) or min(self.shape) < 1 or self.passes < 1:
            raise ValueError("shape, passes and all that is in mm are more than 0")
        if any(a >= b for sizes_mm in (voxels_mm, fits_mm) for a, b in pairwise(sizes_mm)):
            raise ValueError("voxels_mm and fits_mm are named in ascending order, the finest first")
        if not windows or not all(-math.inf < low < high < math.inf for low, high in windows):
            raise ValueError("windows_hu are pairs of HU, the lower one first")
        if not 0 <= self.level <= 1:
            raise ValueError("level is a probability")


def channels(
    view: NoduleView, hu: Array, voxel_mm: float, spacing_mm: Sequence[float], slice_distance_mm: Floats
) -> Array:
    """Return what the network is shown of a patch of HU `(K, R, C)`: float32 `(C, K, R, C)`.

    Windows and the point; when the view tells the acquisition, distance of each plane to the nearest acquired slice
    (mm, `slice_distance_mm` `(K,)`) and log2 of slice distance, pixel and patch voxel against `REFERENCE_MM`.
    """
    shown = [scaled(hu, low, high) for low, high in view.windows_hu]
    shown.append(point_channel(view.grid(voxel_mm), view.point_sigma_mm))
    if not view.tells_acquisition:
        return np.stack(shown)
    whole = np.ones(view.shape, dtype=np.float32)
    told = (spacing_mm[0], spacing_mm[1], voxel_mm)
    return np.stack(
        [
            *shown,
            whole * slice_distance_mm.astype(np.float32)[:, None, None],
            *(whole * np.float32(np.log2(mm / usual)) for mm, usual in zip(told, REFERENCE_MM, strict=True)),
        ]
    )


def look(
    view: NoduleView, image: Array, spacing_mm: Sequence[float], point: Floats, voxel_mm: float
) -> Array:
    """Return what the network is shown of an image (HU) around a point (voxel index): float32 `(C, K, R, C)`."""
    grid = view.grid(voxel_mm)
    at = point[0] + (np.arange(grid.shape[0]) - (grid.shape[0] - 1) / 2) * voxel_mm / spacing_mm[0]
    distance = np.abs(at - np.rint(at)) * spacing_mm[0]
    return channels(view, cut(image, spacing_mm, point.tolist(), grid), voxel_mm, spacing_mm, distance)


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What the last pass gave."""

    inputs: Array
    """What the network was shown, `(C, K, R, C)`."""
    logits: Array
    """Mean logits of the networks and mirrors, on the patch `(K, R, C)`."""
    grid: PatchGrid
    """The patch of the last pass."""
    point: tuple[float, float, float]
    """Its middle, voxel index (k, r, c) of the image."""

    def probabilities(
        self, shape: Sequence[int], spacing_mm: Sequence[float], temperature: float = 1.0
    ) -> Array:
        """Return the probability of each voxel of the image `(K, R, C)`; 0 beyond the patch."""
        p = sigmoid(self.logits / np.float32(temperature))
        return put_back(p, shape, spacing_mm, self.point, self.grid)


def draw(
    networks: Sequence[Network],
    view: NoduleView,
    image: Array,
    spacing_mm: Sequence[float],
    point: Sequence[float] | Floats,
    mirrors: int = 1,
) -> Drawn:
    """Return what networks see around a point (voxel index, not whole) of an image `(K, R, C)` in HU.

    Only the last pass asks all networks and `mirrors` (1 to 8) mirror images; the earlier ones ask the first network.
    """
    here = np.asarray(point, dtype=np.float64)
    voxel_mm = view.voxels_mm[view.first]
    for _ in range(view.passes - 1):
        logits = networks[0](look(view, image, spacing_mm, here, voxel_mm)[None])[0, 0]
        offset_mm, extent_mm = _place(sigmoid(logits), voxel_mm, view.level)
        far = float(np.linalg.norm(offset_mm))
        here = here + offset_mm * min(1.0, view.furthest_mm / max(far, 1e-9)) / np.asarray(spacing_mm)
        voxel_mm = view.voxel_mm(extent_mm)
    inputs = look(view, image, spacing_mm, here, voxel_mm)
    seen = [_mirrored(network, inputs, axes) for network in networks for axes in MIRRORS[:mirrors]]
    k, r, c = here.tolist()
    return Drawn(
        inputs=inputs,
        logits=np.asarray(np.mean(seen, axis=0), dtype=np.float32),
        grid=view.grid(voxel_mm),
        point=(k, r, c),
    )


def _mirrored(network: Network, inputs: Array, axes: tuple[int, ...]) -> Array:
    if not axes:
        return np.asarray(network(inputs[None])[0, 0], dtype=np.float32)
    given = network(np.ascontiguousarray(np.flip(inputs[None], axes)))
    return np.asarray(np.flip(given, axes)[0, 0], dtype=np.float32)


def _place(p: Array, voxel_mm: float, level: float) -> tuple[Floats, float]:
    """Return where the drawn piece nearest to the middle lies from there (mm), and the longest side of its box, mm."""
    middle = (np.asarray(p.shape) - 1) / 2
    piece = nearest_piece(p > min(level, float(p.max()) * 0.8), middle, (voxel_mm,) * 3)
    held = np.argwhere(piece)
    if held.size == 0:
        return np.zeros(3), voxel_mm
    return (held.mean(axis=0) - middle) * voxel_mm, float((np.ptp(held, axis=0) + 1).max()) * voxel_mm


def nearest_piece(mask: BoolArray, point: Sequence[float] | Floats, spacing_mm: Sequence[float]) -> BoolArray:
    """Return the 26-connected piece of a mask `(K, R, C)` that holds, or lies nearest to, a point (voxel index)."""
    labels, count = cc3d.connected_components(mask.view(np.uint8), connectivity=26, return_N=True)
    if count <= 1:
        return mask
    held = np.argwhere(mask)
    far = (((held - np.asarray(point)) * np.asarray(spacing_mm)) ** 2).sum(axis=1)
    k, r, c = held[int(far.argmin())]
    return np.asarray(labels == labels[k, r, c])


def mirrors_of(said: Any) -> int:
    """Return how many mirror images a card says, 1 to 8. Raises TypeError and ValueError."""
    if int(said) not in range(1, len(MIRRORS) + 1):
        raise ValueError(f"{said} is not 1 to {len(MIRRORS)}")
    return int(said)


def sigmoid(logits: Array) -> Array:
    """Return 1 / (1 + exp(-logits)), same shape."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), dtype=np.float32)

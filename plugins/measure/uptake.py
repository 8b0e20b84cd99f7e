"""Uptake of a region on PET: SUV peak, metabolic volume, total glycolysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plugins.contract import Mask, Volume
from plugins.errors import Refused
from plugins.measure.volume import MM3_PER_ML, check_mask

PEAK_RADIUS_MM = 10.0 * (3.0 / (4.0 * np.pi)) ** (1.0 / 3.0)
"""Radius of a sphere of 1 ml: 6.2035 mm."""
PeakVariant = Literal["global", "local", "weighted"]
_SUPERSAMPLING = 9
_SLAB = 32
_PEAK_WORDS = {
    "global": "1 ml sphere anywhere in the region, voxel centres (IBSI global)",
    "local": "1 ml sphere at the voxel of SUVmax, voxel centres (IBSI local)",
    "weighted": "1 ml sphere anywhere in the region, voxels weighted by part",
}


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Which voxels of a region count as metabolically active: those at or above a level."""

    words: str
    """How the level is found, for the method text."""
    suv: float | None = None
    """The level itself, or"""
    fraction_of_maximum: float | None = None
    """the part of the region's own maximum that is the level."""

    def __post_init__(self) -> None:
        if (self.suv is None) == (self.fraction_of_maximum is None):
            raise ValueError("a threshold is either an SUV or a fraction of the maximum")

    @classmethod
    def fixed(cls, suv: float = 4.0) -> Threshold:
        """Return a fixed level."""
        return cls(suv=suv, words=f"SUV >= {suv:g} (fixed threshold)")

    @classmethod
    def percent(cls, percent: float = 41.0) -> Threshold:
        """Return a level relative to the maximum of the region; fails for heterogeneous or faint lesions."""
        return cls(fraction_of_maximum=percent / 100.0, words=f"SUV >= {percent:g} % of the region's SUVmax")

    @classmethod
    def percist(cls, liver_mean: float, liver_sd: float) -> Threshold:
        """Return 1.5 x liver mean + 2 SD, here in SUVbw and not in SUL as PERCIST 1.0 has it."""
        level = 1.5 * liver_mean + 2.0 * liver_sd
        return cls(suv=level, words=f"SUV >= {level:.2f} (1.5 x liver mean + 2 SD, SUVbw)")

    def level(self, maximum: float) -> float:
        """Return the level, SUV, for a region with this maximum."""
        return self.suv if self.suv is not None else float(self.fraction_of_maximum or 0.0) * maximum


@dataclass(frozen=True, kw_only=True)
class Metabolism:
    """The part of a region above a threshold."""

    mtv_ml: float
    """Metabolic tumour volume, ml."""
    tlg_g: float
    """Total lesion glycolysis: MTV x mean SUV of that part, g (0 when nothing is above the threshold)."""
    level: float
    """The threshold, SUV."""


def metabolism(mask: Mask, volume: Volume, threshold: Threshold) -> Metabolism:
    """Return MTV (ml) and TLG (g) of the voxels of a mask at or above a threshold.

    Refuses a volume without SUV (`not-suv`), a mask of another grid and an empty one.
    """
    _check_suv(mask, volume)
    values = volume.array[mask.box]
    level = threshold.level(float(np.nanmax(values[mask.voxels])))
    active = mask.voxels & (values >= level)
    mtv_ml = int(np.count_nonzero(active)) * volume.voxel_volume_mm3 / MM3_PER_ML
    mean = float(values[active].mean(dtype=np.float64)) if active.any() else 0.0
    return Metabolism(mtv_ml=mtv_ml, tlg_g=mtv_ml * mean, level=level)


def suv_peak(mask: Mask, volume: Volume, variant: PeakVariant = "global") -> float:
    """Return SUVpeak, the mean SUV in a sphere of 1 ml, which may reach outside the mask but not the image.

    `global` (default) and `local` are the IBSI definitions, by voxel centres. On coarse grids their sphere holds few
    voxels (7, or 0.68 ml, at 5.47 x 5.47 x 3.27 mm); `weighted` gives every voxel the weight of its part inside the
    sphere. Refuses as `metabolism` does. Source: IBSI 1 (local and global intensity peak), PERCIST 1.0.
    """
    _check_suv(mask, volume)
    kernel = sphere_weights(volume.spacing_mm, weighted=variant == "weighted")
    means = _local_means(mask, volume, kernel)
    if variant == "local":
        values = volume.array[mask.box][mask.voxels]
        means = means[values == np.nanmax(values)]
    return float(means.max())


def sul_factor(volume: Volume) -> float | None:
    """Return what SUVbw is multiplied by to become SUL after Janmahasatian; None without weight, height and sex."""
    factor = volume.suv.get("sul_factor")
    return factor if isinstance(factor, float) else None


def peak_method(variant: PeakVariant = "global") -> str:
    """Return the words that a report needs for SUVpeak, whose sphere has a radius of 6.20 mm."""
    return _PEAK_WORDS[variant]


def sphere_weights(
    spacing_mm: tuple[float, float, float], *, weighted: bool, radius_mm: float = PEAK_RADIUS_MM
) -> NDArray[np.float64]:
    """Return the weight 0..1 of each voxel `(k, r, c)` in a sphere around the middle voxel of the array.

    Unweighted: 1 when the centre lies inside. Weighted: the part of the voxel inside, by 9 x 9 x 9 points in each.
    """
    parts = _SUPERSAMPLING if weighted else 1
    reach = [int(np.floor(radius_mm / s + (0.5 if weighted else 0.0) + 1e-9)) for s in spacing_mm]
    inner = (np.arange(parts) - (parts - 1) / 2) / parts
    squared = [
        (((np.arange(-n, n + 1)[:, None] + inner) * s) ** 2).ravel()
        for n, s in zip(reach, spacing_mm, strict=True)
    ]
    distance = squared[0][:, None, None] + squared[1][None, :, None] + squared[2][None, None, :]
    inside = (distance <= radius_mm**2 * (1 + 1e-12)).astype(np.float64)
    k, r, c = (2 * n + 1 for n in reach)
    return np.asarray(inside.reshape(k, parts, r, parts, c, parts).mean(axis=(1, 3, 5)))


def _local_means(mask: Mask, volume: Volume, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted mean around every voxel of the mask, shape (n,); voxels outside the image do not count.

    Slab by slab, so that memory stays small for a region of any size.
    """
    slabs = range(0, mask.voxels.shape[0], _SLAB)
    return np.concatenate([_slab_means(mask, volume, kernel, k) for k in slabs])


def _slab_means(mask: Mask, volume: Volume, kernel: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    from scipy import signal  # a third of the start of a process that may never see PET

    voxels = mask.voxels[first : first + _SLAB]
    origin = (mask.origin[0] + first, *mask.origin[1:])
    crops, padding = [], []
    for o, length, size, n in zip(origin, voxels.shape, mask.shape, kernel.shape, strict=True):
        low, high = max(0, o - n // 2), min(size, o + length + n // 2)
        crops.append(slice(low, high))
        padding.append((n // 2 - (o - low), n // 2 - (high - o - length)))
    crop = volume.array[tuple(crops)].astype(np.float64)
    known = np.isfinite(crop)
    sums = signal.convolve(np.pad(np.where(known, crop, 0.0), padding), kernel, mode="valid")
    if known.all() and not np.any(padding):
        return np.asarray(sums[voxels] / kernel.sum())
    weights = signal.convolve(np.pad(known.astype(np.float64), padding), kernel, mode="valid")
    return np.asarray(sums[voxels] / np.maximum(weights[voxels], 1e-9))


def _check_suv(mask: Mask, volume: Volume) -> None:
    check_mask(mask, volume)
    if volume.role != "pet_suv":
        raise Refused("not-suv", f"this needs PET in SUV; this series is '{volume.role}'")
    if not np.isfinite(volume.array[mask.box][mask.voxels]).any():
        raise Refused("no-values", "no voxel of the region has a value")

"""Statistics of the voxel values inside a region, and the density indices of the lungs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plugins.contract import Array, Mask, Volume
from plugins.errors import Refused
from plugins.measure.volume import check_mask


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Values of the voxels of a region, in the unit of the volume."""

    mean: float
    """Arithmetic mean."""
    sd: float
    """Standard deviation of the voxels themselves (divided by n)."""
    minimum: float
    """Smallest value."""
    maximum: float
    """Largest value."""
    median: float
    """50th percentile."""


@dataclass(frozen=True, kw_only=True)
class LungDensity:
    """Density indices of a lung mask in Hounsfield units."""

    laa_950_percent: float
    """Low-attenuation area: % of the voxels below -950 HU."""
    laa_910_percent: float
    """% of the voxels below -910 HU, for thick slices."""
    perc_15_hu: float
    """15th percentile, HU (+1000 = g/l)."""
    mean_hu: float
    """Mean lung density, HU."""


def values_inside(mask: Mask, volume: Volume) -> Array:
    """Return the values of the voxels of a mask, shape (n,), in the unit of the volume.

    Voxels that are not a number (padding) are left out. Refuses a mask of another grid, an empty one, and one whose
    voxels are all without a value (`no-values`).
    """
    check_mask(mask, volume)
    values = volume.array[mask.box][mask.voxels]
    finite = np.isfinite(values)
    if not finite.any():
        raise Refused("no-values", "no voxel of the region has a value")
    return values if finite.all() else values[finite]


def statistics(mask: Mask, volume: Volume) -> Statistics:
    """Return mean, SD, extremes and median of the voxels of a mask, in the unit of the volume.

    Refuses as `values_inside` does.
    """
    values = values_inside(mask, volume)
    return Statistics(
        mean=float(values.mean(dtype=np.float64)),
        sd=float(values.std(dtype=np.float64)),
        minimum=float(values.min()),
        maximum=float(values.max()),
        median=float(np.median(values)),
    )


def density_indices(hu: NDArray[np.float32]) -> LungDensity:
    """Return LAA-950, LAA-910, Perc15 and mean density of lung voxels `(N,)` in HU, airways already removed; N >= 1.

    The thresholds are strict (below -950 HU) and the percentile interpolates between voxels. The indices depend on
    kernel, slice thickness, dose and inspiration: compare like with like only.
    Source: doi 10.1164/rccm.200403-326OC (-950 HU at full inspiration).
    """
    return LungDensity(
        laa_950_percent=100.0 * float(np.count_nonzero(hu < -950.0)) / hu.size,
        laa_910_percent=100.0 * float(np.count_nonzero(hu < -910.0)) / hu.size,
        perc_15_hu=float(np.percentile(hu, 15)),
        mean_hu=float(hu.mean(dtype=np.float64)),
    )

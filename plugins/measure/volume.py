"""How large a region is, from its voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plugins.contract import Mask, Volume
from plugins.errors import Refused

MM3_PER_ML = 1000.0
_EVEN = 1e-3


def check_mask(mask: Mask, volume: Volume) -> None:
    """Return nothing when the mask can be measured on the volume.

    Refuses `mask-of-another-grid` and `empty-mask`.
    """
    if mask.shape != tuple(volume.array.shape):
        raise Refused(
            "mask-of-another-grid", f"the mask has shape {mask.shape}, the image series {volume.array.shape}"
        )
    if mask.count == 0:
        raise Refused(
            "empty-mask", "the region holds no voxel of this image series, so there is nothing to measure"
        )


def volume_mm3(mask: Mask, volume: Volume) -> float:
    """Return the volume of a mask, mm^3 (1000 mm^3 = 1 ml): number of voxels x |det(affine)|.

    Never area x SliceThickness: the distance between slices comes from their positions, its mean when they are slightly
    uneven, so that the number can be computed again from a SEG. All pieces of the mask count.
    Refuses a mask of another grid and an empty one.
    Source: sum of segmented voxels, DCM 126030.
    """
    check_mask(mask, volume)
    return mask.count * volume.voxel_volume_mm3


def volume_by_positions_mm3(mask: Mask, volume: Volume) -> float:
    """Return the volume of a mask, mm^3, with each slice as thick as its own position says.

    Equals `volume_mm3` on even slices; refuses the same.
    """
    check_mask(mask, volume)
    per_slice = np.count_nonzero(mask.voxels, axis=(1, 2))
    thickness = slice_thickness_mm(volume)[mask.origin[0] : mask.origin[0] + len(per_slice)]
    return float(per_slice @ thickness) * volume.voxel_volume_mm3 / volume.spacing_mm[0]


def slice_thickness_mm(volume: Volume) -> NDArray[np.float64]:
    """Return what each slice k stands for along the normal, mm, shape (K,).

    Even slices have the spacing of the grid. Where the positions that the source gives are slightly uneven, a slice
    reaches half-way to its neighbours, and the outermost ones as far outwards as inwards.
    """
    slices = int(volume.array.shape[0])
    spacing_mm = volume.spacing_mm[0]
    even = np.full(slices, spacing_mm)
    if slices < 2 or len(volume.slice_positions) != slices:
        return even
    along = volume.geometry.affine[:3, 0] / spacing_mm
    steps = np.diff(np.asarray(volume.slice_positions, dtype=np.float64) @ along)
    if np.any(steps <= 0) or np.all(np.abs(steps - spacing_mm) <= _EVEN * spacing_mm):
        return even
    padded = np.concatenate([steps[:1], steps, steps[-1:]])
    return np.asarray((padded[:-1] + padded[1:]) / 2)

"""The outline of a mass that was drawn on voxels coarser than all that networks learned on, mended by rules.

Such a drawing is about right, but too wide by a part of its voxels, and it goes on into what a mass at the mediastinum
touches: fat, the aorta, and thin arms along vessels and pleura. Rules on density and shape take these off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.aorta import tube_beside
from models.nodule_passes import nearest_piece
from models.outlining import piece_at
from models.surroundings import AIRY_HU, DENSE_HU, box_around, smoothed

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]

FATTY_HU = -60.0
"""What is less dense is fat, where no lung is near that it may be mixed with."""
FROM_LUNG_MM = 4.0
WALL_MM = 1.0
"""The wall of an aorta: a disc is found by the blood in it, which smoothing makes narrower."""
ARM, ARM_MM = 0.25, 4.0
"""Half the width of an arm, as a part of the radius of the largest ball in the mass, and at most."""
MARGIN_MM = 10.0
"""What is further from a drawing does not matter to its outline, but for an aorta."""


def mass_outline(mask: BoolArray, image: Array, spacing_mm: Spacing, point: Floats) -> BoolArray:
    """Return a drawing `(K, R, C)` on an image in HU less what is not of the mass at a point (voxel index).

    Taken off are lung at its edge, an aorta beside it (unless that holds the point), fat, and arms.
    """
    if not mask.any():
        return mask
    box = box_around(mask, MARGIN_MM, spacing_mm)
    part, here = image[box], point - [side.start for side in box]
    kept = piece_at(less_its_edge(mask[box], part, spacing_mm), here, spacing_mm)
    tube = tube_beside(image, spacing_mm, mask)
    if tube is not None:
        aorta = tube.mask(mask.shape, spacing_mm, WALL_MM)[box]
        if not aorta[_nearest_voxel(here, aorta.shape)]:
            kept = piece_at(kept & ~aorta, here, spacing_mm)
    kept = piece_at(less_fat(kept, part, spacing_mm), here, spacing_mm)
    out = np.zeros_like(mask)
    out[box] = less_arms(kept, here, spacing_mm)
    return out


def less_its_edge(mask: BoolArray, image: Array, spacing_mm: Spacing) -> BoolArray:
    """Return a drawing on coarse voxels less the lung at its edge, which begins half-way between both; no holes."""
    half = (float(np.median(image[mask])) + AIRY_HU) / 2
    return np.asarray(ndimage.binary_fill_holes(mask & (smoothed(image, spacing_mm) > half)), dtype=np.bool_)


def less_fat(mask: BoolArray, image: Array, spacing_mm: Spacing) -> BoolArray:
    """Return a drawing less what is as dense as fat and further from lung than `FROM_LUNG_MM`."""
    smooth = smoothed(image, spacing_mm)
    lung = ndimage.binary_opening(smooth < DENSE_HU)
    from_lung_mm = ndimage.distance_transform_edt(~lung, sampling=spacing_mm)
    return np.asarray(mask & ~((smooth < FATTY_HU) & (from_lung_mm > FROM_LUNG_MM)), dtype=np.bool_)


def less_arms(mask: BoolArray, point: Floats, spacing_mm: Spacing) -> BoolArray:
    """Return the piece at a point of a drawing opened by a ball of `ARM` times its depth, `ARM_MM` at most."""
    if not mask.any():
        return mask
    depth_mm = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    arm_mm = min(ARM * float(depth_mm.max()), ARM_MM)
    core = nearest_piece(depth_mm >= arm_mm, point, spacing_mm)
    away_mm = ndimage.distance_transform_edt(~core, sampling=spacing_mm)
    return np.asarray(mask & (away_mm <= arm_mm + max(spacing_mm) / 2), dtype=np.bool_)


def _nearest_voxel(point: Floats, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the voxel of a grid that lies nearest to a point."""
    return tuple(np.clip(np.rint(point).astype(int), 0, np.asarray(shape) - 1).tolist())


__all__ = ["less_arms", "less_fat", "less_its_edge", "mass_outline"]

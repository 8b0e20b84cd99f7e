"""A tube that runs through the slices of a made-up CT, as an aorta does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LUNG, FAT, TISSUE = -850.0, -100.0, 40.0


def grid_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """Return where each voxel lies, `(K, R, C, 3)`, mm from the first one."""
    return np.moveaxis(np.indices(shape), 0, -1) * np.asarray(spacing_mm)


def tube(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    *,
    middle: tuple[float, float],
    radius_mm: float,
    tilt: float = 0.0,
    slices: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return a tube about a pixel (r, c) of the middle slice, leaning `tilt` mm a mm along the rows, in some slices."""
    at = grid_mm(shape, spacing_mm)
    along = at[..., 0] - (shape[0] - 1) / 2 * spacing_mm[0]
    rows, columns = (
        at[..., 1] - middle[0] * spacing_mm[1] - tilt * along,
        at[..., 2] - middle[1] * spacing_mm[2],
    )
    low, high = slices or (0, shape[0])
    k = np.arange(shape[0])[:, None, None]
    return (np.hypot(rows, columns) <= radius_mm) & (k >= low) & (k < high)

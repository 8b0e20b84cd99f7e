"""How much the drawing of a candidate looks like a nodule: round, apart from other tissue, in air."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from plugins.contract import Mask

BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]


def confidence_of(
    mask: Mask, hu: NDArray[np.float32], inside: BoolArray, between: BoolArray, spacing_mm: Spacing
) -> float:
    """Return the score of shape, 0 to 1: roundness x isolation x contact with air.

    `inside` (the closed lungs) and `between` (what lies between them) are boolean `(K, R, C)` like `hu`.
    Roundness is the smallest over the largest half-axis of the ellipsoid of equal moments, 1 from 0.75 upwards.
    Isolation falls from 1 to 0 as the tissue that leaves the lesion (`passing_area_mm2`) grows to 1.5 times the
    cross-section of the lesion: a piece of a vessel. Contact is the share of the surface that borders on air, 1 from
    0.35 upwards. No vessel of the lung is thicker than 24 mm: a lesion whose inscribed ball is larger (all of it from
    34 mm upwards) may lie on the mediastinum, may be joined to twice as much, and needs half the contact.
    """
    half = half_axes_mm(mask.voxels, spacing_mm)
    inscribed_mm = float(ndimage.distance_transform_edt(np.pad(mask.voxels, 1), sampling=spacing_mm).max())
    thick = min(1.0, max(0.0, (inscribed_mm - 12.0) / 5.0))
    tissue = inside if thick > 0.5 else inside | between
    radius_mm = float((3.0 * mask.count * np.prod(spacing_mm) / (4.0 * np.pi)) ** (1.0 / 3.0))
    going_on = passing_area_mm2(mask, hu, tissue, spacing_mm) / (np.pi * radius_mm**2)
    isolation = max(0.0, 1.0 - going_on / (1.5 * (1.0 + thick)))
    box, lesion = _framed(mask, 0.0, spacing_mm)  # one voxel of frame
    shell = ndimage.binary_dilation(lesion) & ~lesion
    air = shell & inside[box] & (hu[box] < -500.0)
    airy = float(np.count_nonzero(air)) / float(np.count_nonzero(shell))
    return min(1.0, half[0] / half[2] / 0.75) * isolation * min(1.0, airy * (1.0 + thick) / 0.35)


def passing_area_mm2(mask: Mask, hu: NDArray[np.float32], tissue: BoolArray, spacing_mm: Spacing) -> float:
    """Return the cross-section (mm^2) of dense `tissue` that leaves the lesion: vessels, scars, fissures.

    Dense is more than 0.4 of the way from the lung around the lesion to the lesion. It is counted in the layer that
    begins 2 mm beyond the surface and is as thick as the largest voxel distance, only where connected with the lesion.
    From a thick lesion (inscribed ball of more than 4 mm radius) spiculae and vessels that are thin beside it may
    leave: tissue thinner than what lies beyond these 4 mm does not count.
    """
    layer_mm = max(2.0, *spacing_mm)
    box, lesion = _framed(mask, 2.0 + layer_mm + 6.0, spacing_mm)
    image, open_to = hu[box], tissue[box]
    around = image[open_to & ~lesion & (image < -500.0)]
    background = float(np.median(around)) if around.size else -850.0
    level = background + 0.4 * (float(np.median(image[lesion])) - background)
    away = ndimage.distance_transform_edt(~lesion, sampling=spacing_mm)
    dense = lesion | (open_to & (image > level))
    thin_mm = float(ndimage.distance_transform_edt(lesion, sampling=spacing_mm).max()) - 4.0
    if thin_mm > 0:
        thick = ndimage.distance_transform_edt(dense, sampling=spacing_mm) > thin_mm / 2.0
        dense &= lesion | (ndimage.distance_transform_edt(~thick, sampling=spacing_mm) <= thin_mm / 2.0)
    labels = cc3d.connected_components(dense & (away <= 2.0 + layer_mm), connectivity=26)
    passing = np.isin(labels, np.unique(labels[lesion])) & (away > 2.0)
    return float(np.count_nonzero(passing) * np.prod(spacing_mm) / layer_mm)


def _framed(mask: Mask, frame_mm: float, spacing_mm: Spacing) -> tuple[Box, BoolArray]:
    """Return the box of a mask with a frame around it, cut at the grid, and the mask in that box."""
    margin = [int(np.ceil(frame_mm / s)) + 1 for s in spacing_mm]
    k, r, c = (
        slice(max(0, o - m), min(n, o + v + m))
        for o, m, v, n in zip(mask.origin, margin, mask.voxels.shape, mask.shape, strict=True)
    )
    lesion = np.zeros((k.stop - k.start, r.stop - r.start, c.stop - c.start), dtype=np.bool_)
    starts = [o - b.start for o, b in zip(mask.origin, (k, r, c), strict=True)]
    lesion[tuple(slice(o, o + v) for o, v in zip(starts, mask.voxels.shape, strict=True))] = mask.voxels
    return (k, r, c), lesion


def half_axes_mm(voxels: BoolArray, spacing_mm: Spacing) -> tuple[float, float, float]:
    """Return the half-axes, shortest first, of the ellipsoid with the second moments of a mask `(k, r, c)`, mm."""
    points = np.argwhere(voxels) * np.asarray(spacing_mm)
    centred = points - points.mean(axis=0)
    own = np.diag(np.asarray(spacing_mm) ** 2) / 12.0
    values = np.linalg.eigvalsh(centred.T @ centred / len(points) + own)
    a, b, c = np.sqrt(5.0 * values)
    return (float(a), float(b), float(c))


__all__ = ["confidence_of", "half_axes_mm", "passing_area_mm2"]

"""How large a nodule is by its outlines, as pylidc 0.2.3 reckons it (`Annotation`, MIT licence).

These are figures of outlines, for comparison with what others published of LIDC-IDRI: the outline lies one pixel
outside, so that its polygon holds about a fifth more than the mask does. `Case.size_mm` is measured on the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plugins.contract import BoolArray
from training.curate.lidc_masks import Outline, PlacedContour


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What turns the indices of a series into mm."""

    row_mm: float
    """Distance of two rows."""
    column_mm: float
    """Distance of two columns."""
    slice_mm: float
    """Median distance of two slices."""
    thickness_mm: float
    """SliceThickness."""


def diameter_mm(outline: Outline, scale: Scale) -> float:
    """Return the longest distance of two points of one contour, mm."""
    from scipy.spatial.distance import pdist

    pixel_mm = (scale.row_mm, scale.column_mm)
    return float(max(pdist(contour.points * pixel_mm).max() for contour in outline.contours))


def volume_mm3(outline: Outline, scale: Scale) -> float:
    """Return the volume within the polygons, mm^3: area of each times half the way to the slices beside it.

    The ways are those between the nodule's own z positions; the first and the last count whole. A nodule in one slice
    is as thick as its slice, which pylidc refuses to reckon for several outlines in one slice.
    """
    positions = np.unique([contour.z_mm for contour in outline.contours])
    if len(positions) == 1:
        ways = np.array([scale.thickness_mm])
    else:
        steps = np.diff(positions)
        ways = 0.5 * (np.append(steps, steps[-1]) + np.insert(steps, 0, steps[0]))
    parts = [
        (1 if contour.is_inclusion else -1)
        * _area_mm2(contour, scale)
        * ways[np.searchsorted(positions, contour.z_mm)]
        for contour in outline.contours
    ]
    return float(sum(parts))


def _area_mm2(contour: PlacedContour, scale: Scale) -> float:
    """Return the area of the polygon by the shoelace formula, mm^2."""
    r, c = (contour.points * (scale.row_mm, scale.column_mm)).T
    return float(0.5 * np.abs(np.dot(r, np.roll(c, 1)) - np.dot(c, np.roll(r, 1))))


def surface_mm2(mask: BoolArray, scale: Scale) -> float:
    """Return the surface of a mask `(K, R, C)`, mm^2: marching cubes at 0.5, slices one thickness apart; 0 if empty."""
    from skimage.measure import marching_cubes, mesh_surface_area

    if not mask.any():
        return 0.0
    # The axes are turned to pylidc's order, since the triangles of an ambiguous cube depend on it.
    turned = np.pad(mask, 1).transpose(1, 2, 0).astype(np.float64)
    spacing_mm = (scale.row_mm, scale.column_mm, scale.thickness_mm)
    vertices, faces, _, _ = marching_cubes(turned, 0.5, spacing=spacing_mm)
    return float(mesh_surface_area(vertices, faces))


def extent_mm(outlines: Sequence[Outline], scale: Scale) -> tuple[float, float, float]:
    """Return how far the points of outlines reach along k, r, c, mm, from centre to centre."""
    points = np.concatenate([outline.points for outline in outlines])
    k, r, c = np.ptp(points, axis=0) * (scale.slice_mm, scale.row_mm, scale.column_mm)
    return (float(k), float(r), float(c))


__all__ = ["Scale", "diameter_mm", "extent_mm", "surface_mm2", "volume_mm3"]

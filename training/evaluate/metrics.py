"""How far a drawn region is from the true one: one case at a time, never pooled over cases.

Arrays are boolean `(K, R, C)` with spacing (k, r, c) in mm. The rule for empty regions, everywhere the same:

- Both empty: nothing was to be drawn and nothing was. Overlaps and surface Dice are 1, distances 0.
- One empty: everything was missed, or all of it is false. Overlaps and surface Dice are 0; a distance to nothing does
  not exist and is None, and whoever summarises says how many there are.
- The long axis of an empty region is 0 mm, so a miss counts as an error of the whole length.

The surface of a region is its border voxels, those with a face neighbour outside (the edge of the grid is outside);
distances run between voxel centres. Source: the conventions of MONAI's metrics, with which the tests compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage
from scipy import ndimage

from plugins.contract import BoolArray, Mask, Volume
from plugins.measure.axes import measure_axes
from plugins.shapes import Spacing, bounding_box

TOLERANCES_MM = (1.0, 2.0)
MM3_PER_ML = 1000.0
_HU = Code("[hnsf'U]", "UCUM", "Hounsfield unit")


@dataclass(frozen=True, kw_only=True)
class RegionFigures:
    """What is told of one drawn region beside its truth."""

    dice: float
    """2 |A and B| / (|A| + |B|)."""
    iou: float
    """|A and B| / |A or B|."""
    hd95_mm: float | None
    """95th percentile Hausdorff distance, the larger of both directions; None when one region is empty."""
    surface_dice: tuple[float, ...]
    """Part of both surfaces within each tolerance of the other."""
    sensitivity: float | None
    """Part of the true voxels that were drawn; None for an empty truth."""
    specificity: float | None
    """Part of the other voxels of the grid that were left: more on a larger grid. None when there are none."""
    truth_ml: float
    """True volume."""
    drawn_ml: float
    """Drawn volume."""
    truth_long_axis_mm: float
    """Long axis of the truth, 0.5-level contour."""
    drawn_long_axis_mm: float
    """Long axis of what was drawn, measured the same way."""

    @property
    def volume_error(self) -> float | None:
        """Return (drawn - true) / true; None for an empty truth."""
        return (self.drawn_ml - self.truth_ml) / self.truth_ml if self.truth_ml else None

    @property
    def long_axis_error_mm(self) -> float:
        """Return drawn minus true."""
        return self.drawn_long_axis_mm - self.truth_long_axis_mm


def region_figures(
    drawn: BoolArray, truth: BoolArray, spacing_mm: Spacing, tolerances_mm: Sequence[float] = TOLERANCES_MM
) -> RegionFigures:
    """Return every figure of one region; both arrays are `(K, R, C)` of one grid. Raises ValueError otherwise."""
    both, either = _counts(drawn, truth)
    positives, negatives = int(truth.sum()), int(truth.size - truth.sum())
    voxel_ml = float(np.prod(spacing_mm)) / MM3_PER_ML
    distances = surface_distances_mm(drawn, truth, spacing_mm)
    return RegionFigures(
        dice=_ratio(2 * both, both + either),
        iou=_ratio(both, either),
        hd95_mm=hd95_mm(distances),
        surface_dice=tuple(surface_dice(distances, tolerance) for tolerance in tolerances_mm),
        sensitivity=both / positives if positives else None,
        specificity=1.0 - (int(drawn.sum()) - both) / negatives if negatives else None,
        truth_ml=positives * voxel_ml,
        drawn_ml=int(drawn.sum()) * voxel_ml,
        truth_long_axis_mm=long_axis_mm(truth, spacing_mm),
        drawn_long_axis_mm=long_axis_mm(drawn, spacing_mm),
    )


def dice(drawn: BoolArray, truth: BoolArray) -> float:
    """Return the Dice coefficient of two boolean arrays `(K, R, C)`; 1 when both are empty."""
    both, either = _counts(drawn, truth)
    return _ratio(2 * both, both + either)


def surface_distances_mm(
    drawn: BoolArray, truth: BoolArray, spacing_mm: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distance of each border voxel of `drawn` to the border of `truth`, and the other way, each 1-D in mm.

    From or to an empty region there are none: the distances to nothing are infinite.
    """
    box = bounding_box(drawn | truth, 1)
    first, second = _border(drawn[box]), _border(truth[box])
    return _to(second, spacing_mm)[first], _to(first, spacing_mm)[second]


def hd95_mm(distances: tuple[NDArray[np.float64], NDArray[np.float64]]) -> float | None:
    """Return the larger of the two directions' 95th percentiles, mm; 0 when both are empty, None when one is."""
    if not (distances[0].size or distances[1].size):
        return 0.0
    if not (distances[0].size and distances[1].size):
        return None
    return max(float(np.percentile(one, 95)) for one in distances)


def surface_dice(distances: tuple[NDArray[np.float64], NDArray[np.float64]], tolerance_mm: float) -> float:
    """Return the part of all border voxels that lie within `tolerance_mm` of the other border (NSD)."""
    near = sum(int((one <= tolerance_mm).sum()) for one in distances)
    return _ratio(near, distances[0].size + distances[1].size)


def long_axis_mm(region: BoolArray, spacing_mm: Spacing) -> float:
    """Return the long axis, mm, of a region `(K, R, C)` in its slices, as the node measures it; 0 when it is empty."""
    if not region.any():
        return 0.0
    cut = np.ascontiguousarray(region[bounding_box(region, 1)])
    return measure_axes(Mask.from_full(cut), _grid(cut.shape, spacing_mm)).long_axis_mm


def _grid(shape: tuple[int, ...], spacing_mm: Spacing) -> Volume:
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = spacing_mm[2], spacing_mm[1], spacing_mm[0], 1.0
    k, r, c = shape
    return Volume(
        array=np.broadcast_to(np.float32(0), (k, r, c)),
        geometry=highdicom.VolumeGeometry(affine, (k, r, c), coordinate_system="PATIENT"),
        role="ct",
        unit=_HU,
        modality="CT",
        series_instance_uid="",
        sop_class_uid=CTImageStorage,
        sop_instance_uids=(),
        slice_positions=(),
    )


def _counts(drawn: BoolArray, truth: BoolArray) -> tuple[int, int]:
    if drawn.shape != truth.shape:
        raise ValueError(f"drawn has shape {drawn.shape}, the truth {truth.shape}")
    both = int(np.count_nonzero(drawn & truth))
    return both, int(np.count_nonzero(drawn)) + int(np.count_nonzero(truth)) - both


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _border(region: BoolArray) -> BoolArray:
    return np.asarray(region & ~ndimage.binary_erosion(region))


def _to(border: BoolArray, spacing_mm: Spacing) -> NDArray[np.float64]:
    if not border.any():
        return np.full(border.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~border, sampling=spacing_mm), dtype=np.float64)


__all__ = [
    "TOLERANCES_MM",
    "RegionFigures",
    "dice",
    "hd95_mm",
    "long_axis_mm",
    "region_figures",
    "surface_dice",
    "surface_distances_mm",
]

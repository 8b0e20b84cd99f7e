"""One slice of a study in space, and the outline of a segment on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from skimage.measure import find_contours

from node.report.canvas import Plane as Flat
from node.report.canvas import RowCol, letters_of
from plugins.contract import Array, BoolArray, Point
from plugins.errors import Refused
from store.dicom.files import File, read_file
from store.dicom.geometry import arrange, axes, require_complete
from store.dicom.headers import Headers
from store.dicom.segment_masks import SegmentMasks, read_segment_masks
from store.dicom.slices import Slice, slices_of
from store.dicom.values import quiet
from store.dicom.volumes import judge_values
from store.dicom.voxels import read_voxels

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """One slice of a series; the patient's right is left on it and his front above, as far as its plane allows."""

    values: Array
    """`(R, C)` in the unit of its role."""
    role: str
    """`ct`, `pet_suv`, ..."""
    modality: str
    """DICOM Modality."""
    corner_mm: Vector
    """Centre of the first pixel, LPS mm."""
    down_mm: Vector
    """From one row to the next."""
    right_mm: Vector
    """From one column to the next."""

    @property
    def normal(self) -> Vector:
        """Return the unit vector across the slice."""
        across = np.cross(self.right_mm, self.down_mm)
        return np.asarray(across / np.linalg.norm(across))

    def place(self, point_mm: Point | Vector) -> RowCol:
        """Return the row and column, fractional, of a point, or of its foot on the slice."""
        offset = np.asarray(point_mm, dtype=np.float64) - self.corner_mm
        row = offset @ self.down_mm / (self.down_mm @ self.down_mm)
        column = offset @ self.right_mm / (self.right_mm @ self.right_mm)
        return (float(row), float(column))

    def distance_mm(self, point_mm: Point | Vector) -> float:
        """Return how far a point lies from the slice."""
        return float(abs((np.asarray(point_mm, dtype=np.float64) - self.corner_mm) @ self.normal))

    def flat(self) -> Flat:
        """Return it as a plane to draw on."""
        down, right = self.down_mm, self.right_mm
        spacing = (float(np.linalg.norm(down)), float(np.linalg.norm(right)))
        return Flat(values=self.values, spacing_mm=spacing, letters=letters_of(right, down))


def read_cut(path: Path, point_mm: Point | None) -> Cut:
    """Return the slice of an image file, of several frames the one nearest to the point.

    An uptake is scaled by the header of this slice alone. Refuses what the readers of a series refuse.
    """
    with quiet():
        file = image_file(path)
        slices = slices_of(file)
        chosen = slices[0] if point_mm is None else min(slices, key=lambda s: distance_to(s, point_mm))
        chosen = replace(chosen, plane=replace(chosen.plane, thickness_mm=chosen.plane.thickness_mm or 1.0))
        arranged = arrange([chosen.plane])
        quantity = judge_values([chosen], arranged)
        values = read_voxels([chosen], quantity.factors, file.modality).array[0]
    affine = arranged.geometry.affine
    return upright(
        Cut(
            values=values, role=quantity.role, modality=file.modality,
            corner_mm=affine[:3, 3].copy(), down_mm=affine[:3, 1].copy(), right_mm=affine[:3, 2].copy(),
        )
    )  # fmt: skip


def image_file(path: Path, headers: Headers | None = None) -> File:
    """Return an image file, see `read_file`. Refuses (`unreadable-file`) what is none."""
    file = read_file(path, headers)
    if file is None:
        raise Refused("unreadable-file", f"{path.name} is no DICOM image")
    return file


def distance_to(one: Slice, point_mm: Point) -> float:
    """Return how far a point lies from the plane of a slice, mm; infinite when the slice does not say where it lies."""
    try:
        require_complete([one.plane])
    except Refused:
        return math.inf
    *_, normal = axes(one.plane)
    return float(abs((np.asarray(point_mm) - np.asarray(one.plane.position_mm)) @ normal))


def upright(cut: Cut) -> Cut:
    """Return the cut turned over so that right, then front or head, lie left and above, as on every other picture.

    Rows and columns are turned over, never exchanged.
    """
    values, corner, down, right = cut.values, cut.corner_mm, cut.down_mm, cut.right_mm
    if _backward(right):
        corner, right, values = corner + (values.shape[1] - 1) * right, -right, values[:, ::-1]
    if _backward(down):
        corner, down, values = corner + (values.shape[0] - 1) * down, -down, values[::-1]
    return replace(cut, values=values, corner_mm=corner, down_mm=down, right_mm=right)


def _backward(step: Vector) -> bool:
    """Tell whether rows or columns run to the right, to the front, or to the head."""
    axis = int(np.argmax(np.abs(step)))
    return bool(step[axis] > 0) if axis == 2 else bool(step[axis] < 0)


def read_masks(path: Path) -> SegmentMasks | None:
    """Return the segments of a SEG; None when it is none that Nadir writes (BINARY, in the patient's coordinates)."""
    with quiet():
        try:
            return read_segment_masks(dcmread(path))
        except Exception as error:  # pydicom raises at least nine kinds of error on damaged files
            raise Refused(
                "unreadable-file", f"{path.name} cannot be read ({type(error).__name__})"
            ) from error


def outline(masks: SegmentMasks, number: int, cut: Cut) -> list[list[RowCol]]:
    """Return the 0.5-level lines of a segment on a cut, in its rows and columns; none when it is not on this slice.

    Refuses (`truncated-pixel-data`) a SEG whose bits end too early.
    """
    plane = _plane(masks, number, cut)
    if plane is None:
        return []
    affine, mask = masks.affine, np.pad(plane, 1).astype(np.float32)
    return [
        [cut.place(affine[:3, 3] + (r - 1) * affine[:3, 1] + (c - 1) * affine[:3, 2]) for r, c in line]
        for line in find_contours(mask, 0.5)
    ]


def region(masks: SegmentMasks, number: int, cut: Cut) -> BoolArray | None:
    """Return the pixels of a cut that a segment holds; None when it is not on this slice, or on another grid.

    Refuses (`truncated-pixel-data`) a SEG whose bits end too early.
    """
    plane = _plane(masks, number, cut)
    if plane is None or plane.shape != cut.values.shape:
        return None
    rows, columns = (
        slice(None, None, 1 if float(own @ step) > 0 else -1)
        for own, step in ((masks.affine[:3, 1], cut.down_mm), (masks.affine[:3, 2], cut.right_mm))
    )
    return plane[rows, columns]


def _plane(masks: SegmentMasks, number: int, cut: Cut) -> BoolArray | None:
    """Return the pixels of the frame of a segment that lies on a cut, in the order of the SEG."""
    affine = masks.affine
    step = float(np.linalg.norm(affine[:3, 0]))
    near = {
        cut.distance_mm(affine[:3, 3] + k * affine[:3, 0]): frame
        for k, frame in masks.frames.get(number, {}).items()
    }
    if not near or min(near) > 0.5 * step:
        return None
    try:
        return masks.plane(near[min(near)])
    except ValueError as error:
        raise Refused("truncated-pixel-data", "its SEG ends before its segments do") from error


__all__ = ["Cut", "distance_to", "image_file", "outline", "read_cut", "read_masks", "region", "upright"]

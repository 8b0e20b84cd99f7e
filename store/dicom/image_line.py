"""Lines that were drawn on an image, in the space of the patient."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from store.dicom.values import numbers

Point = tuple[float, float, float]
Line = tuple[tuple[float, ...], tuple[float, ...]]


def in_space(image: Dataset, line: Line) -> tuple[Point, Point] | None:
    """Return the ends of a line, LPS mm, given as column and row of an image of one frame.

    Coordinates count from the outer corner of the first pixel (PS3.3 C.18.6.1.1), whose centre lies at 0.5, 0.5. None
    for an image that does not say where it is, or has several frames, of which each lies elsewhere.
    """
    position = numbers(image, "ImagePositionPatient")
    orientation = numbers(image, "ImageOrientationPatient")
    spacing = numbers(image, "PixelSpacing")
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
        return None
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    ends = [
        np.array(position) + (column - 0.5) * spacing[1] * along_row + (row - 0.5) * spacing[0] * along_column
        for column, row in line
    ]
    first, last = ((float(x), float(y), float(z)) for x, y, z in ends)
    return first, last


__all__ = ["Line", "Point", "in_space"]

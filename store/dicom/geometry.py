"""The geometry gate: whether image planes are the slices of one regular volume, from headers alone.

Everything that would make a length, a volume or a position wrong is refused with a code; what is slightly off is
flagged. Nothing is assumed where a header is silent. Whether its slices are of one acquisition `reconstructions` asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom
import numpy as np
from numpy.typing import NDArray

from plugins.contract import Flag, Point
from plugins.errors import Refused

EVEN_MM = 0.01
EVEN_FRACTION = 0.01
UNEVEN_FRACTION = 0.10
MAX_TILT_DEGREES = 0.5
SAME_POSITION_MM = 0.01
SAME_COSINE = 1e-3
GAP_FRACTION = 1.5

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where one image plane lies, as its header says."""

    sop_instance_uid: str
    """The instance that holds it."""
    frame: int = 0
    """Index of its frame in that instance, from 0."""
    rows: int
    """Rows."""
    columns: int
    """Columns."""
    spacing_mm: tuple[float, ...]
    """PixelSpacing: between rows, between columns; empty when absent."""
    orientation: tuple[float, ...]
    """ImageOrientationPatient; empty when absent."""
    position_mm: tuple[float, ...]
    """ImagePositionPatient, LPS; empty when absent."""
    frame_of_reference_uid: str
    """FrameOfReferenceUID; empty when absent."""
    thickness_mm: float | None = None
    """SliceThickness."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrangement:
    """Planes in the order of the volume, with its grid."""

    order: tuple[int, ...]
    """Index of the plane that is slice k."""
    geometry: highdicom.VolumeGeometry
    """Affine from (k, r, c) to LPS mm."""
    positions_mm: tuple[Point, ...]
    """Position of the first pixel of each slice k, as the source says it."""
    flags: tuple[Flag, ...]
    """Doubts."""


def arrange(planes: Sequence[Plane]) -> Arrangement:
    """Return the planes sorted along row x column with the grid that they fill.

    Refuses what is missing (`missing-pixel-spacing`, `missing-position`, `missing-orientation`,
    `missing-frame-of-reference`), what cannot be (`bad-geometry`), what differs between planes (`mixed-matrix`,
    `mixed-pixel-spacing`, `mixed-orientation`, `mixed-frames-of-reference`), and a stack that is not regular
    (`duplicate-slices`, `several-images-per-position`, `gantry-tilt`, `shifted-slices`, `missing-slices`,
    `irregular-spacing`, `single-slice` without a thickness). Flags `uneven-slices`, `slight-tilt`, `slice-gaps`,
    `single-slice`. Source: PS3.3 C.7.6.2.
    """
    require_complete(planes)
    require_alike(planes)
    row, column, normal = axes(planes[0])
    positions = np.array([p.position_mm for p in planes], dtype=np.float64)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    positions, along = positions[order], along[order]
    flags: list[Flag] = []
    if len(planes) == 1:
        step = _thickness_of_single(planes[0], flags)
    else:
        require_distinct(along)
        step = judge_steps(np.diff(along), flags)
        judge_direction(positions, normal, min(planes[0].spacing_mm), flags)
        _judge_gaps(planes, step, flags)
    affine = np.eye(4)
    affine[:3, 0] = normal * step
    affine[:3, 1] = column * planes[0].spacing_mm[0]
    affine[:3, 2] = row * planes[0].spacing_mm[1]
    affine[:3, 3] = positions[0]
    geometry = highdicom.VolumeGeometry(
        affine=affine,
        spatial_shape=(len(planes), planes[0].rows, planes[0].columns),
        coordinate_system="PATIENT",
        frame_of_reference_uid=planes[0].frame_of_reference_uid,
    )
    points = tuple((float(x), float(y), float(z)) for x, y, z in positions)
    return Arrangement(
        order=tuple(int(i) for i in order), geometry=geometry, positions_mm=points, flags=tuple(flags)
    )


def require_complete(planes: Sequence[Plane]) -> None:
    """Refuse planes that lack an attribute without which no position is known, or hold a senseless one."""
    for values, length, code, name in (
        ([p.spacing_mm for p in planes], 2, "missing-pixel-spacing", "PixelSpacing"),
        ([p.orientation for p in planes], 6, "missing-orientation", "ImageOrientationPatient"),
        ([p.position_mm for p in planes], 3, "missing-position", "ImagePositionPatient"),
    ):
        lacking = sum(len(v) != length for v in values)
        if lacking:
            raise Refused(
                code, f"{lacking} of {len(planes)} images have no {name}, so nothing can be measured"
            )
        if not np.isfinite(np.array(values)).all():
            raise Refused("bad-geometry", f"{name} holds a value that is not a finite number")
    if any(not p.frame_of_reference_uid for p in planes):
        raise Refused(
            "missing-frame-of-reference", "images have no FrameOfReferenceUID, so results cannot be placed"
        )
    if any(min(p.spacing_mm) <= 0 or max(p.spacing_mm) > 100 for p in planes):
        raise Refused("bad-geometry", "PixelSpacing is not between 0 and 100 mm")
    if any(p.rows < 1 or p.columns < 1 for p in planes):
        raise Refused("bad-geometry", "an image has no rows or no columns")


def require_alike(planes: Sequence[Plane]) -> None:
    """Refuse planes that do not share frame of reference, matrix, pixel spacing and orientation."""
    frames = {p.frame_of_reference_uid for p in planes}
    if len(frames) > 1:
        raise Refused(
            "mixed-frames-of-reference", f"its images lie in {len(frames)} frames of reference; split it"
        )
    if len({(p.rows, p.columns) for p in planes}) > 1:
        raise Refused(
            "mixed-matrix", "its images differ in rows or columns; split it into series of one matrix"
        )
    spacings = np.array([p.spacing_mm for p in planes])
    if (np.abs(spacings - spacings[0]) > 1e-3 * spacings[0]).any():
        raise Refused(
            "mixed-pixel-spacing", "its images differ in PixelSpacing; split it into series of one spacing"
        )
    cosines = np.array([p.orientation for p in planes])
    if (np.abs(cosines - cosines[0]) > SAME_COSINE).any():
        raise Refused(
            "mixed-orientation", "its images differ in orientation; split it into series of one orientation"
        )


def axes(plane: Plane) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return unit vectors along a row, down a column, and row x column, LPS. Refuses (`bad-geometry`)."""
    row = np.array(plane.orientation[:3], dtype=np.float64)
    column = np.array(plane.orientation[3:], dtype=np.float64)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if any(abs(n - 1) > 0.01 for n in lengths) or abs(row @ column) > 0.01:
        raise Refused("bad-geometry", "ImageOrientationPatient is not two perpendicular unit vectors")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return row, column, np.cross(row, column)


def require_distinct(along: FloatArray) -> None:
    """Refuse positions `along` the normal (mm, sorted) of which some occur more than once."""
    starts = np.flatnonzero(np.diff(along, prepend=-np.inf) > SAME_POSITION_MM)
    counts = np.diff(np.append(starts, len(along)))
    if (counts == 1).all():
        return
    if len(counts) == 1 or (counts == counts[0]).all():
        raise Refused(
            "several-images-per-position",
            f"every position holds {counts[0]} images (time points, echoes or b-values?); send one image per position",
        )
    raise Refused(
        "duplicate-slices",
        f"{int((counts > 1).sum())} positions hold more than one image; send each slice once",
    )


def judge_steps(steps: FloatArray, flags: list[Flag]) -> float:
    """Return the mean distance between slices, mm; flag or refuse uneven `steps` (mm, all positive)."""
    median = float(np.median(steps))
    mean = float(np.mean(steps))
    off = np.abs(steps - median)
    ratio = steps / median
    whole = np.rint(ratio)
    lost = (whole >= 2) & (np.abs(ratio - whole) < 0.2)
    if lost.any():
        raise Refused(
            "missing-slices",
            f"{int((whole[lost] - 1).sum())} slices are missing: a step of {steps[lost][0]:.2f} mm where others are "
            f"{median:.2f} mm; send the missing slices",
        )
    if (off > UNEVEN_FRACTION * median).any():
        raise Refused(
            "irregular-spacing",
            f"its slices are {steps.min():.2f} to {steps.max():.2f} mm apart, which is no regular grid",
        )
    if (off > min(EVEN_FRACTION * median, EVEN_MM) + 1e-6).any():
        sentence = (
            f"slices are {steps.min():.2f} to {steps.max():.2f} mm apart; {mean:.3f} mm is taken for all"
        )
        flags.append(Flag(code="uneven-slices", sentence=sentence))
    drift = np.abs(np.cumsum(steps) - mean * np.arange(1, len(steps) + 1)).max()
    if drift > 0.5 * mean:
        raise Refused("irregular-spacing", f"slices drift {drift:.1f} mm away from a regular grid")
    return mean


def judge_direction(positions: FloatArray, normal: FloatArray, pixel_mm: float, flags: list[Flag]) -> None:
    """Refuse sorted `positions` (K, 3) whose axis is tilted against the normal, or that jump sideways."""
    span = positions[-1] - positions[0]
    cosine = float(np.clip(span @ normal / np.linalg.norm(span), -1, 1))
    tilt = float(np.degrees(np.arccos(cosine)))
    if tilt > MAX_TILT_DEGREES:
        raise Refused(
            "gantry-tilt",
            f"the slices are sheared by {tilt:.1f} degrees (gantry tilt); resample it to an orthogonal grid first",
        )
    sideways = positions - positions[0]
    sideways = sideways - np.outer(sideways @ normal, normal)
    fraction = np.linspace(0, 1, len(positions))[:, None]
    if np.linalg.norm(sideways - fraction * sideways[-1], axis=1).max() > max(0.5 * pixel_mm, 0.05):
        raise Refused("shifted-slices", "its slices are shifted sideways against each other")
    if np.linalg.norm(sideways, axis=1).max() > 0.5 * pixel_mm:
        flags.append(
            Flag(code="slight-tilt", sentence=f"the slices are sheared by {tilt:.2f} degrees; it was left so")
        )


def _judge_gaps(planes: Sequence[Plane], step: float, flags: list[Flag]) -> None:
    thickness = [p.thickness_mm for p in planes if p.thickness_mm]
    if thickness and step > GAP_FRACTION * max(thickness):
        sentence = (
            f"slices of {max(thickness):.2f} mm lie {step:.2f} mm apart; what lies between was not imaged"
        )
        flags.append(Flag(code="slice-gaps", sentence=sentence))


def _thickness_of_single(plane: Plane, flags: list[Flag]) -> float:
    if not plane.thickness_mm or not 0 < plane.thickness_mm <= 100:
        raise Refused(
            "single-slice", "it is one image without a slice thickness; nothing can be measured in depth"
        )
    sentence = f"it is one image; its thickness of {plane.thickness_mm:.2f} mm is taken as depth"
    flags.append(Flag(code="single-slice", sentence=sentence))
    return float(plane.thickness_mm)

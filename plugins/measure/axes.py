"""The long axis of a region and its perpendicular, in the plane in which the images were acquired.

How an axis is measured, in order:

1. A region of several pieces (26-connected) is measured by its piece with the most voxels.
2. In every slice, each in-plane piece (8-connected) is measured alone: no line joins two islands of one slice.
3. Cavities count as part of the region, as a reader with a ruler would measure across them.
4. `CONTOUR`: the outline is the 0.5-level contour of the mask, which runs half-way between the pixel centres inside and
   outside (a single pixel measures one pixel). `PIXEL_CENTRE`: the outline runs through the outermost pixel centres
   (a single pixel measures nothing); it gives about one pixel less.
5. Long axis: the longest straight line between two points of the outline, in whichever slice it is longest. It may
   leave a concave region.
6. Short axis: the longest *chord* perpendicular to the long axis in the same slice, that is, a line inside the region
   all the way. The caliper width, which spans bays of the outline, would be longer.

Lengths are in the patient's millimetres: pixels may be oblong, and the plane may have any orientation. For an axial
series the plane is axial; for others it is the plane of the series, which `method` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from plugins.contract import BoolArray, Mask, Point, Volume
from plugins.measure.outline import Segments, chords, extremes, outline
from plugins.measure.volume import check_mask

Convention = Literal["contour", "pixel-centre"]
CONTOUR: Convention = "contour"
PIXEL_CENTRE: Convention = "pixel-centre"

_REACH = {CONTOUR: 0.5, PIXEL_CENTRE: 0.0}
_SLIVER = (
    1e-6  # a region one pixel wide keeps an inside, of this many pixels, when its outline is its centre line
)
_TIE_MM = 1e-6
_HULL_ABOVE = 160
_DIRECTIONS = 16
_EIGHT = np.ones((3, 3), dtype=np.bool_)
_WORDS = {CONTOUR: "0.5-level contour", PIXEL_CENTRE: "pixel centres"}


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Long and short axis of one region."""

    long_axis_mm: float
    """Length of the long axis, mm."""
    short_axis_mm: float
    """Length of the longest perpendicular chord in the same slice, mm; never more than the long axis."""
    long_end_points_mm: tuple[Point, Point]
    """Ends of the long axis, LPS mm."""
    short_end_points_mm: tuple[Point, Point]
    """Ends of the short axis, LPS mm."""
    slice_index: int
    """Slice k in which both lie."""
    pieces: int
    """Number of 26-connected pieces of the mask; the one with the most voxels was measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """One in-plane piece: its pixels and where it lies."""

    pixels: BoolArray
    first_row: int
    first_column: int
    slice_index: int


def measure_axes(mask: Mask, volume: Volume, convention: Convention = CONTOUR) -> Axes:
    """Return long and short axis of a mask, measured as this module describes; mm, end points in LPS mm.

    Among equally long axes the one with the longest perpendicular is taken, so that flipping or transposing the grid
    changes nothing. Refuses a mask of another grid and an empty one.
    Source: RECIST 1.1; the 0.5-level contour equals Maximum2DDiameterSlice of pyradiomics for one piece.
    """
    check_mask(mask, volume)
    voxels, pieces = largest_piece(mask.voxels)
    plane = _in_plane(volume)
    longest = -1.0
    tied: list[_Piece] = []
    for bound, slice_index in _slices_by_bound(voxels, plane, _REACH[convention]):
        if bound < longest - _TIE_MM:
            break
        for piece in _pieces(voxels[slice_index], slice_index + mask.origin[0], mask.origin[1:]):
            length = _long_axis(piece, plane, convention)
            if length > longest + _TIE_MM:
                longest, tied = length, []
            if length >= longest - _TIE_MM:
                tied.append(piece)
    return _best(tied, volume, plane, convention, pieces)


def measure_node_axes(mask: Mask, volume: Volume, convention: Convention = CONTOUR) -> Axes:
    """Return the axes in the slice where the perpendicular to that slice's own long axis is largest.

    A rule for lymph nodes, whose short axis counts: its slice need not be the one with the largest long axis.
    Refuses and converts as `measure_axes` does. RECIST 1.1 asks for the short axis and does not say in which slice.
    """
    check_mask(mask, volume)
    voxels, pieces = largest_piece(mask.voxels)
    plane = _in_plane(volume)
    best: Axes | None = None
    for slice_index in range(voxels.shape[0]):
        if not voxels[slice_index].any():
            continue
        for piece in _pieces(voxels[slice_index], slice_index + mask.origin[0], mask.origin[1:]):
            axes = _best([piece], volume, plane, convention, pieces)
            if best is None or axes.short_axis_mm > best.short_axis_mm:
                best = axes
    assert best is not None
    return best


def axes_method(volume: Volume, convention: Convention = CONTOUR, *, node: bool = False) -> tuple[str, str]:
    """Return the words that a report needs for the long and for the short axis, short enough for a code meaning."""
    where = f"{plane_name(volume)} slice of largest {'short' if node else 'long'} axis"
    return f"{_WORDS[convention]}, {where}", f"{_WORDS[convention]}, longest perpendicular chord, same slice"


def plane_name(volume: Volume) -> str:
    """Return `axial`, `coronal` or `sagittal`, with `oblique ` before it when tilted by more than 15 degrees."""
    normal = np.abs(np.cross(volume.geometry.affine[:3, 1], volume.geometry.affine[:3, 2]))
    normal /= np.linalg.norm(normal)
    nearest = int(np.argmax(normal))
    name = ("sagittal", "coronal", "axial")[nearest]
    return name if normal[nearest] > np.cos(np.radians(15)) else f"oblique {name}"


def largest_piece(voxels: BoolArray) -> tuple[BoolArray, int]:
    """Return the 26-connected piece `(k, r, c)` with the most voxels, and how many pieces there are.

    Pieces that share the lead are returned together.
    """
    # cc3d 4.1 fails on boolean arrays that are one voxel wide in two directions, not on bytes, and on read-only ones
    octets = np.require(voxels, requirements="W").view(np.uint8)
    labels, count = cc3d.connected_components(octets, connectivity=26, return_N=True)
    if count <= 1:
        return voxels, int(count)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes == sizes.max())[labels]), int(count)


def _in_plane(volume: Volume) -> NDArray[np.float64]:
    """Return the matrix that turns a step (r, c) into a plane vector in mm, lengths and angles kept; shape (2, 2)."""
    return np.asarray(np.linalg.qr(volume.geometry.affine[:3, 1:3])[1], dtype=np.float64)


def _slices_by_bound(voxels: BoolArray, plane: NDArray[np.float64], reach: float) -> list[tuple[float, int]]:
    """Return (a length that no line in the slice exceeds, slice) for the slices that hold a voxel, longest first.

    The bound is the greatest of the widths in 16 directions, and what a direction between two of them could add.
    """
    columns = voxels.shape[2]
    held = np.asarray(voxels.any(axis=2))[..., None]
    first = np.argmax(voxels, axis=2)[..., None]
    last = columns - 1 - np.argmax(voxels[..., ::-1], axis=2)[..., None]
    angles = np.arange(_DIRECTIONS) * (np.pi / _DIRECTIONS)
    per_row, per_column = plane.T @ np.stack([np.cos(angles), np.sin(angles)])
    at_row = np.arange(voxels.shape[1])[:, None] * per_row
    low = np.where(held, at_row + np.minimum(first * per_column, last * per_column), np.inf).min(axis=1)
    high = np.where(held, at_row + np.maximum(first * per_column, last * per_column), -np.inf).max(axis=1)
    widths = high - low + 2 * reach * np.maximum(np.abs(per_row), np.abs(per_column))
    bounds = widths.max(axis=1) / np.cos(np.pi / (2 * _DIRECTIONS)) + _TIE_MM
    return [(float(bounds[k]), int(k)) for k in np.argsort(-bounds, kind="stable") if np.isfinite(bounds[k])]


def _pieces(pixels: BoolArray, slice_index: int, offset: tuple[int, ...]) -> Iterator[_Piece]:
    """Yield the 8-connected pieces of one slice `(r, c)`."""
    labels, _ = ndimage.label(pixels, structure=_EIGHT)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        piece = labels[box] == number
        yield _Piece(
            pixels=piece,
            first_row=box[0].start + offset[0],
            first_column=box[1].start + offset[1],
            slice_index=slice_index,
        )


def _candidates(piece: _Piece, plane: NDArray[np.float64], reach: float) -> tuple[NDArray[np.float64], ...]:
    """Return the points (r, c) among which both ends of the long axis are, and the same in plane mm."""
    points = extremes(piece.pixels, reach)
    mm = points @ plane.T
    if len(points) > _HULL_ABOVE:
        kept = ConvexHull(mm).vertices
        points, mm = points[kept], mm[kept]
    return points, mm


def _long_axis(piece: _Piece, plane: NDArray[np.float64], convention: Convention) -> float:
    _, mm = _candidates(piece, plane, _REACH[convention])
    return float(_distances(mm).max())


def _distances(mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of every point to every other, shape (n, n)."""
    across, down = mm[:, 0, None] - mm[:, 0], mm[:, 1, None] - mm[:, 1]
    return np.asarray(np.sqrt(across * across + down * down))


def _best(
    tied: list[_Piece], volume: Volume, plane: NDArray[np.float64], convention: Convention, pieces: int
) -> Axes:
    """Return the axes of the piece whose perpendicular is longest; nearest to the middle slice when equal."""
    middle = float(np.mean([p.slice_index for p in tied]))
    tied = sorted(
        tied, key=lambda p: (abs(p.slice_index - middle), p.slice_index, p.first_row, p.first_column)
    )
    seen: set[tuple[tuple[int, ...], bytes]] = set()
    best: tuple[float, NDArray[np.float64], NDArray[np.float64], _Piece] | None = None
    for piece in tied:
        shape_key = (piece.pixels.shape, piece.pixels.tobytes())
        if shape_key in seen:
            continue
        seen.add(shape_key)
        for ends, chord, length in _pairs(piece, plane, convention):
            if best is None or length > best[0] + _TIE_MM:
                best = (length, ends, chord, piece)
    assert best is not None
    length, ends, chord, piece = best
    long_mm = ends @ plane.T
    return Axes(
        long_axis_mm=float(np.linalg.norm(long_mm[1] - long_mm[0])),
        short_axis_mm=length,
        long_end_points_mm=_to_patient(ends, piece, volume),
        short_end_points_mm=_to_patient(chord, piece, volume),
        slice_index=piece.slice_index,
        pieces=pieces,
    )


def _pairs(
    piece: _Piece, plane: NDArray[np.float64], convention: Convention
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    """Yield each longest line of a piece with its longest perpendicular chord and that one's length, mm."""
    reach = _REACH[convention]
    points, mm = _candidates(piece, plane, reach)
    distances = _distances(mm)
    longest = float(distances.max())
    if longest <= _TIE_MM:
        yield points[[0, 0]], points[[0, 0]], 0.0
        return
    whole = ndimage.binary_fill_holes(piece.pixels) if min(piece.pixels.shape) > 2 else piece.pixels
    segments: Segments = outline(whole, max(reach, _SLIVER)) @ plane.T
    back = np.linalg.inv(plane).T
    for a, b in np.argwhere(np.triu(distances) >= longest - _TIE_MM):
        along = (mm[b] - mm[a]) / np.linalg.norm(mm[b] - mm[a])
        chord, length = chords(segments, along)
        if not reach:
            chord, length = _without_sliver(chord, length, 2 * _SLIVER * float(np.abs(plane).max()))
        yield points[[a, b]], chord @ back, float(min(length, longest))


def _without_sliver(
    chord: NDArray[np.float64], length: float, spare: float
) -> tuple[NDArray[np.float64], float]:
    """Return a chord drawn in to the pixel centres."""
    kept = max(length - spare, 0.0)
    middle = chord.mean(axis=0)
    return middle + (chord - middle) * (kept / length), kept


def _to_patient(points: NDArray[np.float64], piece: _Piece, volume: Volume) -> tuple[Point, Point]:
    """Return two points (r, c) of a piece as LPS mm, on the position that the slice itself states."""
    affine = volume.geometry.affine
    if len(volume.slice_positions) == volume.array.shape[0]:
        start = np.asarray(volume.slice_positions[piece.slice_index], dtype=np.float64)
    else:
        start = affine[:3, 3] + affine[:3, 0] * piece.slice_index
    steps = points + np.array([piece.first_row, piece.first_column], dtype=np.float64)
    first, last = start + steps @ affine[:3, 1:3].T
    return (float(first[0]), float(first[1]), float(first[2])), (
        float(last[0]),
        float(last[1]),
        float(last[2]),
    )

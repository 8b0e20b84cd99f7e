"""What a viewer is asked to draw of a finding: its two axes as one line, or its outline on one slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plugins.contract import BoolArray, Finding, Mask, Measurement, Point, Volume
from plugins.measure.outline import outline

Line = NDArray[np.float64]
"""Shape (n, 2): points (column, row) in image coordinates, 0.5 at the centre of the first pixel (PS3.3 C.18.6.1)."""
MOST_POINTS = 240


def drawn_slice(finding: Finding) -> int:
    """Return the slice k on which a finding is drawn: that of its long axis, else the one with its largest area."""
    for measurement in _lengths(finding):
        if measurement.slice_index is not None:
            return measurement.slice_index
    areas = np.count_nonzero(finding.mask.voxels, axis=(1, 2))
    return int(np.argmax(areas)) + finding.mask.origin[0]


def axis_line(measurement: Measurement, volume: Volume) -> Line:
    """Return the two ends of a measured length as image points, shape (2, 2)."""
    assert measurement.end_points_mm is not None
    return on_slice(measurement.end_points_mm, volume, measurement.slice_index)[:, ::-1] + 0.5


def on_slice(points_mm: Sequence[Point], volume: Volume, k: int | None) -> Line:
    """Return row and column, shape (n, 2), of points that were measured on slice k, by its own position.

    The grid of a volume is even and upright; slices may be off by a little.
    """
    points = np.asarray(points_mm, dtype=np.float64)
    if k is not None and len(volume.slice_positions) == volume.array.shape[0]:
        points = points + volume.to_mm((float(k), 0.0, 0.0)) - np.asarray(volume.slice_positions[k])
    return volume.to_index(points)[:, 1:]


def region(finding: Finding, volume: Volume) -> tuple[Line, bool]:
    """Return the line that stands for a finding on its slice, and whether it is an outline (True) or its axes (False).

    Axes are one open line: long axis, along it to where the short axis crosses, short axis. Without axes it is the
    closed outline of the largest piece on the slice, without its holes.
    """
    lengths = _lengths(finding)
    if lengths:
        lines = [axis_line(m, volume) for m in lengths]
        return (lines[0] if len(lines) == 1 else _cross(lines[0], lines[1])), False
    return _outline(finding.mask, drawn_slice(finding)), True


def _lengths(finding: Finding) -> list[Measurement]:
    """Return long axis and short axis, if they have ends in one slice; the long axis first."""
    found = {
        m.name: m for m in finding.measurements if m.end_points_mm is not None and m.slice_index is not None
    }
    lengths = [found[name] for name in ("long_axis", "short_axis") if name in found]
    return [m for m in lengths if m.slice_index == lengths[0].slice_index]


def _cross(first: Line, second: Line) -> Line:
    """Return one open line through the ends of both, without drawing anything that is not on one of them.

    When they do not cross (a bent region), the nearest ends are joined instead.
    """
    (a, b), (c, d) = first, second
    along, across = b - a, d - c
    determinant = along[0] * across[1] - along[1] * across[0]
    if abs(determinant) > 1e-9:
        t = ((c - a)[0] * across[1] - (c - a)[1] * across[0]) / determinant
        s = ((c - a)[0] * along[1] - (c - a)[1] * along[0]) / determinant
        if -1e-6 <= t <= 1 + 1e-6 and -1e-6 <= s <= 1 + 1e-6:
            return np.stack([a, b, a + t * along, c, d])
    pairs = [(p, q) for p in (0, 1) for q in (0, 1)]
    near = min(pairs, key=lambda pair: float(np.linalg.norm(first[pair[0]] - second[pair[1]])))
    return np.stack([first[1 - near[0]], first[near[0]], second[near[1]], second[1 - near[1]]])


def _outline(mask: Mask, k: int) -> Line:
    plane = mask.voxels[k - mask.origin[0]]
    loop = max(_loops(plane), key=lambda points: abs(_area(points)))
    step = -(-len(loop) // MOST_POINTS)
    thinned = loop[::step]
    points = np.concatenate([thinned, thinned[:1]])
    return np.asarray(points[:, ::-1] + (mask.origin[2] + 0.5, mask.origin[1] + 0.5), dtype=np.float64)


def _area(points: Line) -> float:
    r, c = points[:, 0], points[:, 1]
    return float(np.dot(r, np.roll(c, -1)) - np.dot(c, np.roll(r, -1))) / 2


def _loops(plane: BoolArray) -> list[NDArray[np.float64]]:
    """Return the closed outlines (r, c) of a plane's pixels, each without a repeated end; shape (n, 2)."""
    segments = outline(plane, 0.5)
    ends: dict[tuple[int, int], list[int]] = {}
    keys = np.rint(segments * 4).astype(int)
    for i, pair in enumerate(keys):
        for end in pair:
            ends.setdefault((int(end[0]), int(end[1])), []).append(i)
    loops, free = [], set(range(len(segments)))
    while free:
        i = free.pop()
        here, points = keys[i][1], [segments[i][0], segments[i][1]]
        while True:
            following = [j for j in ends[int(here[0]), int(here[1])] if j in free]
            if not following:
                break
            i = following[0]
            free.remove(i)
            other = 1 if (keys[i][0] == here).all() else 0
            here = keys[i][other]
            points.append(segments[i][other])
        loops.append(np.array(points[:-1]))
    return loops

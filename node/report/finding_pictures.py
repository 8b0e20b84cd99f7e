"""Pictures of one finding, slice by slice: near by with its outline and diameters, or the whole slice with its place.

Only the slice that is shown is read, and which slices there are once for a series. Lesions are drawn as in the
longitudinal report, organs as in the report of a study.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from node.report.canvas import Panel, Window
from node.report.longitudinal.cut import Cut, image_file, outline, read_cut, read_masks, region
from node.report.longitudinal.lesion_pictures import draw_diameter
from node.report.overlays import (
    LONG,
    LOW_DENSITY,
    LUNG_WINDOW,
    OUTLINE,
    REGION,
    SHORT,
    SOFT_WINDOW,
    window_for,
)
from plugins.contract import Point
from plugins.errors import Refused
from store.decimals import in_decimals
from store.depicted import Depicted
from store.dicom.geometry import axes, require_complete
from store.dicom.headers import Headers
from store.dicom.segment_masks import SegmentMasks
from store.dicom.slices import slices_of
from store.dicom.values import quiet

View = Literal["near", "whole"]
WindowName = Literal["auto", "lung", "soft"]
VERSION: Final = 1
"""Counted up when pictures change that were drawn of the same bytes."""
SIZE: Final = 480
"""Pixels of a picture, each way."""
BESIDE: Final = 3
"""Slices before and behind a lesion that can be looked at too."""
LEAST_FIELD_MM, ABOUT = 50.0, 2.4
MOST_SERIES, MOST_SEG_BYTES, MOST_SHAPES = 16, 64 << 20, 256
BELOW_HU = -950.0
SAME_SLICE_MM = 0.3
Images = Callable[[], Sequence[tuple[str, Path]]]
"""Gives SOP Instance UID and file of each image of the series."""
Kept = TypeVar("Kept")


@dataclass(frozen=True, kw_only=True)
class Placed:
    """One slice of a series."""

    sop_instance_uid: str
    """SOP Instance UID of its image."""
    path: Path
    """Its file."""
    corner_mm: Point
    """Its first pixel, LPS mm."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The slices of a series in their order along the normal."""

    slices: tuple[Placed, ...]
    """From the first to the last."""
    along_mm: NDArray[np.float64]
    """Their positions along the normal, rising."""
    normal: NDArray[np.float64]
    """Unit vector across the slices."""
    is_whole: bool
    """False when images of the series are missing, so that numbers and count are other ones once they are back."""

    def nearest(self, point_mm: Sequence[float] | NDArray[np.float64]) -> int:
        """Return the number of the slice nearest to a point, from 0."""
        return int(np.argmin(np.abs(self.along_mm - np.asarray(point_mm) @ self.normal)))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Where a finding lies in its series."""

    first: int
    """First slice that may be looked at, from 0."""
    last: int
    """Last one."""
    key: int
    """The slice of its long axis; without one that of its largest area."""
    centre_mm: Point
    """Middle of it on that slice, LPS mm."""
    field_mm: float
    """How wide a picture near by is."""


@dataclass(frozen=True, kw_only=True)
class SliceRange:
    """The slices on which a finding can be looked at."""

    first: int
    """First one, from 0."""
    last: int
    """Last one."""
    key: int
    """The one that is shown at first."""
    count: int
    """Slices of the series."""
    sop_instance_uids: tuple[str, ...]
    """Image of each slice from the first to the last."""


class _Bounded(Generic[Kept]):
    """What was made last and may be kept, up to a bound; who comes second waits for what the first one makes."""

    def __init__(
        self,
        most: int,
        weight: Callable[[Kept], int] = lambda _: 1,
        keeps: Callable[[Kept], bool] = lambda _: True,
    ) -> None:
        self._most = most
        self._weight = weight
        self._keeps = keeps
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        with self._lock:
            found = self._kept[key] if key in self._kept else make()
            if not self._keeps(found):
                return found
            self._kept[key] = found
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(map(self._weight, self._kept.values())) > self._most:
                self._kept.popitem(last=False)
            return found


class FindingPictures:
    """Draws findings, and remembers which slices the last series had and what the last SEGs held.

    Parameters
    ----------
    open_object
        Gives the file of an object by its name in the object store (sha256).

    """

    def __init__(self, open_object: Callable[[str], Path]) -> None:
        self._open_object = open_object
        self._stacks = _Bounded[Stack](MOST_SERIES, keeps=lambda stack: stack.is_whole)
        self._segs = _Bounded[SegmentMasks | None](
            MOST_SEG_BYTES, lambda m: 0 if m is None else len(m.pixels)
        )
        self._shapes = _Bounded[Shape](MOST_SHAPES)

    def slices(self, what: Depicted, images: Images) -> SliceRange:
        """Return the slices on which a finding can be looked at. Refuses `no-longer-here`."""
        stack = self._stack(what, images)
        shape = self._shape(what, stack)
        return SliceRange(
            first=shape.first,
            last=shape.last,
            key=shape.key,
            count=len(stack.slices),
            sop_instance_uids=tuple(
                one.sop_instance_uid for one in stack.slices[shape.first : shape.last + 1]
            ),
        )

    def png(
        self,
        what: Depicted,
        images: Images,
        *,
        view: View = "near",
        number: int | None = None,
        window: WindowName = "auto",
        has_outline: bool = True,
    ) -> bytes:
        """Return a picture of a finding on a slice (`number` from 0, the key slice by default).

        Refuses `no-longer-here` when images are gone, `no-such-slice`, and what the readers of a series refuse.
        """
        stack = self._stack(what, images)
        shape = self._shape(what, stack)
        number = shape.key if number is None else number
        if not 0 <= number < len(stack.slices):
            raise Refused("no-such-slice", f"the series has {len(stack.slices)} slices, counted from 0")
        cut = _cut(stack.slices[number])
        grey = self._window(stack, shape, cut, number, window)
        masks = self._masks(what)
        if view == "whole":
            panel = Panel.whole(cut.flat(), grey, SIZE)
            if has_outline and "long_axis" in what.measurements:
                panel.lines([_square(cut, shape)], OUTLINE, 1.3)
            panel.scale_bar(length_mm=50.0)
        else:
            panel = Panel(cut.flat(), grey, SIZE, centre=cut.place(shape.centre_mm), field_mm=shape.field_mm)
            panel.scale_bar(length_mm=10.0 if shape.field_mm < 150 else 50.0)
        if has_outline:
            _draw(panel, what, cut, masks, is_near=view == "near")
        panel.letter_sides()
        panel.words(8, 8, f"slice {number + 1} of {len(stack.slices)}", size=12)
        panel.words(8, 24, grey.words, size=12)
        if masks is None:
            panel.words(SIZE - 10, 8, "no outline: its SEG is no longer here", size=12, anchor="ra")
        file = io.BytesIO()
        panel.image.save(file, format="PNG", compress_level=3)
        return file.getvalue()

    def is_whole(self, what: Depicted, images: Images) -> bool:
        """Tell whether images and SEG are all here, so that a picture will not be another one later."""
        return self._stack(what, images).is_whole and (not what.seg_sha256 or self._masks(what) is not None)

    def _stack(self, what: Depicted, images: Images) -> Stack:
        key = (what.manifest_sha256, what.series_instance_uid)
        return self._stacks.get(key, lambda: _stack(images()))

    def _masks(self, what: Depicted) -> SegmentMasks | None:
        """Return what the SEG of a finding holds; None when it is gone or cannot be read."""
        path = self._open_object(what.seg_sha256) if what.seg_sha256 else None
        if path is None or not path.is_file():
            return None
        try:
            return self._segs.get(what.seg_sha256, lambda: read_masks(path))
        except Refused:
            return None

    def _shape(self, what: Depicted, stack: Stack) -> Shape:
        masks = self._masks(what)
        if not stack.is_whole:
            return _shape(what, stack, masks)
        key = (what.finding_pk, what.manifest_sha256, what.seg_sha256, masks is None)
        return self._shapes.get(key, lambda: _shape(what, stack, masks))

    def _window(self, stack: Stack, shape: Shape, cut: Cut, number: int, name: WindowName) -> Window:
        """Return the grey scale: the same on all slices, by what surrounds the finding on its key slice."""
        if cut.role == "ct" and name != "auto":
            return LUNG_WINDOW if name == "lung" else SOFT_WINDOW
        at = cut if number == shape.key else _cut(stack.slices[shape.key])
        row, column = at.place(shape.centre_mm)
        r_mm, c_mm = at.flat().spacing_mm
        half_r, half_c = shape.field_mm / 2 / r_mm, shape.field_mm / 2 / c_mm
        rows = slice(max(int(row - half_r), 0), max(int(row + half_r) + 1, 0))
        columns = slice(max(int(column - half_c), 0), max(int(column + half_c) + 1, 0))
        around = at.values[rows, columns]
        return window_for(at.role, at.modality, around if around.size else at.values)


def _stack(images: Sequence[tuple[str, Path]]) -> Stack:
    """Return the slices of a series in their order. Refuses `no-longer-here`."""
    headers = Headers()
    placed: list[Placed] = []
    normal: NDArray[np.float64] | None = None
    with quiet():
        for uid, path in images:
            if not path.is_file():
                continue
            for one in slices_of(image_file(path, headers)):
                require_complete([one.plane])
                if normal is None:
                    *_, normal = axes(one.plane)
                x, y, z = one.plane.position_mm
                placed.append(Placed(sop_instance_uid=uid, path=path, corner_mm=(x, y, z)))
    if normal is None:
        raise Refused(
            "no-longer-here", "the images that it was drawn on are no longer here; 'nadir fsck' lists them"
        )
    along = np.array([np.asarray(one.corner_mm) @ normal for one in placed])
    order = np.argsort(along, kind="stable")
    return Stack(
        slices=tuple(placed[i] for i in order),
        along_mm=along[order],
        normal=normal,
        is_whole=len({one.path for one in placed}) == len(images),
    )


def _cut(one: Placed) -> Cut:
    if not one.path.is_file():
        raise Refused(
            "no-longer-here", "an image that it was drawn on is no longer here; 'nadir fsck' lists it"
        )
    return read_cut(one.path, one.corner_mm)


def _shape(what: Depicted, stack: Stack, masks: SegmentMasks | None) -> Shape:
    """Return where a finding lies, by its SEG; without one by its long axis, or by its centre."""
    axis = what.measurements.get("long_axis")
    ends = None if axis is None else axis.end_points_mm
    frames = {} if masks is None else masks.frames.get(what.segment_number, {})
    if masks is None or not frames:
        middle = np.mean(ends, axis=0) if ends else np.asarray(what.centroid_mm)
        key = stack.nearest(middle)
        length = axis.value if axis is not None else 0.0
        return _shape_at(stack, key, key, key, middle, length)
    mask = masks.mask(what.segment_number)
    areas = mask.voxels.sum(axis=(1, 2))
    affine = masks.affine
    places = [affine[:3, 3] + (mask.origin[0] + k) * affine[:3, 0] for k in range(len(areas))]
    numbers = [stack.nearest(place) for place in places]
    largest = int(np.argmax(areas))
    key = stack.nearest(np.mean(ends, axis=0)) if ends else numbers[largest]
    layer = numbers.index(key) if key in numbers else largest
    inside = np.argwhere(mask.voxels[layer] if areas[layer] else mask.voxels[largest])
    r, c = (inside.min(axis=0) + inside.max(axis=0)) / 2 + np.asarray(mask.origin[1:])
    middle = places[layer] + r * affine[:3, 1] + c * affine[:3, 2]
    extent = max(n * float(np.linalg.norm(affine[:3, 1 + i])) for i, n in enumerate(mask.voxels.shape[1:]))
    return _shape_at(stack, min(numbers), max(numbers), key, middle, extent)


def _shape_at(
    stack: Stack, first: int, last: int, key: int, middle: NDArray[np.float64], extent_mm: float
) -> Shape:
    x, y, z = (float(v) for v in middle)
    return Shape(
        first=max(first - BESIDE, 0),
        last=min(last + BESIDE, len(stack.slices) - 1),
        key=key,
        centre_mm=(x, y, z),
        field_mm=max(LEAST_FIELD_MM, ABOUT * extent_mm if extent_mm < 100 else 1.15 * extent_mm),
    )


def _draw(panel: Panel, what: Depicted, cut: Cut, masks: SegmentMasks | None, *, is_near: bool) -> None:
    """Draw the outline; of a lesion near by also its diameters, of an organ what is too thin in it."""
    is_lesion = "long_axis" in what.measurements
    if masks is not None:
        if not is_lesion and (pixels := region(masks, what.segment_number, cut)) is not None:
            panel.tint(pixels, REGION, 0.16)
            if "laa_950" in what.measurements:
                panel.tint(pixels & (cut.values < BELOW_HU), LOW_DENSITY, 0.8)
                panel.words(SIZE - 10, SIZE - 12, "below −950 HU", size=13, colour=LOW_DENSITY, anchor="rd")
        lines = outline(masks, what.segment_number, cut)
        panel.lines(lines, OUTLINE if is_lesion else REGION, 1.5 if is_near else 1.0)
    if not is_near:
        return
    y = SIZE - 12.0
    for name, words, colour in (("short_axis", "short", SHORT), ("long_axis", "long", LONG)):
        measure = what.measurements.get(name)
        if measure is None or measure.end_points_mm is None:
            continue
        if cut.distance_mm(np.mean(measure.end_points_mm, axis=0)) > SAME_SLICE_MM:
            continue
        draw_diameter(panel, cut, measure.end_points_mm, colour, dashed=name == "short_axis")
        panel.words(
            SIZE - 10, y, f"{words} {in_decimals(measure.value)} mm", size=13, colour=colour, anchor="rd"
        )
        y -= 18


def _square(cut: Cut, shape: Shape) -> list[tuple[float, float]]:
    """Return the border of the picture near by, on a cut."""
    row, column = cut.place(shape.centre_mm)
    r_mm, c_mm = cut.flat().spacing_mm
    dr, dc = shape.field_mm / 2 / r_mm, shape.field_mm / 2 / c_mm
    corners = [(-dr, -dc), (-dr, dc), (dr, dc), (dr, -dc), (-dr, -dc)]
    return [(row + a, column + b) for a, b in corners]


__all__ = ["SIZE", "VERSION", "FindingPictures", "SliceRange", "View", "WindowName"]

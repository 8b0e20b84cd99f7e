"""Each lesion at each date side by side: its own slice, one scale in mm, one grey scale, its outline and diameters.

A lesion that was not drawn is shown where the tracking expected it. What cannot be shown says why in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from node.report.canvas import Panel, Rgb, RowCol, Window
from node.report.longitudinal.cut import Cut, distance_to, image_file, outline, read_cut, read_masks
from node.report.longitudinal.view import LesionCourse, Picture, When
from node.report.overlays import LONG, OUTLINE, SHORT, window_for
from plugins.contract import Point
from plugins.errors import NadirError, Refused
from store.course import Course
from store.dicom.headers import Headers
from store.dicom.segment_masks import SegmentMasks
from store.dicom.slices import Slice, slices_of
from store.sighting import Measure, Sighting

SIZE = 272
"""Pixels of a picture, each way."""
LEAST_FIELD_MM, MOST_FIELD_MM, ROUND_MM = 40.0, 250.0, 10.0
ABOUT = 2.4
"""How many times the longest diameter a picture is wide."""
FAR_MM = 5.0
"""A slice that lies farther from a place does not show it."""
MOST_PICTURES = 240
EXPECTED: Rgb = (255, 255, 255)
Open = Callable[[str], Path]
"""Gives the file of an object: by its name in the object store (sha256), or by its SOP Instance UID."""
Images = Callable[[str], Mapping[str, Sequence[str]]]
"""Gives the SOP Instance UIDs of the images of a study, by series."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shelf:
    """Where files come from; each SEG and each slice position is read once."""

    open_object: Open
    """Gives a file."""
    images_of: Images
    """Gives the images of a study."""
    segs: dict[str, SegmentMasks | None] = field(default_factory=dict)
    """SEGs that were read, by name."""
    slices: dict[str, list[tuple[Slice, str]]] = field(default_factory=dict)
    """Where the slices of a series lie, with their instances."""

    def masks(self, sha256: str) -> SegmentMasks | None:
        """Return the segments of a SEG, None when they cannot be read without its images."""
        if sha256 not in self.segs:
            self.segs[sha256] = read_masks(self._file(sha256, "its SEG is no longer here"))
        return self.segs[sha256]

    def image(self, sop_instance_uid: str) -> Path:
        """Return the file of an image. Refuses `no-longer-here`."""
        return self._file(sop_instance_uid, "its images are no longer here")

    def image_at(self, study: str, series: str, point_mm: Point) -> str:
        """Return the image nearest to a point. Refuses `no-longer-here`."""
        if series not in self.slices:
            headers = Headers()
            files = ((self._known(uid), uid) for uid in self.images_of(study).get(series, ()))
            self.slices[series] = [
                (one, uid) for path, uid in files if path for one in slices_of(image_file(path, headers))
            ]
        if not self.slices[series]:
            raise Refused("no-longer-here", "its images are no longer here")
        return min(self.slices[series], key=lambda placed: distance_to(placed[0], point_mm))[1]

    def _known(self, name: str) -> Path | None:
        try:
            path = self.open_object(name)
        except (KeyError, OSError):
            return None
        return path if path.is_file() else None

    def _file(self, name: str, sentence: str) -> Path:
        path = self._known(name)
        if path is None:
            raise Refused("no-longer-here", sentence)
        return path


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scene:
    """A lesion at a date, ready to be drawn."""

    one: Sighting
    cut: Cut
    centre: RowCol
    lines: list[list[RowCol]]
    drawn: bool
    words: str


def lesion_pictures(
    course: Course,
    lesions: Sequence[LesionCourse],
    visits: Sequence[When],
    open_object: Open,
    images_of: Images,
) -> tuple[dict[tuple[str, date], Picture], tuple[str, ...]]:
    """Return the pictures by Tracking UID and date, and what could not be shown in sentences.

    Of at most `MOST_PICTURES` lesions and dates; only the slices that are shown are read, and where nothing was drawn
    the positions of the others.
    """
    shelf = Shelf(open_object=open_object, images_of=images_of)
    pictures: dict[tuple[str, date], Picture] = {}
    left_out = 0
    for lesion in lesions:
        sightings = {v.date: one for v in visits if (one := _sighting(course, lesion, v.date)) is not None}
        if len(pictures) + len(sightings) > MOST_PICTURES:
            left_out += 1
            continue
        pictures |= {(lesion.tracking_uid, day): p for day, p in _row(course, sightings, shelf).items()}
    said = "1 lesion is" if left_out == 1 else f"{left_out} lesions are"
    sentence = f"{said} without pictures: the report shows at most {MOST_PICTURES} pictures."
    return pictures, (sentence,) if left_out else ()


def _sighting(course: Course, lesion: LesionCourse, day: date) -> Sighting | None:
    """Return what is shown of a lesion at a date: what counts first, a PET last, then the largest part."""
    here = [s for s in course.sightings if s.lesion == lesion.tracking_uid and s.date == day]
    return max(here, key=lambda s: (s.counts, not s.on_pet, _longest_mm(s)), default=None)


def _longest_mm(one: Sighting) -> float:
    axis = one.measurements.get("long_axis")
    return axis.value if axis else 0.0


def _row(course: Course, sightings: Mapping[date, Sighting], shelf: Shelf) -> dict[date, Picture]:
    """Return the pictures of one lesion, all of one scale and of one grey scale for each kind of image."""
    row: dict[date, Picture] = {}
    scenes: dict[date, _Scene] = {}
    for day, one in sightings.items():
        try:
            scenes[day] = _scene(course, one, shelf)
        except NadirError as reason:
            told = reason.sentence if isinstance(reason, Refused) else str(reason)
            row[day] = Picture(image=None, words=f"No picture: {told}.".replace("..", "."))
    longest = max((_longest_mm(one) for one in sightings.values()), default=0.0)
    field_mm = _field_mm(longest)
    windows: dict[str, Window] = {}
    last_mm = longest
    for day, scene in scenes.items():
        window = windows.setdefault(scene.cut.role, _window(scene, field_mm))
        panel = _drawn(scene, window, field_mm, last_mm)
        last_mm = _longest_mm(scene.one) or last_mm
        words = f"{window.words}, {field_mm:g} mm wide"
        if scene.words:
            words += f"; {scene.words}"
        row[day] = Picture(image=panel.image, words=words, mm_per_pixel=panel.mm_per_pixel)
    return {day: row[day] for day in sorted(row)}


def _field_mm(longest_mm: float) -> float:
    wanted = ROUND_MM * math.ceil(ABOUT * longest_mm / ROUND_MM)
    return min(max(wanted, LEAST_FIELD_MM), MOST_FIELD_MM)


def _scene(course: Course, one: Sighting, shelf: Shelf) -> _Scene:
    """Return a lesion with its slice. Refuses what cannot be shown, with the reason."""
    axis = one.measurements.get("long_axis")
    drawn = bool(one.series_instance_uid)
    expected = one.link.expected_mm if one.link else None
    point = _middle(axis) or one.centroid_mm or expected
    if point is None:
        raise Refused(
            "nowhere", "its place is not known" if drawn else "nothing was drawn, and no place is known"
        )
    if axis is not None and axis.sop_instance_uid and _middle(axis) is not None:
        uid = axis.sop_instance_uid
    else:
        series = one.series_instance_uid or _series_beside(course, one, shelf)
        uid = shelf.image_at(one.study_instance_uid, series, point)
    cut = read_cut(shelf.image(uid), point)
    if not drawn and not _shows(cut, point):
        raise Refused("not-scanned", "its place lies outside of the images")
    words, lines = "" if drawn else "the ring is where it was expected", []
    if drawn and one.seg_sha256 is not None and one.segment_number is not None:
        try:
            masks = shelf.masks(one.seg_sha256)
            lines = outline(masks, one.segment_number, cut) if masks else []
        except Refused as reason:
            words = f"no outline: {reason.sentence}"
    if drawn and not lines and not words:
        words = "no outline: no SEG of it is here that tells it"
    return _Scene(one=one, cut=cut, centre=cut.place(point), lines=lines, drawn=drawn, words=words)


def _shows(cut: Cut, point: Point) -> bool:
    (row, column), (rows, columns) = cut.place(point), cut.values.shape
    return cut.distance_mm(point) <= FAR_MM and -0.5 <= row < rows - 0.5 and -0.5 <= column < columns - 0.5


def _middle(axis: Measure | None) -> Point | None:
    if axis is None or axis.end_points_mm is None:
        return None
    x, y, z = np.mean(axis.end_points_mm, axis=0)
    return (float(x), float(y), float(z))


def _series_beside(course: Course, one: Sighting, shelf: Shelf) -> str:
    """Return the series to show a lesion on that was not drawn: that of others of its analysis, else the largest."""
    others = [
        s
        for s in course.sightings
        if s.study_instance_uid == one.study_instance_uid and s.series_instance_uid
    ]
    others.sort(key=lambda s: s.plugin != one.plugin)
    series = shelf.images_of(one.study_instance_uid)
    if others and others[0].series_instance_uid in series:
        return others[0].series_instance_uid
    return max(series, key=lambda uid: (len(series[uid]), uid), default="")


def _window(scene: _Scene, field_mm: float) -> Window:
    spacing = scene.cut.flat().spacing_mm
    half = [field_mm / 2 / mm for mm in spacing]
    (row, column), (rows, columns) = scene.centre, scene.cut.values.shape
    r0, r1 = (int(min(max(v, 0), rows)) for v in (row - half[0], row + half[0] + 1))
    c0, c1 = (int(min(max(v, 0), columns)) for v in (column - half[1], column + half[1] + 1))
    around = scene.cut.values[r0:r1, c0:c1]
    return window_for(scene.cut.role, scene.cut.modality, around if around.size else scene.cut.values)


def _drawn(scene: _Scene, window: Window, field_mm: float, last_mm: float) -> Panel:
    panel = Panel(scene.cut.flat(), window, SIZE, centre=scene.centre, field_mm=field_mm)
    panel.lines(scene.lines, OUTLINE, 1.3)
    for name, colour in (("long_axis", LONG), ("short_axis", SHORT)):
        measure = scene.one.measurements.get(name)
        if measure is not None and measure.end_points_mm is not None:
            draw_diameter(panel, scene.cut, measure.end_points_mm, colour, dashed=name == "short_axis")
    if not scene.drawn:
        radius = max(last_mm / 2, 4.0) / panel.mm_per_pixel
        panel.lines(_dashed_ring(panel, scene.centre, radius), EXPECTED, 1.2)
    panel.scale_bar(length_mm=10.0 if field_mm < 150 else 50.0)
    panel.letter_sides()
    return panel


def draw_diameter(panel: Panel, cut: Cut, ends_mm: tuple[Point, Point], colour: Rgb, *, dashed: bool) -> None:
    """Draw a diameter between its end points, with a bar across each end; the short axis is dashed."""
    ends = np.array([cut.place(end) for end in ends_mm])
    across = _across(ends, panel)
    bars = [[_pair(end - across), _pair(end + across)] for end in ends]
    shares = np.linspace(0, 1, 16) if dashed else np.array([0.0, 1.0])
    points = [_pair(ends[0] + share * (ends[1] - ends[0])) for share in shares]
    panel.lines([*(points[i : i + 2] for i in range(0, len(points), 2)), *bars], colour, 1.4)


def _across(ends: np.ndarray, panel: Panel) -> np.ndarray:
    """Return half a bar of eight pixels across a line, in rows and columns."""
    spacing = np.array(panel.plane.spacing_mm)
    along = (ends[1] - ends[0]) * spacing
    length = float(np.linalg.norm(along)) or 1.0
    return np.asarray(np.array([-along[1], along[0]]) / length * 4 * panel.mm_per_pixel / spacing)


def _pair(point: np.ndarray) -> RowCol:
    return (float(point[0]), float(point[1]))


def _dashed_ring(panel: Panel, centre: RowCol, radius_px: float) -> list[list[RowCol]]:
    r_px, c_px = (mm / panel.mm_per_pixel for mm in panel.plane.spacing_mm)
    turns = np.linspace(0, 2 * np.pi, 73)
    ring = [
        (centre[0] + radius_px * np.sin(t) / r_px, centre[1] + radius_px * np.cos(t) / c_px) for t in turns
    ]
    return [[(float(r), float(c)) for r, c in ring[i : i + 4]] for i in range(0, 72, 6)]


__all__ = ["MOST_PICTURES", "Images", "Open", "draw_diameter", "lesion_pictures"]

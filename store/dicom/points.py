"""Points that people or other systems marked: in reports (SCOORD, SCOORD3D) and in presentation states.

A point is what its writer calls POINT, or the centre of a CIRCLE or an ELLIPSE, or the anchor of a text that has none
of these beside it. Other figures are counted and told (`marks-not-read`). Places in an image are columns and rows
from the outer corner of its first pixel (PS3.3 C.18.6.1, C.10.5), so the centre of that pixel lies at 0.5, 0.5. They
become LPS mm by the geometry of the slice that is named; places in space need the frame of reference of a volume.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from plugins import codes
from plugins.contract import Flag, Mark, Point, Volume
from store.dicom.files import File
from store.dicom.frames import frame_number
from store.dicom.items import DEEPEST, children, code_of, items, name_of, same, text
from store.dicom.values import numbers
from store.dicom.withdrawn import withdrawn

MODALITIES = frozenset({"SR", "PR"})
MOST = 200
"""Marks of one object that are read: no person sets more."""
_PERSON = Code("121008", "DCM", "Person Observer Name")
_DEVICE = Code("121013", "DCM", "Device Observer Name")
_FIGURES = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4}
"""Graphic types with a middle, and how many points each needs."""
_OTHERS = frozenset({"MULTIPOINT", "POLYLINE", "POLYGON", "INTERPOLATED", "ELLIPSOID"})
"""Graphic types that are not read."""

ONE_PLACE_MM = 0.1
"""Marks on two images that lie nearer than this along each axis are one place."""

Floats = NDArray[np.float64]
_Slices = Mapping[str, Sequence[tuple[Volume, int]]]


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a figure lies: in an image (column, row), or in space (x, y, z)."""

    middle: Floats
    length: float | None
    """Longest way across, in pixels or mm; None for a bare point."""
    references: tuple[Dataset, ...] = ()
    """The images that it is drawn on."""
    frame_of_reference_uid: str | None = None
    """The space that it lies in, when it is in space."""

    @property
    def is_on_one(self) -> bool:
        """Return whether an image or a space is named."""
        return bool(self.references) or self.frame_of_reference_uid is not None


def read_marks(files: Sequence[File], volumes: Sequence[Volume]) -> tuple[tuple[Mark, ...], tuple[Flag, ...]]:
    """Return the marks of the reports and presentation states among files, and why others could not be placed.

    Marks at one place of one frame of reference count once. Reports that merely measure (a point under a number with a
    value) mark nothing, nor do objects that were withdrawn.
    """
    gone = withdrawn(files)
    has_ct = any(volume.role == "ct" for volume in volumes)
    slices = _slices(volumes)
    found: dict[tuple[object, ...], Mark] = {}
    flags: list[Flag] = []
    for file in files:
        if file.modality not in MODALITIES:
            continue
        unread: Counter[str] = Counter()
        read = _of_report(file.header, unread) if file.modality == "SR" else _of_state(file.header, unread)
        if (why := gone.get(file.sop_instance_uid)) is not None:
            if count := sum(1 for _ in read):
                flags.append(_flag("marks-withdrawn", file, f"{_marks(count)} and counts no longer: {why}"))
            continue
        elsewhere = on_all = without_ct = 0
        for number, (place, mark) in enumerate(read):
            if number >= MOST:
                flags.append(
                    _flag("too-many-marks", file, f"more than {MOST} marks; the others are left out")
                )
                break
            placed = _placed(place, mark, volumes, slices)
            if len(placed) == 1:
                (one,) = placed
                found.setdefault((_space(one), *(round(x, 1) for x in one.point_mm)), one)
                without_ct += not has_ct
            elif place.is_on_one and not placed:
                elsewhere += 1
            else:
                on_all += 1
        if elsewhere:
            words = f"{_marks(elsewhere)} on images or in a space that are not among the volumes"
            flags.append(_flag("marks-elsewhere", file, words))
        if without_ct:
            words = "in a study without a CT in Hounsfield units; a marked lesion is measured on nothing else"
            flags.append(_flag("marks-without-ct", file, f"{_marks(without_ct)} {words}"))
        if on_all:
            words = f"{_marks(on_all)} on several or all of its images: no single one is named, so no place is marked"
            flags.append(_flag("marks-on-all-images", file, words))
        if unread:
            flags.append(_flag("marks-not-read", file, _not_read(unread)))
    return tuple(found.values()), tuple(flags)


def _marks(count: int) -> str:
    return "1 mark" if count == 1 else f"{count} marks"


def _not_read(unread: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(unread.items()))
    return (
        f"figures that are not read as marks: {kinds}; read are {', '.join(_FIGURES)}, in pixels of an image or in "
        "space, and the anchor of a text without one of these"
    )


def _of_report(header: Dataset, unread: Counter[str]) -> Iterator[tuple[_Place, Mark]]:
    """Yield the figures of a report that mark a place, and count the others in `unread`."""
    who = _observer(header)
    for figure, group in _figures(header, header, 0):
        place = _scoord(figure)
        if place is None:
            unread[_kind(figure, lacking=True)] += 1
        else:
            yield (
                place,
                Mark(
                    point_mm=(0.0, 0.0, 0.0),
                    label=_label(group),
                    source="SR",
                    made_by=_observer(group) or who or _equipment(header),
                    source_sop_instance_uid=text(header, "SOPInstanceUID"),
                    tracking_identifier=_first(group, codes.TRACKING_IDENTIFIER, "TextValue"),
                    tracking_uid=_first(group, codes.TRACKING_UNIQUE_IDENTIFIER, "UID"),
                ),
            )


def _figures(item: Dataset, group: Dataset, depth: int) -> Iterator[tuple[Dataset, Dataset]]:
    """Yield every coordinate of a tree that marks a place, with the container that tells what it is."""
    for child in items(item, "ContentSequence"):
        kind = text(child, "ValueType")
        if kind in ("SCOORD", "SCOORD3D"):
            yield child, group
        elif kind == "NUM" and items(child, "MeasuredValueSequence"):
            continue  # where a number was measured; whoever marks a lesion says so in the group
        elif depth < DEEPEST:
            yield from _figures(child, child if kind == "CONTAINER" else group, depth + 1)


def _scoord(item: Dataset) -> _Place | None:
    in_space = text(item, "ValueType") == "SCOORD3D"
    found = _figure(text(item, "GraphicType"), numbers(item, "GraphicData"), 3 if in_space else 2)
    if found is None:
        return None
    middle, length = found
    if in_space:
        frame = text(item, "ReferencedFrameOfReferenceUID")
        return _Place(middle=middle, length=length, frame_of_reference_uid=frame) if frame else None
    images = [c for c in children(item) if text(c, "ValueType") == "IMAGE"]
    named = tuple(r for image in images for r in items(image, "ReferencedSOPSequence"))
    return _Place(middle=middle, length=length, references=named) if named else None


def _of_state(header: Dataset, unread: Counter[str]) -> Iterator[tuple[_Place, Mark]]:
    """Yield the figures of a presentation state that mark a place, and the anchors of texts that have none beside them.

    The others are counted in `unread`.
    """
    whole = tuple(
        image
        for series in items(header, "ReferencedSeriesSequence")
        for image in items(series, "ReferencedImageSequence")
    )
    who = text(header, "ContentCreatorName").replace("^", " ").strip() or _equipment(header)
    for annotation in items(header, "GraphicAnnotationSequence"):
        # A figure that names no image is on all of them, which tells a place only when there is one.
        images = tuple(items(annotation, "ReferencedImageSequence")) or (whole if len(whole) == 1 else ())
        words = [
            " ".join(text(t, "UnformattedTextValue").split()) for t in items(annotation, "TextObjectSequence")
        ]
        for middle, length in _annotated(annotation, unread):
            yield (
                _Place(middle=middle, length=length, references=images),
                Mark(
                    point_mm=(0.0, 0.0, 0.0),
                    label=next((w for w in words if w), ""),
                    source="PR",
                    made_by=who,
                    source_sop_instance_uid=text(header, "SOPInstanceUID"),
                ),
            )


def _annotated(annotation: Dataset, unread: Counter[str]) -> list[tuple[Floats, float | None]]:
    found = []
    for drawn in items(annotation, "GraphicObjectSequence"):
        unit = text(drawn, "GraphicAnnotationUnits")
        figure = _figure(text(drawn, "GraphicType"), numbers(drawn, "GraphicData"), 2)
        if unit == "PIXEL" and figure is not None:
            found.append(figure)
        else:
            unread[_kind(drawn, lacking=figure is None) + _in_other(unit)] += 1
    if found:
        return found
    for words in items(annotation, "TextObjectSequence"):
        anchor = numbers(words, "AnchorPoint")
        unit = text(words, "AnchorPointAnnotationUnits")
        if unit == "PIXEL" and len(anchor) == 2 and np.isfinite(anchor).all():
            found.append((np.asarray(anchor), None))
        elif anchor:
            unread["text" + _in_other(unit)] += 1
    return found


def _kind(figure: Dataset, *, lacking: bool) -> str:
    """Return what a figure is that is not read, in words; `lacking`: one of a kind that is read would be broken."""
    kind = text(figure, "GraphicType")
    if kind in _FIGURES:
        return f"{kind} without a place" if lacking else kind
    return kind if kind in _OTHERS else "of an unknown kind"


def _in_other(unit: str) -> str:
    """Return that a unit is not pixels, in words; empty when it is."""
    return "" if unit == "PIXEL" else " in DISPLAY units" if unit == "DISPLAY" else " in unknown units"


def _figure(kind: str, data: Sequence[float], dimensions: int) -> tuple[Floats, float | None] | None:
    """Return the middle of a figure and the longest way across it; None for one that has none, or is broken."""
    needed = _FIGURES.get(kind)
    if needed is None or len(data) < needed * dimensions or not np.isfinite(data).all():
        return None
    points = np.asarray(data[: needed * dimensions], dtype=np.float64).reshape(needed, dimensions)
    if kind == "POINT":
        return points[0], None
    if kind == "CIRCLE":  # its centre, and a point on it
        return points[0], 2 * float(np.linalg.norm(points[1] - points[0]))
    return points.mean(axis=0), float(np.linalg.norm(points[1] - points[0]))


def _placed(place: _Place, mark: Mark, volumes: Sequence[Volume], slices: _Slices) -> list[Mark]:
    """Return a mark at each of its places in the patient, two at most; none when its image or space is not there.

    A figure on several images names as many places, unless they show one: the same image again, or another
    reconstruction of the same plane. A multi-frame image whose frames are not told is named with all of them.
    """
    if place.frame_of_reference_uid is not None:
        if place.frame_of_reference_uid not in {v.frame_of_reference_uid for v in volumes}:
            return []
        frame = place.frame_of_reference_uid
        at, extent_mm = _point(place.middle), place.length
        return [replace(mark, point_mm=at, extent_mm=extent_mm, frame_of_reference_uid=frame)]
    found: list[Mark] = []
    for reference in place.references:
        frames = numbers(reference, "ReferencedFrameNumber")
        for volume, k in slices.get(text(reference, "ReferencedSOPInstanceUID"), ()):
            if not frames or frame_number(volume, k) in (None, *frames):
                here = _on_slice(place, mark, volume, k)
                if not any(_is_one_place(here, other) for other in found):
                    found.append(here)
            if len(found) > 1:
                return found
    return found


def _on_slice(place: _Place, mark: Mark, volume: Volume, k: int) -> Mark:
    column, row = place.middle - 0.5
    return replace(
        mark,
        point_mm=_point(volume.to_mm((k, row, column))),
        extent_mm=None if place.length is None else place.length * max(volume.spacing_mm[1:]),
        series_instance_uid=volume.series_instance_uid,
        frame_of_reference_uid=volume.frame_of_reference_uid,
    )


def _space(mark: Mark) -> str | None:
    """Return in what the place of a mark is told: its frame of reference, or a series that has none."""
    return mark.frame_of_reference_uid or mark.series_instance_uid


def _is_one_place(one: Mark, other: Mark) -> bool:
    near = np.allclose(one.point_mm, other.point_mm, rtol=0, atol=ONE_PLACE_MM)
    return near and _space(one) == _space(other)


def _slices(volumes: Sequence[Volume]) -> _Slices:
    """Return the slices of each image by its SOP Instance UID: several of a multi-frame one."""
    found: defaultdict[str, list[tuple[Volume, int]]] = defaultdict(list)
    for volume in volumes:
        for k, uid in enumerate(volume.sop_instance_uids):
            found[uid].append((volume, k))
    return found


def _observer(item: Dataset) -> str:
    """Return who a report or a group of it says that looked: a person before a device; empty when it does not say."""
    for name, keyword in ((_PERSON, "PersonName"), (_DEVICE, "TextValue")):
        for child in children(item, name):
            if said := text(child, keyword).replace("^", " ").strip():
                return said
    return ""


def _equipment(header: Dataset) -> str:
    named = (text(header, key) for key in ("Manufacturer", "ManufacturerModelName"))
    return " ".join(word for word in named if word) or "an unnamed system"


def _label(group: Dataset) -> str:
    """Return what a group calls its lesion: its tracking identifier, else its finding."""
    if said := _first(group, codes.TRACKING_IDENTIFIER, "TextValue"):
        return said
    for child in children(group):
        if same(name_of(child), codes.FINDING):
            found = code_of(child, "ConceptCodeSequence")
            return found.meaning if found else text(child, "TextValue")
    return ""


def _first(group: Dataset, name: Code, keyword: str) -> str | None:
    return next((said for child in children(group, name) if (said := text(child, keyword))), None)


def _point(mm: Floats) -> Point:
    x, y, z = (float(value) for value in mm)
    return (x, y, z)


def _flag(code: str, file: File, words: str) -> Flag:
    kind = "report" if file.modality == "SR" else "presentation state"
    sentence = f"The {kind} {file.sop_instance_uid} holds {words}."
    return Flag(code=code, sentence=sentence, series_instance_uid=file.series_instance_uid)


__all__ = ["MODALITIES", "read_marks"]

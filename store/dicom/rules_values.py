"""Rules that compare a report with its SEG: identity of segments, and values computed again from voxels and lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from plugins import codes
from plugins.contract import Mask, Volume
from plugins.measure.axes import Axes, measure_axes, measure_node_axes
from store.dicom.items import children, items, name_of, numeric, references, text
from store.dicom.rules_seg import SEG_CLASSES
from store.dicom.rules_sr import evidence_of, groups_of
from store.dicom.segment_masks import SegmentMasks, read_segment_masks
from store.dicom.units import MM, MM3
from store.dicom.violation import Rule, Violation, own

VOLUME_TOLERANCE: Final = 1e-3
AxisRule = Callable[[Mask, Volume], Axes]
LINE_TOLERANCE_MM: Final = 0.02
"""Image coordinates of a line are written to a thousandth of a pixel."""
AXIS_TOLERANCE_MM: Final = 0.01


class _Segs:
    """The SEGs among the companions that a report lists or names, their masks read once."""

    def __init__(self, sr: Dataset, companions: Sequence[Dataset]) -> None:
        meant = {*evidence_of(sr), *(uid for _, group in groups_of(sr) for uid, _ in _segments(group))}
        found = {text(c, "SOPInstanceUID"): c for c in companions if text(c, "SOPClassUID") in SEG_CLASSES}
        self.all = {uid: seg for uid, seg in found.items() if uid in meant}
        self._masks: dict[str, SegmentMasks | None] = {}

    def masks(self, uid: str) -> SegmentMasks | None:
        if uid not in self._masks:
            self._masks[uid] = read_segment_masks(self.all[uid])
        return self._masks[uid]

    def of_tracking(self, tracking_uid: str) -> tuple[str, int] | None:
        for uid, seg in self.all.items():
            for segment in items(seg, "SegmentSequence"):
                if tracking_uid and text(segment, "TrackingUID") == tracking_uid:
                    return uid, int(segment.SegmentNumber)
        return None


def sr_segments(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """A referenced segment exists in its SEG and has the same tracking identity there; the patient is the same."""
    segs = _Segs(sr, companions)
    for seg in segs.all.values():
        for keyword in ("PatientID", "StudyInstanceUID"):
            if text(seg, keyword) != text(sr, keyword):
                yield _broken("sr-patient", keyword, "differs between the report and its SEG")
    for where, group in groups_of(sr):
        tracking = {text(i, "UID") for i in children(group, codes.TRACKING_UNIQUE_IDENTIFIER)}
        name = {text(i, "TextValue") for i in children(group, codes.TRACKING_IDENTIFIER)}
        for uid, number in _segments(group):
            if uid not in segs.all:
                if segs.all:
                    yield _broken(
                        "sr-segment", where, f"names a segment of {uid}, which is not among its SEGs"
                    )
                continue
            found = [
                s for s in items(segs.all[uid], "SegmentSequence") if text(s, "SegmentNumber") == str(number)
            ]
            if not found:
                yield _broken("sr-segment", where, f"names segment {number}, which its SEG does not have")
            for segment in found:
                if text(segment, "TrackingUID") and text(segment, "TrackingUID") not in tracking:
                    yield _broken("sr-segment", where, f"its Tracking UID is not that of segment {number}")
                if text(segment, "TrackingID") and text(segment, "TrackingID") not in name:
                    yield _broken(
                        "sr-segment", where, f"its Tracking Identifier is not that of segment {number}"
                    )
        if own(sr) and segs.all and not _segments(group) and not any(map(segs.of_tracking, tracking)):
            yield _broken("sr-segment", where, "its Tracking UID is that of no segment")


def sr_volumes(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """A volume is that of the voxels of its segment, to a thousandth."""
    segs = _Segs(sr, companions)
    for where, group in groups_of(sr):
        for uid, number in _owners(group, segs):
            masks = segs.masks(uid)
            if masks is None:
                continue
            wanted = masks.count(number) * masks.voxel_volume_mm3
            for item in children(group, codes.VOLUME, "NUM"):
                value, unit = numeric(item)
                if value is None or unit not in MM3 or children(item, codes.DERIVATION):
                    continue
                if abs(value * MM3[unit] - wanted) > VOLUME_TOLERANCE * max(wanted, 1e-9):
                    said = (
                        f"says {value:g} {unit}, the voxels of segment {number} have {wanted / MM3[unit]:g}"
                    )
                    yield _broken("sr-value", where, f"the volume {said}")


def sr_axes(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """A long or short axis of ours is that of its segment's 0.5-level contour, measured again."""
    segs = _Segs(sr, companions)
    if not own(sr):
        return
    for where, group in groups_of(sr):
        numbers = {c: _said(group, c) for c in (codes.LONG_AXIS, codes.SHORT_AXIS)}
        for uid, number in _owners(group, segs):
            masks = segs.masks(uid)
            if masks is None or not any(numbers.values()) or not masks.count(number):
                continue
            rules: tuple[AxisRule, ...] = (measure_axes, measure_node_axes)
            said = {c: value for c, found in numbers.items() for value in found}
            off: dict[Code, float] = {}
            for rule in rules:
                off = _off(said, rule(masks.mask(number), _grid(masks)))
                if not off:
                    break
            for concept, wanted in off.items():
                words = f"says {said[concept]:.3f} mm, measured again it is {wanted:.3f} mm"
                yield _broken("sr-value", where, f"the {concept.meaning} {words}")


def _said(group: Dataset, concept: Code) -> list[float]:
    """Return the lengths of a concept in a group, mm, that were measured on the 0.5-level contour."""
    found = []
    for item in children(group, concept, "NUM"):
        value, unit = numeric(item)
        if value is not None and unit in MM and _by_contour(item):
            found.append(value * MM[unit])
    return found


def _off(said: Mapping[Code, float], axes: Axes) -> dict[Code, float]:
    """Return the lengths that were said otherwise than measured, with what was measured, mm."""
    measured = {codes.LONG_AXIS: axes.long_axis_mm, codes.SHORT_AXIS: axes.short_axis_mm}
    return {c: measured[c] for c, value in said.items() if abs(value - measured[c]) > AXIS_TOLERANCE_MM}


def sr_lines(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """A length with its own two ends is their distance, where an image or SEG of that image gives the pixel spacing."""
    spacing = _spacings(companions)
    for where, group in groups_of(sr):
        for item in children(group, value_type="NUM"):
            value, unit = numeric(item)
            for line in children(item, value_type="SCOORD"):
                uids = [
                    text(r, "ReferencedSOPInstanceUID") for image in children(line) for r in references(image)
                ]
                data = np.array(line.get("GraphicData") or [], dtype=float).reshape(-1, 2)
                if value is None or unit not in MM or len(data) != 2 or not uids or uids[0] not in spacing:
                    continue
                length = float(np.linalg.norm((data[1] - data[0]) * spacing[uids[0]][::-1]))
                if abs(length - value * MM[unit]) > LINE_TOLERANCE_MM:
                    name = name_of(item)
                    words = "length" if name is None else name.meaning
                    yield _broken(
                        "sr-value", where, f"the {words} says {value:g} {unit}, its line is {length:.3f} mm"
                    )


def _segments(group: Dataset) -> list[tuple[str, int]]:
    """Return (SOP Instance UID, segment number) of the segments that a group names."""
    found = []
    for name in (codes.REFERENCED_SEGMENT, codes.REFERENCED_SEGMENTATION_FRAME):
        for item in children(group, name):
            for reference in references(item):
                numbers = reference.get("ReferencedSegmentNumber")
                for number in np.atleast_1d(numbers if numbers is not None else []):
                    found.append((text(reference, "ReferencedSOPInstanceUID"), int(number)))
    return found


def _owners(group: Dataset, segs: _Segs) -> list[tuple[str, int]]:
    """Return the segments whose voxels a group's values are of: those it names, else the one of its Tracking UID.

    A group that names one frame only measures that frame.
    """
    if children(group, codes.REFERENCED_SEGMENTATION_FRAME):
        return []
    named = [pair for pair in _segments(group) if pair[0] in segs.all]
    if named:
        return named
    found = [segs.of_tracking(text(i, "UID")) for i in children(group, codes.TRACKING_UNIQUE_IDENTIFIER)]
    return [pair for pair in found if pair is not None]


def _by_contour(item: Dataset) -> bool:
    words = [text(i, "TextValue") for i in children(item, codes.COMMENT)]
    for method in children(item, codes.MEASUREMENT_METHOD):
        words += [text(code, "CodeMeaning") for code in items(method, "ConceptCodeSequence")]
    return any("0.5-level contour" in w for w in words)


def _grid(masks: SegmentMasks) -> Volume:
    """Return a volume without values on the grid of a SEG: axes need no more."""
    return Volume(
        array=np.broadcast_to(np.float32(0), masks.shape),
        geometry=masks.geometry(),
        role="other",
        unit=codes.NO_UNITS,
        modality="OT",
        series_instance_uid="",
        sop_class_uid="",
        sop_instance_uids=("",) * masks.shape[0],
        slice_positions=((0.0, 0.0, 0.0),) * masks.shape[0],
    )


def _spacings(companions: Sequence[Dataset]) -> dict[str, NDArray[np.float64]]:
    """Return PixelSpacing (row, column) by SOP Instance UID, from images and from SEGs on the grid of their images."""
    found: dict[str, NDArray[np.float64]] = {}
    for companion in companions:
        if text(companion, "SOPClassUID") not in SEG_CLASSES:
            if companion.get("PixelSpacing") is not None:
                found[text(companion, "SOPInstanceUID")] = np.array(companion.PixelSpacing, dtype=float)
            continue
        for shared in items(companion, "SharedFunctionalGroupsSequence"):
            for measures in items(shared, "PixelMeasuresSequence"):
                for series in items(companion, "ReferencedSeriesSequence"):
                    for instance in items(series, "ReferencedInstanceSequence"):
                        uid = text(instance, "ReferencedSOPInstanceUID")
                        found.setdefault(uid, np.array(measures.PixelSpacing, dtype=float))
    return found


def _broken(rule: str, where: str, sentence: str) -> Violation:
    return Violation(rule=rule, where=where, sentence=sentence)


VALUE_RULES: Final[tuple[Rule, ...]] = (sr_segments, sr_volumes, sr_axes, sr_lines)

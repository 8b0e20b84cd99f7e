"""Results of ours with one fault each, and the rule that names it."""

from __future__ import annotations

import copy
from collections.abc import Callable

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

Change = Callable[[Dataset], None]


def named(item: Dataset, value: str) -> list[Dataset]:
    return [i for i in item.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == value]


def _group(sr: Dataset, number: int = 0) -> Dataset:
    return named(named(sr, "126010")[0], "125007")[number]


def _number(sr: Dataset, value: str) -> Dataset:
    return named(_group(sr), value)[0]


def _without(value: str, where: Callable[[Dataset], Dataset] = lambda sr: sr) -> Change:
    def change(sr: Dataset) -> None:
        parent = where(sr)
        kept = [i for i in parent.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue != value]
        parent.ContentSequence = Sequence(kept)

    return change


def set_value(value: str, factor: float) -> Change:
    def change(sr: Dataset) -> None:
        measured = _number(sr, value).MeasuredValueSequence[0]
        measured.NumericValue = float(measured.NumericValue) * factor
        if "FloatingPointValue" in measured:
            del measured.FloatingPointValue

    return change


def _relation(value: str, relation: str) -> Change:
    def change(sr: Dataset) -> None:
        named(_group(sr), value)[0].RelationshipType = relation

    return change


def _unit(value: str, unit: str, scheme: str = "UCUM") -> Change:
    def change(sr: Dataset) -> None:
        code = _number(sr, value).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
        code.CodeValue, code.CodingSchemeDesignator = unit, scheme

    return change


def _scheme(sr: Dataset) -> None:
    _number(sr, "118565006").ConceptNameCodeSequence[0].CodingSchemeDesignator = "MY-VERY-LONG-CODING-SCHEME"


def _meaning(sr: Dataset) -> None:
    named(_group(sr), "121071")[0].ConceptCodeSequence[0].CodeMeaning = "m" * 65


def _long_unit(sr: Dataset) -> None:
    unit = _number(sr, "118565006").MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    unit.CodeMeaning = "m" * 65


def _long_type(segment: Dataset) -> None:
    segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "1" * 17


def _same_tracking(sr: Dataset) -> None:
    named(_group(sr, 1), "112040")[0].UID = named(_group(sr, 0), "112040")[0].UID


def _illegal_tracking(sr: Dataset) -> None:
    with disable_value_validation():
        named(_group(sr), "112040")[0].UID = "not a uid!"


def _illegal_segment(segment: Dataset) -> None:
    with disable_value_validation():
        segment.TrackingUID = "1.2.03"


def _foreign_uid_first(sr: Dataset) -> None:
    group = _group(sr)
    items = list(group.ContentSequence)
    series = next(i for i in items if i.ConceptNameCodeSequence[0].CodeValue == "121232")
    group.ContentSequence = Sequence([series, *(i for i in items if i is not series)])


def _second_region(sr: Dataset) -> None:
    group = _group(sr)
    group.ContentSequence.append(copy.deepcopy(named(group, "111030")[0]))


def _mixed(sr: Dataset) -> None:
    group = _group(sr, 1)
    group.ContentSequence = Sequence([i for i in group.ContentSequence if i.ValueType != "SCOORD"])
    segment, image = Dataset(), Dataset()
    segment.ValueType, segment.RelationshipType = "IMAGE", "CONTAINS"
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121191", "DCM", "Referenced Segment"
    segment.ConceptNameCodeSequence = [name]
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.3"
    image.ReferencedSegmentNumber = 1
    segment.ReferencedSOPSequence = [image]
    group.ContentSequence.append(segment)


def _other_segment(number: int) -> Change:
    def change(sr: Dataset) -> None:
        named(_group(sr), "121191")[0].ReferencedSOPSequence[0].ReferencedSegmentNumber = number

    return change


def _move_line(sr: Dataset) -> None:
    number = _number(sr, "103339001")
    line = next(i for i in number.ContentSequence if i.ValueType == "SCOORD")
    line.GraphicData = [line.GraphicData[0] + 1.0, *line.GraphicData[1:]]


def _evidence_lost(sr: Dataset) -> None:
    series = sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    del series[1 if len(series) > 1 else 0]


def _attribute(keyword: str, value: object = None) -> Change:
    def change(dataset: Dataset) -> None:
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)

    return change


REPORT_FAULTS: dict[str, tuple[str, Change, str]] = {
    "measurements removed": ("planar", _without("126010", lambda sr: sr), "sr-measurements"),
    "language removed": ("planar", _without("121049"), "sr-language"),
    "procedure removed": ("planar", _without("121058"), "sr-procedure"),
    "observer removed": ("planar", _without("121012"), "sr-observer"),
    "tracking uid removed": ("planar", _without("112040", _group), "sr-tracking"),
    "tracking identifier removed": ("volumetric", _without("112039", _group), "sr-tracking"),
    "tracking uid shared": ("planar", _same_tracking, "sr-tracking"),
    "tracking uid illegal": ("planar", _illegal_tracking, "sr-tracking"),
    "another uid first": ("volumetric", _foreign_uid_first, "sr-tracking"),
    "image region removed": ("planar", _without("111030", _group), "sr-region"),
    "segment removed": ("volumetric", _without("121191", _group), "sr-region"),
    "source series removed": ("volumetric", _without("121232", _group), "sr-region"),
    "two regions": ("planar", _second_region, "sr-region"),
    "templates mixed": ("planar", _mixed, "sr-mixed"),
    "scheme too long": ("planar", _scheme, "code-length"),
    "meaning too long": ("volumetric", _meaning, "code-length"),
    "meaning of a unit too long": ("planar", _long_unit, "code-length"),
    "seconds for millimetres": ("planar", _unit("103339001", "s"), "sr-unit"),
    "no unit for a length": ("volumetric", _unit("103340004", "1"), "sr-unit"),
    "a unit that is not ucum": ("volumetric", _unit("118565006", "ml", "99X"), "sr-unit"),
    "number contained by nothing": ("planar", _relation("118565006", "HAS PROPERTIES"), "sr-relationship"),
    "site contained": ("planar", _relation("363698007", "CONTAINS"), "sr-relationship"),
    "region inferred": ("planar", _relation("111030", "INFERRED FROM"), "sr-relationship"),
    "volume changed": ("volumetric", set_value("118565006", 1.01), "sr-value"),
    "planar volume changed": ("planar", set_value("118565006", 0.99), "sr-value"),
    "long axis changed": ("volumetric", set_value("103339001", 1.01), "sr-value"),
    "short axis changed": ("planar", set_value("103340004", 1.02), "sr-value"),
    "line moved": ("planar", _move_line, "sr-value"),
    "segment that is not there": ("volumetric", _other_segment(9), "sr-segment"),
    "segment of another lesion": ("volumetric", _other_segment(2), "sr-segment"),
    "evidence incomplete": ("planar", _evidence_lost, "sr-evidence"),
    "verified": ("planar", _attribute("VerificationFlag", "VERIFIED"), "sr-verified"),
    "template forgotten": ("planar", _attribute("ContentTemplateSequence"), "sr-template"),
    "algorithm removed": ("volumetric", _without("111001", _group), "sr-finding"),
    "finding removed": ("volumetric", _without("121071", _group), "sr-finding"),
    "equipment removed": ("volumetric", _attribute("ContributingEquipmentSequence"), "equipment"),
    "another patient": ("volumetric", _attribute("PatientID", "someone else"), "sr-patient"),
    "words removed": ("nothing", _without("C0034375"), "sr-measurements"),
    "seg not listed": ("volumetric", _evidence_lost, "sr-evidence"),
}


def _first_frame(change: Change) -> Change:
    return lambda seg: change(seg.PerFrameFunctionalGroupsSequence[0])


def _first_segment(change: Change) -> Change:
    return lambda seg: change(seg.SegmentSequence[0])


def _shift(frame: Dataset) -> None:
    x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
    frame.PlanePositionSequence[0].ImagePositionPatient = [x, y, float(z) + 1.0]


def _twice(seg: Dataset) -> None:
    first, second = seg.PerFrameFunctionalGroupsSequence[:2]
    second.PlanePositionSequence = copy.deepcopy(first.PlanePositionSequence)


def _unlisted(seg: Dataset) -> None:
    del seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]


def _segment_number(frame: Dataset) -> None:
    frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def _turned(seg: Dataset) -> None:
    plane = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]


def _one_byte_a_pixel(seg: Dataset) -> None:
    seg.PixelData = b"\0" * (seg.NumberOfFrames * seg.Rows * seg.Columns)


def _shared_too(seg: Dataset) -> None:
    first = seg.PerFrameFunctionalGroupsSequence[0]
    shared = seg.SharedFunctionalGroupsSequence[0]
    shared.SegmentIdentificationSequence = copy.deepcopy(first.SegmentIdentificationSequence)


SEG_FAULTS: dict[str, tuple[Change, str]] = {
    "content label removed": (_attribute("ContentLabel"), "seg-header"),
    "research use removed": (_attribute("ContentDescription"), "research-use"),
    "type removed": (_attribute("SegmentationType"), "seg-type"),
    "referenced series removed": (_attribute("ReferencedSeriesSequence"), "seg-references"),
    "source not listed": (_unlisted, "seg-references"),
    "equipment removed": (_attribute("ContributingEquipmentSequence"), "equipment"),
    "algorithm type removed": (_first_segment(_attribute("SegmentAlgorithmType")), "seg-algorithm"),
    "algorithm name removed": (_first_segment(_attribute("SegmentAlgorithmName")), "seg-algorithm"),
    "label removed": (_first_segment(_attribute("SegmentLabel")), "seg-segments"),
    "colour removed": (_first_segment(_attribute("RecommendedDisplayCIELabValue")), "seg-colour"),
    "category removed": (_first_segment(_attribute("SegmentedPropertyCategoryCodeSequence")), "seg-codes"),
    "type code removed": (_first_segment(_attribute("SegmentedPropertyTypeCodeSequence")), "seg-codes"),
    "type code too long": (_first_segment(_long_type), "code-length"),
    "tracking uid removed": (_first_segment(_attribute("TrackingUID")), "seg-tracking"),
    "tracking id removed": (_first_segment(_attribute("TrackingID")), "seg-tracking"),
    "tracking uid illegal": (_first_segment(_illegal_segment), "seg-tracking"),
    "segments misnumbered": (_first_segment(_attribute("SegmentNumber", 7)), "seg-segments"),
    "frame of no segment": (_first_frame(_segment_number), "seg-frames"),
    "frame without source": (_first_frame(_attribute("DerivationImageSequence")), "seg-derivation"),
    "frame without place": (_first_frame(_attribute("PlanePositionSequence")), "seg-geometry"),
    "frame beside its source": (_first_frame(_shift), "seg-geometry"),
    "two frames at one place": (_twice, "seg-frames"),
    "turned over": (_turned, "seg-geometry"),
    "a group shared and not shared": (_shared_too, "seg-frames"),
    "frames miscounted": (_attribute("NumberOfFrames", 4), "seg-frames"),
    "unpacked": (_one_byte_a_pixel, "seg-pixels"),
    "another frame of reference": (_attribute("FrameOfReferenceUID", "1.2.3"), "seg-geometry"),
    "another patient": (_attribute("PatientID", "someone else"), "seg-geometry"),
}

"""What a report after TID 1500 measured: its groups (TID 1410, 1411, 1501), whoever wrote them; nothing raises."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from plugins import codes
from store.dicom.image_line import Line
from store.dicom.items import (
    DEEPEST,
    children,
    code_of,
    items,
    name_of,
    numeric,
    predecessors,
    references,
    same,
    text,
)
from store.dicom.response_codes import SUBJECT_TIME_POINT
from store.dicom.units import MM, MM3, converted
from store.dicom.values import day, integer, moment, numbers

PERSON: Final = Code("121008", "DCM", "Person Observer Name")
CATEGORY: Final = Code("276214006", "SCT", "Finding category")
_SD: Final = re.compile(r"one standard deviation: (\S+)")
_MODEL: Final = re.compile(r"model=(\S+)")
_STATISTICS: Final = (
    (codes.MEAN, "mean"),
    (codes.MEDIAN, "median"),
    (codes.MINIMUM, "min"),
    (codes.MAXIMUM, "max"),
    (codes.STANDARD_DEVIATION, "sd"),
    (codes.PEAK, "peak"),
)
_PREFIXES: Final = (
    (codes.ATTENUATION, "hu_"),
    (codes.SUV_BW, "suv_"),
    (codes.SUV_LBM, "sul_"),
    (codes.SUV_LBM_JANMA, "sul_"),
    (codes.SUV_BSA, "suv_"),
)
_NAMES: Final = (
    (codes.LONG_AXIS, "long_axis"),
    (codes.SHORT_AXIS, "short_axis"),
    (codes.LENGTH, "long_axis"),
    (codes.DIAMETER, "long_axis"),
    (codes.VOLUME, "volume"),
    (codes.METABOLIC_VOLUME, "mtv"),
    (codes.TOTAL_LESION_GLYCOLYSIS, "tlg"),
    (codes.UPTAKE_TIME, "uptake_time"),
    (codes.ADMINISTERED_ACTIVITY, "injected_activity"),
    (codes.CERTAINTY_OF_FINDING, "confidence"),
)
_SIZES: Final = {"long_axis": (MM, "mm"), "short_axis": (MM, "mm"), "volume": (MM3, "ml"), "mtv": (MM3, "ml")}
"""Units in which a size may be said, and the one in which it is given."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNumber:
    """One number of a group."""

    name: str
    """Our name of it (`long_axis`); the meaning of its code where we have none."""
    concept: Code
    """What was measured."""
    value: float
    """The number; finite."""
    unit: str
    """UCUM code; of lengths `mm`, of volumes `ml`, whatever the report says them in."""
    uncertainty: float | None = None
    """One standard deviation, in `unit`, when a report of ours says it."""
    method: str = ""
    """The convention in words."""
    sop_instance_uid: str | None = None
    """Image that it was drawn on."""
    line: Line | None = None
    """The two ends of the line that was measured: column and row of the image, or LPS mm; see `image_line`."""


@dataclass(frozen=True, kw_only=True)
class MeasuredGroup:
    """One lesion or region of a report."""

    tracking_uid: str
    """Tracking UID; empty when it has none."""
    tracking_identifier: str
    """Tracking ID."""
    finding: Code | None
    """What it is."""
    category: Code | None
    """Of which category it is."""
    site: Code | None
    """Where it is."""
    said: tuple[Code, ...]
    """Every code that the group says of it, in its order."""
    numbers: tuple[MeasuredNumber, ...]
    """What was measured."""
    unusable: tuple[MeasuredNumber, ...]
    """Lengths and volumes as the report says them that are not above 0, or in a unit of something else."""
    segment: tuple[str, int] | None = None
    """SOP Instance UID of the SEG, and the number of the segment."""
    series_instance_uid: str = ""
    """The series that it was drawn on, when the group names it."""
    is_time_point: bool = False
    """True when the group tells of a named time point, so perhaps of another study (TID 1502)."""


@dataclass(frozen=True, kw_only=True)
class MeasuredReport:
    """A report."""

    sop_instance_uid: str
    """SOP Instance UID."""
    person: str
    """Who observed, when a person did; empty otherwise."""
    device: str
    """Model name of what wrote it: of ours the analysis."""
    version: str
    """Its software."""
    model_sha256: str
    """Hash of the model, when a report of ours says it."""
    made_at: datetime | None
    """Content Date and Time, as the writer's clock says it."""
    replaces: tuple[str, ...]
    """SOP Instance UIDs of the reports that it supersedes."""
    groups: tuple[MeasuredGroup, ...]
    """Its groups, in its order."""


def read_measured(header: Dataset) -> MeasuredReport:
    """Return what a report says; of any other object, or of one that is broken, a report without groups."""
    groups = tuple(_group(item) for item in _groups(header, 0))
    return MeasuredReport(
        sop_instance_uid=text(header, "SOPInstanceUID"),
        person=next((said for said in _persons(header, 0)), ""),
        device=text(header, "ManufacturerModelName"),
        version=_version(header),
        model_sha256=_first(
            _MODEL, (text(i, "TextValue") for i in _walk(header, codes.ALGORITHM_PARAMETERS, 0))
        ),
        made_at=moment(day(text(header, "ContentDate")), text(header, "ContentTime")),
        replaces=tuple(predecessors(header)),
        groups=groups,
    )


def _version(header: Dataset) -> str:
    """Return the version of the analysis, which follows its name in ContributingEquipment; else the software's."""
    name = text(header, "ManufacturerModelName")
    for item in items(header, "ContributingEquipmentSequence"):
        for said in str(item.get("SoftwareVersions", "")).strip("[]").replace("'", "").split(", "):
            if name and said.startswith(f"{name} "):
                return said.removeprefix(f"{name} ")
    return text(header, "SoftwareVersions")


def _groups(item: Dataset, depth: int) -> Iterator[Dataset]:
    for child in children(item):
        if same(name_of(child), codes.MEASUREMENT_GROUP):
            yield child
        elif depth < DEEPEST:
            yield from _groups(child, depth + 1)


def _walk(item: Dataset, name: Code, depth: int) -> Iterator[Dataset]:
    for child in children(item):
        if same(name_of(child), name):
            yield child
        elif depth < DEEPEST:
            yield from _walk(child, name, depth + 1)


def _persons(header: Dataset, depth: int) -> Iterator[str]:
    for item in _walk(header, PERSON, depth):
        if said := " ".join(text(item, "PersonName").replace("^", " ").split()):
            yield said


def _group(group: Dataset) -> MeasuredGroup:
    said = [n for child in children(group, value_type="NUM") if (n := _number(child)) is not None]
    return MeasuredGroup(
        tracking_uid=_text(group, codes.TRACKING_UNIQUE_IDENTIFIER, "UID"),
        tracking_identifier=_text(group, codes.TRACKING_IDENTIFIER, "TextValue"),
        finding=_code(group, codes.FINDING),
        category=_code(group, CATEGORY),
        site=_code(group, codes.FINDING_SITE),
        said=tuple(
            c for child in children(group) if (c := code_of(child, "ConceptCodeSequence")) is not None
        ),
        numbers=tuple(n for number in said if (n := _usable(number)) is not None),
        unusable=tuple(number for number in said if _usable(number) is None),
        segment=_segment(group),
        series_instance_uid=_text(group, codes.SOURCE_SERIES, "UID"),
        is_time_point=bool(children(group, SUBJECT_TIME_POINT)),
    )


def _number(item: Dataset) -> MeasuredNumber | None:
    value, unit = numeric(item)
    concept = name_of(item)
    if value is None or concept is None or not abs(value) < float("inf"):
        return None
    derivation = _code(item, codes.DERIVATION)
    method = _code(item, codes.MEASUREMENT_METHOD)
    words = _text(item, codes.COMMENT, "TextValue")
    deviation = _first(_SD, [_text(item, codes.UNCERTAINTY, "TextValue")])
    return MeasuredNumber(
        name=_name(concept, derivation),
        concept=concept,
        value=value,
        unit=unit,
        uncertainty=_float(deviation),
        method=words or ("" if method is None else method.meaning),
        sop_instance_uid=_image(item),
        line=_line(item),
    )


def _usable(number: MeasuredNumber) -> MeasuredNumber | None:
    """Return a number, a size in our unit; None for one that no lesion can have."""
    if number.name not in _SIZES:
        return number
    units, unit = _SIZES[number.name]
    value = converted(number.value, number.unit, unit, units)
    if value is None or not 0 < value < math.inf:
        return None
    deviation = number.uncertainty
    sd = None if deviation is None else converted(deviation, number.unit, unit, units)
    return replace(number, value=value, unit=unit, uncertainty=sd)


def _name(concept: Code, derivation: Code | None) -> str:
    for code, name in _NAMES:
        if same(concept, code):
            return name
    statistic = next((name for code, name in _STATISTICS if same(derivation, code)), None)
    if statistic is None:
        return concept.meaning
    return next((prefix for code, prefix in _PREFIXES if same(concept, code)), "") + statistic


def _segment(group: Dataset) -> tuple[str, int] | None:
    for name in (codes.REFERENCED_SEGMENT, codes.REFERENCED_SEGMENTATION_FRAME):
        for child in children(group, name):
            for reference in references(child):
                number = integer(reference, "ReferencedSegmentNumber")
                if number is not None:
                    return text(reference, "ReferencedSOPInstanceUID"), number
    return None


def _image(item: Dataset) -> str | None:
    for figure in children(item):
        for image in children(figure, value_type="IMAGE"):
            for reference in references(image):
                return text(reference, "ReferencedSOPInstanceUID") or None
    return None


def _line(item: Dataset) -> Line | None:
    """Return the ends of the line that a number was inferred from; None for any other figure, and on one of frames."""
    for figure in children(item):
        size = {"SCOORD": 2, "SCOORD3D": 3}.get(text(figure, "ValueType"))
        data = numbers(figure, "GraphicData")
        of_frame = any(
            "ReferencedFrameNumber" in one for image in children(figure) for one in references(image)
        )
        is_line = text(figure, "GraphicType") == "POLYLINE" and size is not None and len(data) == 2 * size
        if is_line and not of_frame and all(map(math.isfinite, data)):
            return data[:size], data[size:]
    return None


def _code(item: Dataset, name: Code) -> Code | None:
    return next((code_of(child, "ConceptCodeSequence") for child in children(item, name)), None)


def _text(item: Dataset, name: Code, keyword: str) -> str:
    return next((said for child in children(item, name) if (said := text(child, keyword))), "")


def _first(pattern: re.Pattern[str], texts: Iterator[str] | list[str]) -> str:
    return next((found[1] for one in texts if (found := pattern.search(one))), "")


def _float(words: str) -> float | None:
    try:
        return float(words)
    except ValueError:
        return None


__all__ = ["MeasuredGroup", "MeasuredNumber", "MeasuredReport", "read_measured"]

"""The measurement groups of a report, encoded: what many findings say alike is made by highdicom once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final

import numpy as np
from highdicom.sr import SourceImageForRegion
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.valuerep import DS

from plugins import codes
from plugins.contract import Measurement, Volume
from store.dicom.drawing import Line, axis_line, drawn_slice, region
from store.dicom.encoded import Form
from store.dicom.groups import (
    draw,
    identify_algorithm,
    measurements_of,
    number_item,
    planar_group,
    sixteen,
    source_image,
    uncertainty_words,
    volumetric_group,
)
from store.dicom.seg import Identified
from store.provenance import Provenance

NAMED: Final = (
    "ReferencedSOPClassUID",
    "ReferencedSOPInstanceUID",
    "ReferencedFrameNumber",
    "ReferencedSegmentNumber",
)
"""What an item says of an image or a segment that it refers to."""


class Groups:
    """Encodes the groups of one report; what the findings say alike is made by highdicom once."""

    def __init__(self, provenance: Provenance) -> None:
        self.is_ascii = True
        """Whether every text so far is ASCII."""
        self._algorithm = identify_algorithm(provenance)
        self._frames: dict[object, _Frame] = {}
        self._numbers: dict[object, Form] = {}

    def volumetric(self, identified: Identified, seg: Dataset) -> bytes:
        """Return the encoded group that `volumetric_group` makes of a finding."""
        key = "volumetric", seg.SOPInstanceUID, identified.finding.series_instance_uid
        segment = (seg.SOPClassUID, seg.SOPInstanceUID, identified.segment_number)
        return self._group(
            identified,
            key,
            lambda: volumetric_group(identified, seg, self._algorithm)[0],
            segment,
            [self._number(m) for m in measurements_of(identified.finding)],
        )

    def planar(self, identified: Identified, volume: Volume, headers: Mapping[str, Dataset]) -> bytes:
        """Return the encoded group that `planar_group` makes of a finding."""
        finding = identified.finding
        k = drawn_slice(finding)
        image = source_image(volume, headers, k)
        line, closed = region(finding, volume)
        numbers = []
        for measurement in measurements_of(finding):
            drawn = measurement.end_points_mm is not None and measurement.slice_index == k
            path = axis_line(measurement, volume) if drawn else None
            numbers.append(self._number(measurement, spoken=True, path=path, image=image))
        return self._group(
            identified,
            ("planar", closed, *_kind(image)),
            lambda: planar_group(identified, volume, headers, self._algorithm)[0],
            (_graphic_data(line), *_named(image)),
            numbers,
        )

    def _group(
        self,
        identified: Identified,
        key: tuple[object, ...],
        make: Callable[[], Dataset],
        region_values: tuple[object, ...],
        numbers: Sequence[bytes],
    ) -> bytes:
        finding = identified.finding
        said = [_exact(c) for c in (finding.category, finding.type, finding.site, finding.laterality)]
        whole = (*key, *said, not numbers)
        frame = self._frames.get(whole)
        if frame is None:
            frame = self._frames[whole] = _Frame(make())
            self.is_ascii = self.is_ascii and frame.is_ascii
        self.is_ascii = self.is_ascii and identified.tracking_identifier.isascii()
        values = (identified.tracking_identifier, identified.tracking_uid, *region_values)
        return frame.fill(values, numbers)

    def _number(
        self,
        measurement: Measurement,
        *,
        spoken: bool = False,
        path: Line | None = None,
        image: SourceImageForRegion | None = None,
    ) -> bytes:
        said = [_exact(c) for c in (measurement.concept, measurement.unit, measurement.derivation)]
        whole = (
            *said,
            measurement.method,
            measurement.uncertainty is None,
            spoken,
            path is None,
            *_kind(image),
        )
        form = self._numbers.get(whole)
        if form is None:
            item = number_item(measurement, spoken=spoken)[0]
            if path is not None:
                draw(item, path, image)
            form = self._numbers[whole] = Form(item, list(varying(item)))
            self.is_ascii = self.is_ascii and form.is_ascii
        value = sixteen(measurement.value)
        values: list[object] = [DS(value, auto_format=True), value]
        if measurement.uncertainty is not None:
            values.append(uncertainty_words(measurement))
        if path is not None:
            values += [_graphic_data(path), *_named(image)]
        return form.fill(*values)


class _Frame:
    """A group but for its numbers, and the open values in it."""

    def __init__(self, group: Dataset) -> None:
        children = list(group.ContentSequence)
        self._before = len(list(takewhile(lambda item: item.ValueType != "NUM", children)))
        self._children = [Form(item, list(varying(item))) for item in children if item.ValueType != "NUM"]
        self._whole = Form(group, [group["ContentSequence"]])
        self.is_ascii = all(form.is_ascii for form in (*self._children, self._whole))

    def fill(self, values: Sequence[object], numbers: Sequence[bytes]) -> bytes:
        """Return the group with the values, in the order of `varying`, and encoded numbers."""
        children, at = [], 0
        for form in self._children:
            children.append(form.fill(*values[at : at + form.count]))
            at += form.count
        return self._whole.fill([*children[: self._before], *numbers, *children[self._before :]])


def varying(item: Dataset) -> Iterator[DataElement]:
    """Yield the elements of a content item, and of those within it, that differ between findings of one kind."""
    kind, name = item.ValueType, item.ConceptNameCodeSequence[0].CodeValue
    if kind == "NUM":
        measured = item.MeasuredValueSequence[0]
        yield from (measured["NumericValue"], measured["FloatingPointValue"])
    elif kind == "SCOORD":
        yield item["GraphicData"]
    elif kind == "IMAGE":
        named = item.ReferencedSOPSequence[0]
        yield from (named[keyword] for keyword in NAMED if keyword in named)
    elif (kind, name) == ("UIDREF", codes.TRACKING_UNIQUE_IDENTIFIER.value):
        yield item["UID"]
    elif kind == "TEXT" and name in (codes.TRACKING_IDENTIFIER.value, codes.UNCERTAINTY.value):
        yield item["TextValue"]
    for child in item.get("ContentSequence") or ():
        yield from varying(child)


def _exact(code: Code | None) -> tuple[str | None, ...]:
    """Return a code as a key: codes that pydicom calls equal may have other schemes and meanings."""
    return () if code is None else tuple(code)


def _graphic_data(line: Line) -> list[float]:
    return [float(x) for x in np.round(line, 3).flatten()]


def _named(image: SourceImageForRegion) -> list[object]:
    """Return the values by which an item names an image."""
    reference = image.ReferencedSOPSequence[0]
    return [reference[keyword].value for keyword in NAMED if keyword in reference]


def _kind(image: SourceImageForRegion | None) -> tuple[object, ...]:
    return () if image is None else tuple(keyword in image.ReferencedSOPSequence[0] for keyword in NAMED)

"""Objects as DICOM JSON (PS3.18 annex F): rows that a query finds, and all that an object says but its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.errors import InvalidDicomError

from plugins.errors import Refused

UTF_8 = "ISO_IR 192"
BULK_BYTES = 4096
BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
OF_STUDY = (
    "StudyDate", "StudyTime", "AccessionNumber", "StudyDescription", "PatientName", "PatientID", "PatientBirthDate",
    "PatientSex", "StudyInstanceUID", "StudyID", "SpecificCharacterSet", "TimezoneOffsetFromUTC",
)  # fmt: skip
OF_SERIES = (
    "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "SeriesDate", "SeriesTime",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "BodyPartExamined",
)  # fmt: skip
OF_INSTANCE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "InstanceNumber",
    "Rows",
    "Columns",
    "BitsAllocated",
    "NumberOfFrames",
)


def header(path: Path) -> Dataset:
    """Return an object without its pixels. Refuses `unreadable`."""
    try:
        return dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError, ValueError, KeyError, EOFError) as error:
        raise Refused("unreadable", "an object of this study cannot be read") from error


def row(read: Dataset, of: str, at: str, instances: int) -> dict[str, Any]:
    """Return a row of a query for `series` or `instances`; `at` is the address of the study."""
    found = Dataset()
    for keyword in (*OF_STUDY, *OF_SERIES, *(OF_INSTANCE if of == "instances" else ())):
        if keyword in read:
            found[keyword] = read[keyword]
    series = f"{at}/series/{read.SeriesInstanceUID}"
    if of == "series":
        found.NumberOfSeriesRelatedInstances = instances
        found.RetrieveURL = series
    else:
        found.RetrieveURL = f"{series}/instances/{read.SOPInstanceUID}"
    return as_json(found)


def matches(found: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Return whether a row has one of the values, with commas between, of each attribute that is given by keyword."""
    for keyword, values in wanted.items():
        tag = f"{tag_for_keyword(keyword) or 0:08X}"
        if not {str(v) for v in found.get(tag, {}).get("Value", [])} & set(values.split(",")):
            return False
    return True


def metadata(path: Path, at: str) -> dict[str, Any]:
    """Return all attributes but pixels; what is large stands at `at`/bulkdata/TAG. Refuses `unreadable`."""
    read = header(path)
    large = {e.tag: e.VR for e in read if _is_bulk(e)}
    for tag in large:
        del read[tag]
    model = as_json(read)
    for tag, vr in large.items():
        model[f"{tag:08X}"] = {"vr": vr, "BulkDataURI": f"{at}/bulkdata/{tag:08X}"}
    model.setdefault("00083002", {"vr": "UI", "Value": [str(read.file_meta.TransferSyntaxUID)]})
    return model


def as_json(dataset: Dataset) -> dict[str, Any]:
    """Return a data set as the DICOM JSON model, its texts in UTF-8; values that are not valid are left out."""
    model = dataset.to_json_dict(bulk_data_threshold=1 << 40, suppress_invalid_tags=True)
    if "00080005" in model:
        model["00080005"]["Value"] = [UTF_8]
    return model


def _is_bulk(element: DataElement) -> bool:
    return element.VR in BULK_VRS and isinstance(element.value, bytes) and len(element.value) > BULK_BYTES


__all__ = ["as_json", "header", "matches", "metadata", "row"]

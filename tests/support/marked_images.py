"""Reports and presentation states that mark points on the images of a series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dicom_series import derived, write
from pydicom import dcmread
from pydicom.dataset import Dataset

SR = "1.2.840.10008.5.1.4.1.1.88.34"
GSPS = "1.2.840.10008.5.1.4.1.1.11.1"
KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"


def report(
    path: Path, image: Path, content: Sequence[Dataset], reader: str = "Doe^Jane", **more: Any
) -> Path:
    """Write a report by a reader beside the image that it speaks of."""
    dataset = _instance(image, SR, "SR", path.name)
    dataset.Manufacturer = "Other Viewer"
    who = item("PNAME", "121008", "Person Observer Name", PersonName=reader)
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ContentSequence = [who, *content]
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return write(dataset, path)


def state(path: Path, image: Path, annotations: Sequence[Dataset], creator: str = "Roe^Ray") -> Path:
    """Write a presentation state with annotations."""
    dataset = _instance(image, GSPS, "PR", path.name)
    dataset.ContentCreatorName = creator
    dataset.GraphicAnnotationSequence = list(annotations)
    return write(dataset, path)


def predecessor(path: Path) -> Dataset:
    """Return the item by which a document says that it takes the place of the one at `path`."""
    header, series, made = dcmread(path), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = header.SeriesInstanceUID, [reference(path)]
    made.StudyInstanceUID, made.ReferencedSeriesSequence = header.StudyInstanceUID, [series]
    return made


def key_object(path: Path, title: str, named: Sequence[Path]) -> Path:
    """Write a Key Object under a title (a code of DCM) that names files."""
    dataset = _instance(named[0], KEY_OBJECT, "KO", path.name)
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = item("CONTAINER", title, "title").ConceptNameCodeSequence
    dataset.ContentSequence = [
        item("COMPOSITE", "260753009", "Source", ReferencedSOPSequence=[reference(one)]) for one in named
    ]
    return write(dataset, path)


def group(name: str, *children: Dataset) -> Dataset:
    """Return a measurement group with a tracking identifier."""
    tracked = item("TEXT", "112039", "Tracking Identifier", TextValue=name)
    return item("CONTAINER", "125007", "Measurement Group", ContentSequence=[tracked, *children])


def scoord(image: Path, kind: str, data: Sequence[float]) -> Dataset:
    """Return a figure on an image: columns and rows."""
    source = item("IMAGE", "260753009", "Source", ReferencedSOPSequence=[reference(image)])
    return item(
        "SCOORD", "111030", "Image Region", GraphicType=kind, GraphicData=list(data), ContentSequence=[source]
    )


def scoord3d(frame: str, data: Sequence[float]) -> Dataset:
    """Return a point in space."""
    return item(
        "SCOORD3D",
        "111030",
        "Image Region",
        GraphicType="POINT",
        GraphicData=list(data),
        ReferencedFrameOfReferenceUID=frame,
    )


def annotation(image: Path, kind: str, data: Sequence[float], text: str = "") -> Dataset:
    """Return a figure of a presentation state, in pixels of an image."""
    drawn, made = Dataset(), Dataset()
    drawn.GraphicAnnotationUnits, drawn.GraphicDimensions = "PIXEL", 2
    drawn.NumberOfGraphicPoints, drawn.GraphicData, drawn.GraphicType = len(data) // 2, list(data), kind
    made.ReferencedImageSequence, made.GraphicLayer, made.GraphicObjectSequence = (
        [reference(image)],
        "A",
        [drawn],
    )
    if text:
        words = Dataset()
        words.UnformattedTextValue = text
        made.TextObjectSequence = [words]
    return made


def item(kind: str, code: str, meaning: str, **values: Any) -> Dataset:
    """Return a content item."""
    made, name = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = code, "DCM", meaning
    made.RelationshipType, made.ValueType, made.ConceptNameCodeSequence = "CONTAINS", kind, [name]
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def reference(image: Path) -> Dataset:
    """Return the item that names an image."""
    header, made = dcmread(image, stop_before_pixels=True), Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return made


def _instance(image: Path, sop_class: str, modality: str, name: str) -> Dataset:
    header, dataset = dcmread(image, stop_before_pixels=True), Dataset()
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
    ):
        setattr(dataset, keyword, header[keyword].value)
    dataset.SOPClassUID, dataset.Modality = sop_class, modality
    dataset.SOPInstanceUID = derived(name, header.StudyInstanceUID)
    dataset.SeriesInstanceUID = derived("series of", name, header.StudyInstanceUID)
    return dataset


__all__ = [
    "annotation", "group", "item", "key_object", "predecessor", "reference", "report", "scoord", "scoord3d", "state",
]  # fmt: skip

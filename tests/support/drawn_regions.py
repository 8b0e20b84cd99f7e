"""SEGs and RTSTRUCTs as others write them, on the series of `dicom_series`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dicom_series import derived, write
from pydicom.dataset import Dataset

STUDY = derived("study", "P1", "20250101")
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def make_seg(
    folder: Path,
    frames: Sequence[tuple[int, int | None, np.ndarray]],
    *,
    kind: str = "BINARY",
    labels: Sequence[str] = ("one",),
    series: str | None = derived("series", STUDY, "CT", 1),
    orientation: Sequence[float] = AXIAL,
    origin: tuple[float, float] = (0.0, 0.0),
    spacing: tuple[float, float] = (1.0, 1.0),
    dz: float = 0.0,
    **attributes: Any,
) -> Path:
    """Write a SEG; each frame is (slice k, segment number or None, pixels)."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    dataset.SOPInstanceUID = derived("seg", str(folder))
    dataset.Modality, dataset.PatientID, dataset.PatientName = "SEG", "P1", "Phantom^P1"
    dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyInstanceUID = "19600101", "20250101", STUDY
    dataset.SeriesInstanceUID, dataset.SeriesNumber = derived("seg series", str(folder)), 88
    dataset.FrameOfReferenceUID = derived("frame", STUDY)
    dataset.SegmentationType = kind
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = (
        1,
        "MONOCHROME2",
        0,
    )
    dataset.Rows, dataset.Columns = frames[0][2].shape if frames else (10, 11)
    dataset.NumberOfFrames = len(frames)
    bits = 1 if kind == "BINARY" else 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    if kind == "FRACTIONAL":
        dataset.MaximumFractionalValue, dataset.SegmentationFractionalType = 200, "PROBABILITY"
    dataset.SegmentSequence = [_segment(n, label) for n, label in enumerate(labels, start=1)]
    if series is not None:
        listed = Dataset()
        listed.SeriesInstanceUID = series
        dataset.ReferencedSeriesSequence = [listed]
    dataset.SharedFunctionalGroupsSequence = [_shared(orientation, spacing)]
    dataset.PerFrameFunctionalGroupsSequence = [_group(k, n, origin, dz) for k, n, _ in frames]
    pixels = np.stack([p for _, _, p in frames]).astype(np.uint8)
    flat = np.packbits(pixels.ravel(), bitorder="little") if bits == 1 else pixels
    data = flat.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    folder.mkdir(parents=True, exist_ok=True)
    return write(dataset, folder / "seg.dcm")


def _segment(number: int, label: str) -> Dataset:
    segment, kind = Dataset(), Dataset()
    segment.SegmentNumber, segment.SegmentLabel = number, label
    kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning = "4147007", "SCT", "Mass"
    segment.SegmentedPropertyTypeCodeSequence = [kind]
    segment.TrackingID, segment.TrackingUID = f"lesion {number}", f"2.25.{number}"
    return segment


def _shared(orientation: Sequence[float], spacing: tuple[float, float]) -> Dataset:
    shared, turned, measures = Dataset(), Dataset(), Dataset()
    turned.ImageOrientationPatient = list(orientation)
    measures.PixelSpacing = list(spacing)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turned], [measures]
    return shared


def _group(k: int, number: int | None, origin: tuple[float, float], dz: float) -> Dataset:
    group, position = Dataset(), Dataset()
    position.ImagePositionPatient = [origin[0], origin[1], 2.0 * k + dz]
    group.PlanePositionSequence = [position]
    if number is not None:
        named = Dataset()
        named.ReferencedSegmentNumber = number
        group.SegmentIdentificationSequence = [named]
    return group


def structure_set(
    folder: Path,
    rois: dict[str, list[tuple[str, list[tuple[float, float, float]], str | None]]],
    *,
    patient_id: str = "P1",
    frame: str | None = None,
    series: str | None = None,
) -> Path:
    """Write an RTSTRUCT; each contour is (geometric type, points in mm, referenced instance or None)."""
    study = derived("study", patient_id, "20250101")
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.SOPInstanceUID = derived("rtstruct", folder, *rois)
    dataset.Modality, dataset.PatientID, dataset.PatientName = "RTSTRUCT", patient_id, f"Phantom^{patient_id}"
    dataset.PatientBirthDate, dataset.StudyDate = "19600101", "20250101"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, derived("rt series", folder)
    dataset.SeriesNumber = 77
    if series is not None:
        dataset.ReferencedFrameOfReferenceSequence = [_references(series)]
    names, drawn = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        named, shape = Dataset(), Dataset()
        named.ROINumber, named.ROIName = number, name
        named.ReferencedFrameOfReferenceUID = frame or derived("frame", study)
        shape.ReferencedROINumber = number
        shape.ContourSequence = [_contour(*contour) for contour in contours]
        names.append(named)
        drawn.append(shape)
    observed = Dataset()
    observed.ReferencedROINumber, observed.RTROIInterpretedType = 1, "GTV"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = names, drawn
    dataset.RTROIObservationsSequence = [observed]
    folder.mkdir(parents=True, exist_ok=True)
    return write(dataset, folder / "rtstruct.dcm")


def _references(series: str) -> Dataset:
    frame, study, listed = Dataset(), Dataset(), Dataset()
    listed.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence = [listed]
    frame.RTReferencedStudySequence = [study]
    return frame


def _contour(kind: str, points: list[tuple[float, float, float]], instance: str | None) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType = kind
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.6f}" for point in points for value in point]
    if instance is not None:
        image = Dataset()
        image.ReferencedSOPInstanceUID = instance
        contour.ContourImageSequence = [image]
    return contour


__all__ = ["AXIAL", "STUDY", "make_seg", "structure_set"]

"""Tiny synthetic DICOM series: what a scanner would send, or what a broken one would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

SOP_CLASSES = {
    "CT": CTImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
    "MR": MRImageStorage,
    "OT": SecondaryCaptureImageStorage,
}
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def make_series(
    folder: Path,
    array: ArrayLike,
    *,
    modality: str = "CT",
    spacing_mm: tuple[float, float, float] = (2.0, 1.0, 1.0),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    rescale: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    patient_id: str = "P1",
    study_uid: str | None = None,
    series_uid: str | None = None,
    frame_of_reference_uid: str | None = None,
    series_number: int = 1,
    study_date: str = "20250101",
    signed: bool = True,
    bits: int = 16,
    prefix: str = "slice",
    **attributes: Any,
) -> list[Path]:
    """Write one file a slice and return the paths, in order of growing K.

    `array` (K, R, C) holds real-world values (HU, Bq/ml); they are stored as `round((value - intercept) / slope)`.
    `rescale` is (slope, intercept), or one a slice; default (1, -1024) for CT, (1, 0) else. `spacing_mm` is (k, r, c),
    `orientation` the six cosines of ImageOrientationPatient, `origin_mm` the position of the first slice; K grows along
    row x column. Every other keyword is a DICOM attribute set on each slice; a callable gets k; None deletes it.
    UIDs follow from patient, date, modality and number, so series of one study share study and frame of reference.
    """
    values = np.asarray(array, dtype=np.float64)
    scales = _scales(rescale, modality, len(values))
    study_uid = study_uid or derived("study", patient_id, study_date)
    series_uid = series_uid or derived("series", study_uid, modality, series_number)
    frame = frame_of_reference_uid or derived("frame", study_uid)
    row, column = np.array(orientation[:3], dtype=float), np.array(orientation[3:], dtype=float)
    normal = np.cross(row, column)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, plane in enumerate(values):
        dataset = _header(modality, patient_id, study_date, study_uid, series_uid, frame, series_number)
        dataset.SOPInstanceUID = derived("instance", series_uid, k)
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = _ds(np.asarray(origin_mm) + k * spacing_mm[0] * normal)
        dataset.ImageOrientationPatient = _ds(orientation)
        dataset.PixelSpacing = _ds(spacing_mm[1:])
        dataset.SliceThickness = _ds([spacing_mm[0]])[0]
        dataset.RescaleSlope, dataset.RescaleIntercept = _ds(scales[k])
        stored = np.rint((plane - scales[k][1]) / scales[k][0])
        _pixels(dataset, stored, transfer_syntax, signed=signed, bits=bits)
        _set(dataset, attributes, k)
        paths.append(write(dataset, folder / f"{prefix}_{k + 1:04d}.dcm", transfer_syntax))
    return paths


def derived(*parts: object) -> str:
    """Return the UID that always belongs to these parts."""
    return str(generate_uid(entropy_srcs=[repr(p) for p in parts]))


def write(dataset: Dataset, path: Path, transfer_syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set as a Part 10 file and return the path."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    dataset.file_meta = meta
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def _ds(numbers: Sequence[float] | NDArray[Any]) -> list[str]:
    return [f"{float(n):.10g}"[:16] for n in numbers]


def _scales(
    rescale: tuple[float, float] | Sequence[tuple[float, float]] | None, modality: str, slices: int
) -> list[tuple[float, float]]:
    if rescale is None:
        rescale = (1.0, -1024.0) if modality == "CT" else (1.0, 0.0)
    if isinstance(rescale[0], (tuple, list)):
        return [(float(m), float(b)) for m, b in rescale]  # type: ignore[misc]
    return [(float(rescale[0]), float(rescale[1]))] * slices  # type: ignore[arg-type]


def _header(
    modality: str, patient_id: str, date: str, study: str, series: str, frame: str, number: int
) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = SOP_CLASSES.get(modality, SecondaryCaptureImageStorage)
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "110000"
    dataset.AccessionNumber = ""
    dataset.Modality = modality
    dataset.Manufacturer = "Phantom"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Synthetic"
    dataset.SeriesDescription = f"Synthetic {modality}"
    dataset.PatientName = f"Phantom^{patient_id}"
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = "19600101"
    dataset.PatientSex = "O"
    dataset.PatientSize = "1.75"
    dataset.PatientWeight = "70"
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = series
    dataset.StudyID = "1"
    dataset.SeriesNumber = number
    dataset.AcquisitionNumber = 1
    dataset.FrameOfReferenceUID = frame
    dataset.PositionReferenceIndicator = ""
    if modality == "CT":
        dataset.KVP = "120"
        dataset.RescaleType = "HU"
    if modality == "PT":
        _tracer(dataset)
    return dataset


def _tracer(dataset: Dataset) -> None:
    """One hour after 368.08 MBq of F-18, 70 kg, corrected to the series start: SUV = Bq/ml * 70000 / 2.5198e8."""
    dataset.Units = "BQML"
    dataset.CountsSource = "EMISSION"
    dataset.SeriesType = ["STATIC", "IMAGE"]
    dataset.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
    dataset.DecayCorrection = "START"
    dataset.ActualFrameDuration = 300000
    dataset.FrameReferenceTime = "148028.2"
    tracer = Dataset()
    tracer.Radiopharmaceutical = "FDG"
    tracer.RadionuclideTotalDose = "368080000"
    tracer.RadionuclideHalfLife = "6586.2"
    tracer.RadiopharmaceuticalStartTime = "100000"
    tracer.RadiopharmaceuticalStartDateTime = f"{dataset.SeriesDate}100000"
    dataset.RadiopharmaceuticalInformationSequence = [tracer]


def _pixels(
    dataset: Dataset, stored: NDArray[np.float64], transfer_syntax: str, *, signed: bool, bits: int
) -> None:
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(signed)
    image = stored.astype(kind)
    if transfer_syntax in NATIVE:
        swapped = image.astype(f">{kind}") if transfer_syntax == ExplicitVRBigEndian else image
        data = swapped.tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OB" if bits <= 8 else "OW"
        return
    dataset.PixelData = encapsulate([encoded(image, transfer_syntax)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def encoded(image: NDArray[Any], transfer_syntax: str) -> bytes:
    """Return an image as one frame of a compressed transfer syntax, its values in as many bits as the array has."""

    def unsigned(image: NDArray[Any]) -> NDArray[Any]:
        return image.view(f"u{image.dtype.itemsize}")

    table: dict[str, Callable[[NDArray[Any]], bytes]] = {
        JPEGLSLossless: lambda i: imagecodecs.jpegls_encode(unsigned(i)),
        JPEG2000Lossless: lambda i: imagecodecs.jpeg2k_encode(i, codecformat="j2k", reversible=True),
        JPEG2000: lambda i: imagecodecs.jpeg2k_encode(i, codecformat="j2k", level=40),
        HTJ2K: lambda i: imagecodecs.htj2k_encode(i),
        HTJ2KLossless: lambda i: imagecodecs.htj2k_encode(i),
        JPEGLosslessSV1: lambda i: imagecodecs.ljpeg_encode(unsigned(i)),
        JPEGBaseline8Bit: lambda i: imagecodecs.jpeg8_encode(unsigned(i), level=95),
        RLELossless: _rle,
    }
    return table[transfer_syntax](image)


def _rle(image: NDArray[Any]) -> bytes:
    segments = []
    for byte in range(image.dtype.itemsize - 1, -1, -1):
        plane = image.view("u1").reshape(*image.shape, image.dtype.itemsize)[..., byte]
        coded = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in np.ascontiguousarray(plane))
        segments.append(coded + b"\0" * (len(coded) % 2))
    offsets = np.zeros(16, dtype="<u4")
    offsets[0] = len(segments)
    offsets[1 : 1 + len(segments)] = 64 + np.cumsum([0, *[len(s) for s in segments[:-1]]])
    return offsets.tobytes() + b"".join(segments)


def _set(dataset: Dataset, attributes: dict[str, Any], k: int) -> None:
    for keyword, value in attributes.items():
        new = value(k) if callable(value) else value
        if new is not None:
            setattr(dataset, keyword, new)
        elif keyword in dataset:
            delattr(dataset, keyword)

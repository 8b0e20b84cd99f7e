"""A CT of many slices as a scanner would send it: noise, a body, a header of the usual length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

Pixels = NDArray[np.int16]
SIZE = 512
ROOT = "1.2.826.0.1.3680043.8.498.7"

WORDS = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    "StudyDate": "20250102",
    "SeriesDate": "20250102",
    "AcquisitionDate": "20250102",
    "ContentDate": "20250102",
    "StudyTime": "101112.123000",
    "SeriesTime": "101512.333000",
    "AcquisitionTime": "101512.333000",
    "ContentTime": "101514.653000",
    "AccessionNumber": "A0012345",
    "Modality": "CT",
    "Manufacturer": "Maker of scanners",
    "InstitutionName": "A hospital",
    "ReferringPhysicianName": "Doe^Jane",
    "StationName": "CT1",
    "StudyDescription": "CT Thorax/Abdomen",
    "SeriesDescription": "Thorax 1.0 B30f",
    "InstitutionalDepartmentName": "Radiology",
    "ManufacturerModelName": "Scanner 64",
    "PatientName": "Phantom^Speed",
    "PatientID": "SPEED1",
    "PatientBirthDate": "19500101",
    "PatientSex": "F",
    "PatientAge": "075Y",
    "PatientWeight": "71",
    "BodyPartExamined": "CHEST",
    "ScanOptions": "HELICAL MODE",
    "SliceThickness": "1.0",
    "KVP": "120",
    "DataCollectionDiameter": "500",
    "DeviceSerialNumber": "4711",
    "SoftwareVersions": "1.0",
    "ProtocolName": "ThoraxRoutine",
    "ReconstructionDiameter": "360",
    "DistanceSourceToDetector": "1040",
    "DistanceSourceToPatient": "570",
    "GantryDetectorTilt": "0",
    "TableHeight": "151",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "XRayTubeCurrent": "170",
    "Exposure": "85",
    "FilterType": "0",
    "GeneratorPower": "23",
    "FocalSpots": "1.2",
    "ConvolutionKernel": "B30f",
    "PatientPosition": "FFS",
    "AcquisitionNumber": "2",
    "StudyID": "77",
    "SeriesNumber": "3",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PositionReferenceIndicator": "",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "Rows": SIZE,
    "Columns": SIZE,
    "PixelSpacing": ["0.703125", "0.703125"],
    "WindowCenter": ["40", "-600"],
    "WindowWidth": ["400", "1200"],
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "RescaleType": "HU",
    "StudyInstanceUID": f"{ROOT}.1",
    "SeriesInstanceUID": f"{ROOT}.1.3",
    "FrameOfReferenceUID": f"{ROOT}.1.9",
}
"""What all slices say alike."""


def make_pixels(slices: int) -> Pixels:
    """Return stored values `(K, R, C)`, HU + 1024: air, a body with lungs and vessels, noise of 18 HU."""
    rng = np.random.default_rng(7)
    r, c = np.ogrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    plain = np.full((SIZE, SIZE), 24.0)
    plain[(r / 0.7) ** 2 + (c / 0.9) ** 2 <= 1] = 1064.0
    for side in (-1, 1):
        plain[(r / 0.5) ** 2 + ((c - 0.42 * side) / 0.32) ** 2 <= 1] = 160.0
    for _ in range(120):
        y, x, radius = rng.uniform(-0.6, 0.6), rng.uniform(-0.8, 0.8), rng.uniform(0.004, 0.03)
        plain[(r - y) ** 2 + (c - x) ** 2 <= radius**2] = rng.uniform(1000.0, 1400.0)
    pixels = np.empty((slices, SIZE, SIZE), dtype=np.int16)
    for k in range(slices):
        noise = rng.normal(0.0, 25.0, (SIZE, SIZE)).astype(np.float32)
        noise[1:] = (noise[1:] + noise[:-1]) / 1.4
        pixels[k] = np.clip(np.roll(plain, k % 16, axis=1) + noise, 0, 4095)
    return pixels


def write_scan(folder: Path, pixels: Pixels, syntax: str = ExplicitVRLittleEndian) -> list[Path]:
    """Write one file a slice in a transfer syntax and return the paths, in order of growing K."""
    folder.mkdir(parents=True)
    paths = []
    for k, plane in enumerate(pixels):
        path = folder / f"slice{k + 1:04d}.dcm"
        dcmwrite(path, slice_dataset(plane, k, syntax), enforce_file_format=True)
        paths.append(path)
    return paths


def slice_dataset(plane: NDArray[np.int16], k: int, syntax: str) -> Dataset:
    """Return one slice with its pixels in a transfer syntax; JPEG baseline holds the upper 8 bits."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in WORDS.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{ROOT}.1.3.{k + 1}"
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = ["-180", "-180", f"{-1300.5 + k:.1f}"]
    dataset.SliceLocation = f"{-1300.5 + k:.1f}"
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator = "CTTHORAX", "LOCAL"
    procedure.CodeMeaning = "CT Thorax"
    dataset.ProcedureCodeSequence = [procedure]
    dataset.add_new((0x0029, 0x0010), "LO", "MAKER PRIVATE")
    dataset.add_new((0x0029, 0x1010), "OB", bytes(2000))
    if syntax == JPEGBaseline8Bit:
        plane = (plane >> 4).astype(np.uint8)
    bits = 8 * plane.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(plane.dtype.kind == "i")
    encoder = ENCODERS.get(syntax)
    dataset.PixelData = plane.tobytes() if encoder is None else encapsulate([encoder(plane)])
    dataset["PixelData"].VR = "OW" if encoder is None else "OB"
    return dataset


def _lossless_jpeg(plane: NDArray[np.int16]) -> bytes:
    return bytes(imagecodecs.ljpeg_encode(plane.view(np.uint16), bitspersample=16))


def _rle(plane: NDArray[np.int16]) -> bytes:
    """Return PS3.5 annex G: a PackBits segment for the high bytes and one for the low ones."""
    flat = plane.view(np.uint16)
    parts = [_packed((flat >> 8).astype(np.uint8)), _packed((flat & 255).astype(np.uint8))]
    head = np.zeros(16, dtype="<u4")
    head[:3] = 2, 64, 64 + len(parts[0])
    return head.tobytes() + b"".join(parts)


def _packed(plane: NDArray[np.uint8]) -> bytes:
    packed = b"".join(bytes(imagecodecs.packbits_encode(row.tobytes())) for row in plane)
    return packed + b"\0" * (len(packed) % 2)


ENCODERS: dict[str, Callable[..., bytes]] = {
    JPEGLSLossless: lambda plane: bytes(imagecodecs.jpegls_encode(plane.view(np.uint16))),
    JPEG2000Lossless: lambda plane: bytes(
        imagecodecs.jpeg2k_encode(plane, reversible=True, level=0, codecformat="j2k")
    ),
    RLELossless: _rle,
    JPEGLosslessSV1: _lossless_jpeg,
    JPEGBaseline8Bit: lambda plane: bytes(imagecodecs.jpeg8_encode(plane, level=90)),
}
"""How the pixels of each compressed transfer syntax are made."""

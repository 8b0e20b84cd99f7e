"""Files of DICOM Part 10 as they are written, and element by element as nobody should write them."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from store.part10 import write_preamble

CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def image(**changes: object) -> Dataset:
    dataset = Dataset()
    values: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CT,
        "SOPInstanceUID": "1.2.3.4",
        "StudyDate": "20260301",
        "StudyTime": "091530.25",
        "AccessionNumber": "A1",
        "Modality": "CT",
        "Manufacturer": "Maker",
        "StudyDescription": "Thorax",
        "SeriesDescription": "lung",
        "ManufacturerModelName": "Model",
        "PatientName": "Müller^Zoë",
        "PatientID": "P1",
        "IssuerOfPatientID": "H",
        "PatientBirthDate": "19600229",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "SeriesNumber": 5,
        "FrameOfReferenceUID": "1.2.3.9",
    }
    for keyword, value in {**values, **changes}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def write(path: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian, **meta: object) -> Path:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CT)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2")
    for keyword, value in meta.items():
        setattr(dataset.file_meta, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def raw(path: Path, *elements: bytes, syntax: str = ExplicitVRLittleEndian) -> Path:
    path.write_bytes(write_preamble(CT, "1.2.3.4", syntax) + b"".join(elements))
    return path


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    value += b"\0" * (len(value) % 2)
    size = len(value) if length is None else length
    if vr in (b"SQ", b"UN", b"OB", b"OW", b"UT"):
        return struct.pack("<HH", group, number) + vr + struct.pack("<HL", 0, size) + value
    return struct.pack("<HH", group, number) + vr + struct.pack("<H", size) + value


UIDS = (
    element(8, 0x16, b"UI", CT.encode()),
    element(8, 0x18, b"UI", b"1.2.3.4"),
    element(0x20, 0xD, b"UI", b"1.2.3"),
    element(0x20, 0xE, b"UI", b"1.2.3.1"),
)

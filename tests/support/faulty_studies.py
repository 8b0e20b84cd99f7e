"""Makers of studies with one fault each, out of a CT of eight slices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicom_series import derived, make_series, write
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

SLICES = 8
RNG = np.random.default_rng(7)
CT = np.rint(RNG.normal(40, 30, (SLICES, 12, 10))) + np.linspace(-900, 0, 10)
Maker = Callable[[Path], object]


def series(**options: Any) -> Maker:
    return lambda folder: make_series(folder / "ct", CT, **options)


def edited(edit: Callable[[list[Path]], object], **options: Any) -> Maker:
    return lambda folder: edit(make_series(folder / "ct", CT, **options))


def each(change: Callable[[Dataset, int], object], **options: Any) -> Maker:
    """Change every slice after it was written."""

    def run(paths: list[Path]) -> None:
        for k, path in enumerate(paths):
            dataset = pydicom.dcmread(path)
            change(dataset, k)
            dataset.save_as(path)

    return edited(run, **options)


def positions(*along: float) -> Maker:
    return series(ImagePositionPatient=lambda k: ["0", "0", f"{along[k]:g}"])


def tilted(degrees: float) -> Maker:
    shift = np.tan(np.radians(degrees)) * 2.0
    return series(ImagePositionPatient=lambda k: ["0", f"{k * shift:.6f}", f"{2 * k}"])


def cut(path: Path, lost_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-lost_bytes])


def two_patients(folder: Path) -> None:
    make_series(folder / "a", CT, patient_id="P1")
    make_series(
        folder / "b", CT, patient_id="P2", study_uid=derived("study", "P1", "20250101"), series_number=2
    )


def two_patients_in_a_series(folder: Path) -> None:
    make_series(folder / "a", CT, PatientID=lambda k: "P2" if k == 3 else "P1")


def same_id_other_person(folder: Path) -> None:
    make_series(folder / "a", CT)
    make_series(folder / "b", CT, series_number=2, PatientName="Other^Person", PatientBirthDate="19990909")


def two_studies(folder: Path) -> None:
    make_series(folder / "a", CT)
    make_series(folder / "b", CT, study_date="20250601")


def conflicting(folder: Path) -> None:
    paths = make_series(folder / "a", CT)
    dataset = pydicom.dcmread(paths[2])
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(folder / "again.dcm")


def localizer_inside(folder: Path) -> None:
    make_series(folder, CT)
    make_series(
        folder,
        CT[:1, :, :9],
        prefix="scout",
        orientation=(1, 0, 0, 0, 0, -1),
        SOPInstanceUID=derived("scout"),
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )


def time_points(folder: Path) -> None:
    make_series(folder, CT)
    make_series(
        folder, CT + 5, prefix="later", SOPInstanceUID=lambda k: derived("later", k), TemporalPositionIndex=2
    )


def declared_huge(folder: Path) -> None:
    each(lambda d, _: setattr(d, "Rows", 65535) or setattr(d, "Columns", 65535), transfer_syntax=RLELossless)(
        folder
    )


def too_many_frames(folder: Path) -> None:
    changes = {"Rows": 512, "Columns": 512, "NumberOfFrames": 20000}
    each(lambda d, _: [setattr(d, k, v) for k, v in changes.items()], transfer_syntax=RLELossless)(folder)


def unknown_syntax(folder: Path) -> None:
    for path in make_series(folder, CT, transfer_syntax=JPEGLSLossless):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
        dataset.save_as(path)


def broken_codestream(folder: Path) -> None:
    for path in make_series(folder, CT, transfer_syntax=JPEGLSLossless):
        data = bytearray(path.read_bytes())
        start = data.rindex(b"\xff\xda")
        data[start : start + 40] = b"\x55" * 40
        path.write_bytes(bytes(data))


def garbage(folder: Path) -> None:
    make_series(folder, CT)
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff")


def deep_nesting(folder: Path) -> None:
    make_series(folder, CT)
    item = Dataset()
    item.PatientID = "P1"
    for _ in range(70):
        outer = Dataset()
        outer.ReferencedStudySequence = [item]
        item = outer
    item.SOPClassUID, item.SOPInstanceUID, item.Modality = "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "CT"
    write(item, folder / "deep.dcm")


def report_only(folder: Path) -> None:
    dataset = pydicom.dcmread(make_series(folder, CT[:1])[0])
    del dataset.PixelData
    dataset.Modality, dataset.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.33"
    write(dataset, folder / "slice_0001.dcm")


def frames_without_positions(folder: Path) -> None:
    path = make_series(folder, CT[:1])[0]
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 4
    dataset.PixelData = dataset.PixelData * 4
    dataset.save_as(path)


def pet(**options: Any) -> Maker:
    return lambda folder: make_series(folder / "pt", np.abs(CT) * 10, modality="PT", **options)


def tracer(**changes: Any) -> Maker:
    def change(dataset: Dataset, _: int) -> None:
        for keyword, value in changes.items():
            item = dataset.RadiopharmaceuticalInformationSequence[0]
            if value is None:
                delattr(item, keyword)
            else:
                setattr(item, keyword, value)

    def run(folder: Path) -> None:
        for k, path in enumerate(make_series(folder, np.abs(CT) * 10, modality="PT")):
            dataset = pydicom.dcmread(path)
            change(dataset, k)
            dataset.save_as(path)

    return run

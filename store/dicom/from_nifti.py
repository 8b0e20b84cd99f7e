"""A NIfTI image as a DICOM series: what a person says it is, written so that everything else can be done with it.

A NIfTI file holds voxels and where they lie, and no identity. CT values are written as whole Hounsfield units, rounded
to the nearest; PET values as SUVbw (Units GML, SUVType BW: PS3.3 C.8.9.1.1.3) with a slope of their own in each slice,
so that they differ by half a 32767th of the slice's highest value at most. What a scanner would have said of tracer and
corrections is not known and left empty; DecayCorrection START and DecayFactor 1 stand where the standard wants a value.
Voxels are never resampled (`store.dicom.nifti_image`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from plugins.contract import Volume
from plugins.errors import Refused
from store.dicom.nifti_image import read_image
from store.dicom.uids import derive_uid
from store.file_hash import sha256_of
from store.part10 import MANUFACTURER
from store.uploads import ISSUER

MOST_VOXELS = 1 << 28
HIGHEST_STORED = 32767
AIR_HU, HIGHEST_HU = -32768, 32767
NUMBERS = {"CT": 1, "PT": 2}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a person says that a NIfTI image is."""

    modality: Literal["CT", "PT"]
    """CT in Hounsfield units or PT in SUVbw."""
    patient_label: str
    """Whose it is: a pseudonym, written as PatientID and PatientName."""
    study_date: date
    """When it was made."""
    study_instance_uid: str
    """Study that it belongs to."""
    is_aligned: bool = True
    """True when it lies in the same coordinates as the other images of the study."""

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({**asdict(self), "study_date": self.study_date.isoformat()})

    @classmethod
    def from_json(cls, text: str) -> Said:
        """Return what `to_json` wrote."""
        plain = json.loads(text)
        return cls(**{**plain, "study_date": date.fromisoformat(plain["study_date"])})


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSeries:
    """A NIfTI image that can be written as DICOM."""

    volume: Volume
    """Its voxels `(K, R, C)`, LPS."""
    said: Said
    """What a person said of it."""
    series_instance_uid: str
    """Follows from the study and the bytes of the file."""
    told: tuple[str, ...]
    """What writing it changes, in sentences."""

    def __len__(self) -> int:
        """Return the number of slices."""
        return int(self.volume.array.shape[0])

    def encoded(self, k: int) -> bytes:
        """Return slice `k` as a Part 10 file; equal input gives equal bytes."""
        dataset = _image(self, k)
        out = BytesIO()
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
            dataset.SOPClassUID,
            dataset.SOPInstanceUID,
        )
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta = meta
        dcmwrite(out, dataset, enforce_file_format=True)
        return out.getvalue()


def read_series(path: Path, said: Said) -> ImageSeries:
    """Return the series that a NIfTI file is to become.

    Refuses what `read_image` refuses (`too-large`, `sheared`, `not-hounsfield`, `not-suv`, `not-3d`, ...).
    """
    volume = read_image(path, said.modality, MOST_VOXELS).volume
    digest = sha256_of(path)
    return ImageSeries(
        volume=volume,
        said=said,
        series_instance_uid=derive_uid("nifti-series", said.study_instance_uid, said.modality, digest),
        told=_told(volume),
    )


def _told(volume: Volume) -> tuple[str, ...]:
    if volume.modality == "CT":
        change = float(np.abs(volume.array - np.rint(volume.array)).max())
        said = [f"values were rounded to whole HU (by {change:.2g} HU at most)"] if change else []
        return tuple(said)
    below = int((volume.array < 0).sum())
    said = [f"{below} values below 0 were set to 0"] if below else []
    return (*said, "values are SUV by body weight, as was said; tracer, dose and weight are not known")


def _image(series: ImageSeries, k: int) -> Dataset:
    volume, said = series.volume, series.said
    dataset = _identity(series, k)
    _place(dataset, volume, k)
    stored = _ct(dataset, volume.array[k]) if said.modality == "CT" else _pet(dataset, series, k)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = stored.astype("<i2").tobytes()
    return dataset


def _identity(series: ImageSeries, k: int) -> Dataset:
    """Return a data set with patient, study, series and equipment; what is not known is empty."""
    said = series.said
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ImageType = ["DERIVED", "SECONDARY", "AXIAL"] if said.modality == "CT" else ["DERIVED", "PRIMARY"]
    made.SOPClassUID = series.volume.sop_class_uid
    made.SOPInstanceUID = derive_uid("nifti-image", series.series_instance_uid, str(k))
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = made.ContentDate = f"{said.study_date:%Y%m%d}"
    made.StudyTime, made.AcquisitionTime = "", ""
    made.SeriesTime = made.ContentTime = "000000"
    made.AccessionNumber = made.ReferringPhysicianName = made.Manufacturer = ""
    made.Modality = said.modality
    made.StudyDescription = "NIfTI upload"
    made.SeriesDescription = f"{said.modality} from NIfTI"
    made.PatientName = made.PatientID = said.patient_label
    made.IssuerOfPatientID = ISSUER
    made.PatientBirthDate = made.PatientSex = ""
    made.StudyInstanceUID, made.StudyID = said.study_instance_uid, ""
    made.SeriesInstanceUID = series.series_instance_uid
    made.SeriesNumber, made.InstanceNumber = NUMBERS[said.modality], k + 1
    made.AcquisitionNumber = None
    aligned = "" if said.is_aligned else series.series_instance_uid
    made.FrameOfReferenceUID = derive_uid("nifti-frame", said.study_instance_uid, aligned)
    made.PositionReferenceIndicator = made.Laterality = ""
    made.ContributingEquipmentSequence = [_converter()]
    return made


def _converter() -> Dataset:
    purpose, item = Dataset(), Dataset()
    code = codes.DCM.ModifyingEquipment
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = MANUFACTURER
    item.ContributionDescription = "Written from a NIfTI image; identity and units as a person said"
    return item


def _place(dataset: Dataset, volume: Volume, k: int) -> None:
    """Say where a slice lies. A row runs along the column index, a column along the row index (PS3.3 C.7.6.2.1.1)."""
    affine = volume.geometry.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    slices, rows, columns = (affine[:3, axis] / spacing[axis] for axis in range(3))
    if float(np.cross(columns, rows) @ slices) < 0:
        raise Refused("bad-geometry", "its slices run against the normal of their rows and columns")
    dataset.ImagePositionPatient = _numbers(affine[:3, 3] + k * affine[:3, 0])
    dataset.ImageOrientationPatient = _numbers([*columns, *rows])
    dataset.PixelSpacing = _numbers(spacing[1:])
    dataset.SliceThickness = _number(spacing[0])
    dataset.SpacingBetweenSlices = _number(spacing[0])


def _ct(dataset: Dataset, values: NDArray[np.float32]) -> NDArray[np.int16]:
    dataset.KVP, dataset.PatientPosition = None, ""
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "0", "HU"
    return np.clip(np.rint(values), AIR_HU, HIGHEST_HU).astype(np.int16)


def _pet(dataset: Dataset, series: ImageSeries, k: int) -> NDArray[np.int16]:
    """Return the stored values of a slice and say that they are SUVbw."""
    values = np.clip(series.volume.array[k].astype(np.float64), 0, None)
    slope = _number(float(values.max()) / HIGHEST_STORED or 1.0)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, "0"
    dataset.Units, dataset.SUVType = "GML", "BW"
    dataset.CountsSource, dataset.SeriesType = "EMISSION", ["WHOLE BODY", "IMAGE"]
    dataset.CorrectedImage, dataset.CollimatorType = None, ""
    dataset.DecayCorrection, dataset.DecayFactor = "START", "1"
    dataset.PatientOrientationCodeSequence, dataset.PatientGantryRelationshipCodeSequence = [], []
    dataset.NumberOfSlices, dataset.ImageIndex = len(series), k + 1
    dataset.RadiopharmaceuticalInformationSequence = []
    dataset.FrameReferenceTime, dataset.ActualFrameDuration = "0", None
    stored: NDArray[np.int16] = np.minimum(np.rint(values / float(slope)), HIGHEST_STORED).astype(np.int16)
    return stored


def _number(value: float) -> str:
    return format_number_as_ds(float(value))


def _numbers(values: Any) -> list[str]:
    return [_number(value) for value in values]


__all__ = ["ImageSeries", "Said", "read_series"]

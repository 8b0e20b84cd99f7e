"""The thorax phantom as DICOM: CT Image Storage and PET Image Storage, one file a slice, the same bytes each time.

Everything in the header is fictitious. UIDs derive from the voxels, so another seed or grid never shares one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from math import exp, log
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage

from plugins.errors import Unavailable
from training.phantom import Grid, Thorax

Progress = Callable[[int, int], None]
NAMESPACE = UUID("5f0c1f5e-6a39-4f0e-9a2f-3f6f0a8b7c11")
IMPLEMENTATION_UID = UID("2.25." + str(uuid5(NAMESPACE, "implementation").int))
PATIENT_NAME = "Phantom^Thorax"
WEIGHT_KG, SIZE_M = 70.0, 1.72
DOSE_BQ, HALF_LIFE_S = 3.5e8, 6586.2
UPTAKE = timedelta(minutes=60)
CT_TO_PET = timedelta(minutes=2)
BED = timedelta(minutes=15)
INTERCEPT_HU = -1024


def uid(*parts: object) -> UID:
    """Return the UID that belongs to these words."""
    return UID("2.25." + str(uuid5(NAMESPACE, "/".join(map(str, parts))).int))


def study_instance_uid(thorax: Thorax) -> UID:
    """Return the Study Instance UID that `write_dicom` gives this patient at this date."""
    return uid(_identity(thorax), "study")


def _identity(thorax: Thorax) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((thorax.seed, thorax.date_index, thorax.ct_grid, thorax.pet_grid)).encode())
    digest.update(thorax.ct.tobytes())
    digest.update(thorax.pet.tobytes())
    return digest.hexdigest()


def write_dicom(thorax: Thorax, folder: Path, *, progress: Progress | None = None) -> list[Path]:
    """Return the files written: `CT/slice_NNNN.dcm` and `PET/slice_NNNN.dcm` under `folder`, feet first.

    PET is Bq/ml, decay-corrected to the series time, with dose and weight such that SUVbw comes out as in
    `thorax.pet` (up to the rounding of 16-bit integers; one rescale slope a slice). `progress` is told
    (written, of all) after each file. Raises Unavailable when the folder cannot be written.
    Source: PS3.3 A.3 (CT Image IOD), A.21 (PET Image IOD).
    """
    identity = _identity(thorax)
    total = thorax.ct_grid.shape[0] + thorax.pet_grid.shape[0]
    files: list[Path] = []
    try:
        for name, template, fill, grid in (
            ("CT", _ct_template(thorax, identity), _fill_ct, thorax.ct_grid),
            ("PET", _pet_template(thorax, identity), _fill_pet, thorax.pet_grid),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for k in range(grid.shape[0]):
                _place(template, grid, k, identity)
                fill(template, thorax, k)
                path = folder / name / f"slice_{k + 1:04d}.dcm"
                template.save_as(path, enforce_file_format=True)
                files.append(path)
                if progress is not None:
                    progress(len(files), total)
    except OSError as error:
        raise Unavailable(f"the phantom cannot be written to {folder}: {error.strerror or error}") from error
    return files


def activity_per_suv() -> float:
    """Return the activity concentration, Bq/ml at the series time, of SUVbw 1; the same at both dates."""
    remaining = DOSE_BQ * 2 ** (-UPTAKE.total_seconds() / HALF_LIFE_S)
    return float(remaining / (WEIGHT_KG * 1000))


def _da(moment: datetime) -> str:
    return moment.strftime("%Y%m%d")


def _tm(moment: datetime) -> str:
    return moment.strftime("%H%M%S")


def _template(thorax: Thorax, identity: str, modality: str, sop_class_uid: UID, grid: Grid) -> FileDataset:
    """Return a dataset with the patient, study, series, equipment and image-plane attributes both share."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    begun = thorax.acquired_at
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = sop_class_uid
    ds.StudyDate, ds.StudyTime = _da(begun), _tm(begun)
    ds.AccessionNumber = f"PH{thorax.seed:04d}{thorax.date_index}"
    ds.Modality = modality
    ds.Manufacturer = "Phantom"
    ds.ManufacturerModelName = "Thorax phantom"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Thorax phantom PET/CT"
    ds.PatientName = PATIENT_NAME
    ds.PatientID = f"PHANTOM-{thorax.seed:04d}"
    ds.PatientBirthDate, ds.PatientSex = "19600101", "F"
    ds.PatientAge = f"{begun.year - 1960:03d}Y"
    ds.PatientSize, ds.PatientWeight = f"{SIZE_M}", f"{WEIGHT_KG}"
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "Computed phantom, no person"
    ds.BodyPartExamined = "CHEST"
    ds.StudyInstanceUID = uid(identity, "study")
    ds.SeriesInstanceUID = uid(identity, modality)
    ds.StudyID = f"{thorax.date_index + 1}"
    ds.FrameOfReferenceUID = uid(identity, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dz, dy, dx = grid.spacing_mm
    ds.SliceThickness = f"{dz:g}"
    ds.PixelSpacing = [f"{dy:g}", f"{dx:g}"]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = grid.shape[1:]
    ds.BitsAllocated = 16
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    return ds


def _ct_template(thorax: Thorax, identity: str) -> FileDataset:
    ds = _template(thorax, identity, "CT", CTImageStorage, thorax.ct_grid)
    begun = thorax.acquired_at
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesDate, ds.SeriesTime = _da(begun), _tm(begun)
    ds.AcquisitionDate, ds.AcquisitionTime = _da(begun), _tm(begun)
    ds.ContentDate, ds.ContentTime = _da(begun), _tm(begun)
    ds.PatientPosition = "HFS"
    ds.SeriesDescription = "Thorax CT"
    ds.SeriesNumber = 2
    ds.AcquisitionNumber = 1
    ds.KVP = "120"
    ds.DataCollectionDiameter = "500"
    ds.ReconstructionDiameter = f"{thorax.ct_grid.spacing_mm[2] * thorax.ct_grid.shape[2]:g}"
    ds.ConvolutionKernel = "PHANTOM"
    ds.GantryDetectorTilt = "0"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = f"{INTERCEPT_HU}", "1", "HU"
    ds.WindowCenter, ds.WindowWidth = ["-600", "40"], ["1500", "400"]
    ds.WindowCenterWidthExplanation = ["LUNG", "MEDIASTINUM"]
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    return ds


def _pet_template(thorax: Thorax, identity: str) -> FileDataset:
    ds = _template(thorax, identity, "PT", PositronEmissionTomographyImageStorage, thorax.pet_grid)
    begun = thorax.acquired_at + CT_TO_PET
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SeriesDate, ds.SeriesTime = _da(begun), _tm(begun)
    ds.AcquisitionDate, ds.AcquisitionTime = _da(begun), _tm(begun)
    ds.ContentDate, ds.ContentTime = _da(begun), _tm(begun)
    ds.SeriesDescription = "Thorax PET, attenuation corrected"
    ds.SeriesNumber = 3
    ds.Units, ds.CountsSource = "BQML", "EMISSION"
    ds.SeriesType = ["STATIC", "IMAGE"]
    ds.NumberOfSlices = thorax.pet_grid.shape[0]
    ds.CorrectedImage = ["DECY", "ATTN", "SCAT", "RAN", "NORM"]
    ds.RandomsCorrectionMethod = "DLYD"
    ds.AttenuationCorrectionMethod = "CT"
    ds.ScatterCorrectionMethod = "model"
    ds.DecayCorrection = "START"
    ds.ReconstructionMethod = "computed phantom"
    ds.CollimatorType = "NONE"
    ds.RadiopharmaceuticalInformationSequence = DicomSequence([_radiopharmaceutical(begun - UPTAKE)])
    ds.PatientOrientationCodeSequence = DicomSequence([_code("102538003", "SCT", "recumbent")])
    ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = DicomSequence(
        [_code("40199007", "SCT", "supine")]
    )
    ds.PatientGantryRelationshipCodeSequence = DicomSequence([_code("102540008", "SCT", "headfirst")])
    ds.ActualFrameDuration = str(int(BED.total_seconds() * 1000))
    ds.FrameReferenceTime = f"{_mean_decay_s() * 1000:.3f}"
    ds.DecayFactor = "1"
    ds.RescaleIntercept = "0"
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 0
    return ds


def _mean_decay_s() -> float:
    """Return after what time of the bed position the activity is its mean, so that both ways to SUV agree."""
    turns = log(2) / HALF_LIFE_S * BED.total_seconds()
    return HALF_LIFE_S / log(2) * log(turns / (1 - exp(-turns)))


def _radiopharmaceutical(injected: datetime) -> Dataset:
    item = Dataset()
    item.Radiopharmaceutical = "Fluorodeoxyglucose"
    item.RadiopharmaceuticalVolume = "5"
    item.RadiopharmaceuticalStartTime = _tm(injected)
    item.RadiopharmaceuticalStartDateTime = _da(injected) + _tm(injected)
    item.RadionuclideTotalDose = f"{DOSE_BQ:.0f}"
    item.RadionuclideHalfLife = f"{HALF_LIFE_S}"
    item.RadionuclidePositronFraction = "0.967"
    item.RadionuclideCodeSequence = DicomSequence([_code("77004003", "SCT", "^18^Fluorine")])
    item.RadiopharmaceuticalCodeSequence = DicomSequence(
        [_code("35321007", "SCT", "Fluorodeoxyglucose F^18^")]
    )
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _place(ds: FileDataset, grid: Grid, k: int, identity: str) -> None:
    x, y, z = grid.origin_mm
    position = z + k * grid.spacing_mm[0]
    ds.SOPInstanceUID = uid(identity, ds.Modality, k)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.ImagePositionPatient = [f"{v:.6f}".rstrip("0").rstrip(".") for v in (x, y, position)]
    ds.SliceLocation = f"{position:.4f}"
    ds.InstanceNumber = k + 1


def _fill_ct(ds: FileDataset, thorax: Thorax, k: int) -> None:
    stored = np.clip(thorax.ct[k].astype(np.int32) - INTERCEPT_HU, 0, 4095)
    ds.PixelData = _bytes(stored)


def _fill_pet(ds: FileDataset, thorax: Thorax, k: int) -> None:
    activity = np.maximum(thorax.pet[k].astype(np.float64), 0) * activity_per_suv()
    slope = float(f"{max(float(activity.max()), 1.0) / 32767:.8g}")
    ds.RescaleSlope = f"{slope:.8g}"
    ds.ImageIndex = k + 1
    ds.WindowCenter = f"{3 * activity_per_suv():.0f}"
    ds.WindowWidth = f"{6 * activity_per_suv():.0f}"
    ds.PixelData = _bytes(np.rint(activity / slope))


def _bytes(stored: NDArray[np.floating] | NDArray[np.integer]) -> bytes:
    return stored.astype("<u2").tobytes()

"""Studies with one fault each: every fault has its own code, none is read in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import derived, make_series
from faulty_studies import (
    CT,
    SLICES,
    broken_codestream,
    conflicting,
    cut,
    declared_huge,
    deep_nesting,
    each,
    edited,
    frames_without_positions,
    garbage,
    localizer_inside,
    pet,
    positions,
    report_only,
    same_id_other_person,
    series,
    tilted,
    time_points,
    too_many_frames,
    tracer,
    two_patients,
    two_patients_in_a_series,
    two_studies,
    unknown_syntax,
)
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless

from plugins.errors import Refused
from store.dicom.series import read_study

REFUSED_WHOLE = {
    "two patients": (two_patients, "mixed-patients"),
    "two patients in one series": (two_patients_in_a_series, "mixed-patients"),
    "one patient ID, two persons": (same_id_other_person, "mixed-patients"),
    "two studies": (two_studies, "several-studies"),
    "nothing but text": (lambda f: (f / "a.txt").write_text("hello"), "no-images"),
    "a report alone": (report_only, "no-images"),
}
REFUSED_SERIES = {
    "a slice missing in the middle": (edited(lambda p: p[4].unlink()), "missing-slices"),
    "two slices missing": (edited(lambda p: (p[3].unlink(), p[4].unlink())), "missing-slices"),
    "irregular steps": (positions(0, 2, 4, 6.6, 8.6, 10.6, 12.6, 14.6), "irregular-spacing"),
    "a slice twice": (
        series(ImagePositionPatient=lambda k: ["0", "0", str(2 * max(k, 1))]),
        "duplicate-slices",
    ),
    "two time points": (time_points, "several-images-per-position"),
    "gantry tilt": (tilted(12.0), "gantry-tilt"),
    "a little gantry tilt": (tilted(0.8), "gantry-tilt"),
    "slices shifted sideways": (
        series(ImagePositionPatient=lambda k: ["7" if k == 4 else "0", "0", str(2 * k)]),
        "shifted-slices",
    ),
    "no PixelSpacing": (series(PixelSpacing=None), "missing-pixel-spacing"),
    "no PixelSpacing on one slice": (
        series(PixelSpacing=lambda k: None if k == 5 else ["1", "1"]),
        "missing-pixel-spacing",
    ),
    "no position": (series(ImagePositionPatient=None), "missing-position"),
    "no orientation": (series(ImageOrientationPatient=None), "missing-orientation"),
    "no frame of reference": (series(FrameOfReferenceUID=None), "missing-frame-of-reference"),
    "two frames of reference": (
        series(FrameOfReferenceUID=lambda k: derived("frame", k // 4)),
        "mixed-frames-of-reference",
    ),
    "two orientations": (
        series(
            ImageOrientationPatient=lambda k: (
                ["1", "0", "0", "0", "1", "0"] if k else ["1", "0", "0", "0", "0", "-1"]
            )
        ),
        "mixed-orientation",
    ),
    "two pixel spacings": (
        series(PixelSpacing=lambda k: ["1", "1"] if k < 4 else ["1.1", "1.1"]),
        "mixed-pixel-spacing",
    ),
    "two matrices": (
        lambda f: (
            make_series(f, CT[:4]),
            make_series(f, CT[4:, :, :8], prefix="b", SOPInstanceUID=lambda k: derived(k)),
        ),
        "mixed-matrix",
    ),
    "orientation of no length": (series(ImageOrientationPatient=["0"] * 6), "bad-geometry"),
    "a position that is no number": (
        each(
            lambda d, k: d.__setitem__("ImagePositionPatient", _ds("ImagePositionPatient", ["nan", "0", "0"]))
        ),
        "bad-geometry",
    ),
    "a localizer": (series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    "a secondary capture": (series(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "secondary-capture"),
    "an ultrasound": (series(Modality="US"), "unsupported-modality"),
    "two modalities in a series": (series(Modality=lambda k: "CT" if k else "MR"), "mixed-modalities"),
    "one image": (lambda f: make_series(f, CT[:1]), "single-slice"),
    "frames without positions": (frames_without_positions, "multi-frame-without-positions"),
    "colour": (series(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "colour-image"),
    "palette": (series(PhotometricInterpretation="PALETTE COLOR"), "colour-image"),
    "a rescale that is no number": (
        each(lambda d, k: d.__setitem__("RescaleSlope", _ds("RescaleSlope", "nan"))),
        "bad-rescale",
    ),
    "a rescale that is a word": (
        each(lambda d, k: d.__setitem__("RescaleIntercept", _ds("RescaleIntercept", "zero"))),
        "bad-rescale",
    ),
    "a rescale on some slices only": (
        series(
            RescaleSlope=lambda k: None if k == 2 else "1", RescaleIntercept=lambda k: None if k == 2 else "0"
        ),
        "bad-rescale",
    ),
    "a rescale slope of 0": (series(RescaleSlope="0"), "bad-rescale"),
    "a rescale beyond all numbers": (series(RescaleSlope="1e300"), "bad-values"),
    "no pixel data": (each(lambda d, k: d.__delitem__("PixelData")), "no-pixel-data"),
    "pixel data cut short": (edited(lambda p: cut(p[2], 50)), "truncated-pixel-data"),
    "compressed pixel data cut short": (
        edited(lambda p: cut(p[2], 50), transfer_syntax=JPEGLSLossless),
        "truncated-pixel-data",
    ),
    "absurd rows and columns": (declared_huge, "too-large"),
    "absurd frames": (too_many_frames, "too-large"),
    "a transfer syntax without decoder": (unknown_syntax, "no-decoder"),
    "a broken code stream": (broken_codestream, "bad-pixel-data"),
    "12 bits allocated": (series(BitsAllocated=12), "unsupported-pixels"),
    "one instance twice, differently": (conflicting, "conflicting-instances"),
    "a lookup table": (each(lambda d, k: setattr(d, "ModalityLUTSequence", [Dataset()])), "modality-lut"),
    "a MIP of a PET": (pet(ImageType=["DERIVED", "SECONDARY", "MIP"]), "projection"),
    "a reprojection of a PET": (pet(SeriesType=["STATIC", "REPROJECTION"]), "projection"),
    "PET without rescale": (pet(RescaleSlope=None, RescaleIntercept=None), "no-rescale"),
    "a CT that calls itself MR": (
        each(lambda d, k: setattr(d, "Modality", "MR")),
        "modality-differs-from-class",
    ),
    "a damaged file": (garbage, "unreadable-file"),
    "sequences nested 70 deep": (deep_nesting, "unreadable-file"),
}
FLAGGED = {
    "fewer slices than stated": (
        edited(lambda p: p[-1].unlink(), NumberOfSlices=SLICES),
        "fewer-slices-than-stated",
        "ct",
    ),
    "slightly uneven steps": (positions(0, 2, 4, 6.05, 8, 10, 12, 14), "uneven-slices", "ct"),
    "steps off by two hundredths": (positions(0, 2, 4, 6.02, 8.02, 10, 12, 14), "uneven-slices", "ct"),
    "thin slices far apart": (series(SliceThickness="1"), "slice-gaps", "ct"),
    "a localizer among the slices": (localizer_inside, "localizer-left-out", "ct"),
    "inverted display": (series(PhotometricInterpretation="MONOCHROME1"), "monochrome1", "ct"),
    "CT without rescale": (each(lambda d, k: _drop_rescale(d), rescale=(1, 0)), "no-rescale", "ct"),
    "unsigned CT without rescale": (each(lambda d, k: _drop_rescale(d)), "not-hounsfield", "other"),
    "dual-energy values": (series(RescaleType="MGML"), "not-hounsfield", "other"),
    "values that cannot be HU": (series(rescale=(1, -1024), RescaleSlope="5000"), "implausible-hu", "ct"),
    "padding": (series(PixelPaddingValue=int(CT[0, 0, 0]) + 1024), "pixel-padding", "ct"),
    "one value everywhere": (lambda f: make_series(f, np.zeros((4, 6, 6))), "constant-image", "ct"),
    "lossy compression": (series(LossyImageCompression="01"), "lossy-compression", "ct"),
    "PET without weight": (pet(PatientWeight=None), "suv-no-weight", "pet_activity"),
    "PET of 5 tonnes": (pet(PatientWeight="5000000"), "suv-bad-weight", "pet_activity"),
    "PET without units": (pet(Units=None), "suv-no-units", "pet_activity"),
    "PET in counts": (pet(Units="CNTS"), "suv-counts", "pet_activity"),
    "PET in proportional counts": (pet(Units="PROPCNTS"), "suv-units", "pet_activity"),
    "PET not attenuation corrected": (
        pet(CorrectedImage=["NORM", "DECY"]),
        "suv-not-attenuation-corrected",
        "pet_activity",
    ),
    "PET not decay corrected": (
        pet(CorrectedImage=["NORM", "ATTN"]),
        "suv-not-decay-corrected",
        "pet_activity",
    ),
    "PET that is decay corrected and says NONE": (
        pet(DecayCorrection="NONE"),
        "suv-decay-correction-contradicts",
        "pet_activity",
    ),
    "PET with an intercept": (pet(RescaleIntercept="5"), "suv-intercept", "pet_activity"),
    "PET without decay correction": (pet(DecayCorrection=None), "suv-no-decay-correction", "pet_activity"),
    "PET without tracer": (pet(RadiopharmaceuticalInformationSequence=None), "suv-no-dose", "pet_activity"),
    "PET without dose": (tracer(RadionuclideTotalDose=None), "suv-no-dose", "pet_activity"),
    "PET without half-life": (tracer(RadionuclideHalfLife=None), "suv-no-half-life", "pet_activity"),
    "PET without injection time": (
        tracer(RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime=None),
        "suv-no-injection-time",
        "pet_activity",
    ),
    "PET injected last year": (
        tracer(RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20240101100000"),
        "suv-bad-injection-time",
        "pet_activity",
    ),
    "PET with a dose in MBq": (tracer(RadionuclideTotalDose="368.08"), "suv-dose-in-mbq", "pet_suv"),
    "PET with a dose in kBq": (tracer(RadionuclideTotalDose="368080"), "suv-bad-dose", "pet_activity"),
    "PET with two injection times": (
        tracer(RadiopharmaceuticalStartTime="101500"),
        "suv-injection-times-differ",
        "pet_suv",
    ),
    "PET without scan time": (
        pet(SeriesTime=None, AcquisitionTime=None),
        "suv-no-scan-time",
        "pet_activity",
    ),
}


def _ds(keyword: str, value: list[str] | str) -> pydicom.DataElement:
    """A decimal string that pydicom would not write by itself."""
    return pydicom.DataElement(keyword, "LO", value)


def _drop_rescale(dataset: Dataset) -> None:
    del dataset.RescaleSlope, dataset.RescaleIntercept


@pytest.mark.parametrize("name", REFUSED_WHOLE)
def test_a_folder_that_is_no_study_is_refused_with_its_code(name: str, tmp_path: Path) -> None:
    make, code = REFUSED_WHOLE[name]
    make(tmp_path)
    with pytest.raises(Refused) as refused:
        read_study(tmp_path.rglob("*"))
    assert refused.value.code == code


@pytest.mark.parametrize("name", REFUSED_SERIES)
def test_a_faulty_series_is_refused_with_its_code_and_a_sentence(name: str, tmp_path: Path) -> None:
    make, code = REFUSED_SERIES[name]
    make(tmp_path)
    study = read_study(tmp_path.rglob("*")).study
    assert [flag.code for flag in study.refused] == [code]
    sentence = study.refused[0].sentence
    assert len(sentence) > 20
    assert code == "unreadable-file" or ("series" in sentence and study.volumes == ())


@pytest.mark.parametrize("name", FLAGGED)
def test_a_doubtful_series_is_read_with_a_flag_and_the_right_role(name: str, tmp_path: Path) -> None:
    make, code, role = FLAGGED[name]
    make(tmp_path)
    study = read_study(tmp_path.rglob("*")).study
    (volume,) = study.volumes
    told = study.refused if role == "pet_activity" else volume.flags
    assert study.refused == (told if role == "pet_activity" else ())
    assert code in [flag.code for flag in told]
    assert volume.role == role
    assert all(flag.series_instance_uid == volume.series_instance_uid for flag in told)


def test_every_faulty_study_has_a_place_in_one_of_the_three_tables() -> None:
    assert len(REFUSED_WHOLE) + len(REFUSED_SERIES) + len(FLAGGED) >= 60

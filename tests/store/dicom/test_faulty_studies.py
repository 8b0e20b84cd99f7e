"""Studies with one fault each: every fault has its own code, none is read in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_series import derived, make_series, write
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from plugins.errors import Refused
from store.dicom.series import ReadStudy, read_study

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


def junk_beside(folder: Path) -> None:
    make_series(folder, CT)
    (folder / "DICOMDIR.txt").write_text("not DICOM")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "noise.bin").write_bytes(np.random.default_rng(1).bytes(2000))


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


def test_a_sound_series_has_no_flags(tmp_path: Path) -> None:
    series()(tmp_path)
    read = read_study(tmp_path.rglob("*"))
    assert (read.study.refused, read.flags, read.study.volumes[0].flags) == ((), (), ())
    np.testing.assert_allclose(read.study.volumes[0].array, CT, atol=1e-3)


def _read(folder: Path) -> ReadStudy:
    return read_study(folder.rglob("*"))


def test_images_without_a_patient_id_are_doubted(tmp_path: Path) -> None:
    make_series(tmp_path, CT, PatientID="")
    assert [f.code for f in _read(tmp_path).flags] == ["no-patient-id"]


def test_one_data_set_in_two_wrappings_is_one_image(tmp_path: Path) -> None:
    first = make_series(tmp_path, CT)[0]
    dataset = pydicom.dcmread(first)
    dataset.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
    dataset.preamble = b"II*\0" + 124 * b"\0"
    dataset.save_as(tmp_path / "again.dcm")
    study = _read(tmp_path).study
    assert study.refused == ()
    assert len(study.volumes) == 1


def test_files_that_are_not_dicom_are_passed_over_with_a_flag(tmp_path: Path) -> None:
    junk_beside(tmp_path)
    read = _read(tmp_path)
    assert [f.code for f in read.flags] == ["not-dicom"]
    assert "2 files" in read.flags[0].sentence
    assert [f.code for f in read.study.refused] == ["unreadable-file"]
    assert "empty.dcm is named like a DICOM file and is none" in read.study.refused[0].sentence
    assert len(read.study.volumes) == 1


def test_the_same_bytes_twice_are_read_once(tmp_path: Path) -> None:
    paths = make_series(tmp_path, CT)
    shutil.copy(paths[3], tmp_path / "copy.dcm")
    read = _read(tmp_path)
    assert read.study.volumes[0].array.shape == CT.shape
    assert read.study.refused == ()


def test_own_results_that_come_back_are_passed_over(tmp_path: Path) -> None:
    make_series(tmp_path, CT)
    dataset = pydicom.dcmread(make_series(tmp_path / "own", CT[:1], series_number=9)[0])
    dataset.Modality, dataset.Manufacturer, dataset.SOPClassUID = (
        "SEG",
        "Nadir",
        "1.2.840.10008.5.1.4.1.1.66.4",
    )
    write(dataset, tmp_path / "own" / "slice_0001.dcm", ExplicitVRLittleEndian)
    read = _read(tmp_path)
    assert (len(read.study.volumes), read.study.drawn, read.study.refused) == (1, (), ())


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    for path in make_series(tmp_path, CT):
        path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_allclose(_read(tmp_path).study.volumes[0].array, CT, atol=1e-3)


def test_a_file_without_meta_information_is_read(tmp_path: Path) -> None:
    for path in make_series(tmp_path, CT, transfer_syntax="1.2.840.10008.1.2"):
        data = path.read_bytes()
        length = int.from_bytes(data[140:144], "little")
        path.write_bytes(data[144 + length :])
    np.testing.assert_allclose(_read(tmp_path).study.volumes[0].array, CT, atol=1e-3)


def test_a_deflated_bomb_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.dicom.files.MAX_INFLATED_BYTES", 1000)
    make_series(tmp_path, CT, transfer_syntax=DeflatedExplicitVRLittleEndian)
    with pytest.raises(Refused) as refused:
        _read(tmp_path)
    assert refused.value.code == "too-large"


def test_headers_are_those_of_the_slices(tmp_path: Path) -> None:
    make_series(tmp_path, CT)
    read = _read(tmp_path)
    volume = read.study.volumes[0]
    assert list(read.headers) == list(volume.sop_instance_uids)
    assert "PixelData" not in read.headers[volume.sop_instance_uids[0]]
    assert read.study.patient.age_years == pytest.approx(65, abs=0.01)
    assert read.study.patient.weight_kg == 70


def test_a_name_written_in_two_ways_is_flagged(tmp_path: Path) -> None:
    make_series(tmp_path, CT, PatientName=lambda k: "Phantom^P1" if k else "PHANTOM P1")
    read = _read(tmp_path)
    assert [f.code for f in read.flags] == ["patient-name-differs"]
    assert len(read.study.volumes) == 1


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [
        ("SR", "1.2.840.10008.5.1.4.1.1.88.33"),
        ("PR", "1.2.840.10008.5.1.4.1.1.11.1"),
        ("KO", "1.2.840.10008.5.1.4.1.1.88.59"),
        ("DOC", "1.2.840.10008.5.1.4.1.1.104.1"),
        ("RTPLAN", "1.2.840.10008.5.1.4.1.1.481.5"),
        ("RTDOSE", "1.2.840.10008.5.1.4.1.1.481.2"),
    ],
)
def test_objects_that_are_no_images_are_passed_over_quietly(
    modality: str, sop_class: str, tmp_path: Path
) -> None:
    make_series(tmp_path, CT)
    dataset = pydicom.dcmread(make_series(tmp_path / "other", CT[:1], series_number=50)[0])
    if modality != "RTDOSE":
        del dataset.PixelData
    dataset.Modality, dataset.SOPClassUID = modality, sop_class
    write(dataset, tmp_path / "other" / "slice_0001.dcm")
    read = _read(tmp_path)
    assert (len(read.study.volumes), read.study.refused, read.flags) == (1, (), ())

"""The files of a study's folder: what is an image of it, what is passed over, and what is read once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import make_series, write
from faulty_studies import CT, series
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from plugins.errors import Refused
from store.dicom.series import ReadStudy, read_study


def junk_beside(folder: Path) -> None:
    make_series(folder, CT)
    (folder / "DICOMDIR.txt").write_text("not DICOM")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "noise.bin").write_bytes(np.random.default_rng(1).bytes(2000))


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

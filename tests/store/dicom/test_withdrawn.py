"""What a Key Object rejects of a study's images and regions: it is left out of what is measured, and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from marked_images import key_object
from pydicom import dcmread

from plugins.contract import Study
from store.dicom.series import read_grids, read_study

UID = "1.2.826.0.1.3680043.8.498.7."


def series(folder: Path, number: int) -> list[Path]:
    array = np.random.default_rng(number).normal(-800, 20, (6, 24, 32))
    more = {"series_uid": f"{UID}{number}", "frame_of_reference_uid": f"{UID}9", "study_uid": f"{UID}8"}
    return make_series(folder / str(number), array, series_number=number, **more)


def read(folder: Path) -> Study:
    return read_study(folder.rglob("*")).study


@pytest.mark.parametrize("title", ["113001", "113037", "113038", "113039"])
def test_a_series_that_a_key_object_rejects_is_left_out_and_told(tmp_path: Path, title: str) -> None:
    good, bad = series(tmp_path, 1), series(tmp_path, 2)
    note = dcmread(key_object(tmp_path / "ko.dcm", title, bad)).SOPInstanceUID
    study = read(tmp_path)
    assert [volume.series_number for volume in study.volumes] == [1]
    (flag,) = study.refused
    assert (flag.code, flag.series_instance_uid) == ("withdrawn", f"{UID}2")
    words = "series 2 (CT, Synthetic CT): 6 objects count no longer: rejected by the key object"
    assert flag.sentence.startswith(f"{words} {note} (")
    assert [volume.series_number for volume in read_grids([*good, *bad, tmp_path / "ko.dcm"])] == [1]


def test_images_of_interest_stay(tmp_path: Path) -> None:
    images = series(tmp_path, 1)
    key_object(tmp_path / "ko.dcm", "113000", images[:2])
    study = read(tmp_path)
    assert (len(study.volumes), study.refused) == (1, ())


def test_a_series_of_which_a_middle_image_is_rejected_is_refused_as_one_with_a_gap(tmp_path: Path) -> None:
    images = series(tmp_path, 1)
    key_object(tmp_path / "ko.dcm", "113001", images[2:3])
    study = read(tmp_path)
    assert study.volumes == ()
    assert [flag.code for flag in study.refused] == ["withdrawn", "missing-slices"]
    assert "1 object counts no longer: rejected by the key object" in study.refused[0].sentence

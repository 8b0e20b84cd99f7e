"""NIfTI images of a CT: what their headers and values say, and label images that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_series import make_series

from plugins.contract import Volume
from plugins.errors import Refused
from store.dicom.nifti_image import write_labels
from store.dicom.series import read_study

SHAPE = (4, 10, 11)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    make_series(tmp_path / "ct", np.zeros(SHAPE))
    return read_study((tmp_path / "ct").iterdir()).study.volumes[0]


def labels(number: int) -> np.ndarray:
    return np.full(SHAPE, number, dtype=np.uint8)


def test_a_write_that_fails_leaves_the_mask_of_before_and_no_other_file(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "mask.nii.gz"
    write_labels(out, labels(1), volume)
    before = out.read_bytes()

    def fill_disk(image: object, path: Path) -> None:
        assert path.parent == out.parent and path.name.startswith(".") and path.name.endswith(".nii.gz")
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(nibabel, "save", fill_disk)
        with pytest.raises(Refused, match=r"bad-output: .*/mask.nii.gz cannot be written: No space left on"):
            write_labels(out, labels(2), volume)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]
    write_labels(out, labels(2), volume)
    assert np.unique(np.asarray(nibabel.load(out).dataobj)).tolist() == [2]
    assert list(out.parent.iterdir()) == [out]


def test_a_mask_is_written_through_a_link_and_in_capitals(volume: Volume, tmp_path: Path) -> None:
    link, target = tmp_path / "link.nii", tmp_path / "TARGET.NII"
    link.symlink_to(target)
    write_labels(link, labels(3), volume)
    assert link.is_symlink()
    assert np.unique(np.asarray(nibabel.load(target).dataobj)).tolist() == [3]


def test_a_folder_in_the_place_of_the_mask_is_refused_and_stays(volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "out" / "mask.nii").mkdir(parents=True)
    with pytest.raises(Refused, match=r"bad-output: .*/mask.nii cannot be written: Is a directory"):
        write_labels(tmp_path / "out" / "mask.nii", labels(1), volume)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mask.nii"]

"""A PET/CT whose files are not one PET with one mask is refused by its name, and never scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from ball_sarcomas import write_sarcomas
from rewritten_files import Written, moved, with_nan, with_other

from plugins.errors import Refused
from training.manifest import Case
from training.sts import load_sarcoma, sts_manifest

NIFTI = nibabel.Nifti1Image


@pytest.fixture
def sarcoma(tmp_path: Path) -> Case:
    """Return a case with CT whose files lie in `tmp_path / "sts"`."""
    return sts_manifest(write_sarcomas(tmp_path / "sts", patients=1)).cases[0]


@pytest.mark.parametrize(
    ("role", "written", "code"),
    [
        ("mask", lambda a, at: NIFTI(a, moved(at, 100.0)), "unequal-grids"),
        ("mask", lambda a, at: NIFTI(a, at @ np.diag([2.0, 2, 2, 1])), "unequal-grids"),
        ("mask", lambda a, at: NIFTI(a[:-1], at), "unequal-grids"),
        ("mask", lambda a, at: NIFTI(a * 0, at), "empty-mask"),
        ("mask", lambda a, at: NIFTI(a * np.float32(1.4), at), "mask-not-labels"),
        ("mask", lambda a, at: NIFTI(with_nan(a), at), "not-finite"),
        ("mask", lambda a, at: NIFTI(a - 1, at), "no-mask"),
        ("pet", lambda a, at: NIFTI(with_nan(a), at), "not-finite"),
        ("ct", lambda a, at: NIFTI(with_nan(a), at), "not-finite"),
        ("pet", lambda a, at: NIFTI(np.stack([a, a], -1), at), "unreadable-file"),
        ("pet", lambda a, at: b"hello", "unreadable-file"),
    ],
)
def test_a_pet_with_a_mask_that_is_no_truth_for_it_is_refused_with_its_name(
    sarcoma: Case, tmp_path: Path, role: str, written: Written, code: str
) -> None:
    other = with_other(sarcoma, tmp_path / "sts", role, written)
    with pytest.raises(Refused, match=f"^{code}: .*{sarcoma.case_id}"):
        load_sarcoma(other, tmp_path / "sts")


def test_half_a_file_is_refused_with_its_path(sarcoma: Case, tmp_path: Path) -> None:
    whole = (path := tmp_path / "sts" / sarcoma.files["pet"]).read_bytes()
    half = with_other(sarcoma, tmp_path / "sts", "pet", lambda a, at: whole[: len(whole) // 2])
    with pytest.raises(Refused, match=f"unreadable-file: {path} cannot be read"):
        load_sarcoma(half, tmp_path / "sts")


def test_a_case_without_a_pet_is_refused(sarcoma: Case, tmp_path: Path) -> None:
    crop = replace(sarcoma, files={"image": sarcoma.files["pet"], "mask": sarcoma.files["mask"]},
                   sha256={"image": sarcoma.sha256["pet"], "mask": sarcoma.sha256["mask"]})  # fmt: skip
    with pytest.raises(Refused, match="no-pet: STS_000 has image, mask, and not a PET and a mask"):
        load_sarcoma(crop, tmp_path / "sts")


@pytest.mark.parametrize(
    "written",
    [
        lambda a, at: NIFTI(a, moved(at, 1000.0)),
        lambda a, at: NIFTI(a, moved(at, -60.0)),
        lambda a, at: NIFTI(a[:, :, :18], at),
    ],
)
def test_a_ct_that_does_not_hold_the_whole_tumour_is_refused_with_its_file(
    sarcoma: Case, tmp_path: Path, written: Written
) -> None:
    other = with_other(sarcoma, tmp_path / "sts", "ct", written)
    with pytest.raises(Refused, match=r"image-elsewhere: .*STS_000_ct\.nii\.gz .* drawn in STS_000"):
        load_sarcoma(other, tmp_path / "sts")


def test_a_ct_that_is_narrower_than_the_pet_and_holds_the_tumour_is_taken(
    sarcoma: Case, tmp_path: Path
) -> None:
    narrow = with_other(sarcoma, tmp_path / "sts", "ct", lambda a, at: NIFTI(a[10:-10], moved(at, -12.5)))
    hu = load_sarcoma(narrow, tmp_path / "sts").hu
    assert hu is not None and float(hu[hu.shape[0] // 2, hu.shape[1] // 2, hu.shape[2] // 2]) == 50.0


@pytest.mark.parametrize("factor", [5000.0, 1.06, 0.94])
def test_a_pet_whose_highest_value_is_not_the_suv_max_of_the_table_is_refused(
    sarcoma: Case, tmp_path: Path, factor: float
) -> None:
    other = with_other(sarcoma, tmp_path / "sts", "pet", lambda a, at: NIFTI(a * np.float32(factor), at))
    said = rf"not-suv: .*STS_000_pet_suv\.nii\.gz holds at most {4 * factor:.5g} in the mask, .*STS_000 is 4;"
    with pytest.raises(Refused, match=said):
        load_sarcoma(other, tmp_path / "sts")


def test_a_suv_max_that_was_rounded_or_that_no_table_gave_is_taken(sarcoma: Case, tmp_path: Path) -> None:
    rounded = with_other(sarcoma, tmp_path / "sts", "pet", lambda a, at: NIFTI(a * np.float32(1.04), at))
    assert load_sarcoma(rounded, tmp_path / "sts").suv_max == pytest.approx(4.16)
    other = with_other(sarcoma, tmp_path / "sts", "pet", lambda a, at: NIFTI(a * np.float32(2.0), at))
    twice = load_sarcoma(replace(other, tags={"suv_max": 4.0}), tmp_path / "sts")
    assert twice.suv_max == pytest.approx(8.32)

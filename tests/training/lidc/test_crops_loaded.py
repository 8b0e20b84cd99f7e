"""A crop whose files are not one image with one mask is refused by its name, and never scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nodule_crops import write_crops, write_readers
from numpy.typing import NDArray
from rewritten_files import Written, moved, with_nan, with_other

from plugins.errors import Refused
from store.dicom.nifti_image import read_ct
from training.lidc import load_nodule, load_readers
from training.manifest import Case, read_manifest


@pytest.fixture
def crop(tmp_path: Path) -> Case:
    """Return a case whose files lie in `tmp_path`."""
    return read_manifest(write_crops(tmp_path, patients=1)).cases[0]


NIFTI = nibabel.Nifti1Image


@pytest.mark.parametrize(
    ("role", "written", "code"),
    [
        ("mask", lambda a, at: NIFTI(a, moved(at, 500.0)), "unequal-grids"),
        ("mask", lambda a, at: NIFTI(a, moved(at, 0.02)), "unequal-grids"),
        ("mask", lambda a, at: NIFTI(a, at @ np.diag([3.0, 3, 3, 1])), "unequal-grids"),
        ("mask", lambda a, at: NIFTI(a, at @ np.diag([1.001, 1, 1, 1])), "unequal-grids"),
        ("mask", lambda a, at: NIFTI(a[:-1], at), "unequal-grids"),
        ("mask", lambda a, at: NIFTI(a * 0, at), "empty-mask"),
        ("mask", lambda a, at: NIFTI(a - 1, at), "no-mask"),
        ("mask", lambda a, at: NIFTI(a * 0.4, at), "empty-mask"),
        ("mask", lambda a, at: NIFTI(a * 1.4, at), "mask-not-labels"),
        ("mask", lambda a, at: NIFTI(with_nan(a), at), "not-finite"),
        ("image", lambda a, at: NIFTI(with_nan(a), at), "not-finite"),
    ],
)
def test_a_crop_that_can_be_read_and_is_no_truth_is_refused_with_its_name(
    crop: Case, tmp_path: Path, role: str, written: Written, code: str
) -> None:
    with pytest.raises(Refused, match=f"{code}.*{crop.case_id}"):
        load_nodule(with_other(crop, tmp_path, role, written), tmp_path)


@pytest.mark.parametrize(
    "written",
    [
        lambda a, at: b"hello",
        lambda a, at: b"",
        lambda a, at: NIFTI(a, at).to_bytes(),
        lambda a, at: NIFTI(np.stack([a, a], -1), at),
        lambda a, at: NIFTI(a[:, :, 0], at),
        lambda a, at: NIFTI(a.astype(np.complex64), at),
    ],
)
def test_what_is_no_nifti_of_three_axes_is_refused_with_its_path(
    crop: Case, tmp_path: Path, written: Written
) -> None:
    with pytest.raises(Refused, match=f"unreadable-file.*{tmp_path / crop.files['image']}"):
        load_nodule(with_other(crop, tmp_path, "image", written), tmp_path)


@pytest.mark.parametrize("kept", [20, 300, 3000])
def test_a_file_that_was_cut_short_is_refused_with_its_path(crop: Case, tmp_path: Path, kept: int) -> None:
    whole = (tmp_path / crop.files["image"]).read_bytes()
    short = with_other(crop, tmp_path, "image", lambda a, at: whole[:kept])
    with pytest.raises(Refused, match=f"unreadable-file.*{tmp_path / crop.files['image']}"):
        load_nodule(short, tmp_path)


def test_axes_that_are_turned_in_one_file_only_and_rounding_of_the_affine_are_the_same_grid(
    crop: Case, tmp_path: Path
) -> None:
    def turned(voxels: NDArray[Any], affine: NDArray[Any]) -> object:
        back = np.diag([-1.0, 1, 1, 1])
        back[0, 3] = voxels.shape[0] - 1
        return NIFTI(voxels[::-1], moved(affine @ back, 0.005))

    before = load_nodule(crop, tmp_path).mask
    assert np.array_equal(load_nodule(with_other(crop, tmp_path, "mask", turned), tmp_path).mask, before)


def test_what_each_reader_drew_is_read_as_the_mask_is_and_may_be_nothing(tmp_path: Path) -> None:
    case, alone, *_ = read_manifest(write_readers(write_crops(tmp_path, patients=1))).cases
    one, half = (drawn.voxels for drawn in load_readers(case, tmp_path))
    assert load_readers(alone, tmp_path) == ()
    assert np.array_equal(one, load_nodule(case, tmp_path).mask)
    assert half.sum() / one.sum() == pytest.approx(0.5, abs=0.15) and not (half & ~one).any()
    nothing = with_other(case, tmp_path, "mask_reader2", lambda a, at: NIFTI(a * 0, at))
    assert not load_readers(nothing, tmp_path)[1].voxels.any()
    off = with_other(case, tmp_path, "mask_reader2", lambda a, at: NIFTI(a, moved(at, 0.02)))
    with pytest.raises(Refused, match=f"unequal-grids: image and mask_reader2 of {case.case_id} "):
        load_readers(off, tmp_path)


def test_an_image_that_is_named_as_its_own_mask_is_refused(crop: Case, tmp_path: Path) -> None:
    above = with_other(crop, tmp_path, "image", lambda a, at: NIFTI(a + 2000, at))
    same = {role: above.files["image"] for role in above.files}
    own = replace(above, files=same, sha256=dict.fromkeys(same, above.sha256["image"]))
    with pytest.raises(Refused, match=f"no-mask: .*{above.files['image']} is no mask of {crop.case_id}"):
        load_nodule(own, tmp_path)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (lambda a, at: NIFTI((a + 1024).clip(0), at), "not-hounsfield"),
        (lambda a, at: NIFTI(((a + 1000) / 1400).clip(0, 1).astype(np.float32), at), "not-hounsfield"),
        (lambda a, at: NIFTI(a.astype(np.int32) + 70000, at), "bad-values"),
    ],
)
def test_a_crop_that_is_no_hounsfield_units_is_refused_with_its_path_as_segment_refuses_it(
    crop: Case, tmp_path: Path, written: Written, code: str
) -> None:
    path = tmp_path / crop.files["image"]
    other = with_other(crop, tmp_path, "image", written)
    with pytest.raises(Refused, match=f"^{code}: {path} has values from "):
        load_nodule(other, tmp_path)
    with pytest.raises(Refused, match=f"^{code}: "):
        read_ct(path)


def test_a_crop_without_air_that_was_cut_out_of_an_image_which_was_judged_whole_is_taken(
    crop: Case, tmp_path: Path
) -> None:
    without_air = with_other(crop, tmp_path, "image", lambda a, at: NIFTI(a.clip(20), at))
    with pytest.raises(Refused, match="not-hounsfield"):
        load_nodule(without_air, tmp_path)
    curated = replace(without_air, tags={**without_air.tags, "origin": "SEG"})
    assert load_nodule(curated, tmp_path).image.min() == 20


def test_a_crop_in_soft_tissue_with_some_fat_or_with_padding_below_air_is_taken(
    crop: Case, tmp_path: Path
) -> None:
    fat = with_other(crop, tmp_path, "image", lambda a, at: NIFTI(a.clip(-40), at))
    assert load_nodule(fat, tmp_path).image.min() == -40

    def padded(voxels: NDArray[Any], affine: NDArray[Any]) -> object:
        voxels = voxels.copy()
        voxels[0] = -3024
        return NIFTI(voxels, affine)

    assert load_nodule(with_other(crop, tmp_path, "image", padded), tmp_path).image.min() == -3024

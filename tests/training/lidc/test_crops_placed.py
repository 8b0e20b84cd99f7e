"""Where a file of a case lies is what its affine says, and is read as `nadir segment` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from ball_sarcomas import write_sarcomas
from nodule_crops import write_crops
from numpy.typing import NDArray
from rewritten_files import Written, moved, with_other

from plugins.errors import Refused
from store.dicom.nifti_image import read_ct
from training.lidc import load_nodule
from training.manifest import Case, read_manifest
from training.sts import load_sarcoma, sts_manifest

Floats = NDArray[np.float64]
NIFTI = nibabel.Nifti1Image


@pytest.fixture
def crop(tmp_path: Path) -> Case:
    """Return a case whose files lie in `tmp_path`."""
    return read_manifest(write_crops(tmp_path, patients=1)).cases[0]


def _in_unit(unit: str, mm: float) -> Written:
    """Return what writes a file in a unit of so many mm."""

    def written(voxels: NDArray[Any], affine: Floats) -> object:
        image = NIFTI(voxels, np.diag([1 / mm, 1 / mm, 1 / mm, 1.0]) @ affine)
        image.header.set_xyzt_units(unit)
        return image

    return written


def _of_sform_alone(voxels: NDArray[Any], affine: Floats) -> object:
    """Return an image that runs along RAS, whose voxel sizes stand in its sform alone."""
    image = NIFTI(voxels, affine)
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = 1.0
    return image


def _of_two_places(voxels: NDArray[Any], affine: Floats) -> object:
    image = NIFTI(voxels, affine)
    image.set_qform(moved(affine, 50.0), 1)
    return image


def _of_no_place(voxels: NDArray[Any], affine: Floats) -> object:
    image = NIFTI(voxels, affine)
    image.set_sform(affine, 0)
    image.set_qform(affine, 0)
    return image


def _of_one_frame(voxels: NDArray[Any], affine: Floats) -> object:
    return NIFTI(voxels[..., None], affine)


@pytest.mark.parametrize(
    "written", [_of_sform_alone, _in_unit("micron", 0.001), _in_unit("meter", 1000.0), _of_one_frame]
)
def test_a_crop_has_the_size_and_place_that_its_affine_says_whatever_else_its_header_holds(
    crop: Case, tmp_path: Path, written: Written
) -> None:
    before = load_nodule(crop, tmp_path)
    other = with_other(with_other(crop, tmp_path, "image", written), tmp_path, "mask", written)
    nodule = load_nodule(other, tmp_path)
    assert nodule.spacing_mm == pytest.approx((1.25, 0.75, 0.75))
    assert np.array_equal(nodule.image, before.image) and np.array_equal(nodule.mask, before.mask)
    assert read_ct(tmp_path / crop.files["image"]).volume.spacing_mm == pytest.approx(nodule.spacing_mm)


@pytest.mark.parametrize("written", [_of_sform_alone, _in_unit("micron", 0.001), _of_one_frame])
def test_a_pet_and_its_ct_have_the_size_that_their_affines_say_as_well(
    tmp_path: Path, written: Written
) -> None:
    root = write_sarcomas(tmp_path / "sts", patients=1)
    case = sts_manifest(root).cases[0]
    before = load_sarcoma(case, root)
    for role in case.files:
        case = with_other(case, root, role, written)
    sarcoma = load_sarcoma(case, root)
    assert sarcoma.spacing_mm == pytest.approx((4.0, 5.0, 5.0))
    assert sarcoma.volume_ml == pytest.approx(before.volume_ml)
    assert sarcoma.hu is not None and before.hu is not None
    assert np.allclose(sarcoma.hu, before.hu, atol=0.01)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (_of_two_places, "two-positions"),
        (_of_no_place, "without-position"),
        (lambda a, at: NIFTI(a, at @ np.diag([1.0, 1, 1e-12, 1])), "bad-position"),
        (lambda a, at: NIFTI(a, at + 0.3 * np.outer([1, 0, 0, 0], [0, 0, 1, 0])), "sheared"),
    ],
)
def test_a_crop_whose_place_is_not_told_or_told_twice_is_refused_with_its_path_as_segment_refuses_it(
    crop: Case, tmp_path: Path, written: Written, code: str
) -> None:
    path = tmp_path / crop.files["image"]
    with pytest.raises(Refused, match=f"^{code}: .*{path}"):
        load_nodule(with_other(crop, tmp_path, "image", written), tmp_path)
    with pytest.raises(Refused, match=f"^{code}: "):
        read_ct(path)

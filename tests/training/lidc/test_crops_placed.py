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
from training.evaluate.judged import DrawnCase
from training.evaluate.metrics import long_axis_mm
from training.evaluate.overlays import planes
from training.lidc import Nodule, load_nodule
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


CORONAL = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float)
SAGITTAL = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float)
"""Rotations by which the slices of an axial file are stacked towards the front, and towards the right."""


def _rotated(turn: Floats) -> Written:
    return lambda voxels, affine: NIFTI(voxels, turn @ affine)


@pytest.mark.parametrize(
    ("turn", "order"), [(np.eye(4), (0, 1, 2)), (CORONAL, (2, 0, 1)), (SAGITTAL, (1, 2, 0))]
)
def test_a_crop_is_judged_and_learned_from_in_the_slices_that_segment_takes_and_shown_as_it_lies(
    crop: Case, tmp_path: Path, turn: Floats, order: tuple[int, int, int]
) -> None:
    before = load_nodule(crop, tmp_path)
    for role in ("image", "mask"):
        crop = with_other(crop, tmp_path, role, _rotated(turn))
    nodule = load_nodule(crop, tmp_path)
    segmented = read_ct(tmp_path / crop.files["image"]).volume
    assert nodule.spacing_mm == pytest.approx((1.25, 0.75, 0.75))
    assert nodule.spacing_mm == pytest.approx(segmented.spacing_mm)
    assert np.array_equal(nodule.image, segmented.array)
    areas = nodule.mask.sum(axis=(1, 2)).tolist()
    assert areas in (before.mask.sum(axis=(1, 2)).tolist(), before.mask.sum(axis=(1, 2)).tolist()[::-1])
    assert long_axis_mm(nodule.mask, nodule.spacing_mm) == pytest.approx(
        long_axis_mm(before.mask, before.spacing_mm)
    )
    assert nodule.axes.order == order
    shown = planes(_drawn_of(nodule))
    assert shown is not None
    upright = nodule.upright()
    z, y, x = upright.spacing_mm
    assert [cut.spacing_mm for cut in shown] == [(y, x), (z, x), (z, y)]
    image: Any = nibabel.as_closest_canonical(nibabel.load(tmp_path / crop.files["image"]))
    assert np.array_equal(upright.image, np.asarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0))
    assert (z, y, x) == pytest.approx(image.header.get_zooms()[::-1])


def _drawn_of(nodule: Nodule) -> DrawnCase:
    return DrawnCase(
        case_id="a",
        patient_id="P",
        drawn=nodule.mask,
        truth=nodule.mask,
        image=nodule.image,
        spacing_mm=nodule.spacing_mm,
        axes=nodule.axes,
    )


@pytest.mark.parametrize("turn", [CORONAL, SAGITTAL])
def test_a_ct_whose_slices_are_stacked_otherwise_than_those_of_its_pet_lies_where_it_lay(
    tmp_path: Path, turn: Floats
) -> None:
    root = write_sarcomas(tmp_path / "sts", patients=1)
    case = sts_manifest(root).cases[0]
    with_ramp = with_other(case, root, "ct", lambda a, at: NIFTI(np.indices(a.shape)[2].astype(np.int16), at))
    before = load_sarcoma(with_ramp, root)
    assert before.hu is not None and np.ptp(before.hu) > 20  # by slices, from the feet to the head
    turned = with_ramp
    for role in ("pet", "mask"):
        turned = with_other(turned, root, role, lambda a, at: NIFTI(a.astype(np.float32), turn @ at))
    sarcoma = load_sarcoma(turned, root)
    assert sarcoma.hu is not None and sarcoma.spacing_mm == pytest.approx((4.0, 5.0, 5.0))
    head = sarcoma.axes.order[0]
    assert head != 0 and sarcoma.hu.shape == sarcoma.suv.shape
    assert np.ptp(sarcoma.hu, axis=head).min() > 20
    other = [axis for axis in range(3) if axis != head]
    assert np.ptp(sarcoma.hu, axis=tuple(other)).max() == pytest.approx(0.0, abs=1e-4)
    assert (np.diff(sarcoma.hu.mean(axis=tuple(other))) >= 0).all()


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

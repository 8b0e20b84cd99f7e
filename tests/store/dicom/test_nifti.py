"""NIfTI masks: any order and direction of axes, and the grids that are refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_series import make_series, write
from pydicom import dcmread

from plugins.errors import Refused
from store.dicom.series import ReadStudy, read_mask, read_study

SHAPE = (5, 8, 9)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def labels(seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, SHAPE)


def save(path: Path, array: np.ndarray, affine_lps: np.ndarray) -> Path:
    image: Any = nibabel.Nifti1Image(array, RAS_TO_LPS @ affine_lps)
    nibabel.save(image, path)
    return path


@pytest.fixture
def read(tmp_path: Path) -> ReadStudy:
    make_series(
        tmp_path / "ct",
        np.random.default_rng(1).normal(0, 100, SHAPE),
        spacing_mm=(2.0, 0.7, 1.1),
        orientation=(0.8, 0.6, 0.0, -0.6, 0.8, 0.0),
        origin_mm=(-31.0, 12.0, 105.0),
    )
    return read_study((tmp_path / "ct").iterdir())


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_a_mask_on_the_grid_of_the_images_is_exact_however_its_axes_lie(
    read: ReadStudy, tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    affine = read.study.volumes[0].geometry.affine
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
        turn[source, axis] = flip
        turn[source, 3] = SHAPE[source] - 1 if flip < 0 else 0
    turned = labels().transpose(order)[tuple(slice(None, None, f) for f in flips)]
    path = save(tmp_path / "mask.nii.gz", turned.astype(np.uint8), affine @ turn)
    drawn = read_mask(path, read)
    assert [(d.label, d.number, d.source, d.flags) for d in drawn] == [
        ("label 1", 1, "NIFTI", ()),
        ("label 2", 2, "NIFTI", ()),
    ]
    for region in drawn:
        np.testing.assert_array_equal(region.mask.full(), labels() == region.number)


def test_a_mask_cut_to_a_part_of_the_images_falls_on_that_part(read: ReadStudy, tmp_path: Path) -> None:
    affine = read.study.volumes[0].geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [1, 2, 3]
    part = labels()[1:4, 2:7, 3:8]
    (one, _) = read_mask(save(tmp_path / "m.nii", part.astype(np.int16), affine), read)
    expected = np.zeros(SHAPE, dtype=bool)
    expected[1:4, 2:7, 3:8] = part == 1
    np.testing.assert_array_equal(one.mask.full(), expected)


def test_a_mask_on_a_finer_grid_is_resampled_with_a_flag(read: ReadStudy, tmp_path: Path) -> None:
    volume = read.study.volumes[0]
    fine = volume.geometry.affine @ np.diag([0.5, 0.25, 0.5, 1])
    fine[:3, 3] = volume.to_mm((0.75 - 0.5, 0.625 - 0.5 + 0.0, 0.75 - 0.5))
    block = np.zeros((8, 24, 14), dtype=np.uint8)
    block[2:6, 4:20, 4:10] = 1
    (drawn,) = read_mask(save(tmp_path / "m.nii.gz", block, fine), read)
    assert [f.code for f in drawn.flags] == ["mask-resampled"]
    centre = fine[:3, :3] @ [3.5, 11.5, 6.5] + fine[:3, 3]
    here = volume.to_mm(np.argwhere(drawn.mask.full()).mean(axis=0))
    assert np.linalg.norm(here - centre) < 1.5
    assert drawn.mask.count * volume.voxel_volume_mm3 == pytest.approx(
        block.sum() * abs(np.linalg.det(fine[:3, :3])), rel=0.35
    )


def test_probabilities_are_cut_at_a_half_with_a_flag(read: ReadStudy, tmp_path: Path) -> None:
    chance = np.random.default_rng(3).random(SHAPE).astype(np.float32)
    (drawn,) = read_mask(save(tmp_path / "m.nii.gz", chance, read.study.volumes[0].geometry.affine), read)
    np.testing.assert_array_equal(drawn.mask.full(), chance >= 0.5)
    assert [f.code for f in drawn.flags] == ["mask-thresholded"]


@pytest.mark.parametrize(
    ("array", "move", "code"),
    [
        (np.zeros(SHAPE), 0, "empty-mask"),
        (np.ones(SHAPE), 100, "mask-outside"),
        (np.ones((9, 8, 9)), 0, "mask-outside"),
        (np.full(SHAPE, -1.0), 0, "mask-not-labels"),
        (np.full(SHAPE, np.nan), 0, "mask-not-labels"),
        (np.full(SHAPE, 3.7), 0, "mask-not-labels"),
        (np.arange(5 * 8 * 9 * 4).reshape(10, 16, 9), 0, "mask-not-labels"),
        (np.ones((*SHAPE, 2)), 0, "mask-not-3d"),
    ],
)
def test_a_file_that_is_no_mask_of_these_images_is_refused(
    read: ReadStudy, tmp_path: Path, array: np.ndarray, move: float, code: str
) -> None:
    affine = read.study.volumes[0].geometry.affine.copy()
    affine[:3, 3] += move
    path = save(tmp_path / "m.nii", array.astype(np.float32), affine)
    with pytest.raises(Refused) as refused:
        read_mask(path, read)
    assert refused.value.code == code


def test_a_file_without_position_is_refused(read: ReadStudy, tmp_path: Path) -> None:
    image: Any = nibabel.Nifti1Image(labels().astype(np.uint8), None)
    nibabel.save(image, tmp_path / "m.nii")
    with pytest.raises(Refused, match="without-position"):
        read_mask(tmp_path / "m.nii", read)


def test_a_mask_that_says_two_places_is_refused(read: ReadStudy, tmp_path: Path) -> None:
    affine = read.study.volumes[0].geometry.affine.copy()
    path = save(tmp_path / "m.nii", labels().astype(np.uint8), affine)
    image: Any = nibabel.load(path)
    affine[:3, 3] += 5.0
    image.set_qform(affine, code=1)
    nibabel.save(image, tmp_path / "two.nii")
    with pytest.raises(Refused, match=r"two-positions: two.nii says two places: .* mm apart; set the code"):
        read_mask(tmp_path / "two.nii", read)


@pytest.mark.parametrize("dtype", [[("R", "u1"), ("G", "u1"), ("B", "u1")], np.complex64])
def test_a_mask_of_colours_or_complex_numbers_is_refused(read: ReadStudy, tmp_path: Path, dtype: Any) -> None:
    path = save(tmp_path / "m.nii.gz", np.ones(SHAPE, dtype=dtype), read.study.volumes[0].geometry.affine)
    with pytest.raises(Refused, match=r"mask-not-labels: m\.nii\.gz holds colours or complex numbers"):
        read_mask(path, read)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b broken", bytes(400)])
def test_a_damaged_file_is_refused(read: ReadStudy, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.nii.gz"
    path.write_bytes(content)
    with pytest.raises(Refused, match="unreadable-mask"):
        read_mask(path, read)


def test_a_mask_on_the_grid_of_no_series_of_several_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "a", np.ones(SHAPE))
    make_series(tmp_path / "b", np.ones(SHAPE), series_number=2, spacing_mm=(2.0, 1.5, 1.5))
    read = read_study(tmp_path.rglob("*"))
    affine = np.diag([2.0, 0.6, 0.6, 1.0])[:, [2, 1, 0, 3]]
    with pytest.raises(Refused, match="mask-ambiguous"):
        read_mask(save(tmp_path / "m.nii", np.ones((9, 8, 5), dtype=np.uint8), affine), read)


def test_the_mask_goes_to_the_series_whose_grid_it_has(tmp_path: Path) -> None:
    make_series(tmp_path / "a", np.ones(SHAPE))
    make_series(tmp_path / "b", np.ones(SHAPE), series_number=2, spacing_mm=(2.0, 1.5, 1.5))
    read = read_study(tmp_path.rglob("*"))
    second = read.study.volumes[1]
    (drawn, _) = read_mask(save(tmp_path / "m.nii", labels().astype(np.uint8), second.geometry.affine), read)
    assert drawn.series_instance_uid == second.series_instance_uid


def test_the_published_mask_of_a_real_pet_has_its_published_volume_and_uptake(data: Path) -> None:
    expected = json.loads((data / "pet_ge_sts001" / "expected.json").read_text())["gtv_mass_by_nifti_mask"]
    read = read_study((data / "pet_ge_sts001" / "PET").iterdir())
    (drawn,) = read_mask(data / "sts_petct" / "STS_001" / "STS_001_pet_mask.nii.gz", read)
    volume = read.study.volumes[0]
    values = volume.array[drawn.mask.box][drawn.mask.voxels]
    assert drawn.mask.count * volume.voxel_volume_mm3 / 1000 == pytest.approx(expected["volume_ml"], rel=1e-3)
    assert float(values.max()) == pytest.approx(expected["suv_max"], abs=1e-3)
    assert float(values.mean()) == pytest.approx(expected["suv_mean"], abs=1e-3)


def test_the_mask_of_a_reference_object_holds_its_contours_and_one_voxel_around_them(data: Path) -> None:
    folder = data / "suv_dro" / "DRO_0_0"
    read = read_study(folder.rglob("*.dcm"))
    (drawn, *_) = read_mask(folder / "mask.nii.gz", read)
    contour = read.study.drawn[0]
    inner, outer = contour.mask.full(), drawn.mask.full()
    assert not (inner & ~outer).any()
    assert (contour.mask.origin, drawn.mask.origin) == ((2, 69, 69), (1, 68, 68))


def test_a_dicom_mask_of_another_patient_is_refused(data: Path, read: ReadStudy) -> None:
    with pytest.raises(Refused, match="mask-of-other-patient"):
        read_mask(data / "ct_4dlung" / "RTSTRUCT" / "rtstruct.dcm", read)


def test_a_dicom_mask_that_came_apart_from_its_images_is_read(data: Path) -> None:
    read = read_study((data / "ct_4dlung" / "CT").iterdir())
    assert read.study.drawn == ()
    drawn = read_mask(data / "ct_4dlung" / "RTSTRUCT" / "rtstruct.dcm", read)
    assert {d.label: d.mask.count for d in drawn} == {
        "Tumor_c40": 23611,
        "LN_c40": 2239,
        "Carina_c40": 170,
        "Vertebra_c40": 3448,
    }


def test_what_is_neither_dicom_nor_nifti_is_refused(read: ReadStudy, tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"\x89PNG" + bytes(200))
    with pytest.raises(Refused, match="unknown-mask"):
        read_mask(tmp_path / "mask.png", read)
    image = next((tmp_path / "ct").iterdir())
    with pytest.raises(Refused, match="unknown-mask"):
        read_mask(image, read)


def test_a_seg_whose_images_are_not_in_the_study_is_refused_with_its_reason(
    read: ReadStudy, data: Path, tmp_path: Path
) -> None:
    dataset = dcmread(data / "foreign" / "dcmqi" / "liver_ct_3slice" / "seg_liver_binary.dcm")
    dataset.PatientID = "P1"
    with pytest.raises(Refused, match="seg-without-image"):
        read_mask(write(dataset, tmp_path / "seg.dcm"), read)

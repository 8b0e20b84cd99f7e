from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from thorax import Ball, Thorax, ct_volume, thorax, turned

from plugins.contract import BoolArray, Mask
from plugins.errors import Absent, Refused
from plugins.lungs import lungs
from store.dicom.series import read_study


@pytest.fixture(scope="module")
def plain() -> Thorax:
    return thorax(noise_hu=15.0)


def dice(mask: Mask, truth: BoolArray) -> float:
    found = mask.full()
    return 2.0 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))


def test_both_lungs_are_found_where_they_are(plain: Thorax) -> None:
    found = lungs(plain.volume())
    assert dice(found.left, plain.left) > 0.97
    assert dice(found.right, plain.right) > 0.97
    assert found.flags == ()


def test_the_airways_are_in_neither_lung(plain: Thorax) -> None:
    found = lungs(plain.volume())
    pipes = found.airways.full()
    assert not (pipes & (found.left.full() | found.right.full())).any()
    trachea_ml = np.pi * 0.9**2 * 11.0
    assert trachea_ml * 0.8 < found.airways.count * plain.volume().voxel_volume_mm3 / 1000 < trachea_ml * 1.8


@pytest.mark.parametrize(
    ("order", "flipped"),
    [
        ((0, 1, 2), (True, False, False)),  # feet first
        ((0, 1, 2), (False, True, True)),  # turned on the table
        ((1, 0, 2), (False, True, False)),  # coronal
        ((2, 0, 1), (True, True, False)),  # sagittal
    ],
)
def test_left_is_the_patients_left_in_any_orientation(
    plain: Thorax, order: tuple[int, int, int], flipped: tuple[bool, bool, bool]
) -> None:
    other = turned(plain, order, flipped)
    found = lungs(other.volume())
    assert dice(found.left, other.left) > 0.97
    assert dice(found.right, other.right) > 0.97


def test_lungs_that_touch_in_front_are_parted() -> None:
    body = thorax(touching=True)
    found = lungs(body.volume())
    assert dice(found.left, body.left) > 0.96
    assert dice(found.right, body.right) > 0.96


def test_a_single_lung_is_named_and_flagged() -> None:
    body = thorax(sides="L")
    found = lungs(body.volume())
    assert found.right.count == 0
    assert dice(found.left, body.left) > 0.96
    assert "one-lung" in {flag.code for flag in found.flags}


def test_a_pleural_nodule_belongs_to_the_lung_when_asked_for() -> None:
    ball = Ball(centre_mm=(122.0, 0.0, 0.0), diameter_mm=22.0)
    body = thorax(balls=(ball,))
    k, r, c = (round(float(i)) for i in body.volume().to_index((119.0, 0.0, 0.0)))
    assert lungs(body.volume()).left.full()[k, r, c]
    assert not lungs(body.volume(), include_pleural=False).left.full()[k, r, c]


def test_thick_slices_still_give_both_lungs() -> None:
    body = thorax(spacing_mm=(7.5, 1.5, 1.5))
    found = lungs(body.volume())
    assert dice(found.left, body.left) > 0.95
    assert dice(found.right, body.right) > 0.95


def test_a_view_that_cuts_through_a_lung_keeps_the_part_in_view_and_says_so(plain: Thorax) -> None:
    first = plain.hu.shape[2] // 2 - 50
    affine = plain.affine.copy()
    affine[:3, 3] += affine[:3, 2] * first
    found = lungs(ct_volume(plain.hu[:, :, first:], affine))
    assert dice(found.left, plain.left[:, :, first:]) > 0.95
    assert dice(found.right, plain.right[:, :, first:]) > 0.6
    assert "lungs-cut-by-view" in {flag.code for flag in found.flags}


def test_half_of_the_lungs_is_flagged_as_incomplete(plain: Thorax) -> None:
    half = plain.hu.shape[0] // 2
    found = lungs(ct_volume(plain.hu[:half], plain.affine))
    assert {"lungs-incomplete", "airways-not-found"} <= {flag.code for flag in found.flags}


def test_small_lungs_are_flagged_as_implausible(plain: Thorax) -> None:
    quarter = plain.hu.shape[0] * 3 // 10
    found = lungs(ct_volume(plain.hu[:quarter], plain.affine))
    assert "implausible-lung-volume" in {flag.code for flag in found.flags}


@pytest.mark.parametrize("value", [40.0, -1000.0])
def test_a_block_without_lungs_is_refused(value: float) -> None:
    volume = ct_volume(
        np.full((40, 100, 100), value, dtype=np.float32), np.diag([2.5, 2.0, 2.0, 1.0])[[2, 1, 0, 3]]
    )
    with pytest.raises(Refused) as error:
        lungs(volume)
    assert error.value.code == "no-lungs"


def test_a_belly_with_gas_is_refused() -> None:
    gas = Ball(centre_mm=(30.0, -40.0, 0.0), diameter_mm=60.0, hu=-1000.0)
    with pytest.raises(Refused, match="no-lungs"):
        lungs(thorax(sides="", balls=(gas,)).volume())


def test_air_between_the_legs_is_no_lung(data: Path) -> None:
    study = read_study((data / "sts_dicom" / "STS_003" / "CT").glob("*.dcm")).study
    with pytest.raises(Absent, match="no-lungs"):
        lungs(study.volumes[0])


def test_a_pocket_of_air_without_airways_is_no_lung() -> None:
    hu = np.full((40, 140, 140), -1000.0, dtype=np.float32)
    hu[:, 20:120, 10:130] = 30.0
    hu[10:30, 55:85, 80:115] = -850.0
    with pytest.raises(Absent, match="no-lungs"):
        lungs(ct_volume(hu, np.diag([2.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]]))


def test_what_is_no_ct_is_refused(plain: Thorax) -> None:
    with pytest.raises(Refused, match="not-ct"):
        lungs(ct_volume(plain.hu, plain.affine, role="mr"))


def test_real_thick_slices_give_plausible_lungs_without_the_vertebra(data: Path) -> None:
    (volume,) = read_study(sorted((data / "ct_4dlung" / "CT").glob("*.dcm"))).study.by_role("ct")
    found = lungs(volume)
    left_ml, right_ml = (m.count * volume.voxel_volume_mm3 / 1000 for m in (found.left, found.right))
    assert 700 < left_ml < 1200
    assert 1200 < right_ml < 1700
    k, r, c = (round(float(i)) for i in volume.to_index((5.7, 161.1, -915.8)))
    assert not (found.left.full() | found.right.full())[k, r, c]
    k, r, c = (round(float(i)) for i in volume.to_index((3.9, 119.2, -921.999 + 9.0)))
    assert found.airways.full()[k - 3 : k + 4, r - 8 : r + 8, c - 8 : c + 8].any()

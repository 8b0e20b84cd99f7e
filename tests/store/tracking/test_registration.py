"""A known motion of a body is found again, and what cannot be found is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from moved_volumes import KnownMotion, breathing, grid_of, moved, on_grid, part, turned
from phantom_study import volume_on

from plugins.contract import Volume
from plugins.errors import Refused
from store.dicom.series import read_study
from store.tracking.motion import Deformation, Motion, Trust
from store.tracking.registration import UNJUDGED, register
from training.phantom import Grid, Thorax, phantom

CT_GRID = Grid(shape=(56, 112, 112), spacing_mm=(5.0, 3.3, 3.3))
PET_GRID = Grid(shape=(60, 72, 72), spacing_mm=(5.0, 5.0, 5.0))
CENTRE = np.array([0.0, 0.0, 0.0])
TABLE = turned(CENTRE, (4.0, -3.0, 5.0), (35.0, -20.0, 60.0))


@pytest.fixture(scope="module")
def thorax() -> Thorax:
    return phantom(0, 0, ct_grid=CT_GRID, pet_grid=PET_GRID)


@pytest.fixture(scope="module")
def ct(thorax: Thorax) -> Volume:
    return volume_on(CT_GRID, thorax.ct, "ct")


@pytest.fixture(scope="module")
def pet(thorax: Thorax) -> Volume:
    return volume_on(PET_GRID, thorax.pet, "pet_suv")


@pytest.fixture(scope="module")
def nodules(thorax: Thorax) -> np.ndarray:
    return np.array([n.centre_mm for n in thorax.truth.nodules])


def again(
    volume: Volume, motion: KnownMotion, spacing_mm: tuple[float, float, float], noise: float
) -> Volume:
    return moved(volume, motion, *grid_of(volume, motion.matrix, spacing_mm), noise)


@pytest.fixture(scope="module")
def table_moved(ct: Volume) -> Volume:
    return again(ct, KnownMotion(matrix=TABLE), (5.0, 3.3, 3.3), 15.0)


def errors(motion: Motion, known: KnownMotion, points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(motion.to_new(points) - known.to_new(points), axis=1)


@pytest.mark.long
def test_a_shift_of_the_table_and_a_turn_are_found_to_a_millimetre(
    ct: Volume, table_moved: Volume, nodules: np.ndarray
) -> None:
    motion = register(table_moved, ct, deformable=False)
    assert errors(motion, KnownMotion(matrix=TABLE), nodules).max() < 1
    assert motion.quality.trust is Trust.GOOD
    assert motion.quality.rotation_deg == pytest.approx(7.1, abs=0.5)
    assert motion.quality.residual_mm is not None and motion.quality.residual_mm < 2
    assert motion.quality.similarity > 0.95 > motion.quality.similarity_before


def test_a_breath_is_found_to_three_millimetres(ct: Volume, nodules: np.ndarray) -> None:
    known = KnownMotion(matrix=TABLE, bend=breathing(CENTRE, 15.0))
    motion = register(again(ct, known, (3.0, 3.0, 3.0), 15.0), ct)
    lungs = np.random.default_rng(0).uniform((-100, -40, -60), (100, 50, 70), (300, 3))
    assert np.median(errors(motion.rigid, known, lungs)) > 3
    assert np.median(errors(motion, known, lungs)) <= 2
    assert np.median(errors(motion, known, nodules)) <= 2
    assert motion.quality.trust is Trust.GOOD
    assert motion.quality.deformation_mm > 4
    assert np.linalg.norm(motion.to_earlier(motion.to_new(nodules)) - nodules, axis=1).max() < 0.05


@pytest.mark.long
@pytest.mark.parametrize("slices", [(0, 30), (30, 56)], ids=["lower", "upper"])
def test_half_of_the_body_is_laid_on_the_whole(
    slices: tuple[int, int], ct: Volume, table_moved: Volume, nodules: np.ndarray
) -> None:
    motion = register(part(table_moved, *slices), ct, deformable=False)
    assert errors(motion, KnownMotion(matrix=TABLE), nodules).max() < 2
    assert motion.quality.overlap == pytest.approx((slices[1] - slices[0]) / 56, abs=0.12)
    assert motion.quality.trust is Trust.GOOD


@pytest.mark.long
def test_thin_slices_are_laid_on_thick_ones(ct: Volume, table_moved: Volume, nodules: np.ndarray) -> None:
    known = KnownMotion(matrix=TABLE)
    thin = again(ct, known, (1.0, 4.0, 4.0), 25.0)
    motion = register(thin, ct, deformable=False)
    assert errors(motion, known, nodules).max() < 1
    assert motion.quality.trust is Trust.GOOD


def test_the_order_of_voxels_does_not_matter(ct: Volume, table_moved: Volume, nodules: np.ndarray) -> None:
    affine = table_moved.geometry.affine
    last = np.array(table_moved.array.shape) - 1
    flipped = affine.copy()
    flipped[:3, 3] += affine[:3, 0] * last[0] + affine[:3, 2] * last[2]
    flipped[:3, 0], flipped[:3, 2] = -affine[:3, 0], -affine[:3, 2]
    sagittal = np.stack([flipped[:, 2], flipped[:, 0], flipped[:, 1], flipped[:, 3]], axis=1)
    array = np.ascontiguousarray(table_moved.array[::-1, :, ::-1].transpose(2, 0, 1))
    motion = register(on_grid(table_moved, array, sagittal), ct, deformable=False)
    assert errors(motion, KnownMotion(matrix=TABLE), nodules).max() < 1


@pytest.mark.long
def test_two_pets_are_laid_on_each_other_whatever_was_injected(pet: Volume, nodules: np.ndarray) -> None:
    known = KnownMotion(matrix=TABLE)
    other = again(pet, known, (4.0, 5.0, 5.0), 0.05)
    motion = register(replace(other, array=other.array * np.float32(1.7)), pet, deformable=False)
    assert errors(motion, known, nodules).max() < 2
    assert motion.quality.trust is not Trust.FAILED


@pytest.mark.long
def test_the_same_image_stays_where_it_is(ct: Volume, nodules: np.ndarray) -> None:
    motion = register(ct, ct)
    assert np.abs(motion.to_new(nodules) - nodules).max() < 0.01
    assert motion.quality.similarity_before == pytest.approx(1)
    assert motion.quality.trust is Trust.GOOD


@pytest.mark.long
def test_a_body_upside_down_is_not_believed_and_stays_where_the_headers_put_it(ct: Volume) -> None:
    other = replace(ct, array=np.ascontiguousarray(ct.array[::-1]))
    motion = register(other, ct, deformable=False)
    assert motion.quality.trust is Trust.FAILED
    assert "cannot be believed" in motion.quality.sentence
    assert motion.quality.confidence < 0.2
    assert np.array_equal(motion.matrix, np.eye(4))


def test_an_image_of_one_value_is_refused(ct: Volume) -> None:
    blank = replace(ct, array=np.full_like(ct.array, 40.0))
    with pytest.raises(Refused, match="one value everywhere") as refusal:
        register(blank, ct)
    assert refusal.value.code == "empty-image"


def test_air_alone_is_refused(ct: Volume) -> None:
    air = np.random.default_rng(0).normal(-990, 5, ct.array.shape).astype(np.float32)
    with pytest.raises(Refused, match="no body"):
        register(ct, replace(ct, array=air))


def test_a_pet_is_not_laid_on_a_ct(ct: Volume, pet: Volume) -> None:
    with pytest.raises(Refused) as refusal:
        register(ct, pet)
    assert refusal.value.code == "not-comparable"


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (3, 4, 5)])
def test_a_tiny_image_is_not_believed(shape: tuple[int, int, int], ct: Volume) -> None:
    array = np.random.default_rng(0).normal(40, 20, shape).astype(np.float32)
    tiny = on_grid(ct, array, ct.geometry.affine)
    if array.size == 1:
        with pytest.raises(Refused):
            register(tiny, ct)
        return
    assert register(tiny, ct).quality.trust is not Trust.GOOD
    assert register(ct, tiny).quality.trust is not Trust.GOOD


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


@pytest.mark.long
def test_one_thread_and_two_find_the_same(ct: Volume, table_moved: Volume, nodules: np.ndarray) -> None:
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(register(table_moved, ct, deformable=False).to_new(nodules))
    assert np.abs(found[0] - found[1]).max() < 1e-3


def test_a_deformation_is_undone_on_the_way_back() -> None:
    rng = np.random.default_rng(1)
    mm = rng.normal(0, 1.5, (3, 6, 6, 6)).astype(np.float32)
    deformation = Deformation(mm=mm, origin_mm=(-50.0, -50.0, -50.0), spacing_mm=20.0)
    motion = Motion(matrix=TABLE, deformation=deformation, quality=UNJUDGED)
    points = rng.uniform(-80, 80, (500, 3))
    assert np.abs(motion.to_earlier(motion.to_new(points)) - points).max() < 0.05
    assert np.abs(motion.to_new(points) - motion.rigid.to_new(points)).max() > 1


@pytest.mark.long
def test_a_breath_and_a_turn_of_a_real_chest_are_found_to_three_millimetres(data: Path) -> None:
    (volume,) = read_study((data / "ct_4dlung").rglob("*.dcm")).study.by_role("ct")
    middle = volume.to_mm((np.asarray(volume.array.shape) - 1) / 2)
    known = KnownMotion(
        matrix=turned(middle, (3.0, -4.0, 5.0), (30.0, -25.0, 40.0)), bend=breathing(middle, 15.0)
    )
    motion = register(again(volume, known, (2.0, 1.5, 1.5), 15.0), volume)
    points = middle + np.random.default_rng(0).uniform(-80, 80, (300, 3))
    assert np.median(errors(motion, known, points)) <= 2
    assert motion.quality.trust is Trust.GOOD

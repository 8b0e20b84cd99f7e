from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ball_nodules import ball_nodule
from scipy import ndimage

from training.pasted_scans import APART_MM, placed_in
from training.pasting import Fade, donor_alone, donor_of, set_in, shape_of
from training.scans import Known, Scan

SPACING = (1.0, 0.7, 0.7)
NODULE = ball_nodule(10.0, (1.25, 0.6, 0.6), seed=1)


def lung(shape: tuple[int, int, int] = (41, 61, 61), level: float = -850.0) -> np.ndarray:
    return np.random.default_rng(2).normal(level, 5, shape).astype(np.float32)


@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.7), (3.0, 0.98, 0.98), (5.0, 0.6, 0.6)])
@pytest.mark.parametrize("mirrored", [(False, False, False), (True, False, True)])
def test_a_ball_that_is_set_in_keeps_its_volume_and_place(
    spacing: tuple[float, float, float], mirrored: tuple[bool, bool, bool]
) -> None:
    shape = tuple(round(60 / s) for s in spacing)
    hu, point = lung(shape), np.array([n / 2 for n in shape])  # type: ignore[arg-type]
    before = hu.copy()
    fade = Fade(whole_mm=2.0, fade_mm=3.0, mirrored=mirrored)
    _, share = set_in(hu, spacing, point, donor_of(NODULE), shape_of(NODULE), fade)
    gained = np.clip((hu - before) / 890, 0, 1)
    assert share == 1.0
    assert gained.sum() * np.prod(spacing) == pytest.approx(np.pi / 6 * 10**3, rel=0.08)
    centre = (np.indices(hu.shape) * np.where(gained > 0.2, gained, 0)).sum(axis=(1, 2, 3))
    centre /= np.where(gained > 0.2, gained, 0).sum()
    assert np.abs((centre - point) * spacing).max() < 0.5


@pytest.mark.parametrize("diameter_mm", [5.0, 12.0])
@pytest.mark.parametrize("donor", [(1.25, 0.6, 0.6), (2.5, 0.8, 0.8)])
@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.7), (3.0, 0.98, 0.98)])
def test_what_is_told_to_be_the_nodule_has_the_volume_of_its_mask(
    spacing: tuple[float, float, float], donor: tuple[float, float, float], diameter_mm: float
) -> None:
    nodule = ball_nodule(diameter_mm, donor, seed=3)
    hu, point = lung(tuple(round(60 / s) for s in spacing)), np.array([30.0 / s for s in spacing])  # type: ignore[arg-type]
    lies, _ = set_in(hu, spacing, point, donor_of(nodule), shape_of(nodule), Fade(whole_mm=2.0, fade_mm=3.0))
    assert lies.sum() * np.prod(spacing) == pytest.approx(nodule.mask.sum() * np.prod(donor), rel=0.05)


def test_what_is_far_from_the_nodule_is_not_touched_and_the_lung_around_it_gets_the_scans_level() -> None:
    hu = lung(level=-920.0)
    before, point = hu.copy(), np.array([20.0, 30.0, 30.0])
    fade = Fade(whole_mm=2.0, fade_mm=2.0)
    set_in(hu, SPACING, point, donor_of(NODULE), shape_of(NODULE), fade)
    far = np.linalg.norm((np.indices(hu.shape).reshape(3, -1).T - point) * SPACING, axis=1).reshape(hu.shape)
    assert (hu == before)[far > 10.5].all()
    assert hu[(far > 6.5) & (far < 7)].mean() == pytest.approx(-920, abs=8)


def test_a_piece_fades_where_the_crop_ends() -> None:
    """The crop of a ball ends one slice beyond it; what lies further is the scan's."""
    hu = lung()
    before, point = hu.copy(), np.array([20.0, 30.0, 30.0])
    set_in(hu, SPACING, point, donor_of(NODULE), shape_of(NODULE), Fade(whole_mm=12.0, fade_mm=2.0))
    assert (hu == before)[:11].all()
    assert (hu != before)[20].any()


def test_a_nodule_alone_leaves_the_pleura_behind_and_keeps_its_own_edge() -> None:
    nodule = ball_nodule(10.0, (1.0, 0.6, 0.6), seed=5)
    c = nodule.image.shape[2]
    wall = nodule.image.copy()
    wall[:, :, c - 7 :] = 60.0
    attached = replace(nodule, image=wall)
    donor = donor_alone(attached)
    mask = np.pad(nodule.mask, 1)
    away = ndimage.distance_transform_edt(~mask, sampling=nodule.spacing_mm)
    crop = (slice(1, -1),) * 3
    assert (wall[away[crop] > 1.5] > -300).any()
    assert donor.hu[away > 1.5].max() < -500
    assert donor.hu[away > 0].max() <= -500
    assert np.array_equal(donor.hu[mask], wall[nodule.mask])
    free = donor_alone(nodule)
    assert np.abs(free.hu[crop] - nodule.image).mean() < 6.0
    assert np.array_equal(np.subtract(free.point, 1), donor_of(nodule).point)


def test_a_nodule_alone_that_fills_its_crop_ends_half_way_to_the_slice_beyond() -> None:
    nodule = ball_nodule(10.0, (2.0, 0.7, 0.7), seed=6)
    held = np.flatnonzero(nodule.mask.any(axis=(1, 2)))
    middle = slice(held[1], held[-1])
    donor = donor_alone(replace(nodule, image=nodule.image[middle], mask=nodule.mask[middle]))
    mask = np.pad(nodule.mask[middle], 1)
    assert donor.hu[1:-1][mask[1:-1]].mean() > -100
    assert mask[1].any() and mask[-2].any()
    assert donor.hu[[0, -1]].max() < -500


def test_nodules_get_places_in_the_lung_apart_from_each_other_and_from_known_lesions() -> None:
    inside = np.zeros((60, 150, 150), dtype=np.bool_)
    inside[5:55, 10:140, 10:140] = True
    scan = Scan(
        name="s",
        hu=np.where(inside, -850.0, 40.0).astype(np.float32),
        inside=inside,
        spacing_mm=(3.0, 1.0, 1.0),
        known=(Known(centre=(30.0, 75.0, 75.0), radius_mm=15.0),),
    )
    nodules = [ball_nodule(8.0, (1.25, 0.7, 0.7), seed=n, patient=f"P{n}") for n in range(7)]
    seen = []
    for hu, placed in placed_in(scan, nodules, seed=0, at_most=4):
        assert 1 <= len(placed) <= 4
        at = np.array([p.centre for p in placed]) * scan.spacing_mm
        gaps = np.linalg.norm(at[:, None] - at[None], axis=2) + 1e3 * np.eye(len(at))
        assert gaps.min() >= APART_MM
        for one in placed:
            assert scan.away_mm(one.centre) >= APART_MM / 2
            k, r, c = (int(i) for i in one.centre)
            assert inside[k, r, c]
            assert hu[k, r, c] > -200
        seen += [p.nodule.case.patient_id for p in placed]
    assert sorted(seen) == [f"P{n}" for n in range(7)]
    again = [p.centre for _, placed in placed_in(scan, nodules, seed=0, at_most=4) for p in placed]
    assert len(again) == 7

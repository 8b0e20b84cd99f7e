from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ball_nodules import ball_nodule

from models.patches import PatchGrid
from training import made_lung
from training.nodule_samples import (
    FILLS,
    Augmentation,
    another_grid,
    draw_sample,
    regridded,
    surround,
    surroundable,
)

SPACING = (2.5, 0.7, 0.7)


def test_the_nodule_is_taken_out_of_what_surrounds_it() -> None:
    source = surroundable(ball_nodule(9.0, SPACING, seed=1))
    assert source.nodule.image[source.nodule.mask].max() > 0
    assert source.without.max() < -700


@pytest.mark.parametrize("fill", FILLS[:4])
def test_the_crop_stands_unchanged_in_any_surroundings_and_nothing_outside_is_nodule(fill: str) -> None:
    source = surroundable(ball_nodule(9.0, SPACING, seed=1))
    shape = np.asarray(source.nodule.image.shape)
    image, mask = surround(
        source, np.array([-3, -4, -5]), np.add(shape, (6, 5, 4)), fill, np.random.default_rng(0)
    )
    box = tuple(slice(n, n + s) for n, s in zip((3, 4, 5), shape, strict=True))
    assert np.array_equal(image[box], source.nodule.image)
    assert np.array_equal(mask[box] > 0, source.nodule.mask)
    mask[box] = 0
    assert not mask.any()


@pytest.fixture
def one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block of made lung in place of all."""
    monkeypatch.setattr(made_lung, "BLOCKS", 1)


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize("fill", FILLS[4:])
@pytest.mark.parametrize("seed", range(8))
def test_in_made_lung_the_nodule_stays_as_dense_as_it_was_and_what_is_far_from_it_is_the_lungs_own(
    fill: str, seed: int
) -> None:
    source = surroundable(ball_nodule(9.0, SPACING, seed=1))
    shape = np.asarray(source.nodule.image.shape)
    low, high = np.array([-6, -20, -20]), shape + np.array([6, 20, 20])
    image, mask = surround(source, low, high, fill, np.random.default_rng(seed))
    box = tuple(slice(n, n + s) for n, s in zip((6, 20, 20), shape, strict=True))
    dense = source.nodule.mask & (source.nodule.image > -400)
    assert np.array_equal(mask[box] > 0, source.nodule.mask)
    assert np.allclose(image[box][dense], source.nodule.image[dense], atol=0.01)
    outside = np.ones(image.shape, dtype=np.bool_)
    outside[box] = False
    assert not mask[outside].any()
    size = (image.shape[0], image.shape[1], image.shape[2])
    lung = made_lung.lung_on(size, SPACING, np.random.default_rng(seed))
    assert np.array_equal(image[outside], lung[outside])


@pytest.mark.usefixtures("one_block")
def test_what_a_nodule_is_attached_to_mostly_stays_behind_when_it_is_set_in_alone() -> None:
    nodule = ball_nodule(9.0, (1.0, 0.7, 0.7), seed=4)
    k, r, c = (n // 2 for n in nodule.image.shape)
    wall = nodule.image.copy()
    wall[:, :, c + 7 :] = 60.0
    source = surroundable(replace(nodule, image=wall))
    behind = source.away_mm > 3.0
    behind[:, :, : c + 7] = False
    left = []
    for seed in range(20):
        image, _ = surround(
            source, np.zeros(3, int), np.array(wall.shape), "nodule in made lung", np.random.default_rng(seed)
        )
        left.append((image[behind] > -300).mean() < 0.3)
        assert image[k, r, c] > -100
    assert sum(left) >= 15


@pytest.mark.parametrize("diameter_mm", [5.0, 12.0, 25.0])
@pytest.mark.parametrize("spacing", [(0.7, 0.5, 0.5), (2.5, 0.7, 0.7), (5.0, 0.9, 0.9)])
def test_on_another_grid_a_nodule_keeps_its_volume_and_stays_where_it_is_dense(
    spacing: tuple[float, float, float], diameter_mm: float
) -> None:
    source = surroundable(ball_nodule(diameter_mm, spacing, seed=5))
    low, high = np.full(3, -8), np.asarray(source.nodule.image.shape) + 8
    true_mm3 = source.nodule.mask.sum() * np.prod(spacing)
    volumes, seen_mm = [], set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        image, mask = surround(source, low, high, "lung", rng)
        other_mm = another_grid(spacing, rng)
        at = np.asarray(source.nodule.centre) - low
        hu, held, point = regridded(image, mask, spacing, at, other_mm, rng)
        assert hu.shape == held.shape
        assert set(np.unique(held)) <= {0.0, 1.0}
        assert 0.7 <= other_mm[0] <= 5.0 and 0.5 <= other_mm[1] == other_mm[2] <= 1.0
        away_mm = (np.argwhere(held).mean(axis=0) - point) * np.asarray(other_mm)
        assert np.abs(away_mm).max() < max(0.6 * other_mm[0], 1.0)
        assert hu[held > 0].mean() > hu[held == 0].mean() + 150
        volumes.append(held.sum() * np.prod(other_mm) / true_mm3)
        seen_mm.add(other_mm)
    assert len(seen_mm) > 15
    assert np.mean(volumes) == pytest.approx(1.0, abs=0.16)


def test_a_thick_slice_that_holds_little_of_a_nodule_shows_it_and_is_none_of_it() -> None:
    image, mask = np.full((41, 21, 21), -850, dtype=np.float32), np.zeros((41, 21, 21), dtype=np.float32)
    image[15:26, 5:16, 5:16], mask[15:26, 5:16, 5:16] = 50, 1
    shown = 0
    for seed in range(60):
        hu, held, _ = regridded(
            image, mask, (1.0, 1.0, 1.0), np.full(3, 20.0), (5.0, 1.0, 1.0), np.random.default_rng(seed)
        )
        heights = np.flatnonzero(held[:, 10, 10])
        assert len(heights) in (2, 3)
        ends = hu[[heights[0] - 1, heights[-1] + 1], 10, 10]
        shown += bool((ends > -750).any())
        assert (ends < -300).all()
    assert shown > 5


def test_a_nodule_that_is_lost_on_another_grid_is_shown_on_its_own() -> None:
    nodule = ball_nodule(9.0, (0.7, 0.6, 0.6), seed=6)
    point = np.zeros_like(nodule.mask)
    point[tuple(n // 2 for n in point.shape)] = True
    source = surroundable(replace(nodule, mask=point))
    grid = PatchGrid(shape=(24, 24, 24), spacing_mm=(0.7, 0.7, 0.7))
    how = Augmentation(jitter_mm=0.0, regridded=1.0)
    for seed in range(10):
        _, truth, _ = draw_sample(source, grid, how, np.random.default_rng(seed))
        assert truth.any()


def test_a_sample_shows_the_same_volume_of_nodule_however_it_is_turned() -> None:
    source = surroundable(ball_nodule(9.0, (1.0, 0.7, 0.7), seed=2))
    grid = PatchGrid(shape=(32, 32, 32), spacing_mm=(0.7, 0.7, 0.7))
    how = Augmentation(zoom=0.0, jitter_mm=3.0)
    true_mm3 = source.nodule.mask.sum() * 0.49
    for seed in range(6):
        hu, truth, distance = draw_sample(source, grid, how, np.random.default_rng(seed))
        assert truth.sum() * 0.7**3 == pytest.approx(true_mm3, rel=0.03)
        assert hu[truth > 0.9].mean() > -50
        assert 0 <= distance.min() <= distance.max() <= 0.5


def test_the_same_seed_draws_the_same_sample() -> None:
    source = surroundable(ball_nodule(6.0, SPACING, seed=3))
    grid = PatchGrid(shape=(8, 8, 8), spacing_mm=(1.0, 1.0, 1.0))
    a, b, c = (draw_sample(source, grid, Augmentation(), np.random.default_rng(s))[0] for s in (5, 5, 6))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ball_nodules import ball_nodule

from models.patches import PatchGrid
from training import made_lung
from training.nodule_samples import FILLS, Augmentation, draw_sample, regridded, surround, surroundable

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
    true_mm3 = source.nodule.mask.sum() * np.prod(spacing)
    seen = [regridded(source, np.random.default_rng(seed)).nodule for seed in range(30)]
    assert {n.image.shape == n.mask.shape for n in seen} == {True}
    assert len({n.spacing_mm for n in seen}) > 15
    volumes = [n.mask.sum() * np.prod(n.spacing_mm) / true_mm3 for n in seen]
    assert np.mean(volumes) == pytest.approx(1.0, abs=0.16)
    assert all(0.7 <= n.spacing_mm[0] <= 5.0 and 0.5 <= n.spacing_mm[1] <= 1.0 for n in seen)
    assert all(n.image[n.mask].mean() > n.image[~n.mask].mean() + 300 for n in seen)


def test_a_nodule_that_is_lost_on_another_grid_is_shown_on_its_own() -> None:
    nodule = ball_nodule(9.0, (0.7, 0.6, 0.6), seed=6)
    point = np.zeros_like(nodule.mask)
    point[tuple(n // 2 for n in point.shape)] = True
    source = surroundable(replace(nodule, mask=point))
    seen = [regridded(source, np.random.default_rng(seed)) for seed in range(10)]
    assert any(one is source for one in seen)
    assert all(one.nodule.mask.any() for one in seen)


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

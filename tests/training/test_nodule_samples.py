from __future__ import annotations

import numpy as np
import pytest
from ball_nodules import ball_nodule

from models.patches import PatchGrid
from training.nodule_samples import FILLS, Augmentation, draw_sample, surround, surroundable

SPACING = (2.5, 0.7, 0.7)


def test_the_nodule_is_taken_out_of_what_surrounds_it() -> None:
    source = surroundable(ball_nodule(9.0, SPACING, seed=1))
    assert source.nodule.image[source.nodule.mask].max() > 0
    assert source.without.max() < -700


@pytest.mark.parametrize("fill", FILLS)
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

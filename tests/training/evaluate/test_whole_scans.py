from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ball_nodules import ball_nodule
from scipy import ndimage

from training.evaluate.whole_scans import Places
from training.scans import Scan

SPACING_MM = (2.0, 0.8, 0.8)


@pytest.fixture(scope="module")
def lung() -> Places:
    random = np.random.default_rng(0)
    hu = random.normal(-850, 30, (60, 150, 150)).astype(np.float32)
    scan = Scan(name="lung", hu=hu, inside=np.ones(hu.shape, dtype=np.bool_), spacing_mm=SPACING_MM, known=())
    return Places(scan=scan, points=np.argwhere(np.ones((20, 50, 50))) + np.array([20, 50, 50]))


def test_a_nodule_keeps_its_size_and_density_in_a_scan_of_another_grid(lung: Places) -> None:
    nodule = ball_nodule(14.0, (1.25, 0.7, 0.7), seed=1)
    image, truth, point = lung.with_nodule(nodule)
    volume_mm3 = truth.sum() * np.prod(SPACING_MM)
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * 7**3, rel=0.03)
    assert np.median(image[truth]) == pytest.approx(40, abs=20)
    assert image[0].mean() == pytest.approx(-850, abs=5)
    assert truth[tuple(round(p) for p in point)]
    assert lung.setting == "set into lung"


def test_the_place_depends_on_the_nodule_only_and_the_scan_stays_as_it_was(lung: Places) -> None:
    before = lung.scan.hu.copy()
    first, again = (lung.with_nodule(ball_nodule(9.0, (1.25, 0.7, 0.7), seed=2)) for _ in range(2))
    other = lung.with_nodule(ball_nodule(9.0, (1.25, 0.7, 0.7), seed=3))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])
    assert np.array_equal(lung.scan.hu, before)


def test_of_the_places_that_a_nodule_may_have_the_one_with_the_fewest_vessels_beside_it_is_taken() -> None:
    random = np.random.default_rng(1)
    hu = random.normal(-850, 30, (60, 150, 150)).astype(np.float32)
    hu[:, :, 76:79] = 40.0
    scan = Scan(name="lung", hu=hu, inside=np.ones(hu.shape, dtype=np.bool_), spacing_mm=SPACING_MM, known=())
    beside, clear = [30, 75, 70], [30, 75, 40]
    places = Places(scan=scan, points=np.array([beside] * 20 + [clear] + [beside] * 9))
    for seed in range(5):
        image, truth, _ = places.with_nodule(ball_nodule(9.0, (1.25, 0.7, 0.7), seed=seed))
        near = ndimage.binary_dilation(truth, iterations=3) & ~ndimage.binary_dilation(truth, iterations=2)
        assert image[near].max() < -600


def test_a_nodule_at_the_pleura_comes_without_it(lung: Places) -> None:
    nodule = ball_nodule(14.0, (1.25, 0.7, 0.7), seed=4)
    wall = nodule.image.copy()
    wall[:, :, -6:] = 60.0
    image, truth, _ = lung.with_nodule(replace(nodule, image=wall))
    assert (image[~ndimage.binary_dilation(truth, iterations=2)] < -500).all()
    assert np.median(image[truth]) == pytest.approx(40, abs=20)

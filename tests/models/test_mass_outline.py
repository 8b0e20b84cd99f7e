from __future__ import annotations

import numpy as np
import pytest
from tube_phantom import FAT, LUNG, TISSUE, grid_mm, tube

from models.mass_outline import less_arms, less_fat, less_its_edge, mass_outline

SPACING = (3.0, 1.5, 1.5)
SHAPE = (50, 80, 80)
POINT = np.array([25.0, 40.0, 30.0])


def ball(radius_mm: float, centre: np.ndarray = POINT) -> np.ndarray:
    at_mm = grid_mm(SHAPE, SPACING)
    return np.linalg.norm(at_mm - centre * SPACING, axis=-1) <= radius_mm


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_lung_at_the_edge_of_a_coarse_drawing_is_taken_off_and_holes_are_filled() -> None:
    image = np.full((9, 21, 21), LUNG, dtype=np.float32)
    image[2:7, 6:15, 6:15] = TISSUE
    mask = np.zeros(image.shape, dtype=np.bool_)
    mask[2:7, 5:16, 5:16] = True
    mask[4, 10, 10] = False
    left = less_its_edge(mask, image, (2.0, 2.0, 2.0))
    assert left[4, 10, 10]
    assert left.sum() == pytest.approx((image > 0).sum(), rel=0.02)


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a CT with a mass between lung and fat, an aorta in the fat, the mass and the aorta."""
    mass = ball(25.0)
    aorta = tube(SHAPE, SPACING, middle=(40.0, 55.0), radius_mm=13.0)
    image = np.full(SHAPE, FAT, dtype=np.float32)
    image[:, :, :35] = LUNG
    image[mass | aorta] = TISSUE
    noise = np.random.default_rng(0).normal(0, 15, SHAPE)
    return (image + noise).astype(np.float32), mass & ~aorta, aorta


def test_a_drawing_that_went_on_into_fat_and_aorta_is_the_mass_again() -> None:
    image, mass, aorta = scene()
    leaked = ball(30.0) | (aorta & (np.abs(grid_mm(SHAPE, SPACING)[..., 0] - 75.0) < 40.0))
    assert dice(leaked, mass) < 0.75
    assert dice(mass_outline(leaked, image, SPACING, POINT), mass) > 0.92


def test_an_aorta_that_holds_the_point_stays() -> None:
    image, _, aorta = scene()
    point = np.array([25.0, 40.0, 58.0])
    assert mass_outline(aorta, image, SPACING, point)[25, 40, 58]


def test_what_is_less_dense_beside_lung_is_an_edge_and_elsewhere_fat() -> None:
    image = np.full(SHAPE, TISSUE, dtype=np.float32)
    image[:, :, :20] = LUNG
    image[:, :, 20] = FAT
    image[20:30, 35:45, 60:70] = FAT
    mask = np.ones(SHAPE, dtype=np.bool_)
    mask[:, :, :20] = False
    left = less_fat(mask, image, SPACING)
    assert left[:, :, 20].all()
    assert not left[22:28, 37:43, 62:68].any()
    assert left[:, :, 24:55].all()


def test_an_arm_is_taken_off_and_the_mass_stays_as_it_is() -> None:
    mass = ball(20.0)
    arm = np.zeros(SHAPE, dtype=np.bool_)
    arm[24:26, 38:42, 30:75] = True
    left = less_arms(mass | arm, POINT, SPACING)
    assert dice(left, mass) > 0.97
    assert not left[:, :, 52:].any()


def test_of_nothing_nothing_is_left() -> None:
    image, _, _ = scene()
    nothing = np.zeros(SHAPE, dtype=np.bool_)
    assert not mass_outline(nothing, image, SPACING, POINT).any()
    assert not mass_outline(ball(4.0, np.array([25.0, 40.0, 10.0])), image, SPACING, POINT).any()

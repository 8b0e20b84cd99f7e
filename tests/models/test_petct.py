from __future__ import annotations

import math

import numpy as np
import pytest

from models.petct import PetctView, above_percent, above_suv, channels, look_at

VIEW = PetctView(shape=(16, 16, 16), voxel_mm=4.0, near_mm=8.0, passes=3)
SPACING = (4.0, 4.0, 4.0)


def ball(
    middle: tuple[float, float, float], radius: float, shape: tuple[int, int, int] = (40, 40, 40)
) -> np.ndarray:
    grid = np.indices(shape).astype(float)
    far = sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True))
    return np.asarray(far <= radius**2)


def test_the_channels_say_what_the_card_says() -> None:
    suv = np.full(VIEW.shape, 1.0, dtype=np.float32)
    suv[8, 8, 8], suv[0, 0, 0] = 4.0, 100.0
    alone, both = channels(VIEW, suv, None), channels(VIEW, suv, np.full(VIEW.shape, 40.0, dtype=np.float32))
    assert alone.shape == (5, 16, 16, 16)
    assert alone[0, 0, 0, 0] == pytest.approx(math.log(26))
    assert alone[1, 8, 8, 8] == 1.0
    assert alone[1, 4, 4, 4] == 0.25
    assert alone[1, 0, 0, 0] == 2.0
    assert (alone[2:4] == 0).all()
    assert (both[2] == 0.0).all()
    assert (both[3] == 1.0).all()
    assert alone[4].max() == pytest.approx(1.0, abs=0.1)


def sees_hot(shown: np.ndarray) -> np.ndarray:
    """Answer as a network that draws what is hot, with a log hazard of 0.5."""
    mask = np.where(np.expm1(shown[:, :1]) > 2.0, 9.0, -9.0)
    return np.concatenate([mask, np.full_like(mask, 0.5)], axis=1).astype(np.float32)


def test_a_lesion_at_the_end_of_which_the_point_lies_is_drawn_whole_in_the_second_look() -> None:
    truth = ball((20, 20, 20), 6.5)
    suv = np.where(truth, 6.0, 0.5).astype(np.float32)
    found = look_at([sees_hot], VIEW, suv, None, SPACING, (14.0, 20.0, 20.0))
    assert (found.drawn(0.5, (14.0, 20.0, 20.0), SPACING) == truth).mean() > 0.999
    assert found.log_hazard == pytest.approx(0.5)


def test_mirrors_and_networks_are_averaged() -> None:
    suv = np.where(ball((20, 20, 20), 5), 6.0, 0.5).astype(np.float32)

    def other(shown: np.ndarray) -> np.ndarray:
        return sees_hot(shown) * 3

    found = look_at([sees_hot, other], VIEW, suv, None, SPACING, (20, 20, 20), mirrors=8)
    assert found.log_hazard == pytest.approx(1.0)
    assert found.probability[20, 20, 20] == pytest.approx(1 / (1 + math.exp(-18)), abs=1e-6)


def test_fixed_thresholds_draw_the_piece_at_the_point() -> None:
    near, far = ball((12, 12, 12), 5), ball((30, 30, 30), 5)
    suv = np.where(near, 5.0, np.where(far, 20.0, 0.5)).astype(np.float32)
    assert (above_percent(suv, SPACING, (12, 12, 12)) == near).all()
    assert (above_suv(suv, SPACING, (30, 30, 30)) == far).all()

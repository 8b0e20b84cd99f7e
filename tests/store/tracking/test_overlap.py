from __future__ import annotations

from math import pi

import highdicom
import numpy as np
import pytest

from plugins.contract import Mask
from store.tracking.overlap import NONE, Body, lens_mm3, overlap

GRID = highdicom.VolumeGeometry(
    affine=np.diag([1.0, 1.0, 1.0, 1.0])[:, [2, 1, 0, 3]],
    spatial_shape=(60, 60, 60),
    coordinate_system="PATIENT",
)
HERE = np.zeros(3)


def ball(x: float, diameter_mm: float, shape: tuple[int, int, int] = (60, 60, 60)) -> Body:
    index = np.indices(shape)
    away = np.sqrt((index[0] - 30) ** 2 + (index[1] - 30) ** 2 + (index[2] - x) ** 2)
    mask = Mask.from_full(away <= diameter_mm / 2)
    return Body(volume_mm3=pi / 6 * diameter_mm**3, mask=mask, geometry=GRID)


@pytest.mark.parametrize(
    ("a", "b", "apart", "share"),
    [(3, 3, 6, 0.0), (3, 3, 0, 1.0), (5, 2, 1, 8 / 125), (2, 2, 2, 5 / 16), (4, 4, 9, 0.0)],
)
def test_what_two_balls_share(a: float, b: float, apart: float, share: float) -> None:
    """5/16: two equal balls whose surfaces go through each other's centre share 5/12 pi r^3."""
    assert lens_mm3(a, b, apart) == pytest.approx(share * 4 / 3 * pi * a**3)


@pytest.mark.parametrize("apart", [0, 5, 9, 14, 30])
def test_masks_of_balls_overlap_as_balls_do(apart: int) -> None:
    masks = overlap(ball(20, 12), ball(20 + apart, 16), apart, 3.0, HERE)
    plain = [Body(volume_mm3=pi / 6 * d**3, mask=None, geometry=GRID) for d in (12, 16)]
    balls = overlap(plain[0], plain[1], apart, 3.0, HERE)
    assert masks.iou == pytest.approx(balls.iou, abs=0.04)
    assert masks.held == pytest.approx(balls.held, abs=0.08)
    assert masks.covered == pytest.approx(balls.covered, abs=0.08)


def test_a_shift_brings_a_lesion_onto_its_successor_along_the_patients_axes() -> None:
    assert overlap(ball(20, 10), ball(27, 10), 0.0, 1.0, np.array([7.0, 0.0, 0.0])).iou == 1.0
    assert overlap(ball(20, 10), ball(40, 10), 20.0, 1.0, HERE) == NONE


def test_a_mask_on_another_grid_counts_as_a_ball() -> None:
    other = ball(20, 10, (60, 60, 59))
    assert overlap(ball(20, 10), other, 0.0, 2.0, HERE).iou == pytest.approx(1.0)


def test_a_place_without_volume_lies_in_a_lesion_or_does_not() -> None:
    point = Body(volume_mm3=0.0, mask=None, geometry=GRID)
    assert overlap(point, ball(20, 10), 4.0, 0.0, HERE).covered == 1.0
    assert overlap(point, ball(20, 10), 6.0, 0.0, HERE).covered == 0.0

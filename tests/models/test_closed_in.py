"""What a lesion closes in belongs to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from models.closed_in import DIRECTIONS, MOST, closed_in, seen

VOXEL = (2.0, 2.0, 2.0)


def shell(outer: float, inner: float, shape: tuple[int, int, int] = (31, 35, 35)) -> np.ndarray:
    """Return a hollow ball in the middle, radii in voxels."""
    grid = np.indices(shape) - np.reshape([(n - 1) / 2 for n in shape], (3, 1, 1, 1))
    far = np.sqrt((grid**2).sum(axis=0))
    return np.asarray((far <= outer) & (far > inner))


def test_a_hollow_ball_becomes_a_whole_one() -> None:
    assert (closed_in(shell(12, 9), VOXEL) == shell(12, -1)).all()


def test_a_core_is_closed_in_though_its_rim_has_a_gap() -> None:
    rim = shell(12, 9)
    rim[:, 15:20, 17:] = False
    filled = closed_in(rim, VOXEL)
    assert filled[shell(8, -1)].mean() > 0.95
    assert not filled[~shell(12, -1)].any()


def test_a_rim_that_is_open_on_one_side_closes_in_what_lies_deep_in_it() -> None:
    cup = shell(12, 9)
    cup[:10] = False
    filled = closed_in(cup, VOXEL)
    assert filled[16:28, 17, 17].all()
    assert not filled[:8].any()


def test_a_flat_or_bent_lesion_stays_as_it_is_on_its_outside() -> None:
    plate = np.zeros((9, 20, 20), bool)
    plate[4, 2:18, 2:18] = True
    assert (closed_in(plate, VOXEL) == plate).all()
    corner = np.zeros((20, 20, 20), bool)
    corner[5:15, 3, 3:17] = corner[5:15, 3:17, 3] = True
    assert not closed_in(corner, VOXEL)[:, 10:, 10:].any()


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 3, 3), (1, 1, 1)])
def test_nothing_closes_in_nothing_in_any_shape(shape: tuple[int, int, int]) -> None:
    assert not closed_in(np.zeros(shape, bool), VOXEL).any()
    assert closed_in(np.ones(shape, bool), VOXEL).all()


@settings(max_examples=60, deadline=None)
@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.booleans()))
def test_a_voxel_is_closed_in_when_most_of_its_walks_meet_the_mask(mask: np.ndarray) -> None:
    expected = mask.copy()
    for place in np.argwhere(~mask):
        met = 0
        for step in np.array(DIRECTIONS):
            at = place + step
            while ((at >= 0) & (at < mask.shape)).all():
                if mask[tuple(at)]:
                    met += 1
                    break
                at = at + step
        expected[tuple(place)] = met >= MOST
    assert (closed_in(mask, VOXEL) == expected).all()


def test_a_wall_is_seen_as_far_as_the_reach_and_no_further() -> None:
    image = np.zeros((1, 1, 60), np.float32)
    image[0, 0, 0] = image[0, 0, -1] = 7.0
    (either,) = seen(image, (4.0, 4.0, 4.0), [1])
    assert either[0, 0, :21].min() == 7.0 == either[0, 0, -21:].min()
    assert either[0, 0, 21:-21].max() == 0.0


def test_the_highest_value_that_so_many_directions_see_falls_with_their_number() -> None:
    image = np.random.default_rng(1).random((9, 12, 11)).astype(np.float32)
    one, most, all_of_them = seen(image, VOXEL, [1, MOST, 26])
    assert (all_of_them >= image).all()
    assert (one >= most).all() and (most >= all_of_them).all() and (one > all_of_them).any()

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, special

from models.outlining import best_overlap, drawn_out, held_back, piece_at

MM = (1.0, 1.0, 1.0)
MIDDLE = np.array([2.0, 10.0, 10.0])


def expected_dice(mask: np.ndarray, p: np.ndarray) -> float:
    return float(2 * p[mask].sum() / (mask.sum() + p.sum()))


@pytest.mark.parametrize(
    ("shell", "voxels", "is_drawn"),
    [
        pytest.param(0.49, 27, True, id="a-thin-shell-of-nearly-one-half"),
        pytest.param(0.51, 27, True, id="of-more-than-one-half"),
        pytest.param(0.30, 27, False, id="of-less-where-the-core-is-sure"),
    ],
)
def test_voxels_are_drawn_that_raise_the_expected_overlap(shell: float, voxels: int, is_drawn: bool) -> None:
    p = np.zeros((5, 21, 21), dtype=np.float32)
    p[1:4, 9:12, 9:12] = 1.0
    p[1:4, 12, 9:12] = shell
    core, both = (
        2 * voxels / (2 * voxels + 9 * shell),
        2 * (voxels + 9 * shell) / (2 * voxels + 9 + 9 * shell),
    )
    assert (both > core) == is_drawn
    mask, dice = best_overlap(p, MIDDLE, MM)
    assert mask.sum() == voxels + 9 * is_drawn
    assert dice == pytest.approx(max(core, both))


@given(st.lists(st.floats(0.0625, 1.0, width=32), min_size=1, max_size=30))
def test_no_level_has_a_higher_expected_overlap(values: list[float]) -> None:
    p = np.array(sorted(values, reverse=True), dtype=np.float32)[None, None]
    found, dice = best_overlap(p, np.zeros(3), MM)
    every = [expected_dice(p >= level, p) for level in np.unique(p)]
    assert expected_dice(found, p) == pytest.approx(max(every), abs=1e-6)
    assert dice == pytest.approx(max(every), abs=1e-6)


def test_where_nothing_is_probable_nothing_is_drawn() -> None:
    mask, dice = best_overlap(np.full((3, 5, 5), 0.02, dtype=np.float32), np.array([1.0, 2.0, 2.0]), MM)
    assert not mask.any() and dice == 0.0


def test_on_slices_thicker_than_learned_on_the_logit_of_lesion_is_lower() -> None:
    p = np.array([0.0, 0.2, 0.5, 0.9, 1.0], dtype=np.float32).reshape(5, 1, 1)
    mask = p == 0.5
    for slice_mm, lower in ((1.25, 0.0), (2.5, 0.0), (3.5355, 0.6), (5.0, 0.8)):
        said = held_back(p, mask, (slice_mm, 0.7, 0.7))
        assert said.dtype == np.float32
        assert special.logit(said[1:4]) == pytest.approx(special.logit(p[1:4]) - lower, abs=1e-5)
        assert said[[0, 4], 0, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("end", [0, 4])
def test_what_the_image_cuts_off_is_as_probable_on_thick_slices(end: int) -> None:
    p = np.full((5, 1, 1), 0.5, dtype=np.float32)
    mask = np.zeros(p.shape, dtype=np.bool_)
    mask[end] = True
    assert np.array_equal(held_back(p, mask, (5.0, 0.7, 0.7)), p)


def bar_with_tail(length: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a sure bar of three rows and so many columns, and four voxels of a tail behind its middle row."""
    p = np.zeros((5, 21, 41), dtype=np.float32)
    p[2, 9:12, 5 : 5 + length] = 1.0
    sure = p > 0.5
    p[2, 10, 5 + length : 9 + length] = tail
    return p, sure


@pytest.mark.parametrize(
    ("length", "tail", "is_drawn"),
    [
        (20, 0.12, True),
        (20, 0.08, False),
        (10, 0.2, True),
        (10, 0.15, False),
        (4, 0.31, True),
        (4, 0.29, False),
    ],
)
def test_a_tail_is_drawn_when_it_is_probable_for_the_length_of_the_lesion(
    length: int, tail: float, is_drawn: bool
) -> None:
    p, sure = bar_with_tail(length, tail)
    out = drawn_out(sure, p, MM)
    assert out.sum() == sure.sum() + 4 * is_drawn
    assert (out & ~sure).sum() == (out & (p < 0.5)).sum()


def test_only_a_strip_along_the_line_is_drawn_in_its_slice_alone() -> None:
    p, sure = bar_with_tail(20, 0.2)
    p[2, 8:13, 25:29] = 0.2
    p[3, 9:12, 5:25] = 0.2
    out = drawn_out(sure, p, MM)
    added = np.argwhere(out & ~sure)
    assert set(added[:, 0]) == {2}
    assert 4 <= len(added) <= 8
    corner = out[2, 8, 28] or out[2, 12, 28]
    assert corner


def test_a_tail_of_another_piece_of_the_slice_is_left() -> None:
    p, sure = bar_with_tail(20, 0.0)
    p[2, 15, 5:40] = 0.9
    assert (drawn_out(sure, p, MM) == sure).all()


def test_what_lies_on_the_line_and_does_not_hang_together_with_the_mask_is_left() -> None:
    p, sure = bar_with_tail(20, 0.0)
    p[2, 6:10, 25:29] = np.fliplr(np.eye(4)) * 0.2  # away in a bow, back at the height of the bar
    p[2, 6, 29:34] = 0.2
    p[2, 7:11, 34:38] = np.eye(4) * 0.2
    out = drawn_out(sure, p, MM)
    assert ndimage.label(out, structure=np.ones((3, 3, 3)))[1] == 1
    assert not out[2, :, 30:].any()
    assert (out & sure).sum() == sure.sum()


@pytest.mark.parametrize("turn", [(1,), (2,), (0, 1), (1, 2)])
def test_a_mirrored_lesion_is_drawn_out_as_the_mirror_image(turn: tuple[int, ...]) -> None:
    p, sure = bar_with_tail(12, 0.2)
    turned = drawn_out(np.flip(sure, turn), np.flip(p, turn), MM)
    assert (np.flip(turned, turn) == drawn_out(sure, p, MM)).all()


@pytest.mark.parametrize("voxels", [0, 1, 2])
def test_next_to_nothing_stays_as_it_is(voxels: int) -> None:
    p = np.zeros((3, 5, 5), dtype=np.float32)
    p[1, 2, 2 : 2 + voxels] = 1.0
    assert (drawn_out(p > 0.5, p, MM) == (p > 0.5)).all()


def test_millimetres_count_and_not_pixels() -> None:
    p, sure = bar_with_tail(20, 0.15)
    assert drawn_out(sure, p, MM).sum() > drawn_out(sure, p, (1.0, 0.5, 0.5)).sum()


@pytest.mark.parametrize("pixel_mm", [0.5, 0.8, 1.0, 1.6])
def test_a_slanting_tail_is_drawn_to_its_end_on_pixels_of_a_millimetre_at_most(pixel_mm: float) -> None:
    p = np.zeros((3, 30, 40), dtype=np.float32)
    columns = np.arange(3, 36)
    rows = 4 + (columns - 3) // 2
    p[1, rows, columns] = np.where(columns < 16, 1.0, 0.31)
    sure = p > 0.5
    out = drawn_out(sure, p, (1.0, pixel_mm, pixel_mm))
    assert out[1, rows, columns].all() == (pixel_mm <= 1.0)
    assert pixel_mm <= 1.0 or (out == sure).all()


def test_a_piece_too_far_from_the_point_is_of_something_else() -> None:
    mask = np.zeros((5, 21, 21), dtype=np.bool_)
    mask[2, 10, 13:15] = True
    assert piece_at(mask, MIDDLE, MM).sum() == 2
    assert not piece_at(mask, np.array([2.0, 10.0, 9.0]), MM).any()


def test_a_mask_that_is_far_from_the_point_counts_only_where_that_is_wanted() -> None:
    p = np.zeros((5, 21, 21), dtype=np.float32)
    p[2, 2:5, 2:5] = 0.9
    assert not best_overlap(p, MIDDLE, MM)[0].any()
    assert best_overlap(p, MIDDLE, MM, reach_mm=np.inf)[0].sum() == 9

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.patches import PatchGrid, cut, point_channel, put_back, scaled

GRID = PatchGrid(shape=(16, 16, 16), spacing_mm=(1.0, 1.0, 1.0))


def ramp(shape: tuple[int, int, int], spacing: tuple[float, ...], slope: tuple[float, ...]) -> np.ndarray:
    at = np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    return sum(a * b for a, b in zip(at, slope, strict=True)).astype(np.float32)  # type: ignore[union-attr]


@settings(max_examples=25, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.5, 2.5)] * 3),
    offset=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    slope=st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_a_linear_image_is_cut_and_put_back_exactly(
    spacing: tuple[float, ...], offset: tuple[float, ...], slope: tuple[float, ...]
) -> None:
    shape = (60, 60, 60)
    image = ramp(shape, spacing, slope)
    point = [30 + o for o in offset]
    patch = cut(image, spacing, point, GRID)
    middle_mm = np.asarray(point) * spacing
    for corner in ((0, 0, 0), (15, 0, 15)):
        expected = sum((m + c - 7.5) * s for m, c, s in zip(middle_mm, corner, slope, strict=True))
        assert patch[corner] == pytest.approx(expected, abs=2e-3)
    back = put_back(patch, shape, spacing, point, GRID, outside=np.nan)
    at = (np.indices(shape).reshape(3, -1).T - point) * spacing
    inner = (np.abs(at) <= 7.5).all(axis=1).reshape(shape)
    assert inner.any()
    assert np.abs(back - image)[inner].max() < 5e-3


def test_what_lies_beyond_the_patch_has_the_value_for_outside() -> None:
    back = put_back(
        np.ones(GRID.shape, dtype=np.float32), (40, 40, 40), (1, 1, 1), (20, 20, 20), GRID, outside=-1
    )
    assert back[0, 0, 0] == -1
    assert np.count_nonzero(back == 1) == 17**3
    assert (put_back(np.ones(GRID.shape, np.float32), (4, 4, 4), (1, 1, 1), (90, 0, 0), GRID) == 0).all()


def test_beyond_the_image_its_outermost_voxels_are_repeated() -> None:
    image = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 2, 1), dtype=np.float32)
    patch = cut(image, (1, 1, 1), (1, 0.5, 0), GRID)
    assert patch[0].tolist() == np.zeros((16, 16)).tolist()
    assert (patch[-1] == 2).all()


def test_the_point_is_marked_where_it_lies() -> None:
    marked = point_channel(GRID, 2.0, offset_mm=(0.5, -1.5, 2.5))
    assert np.unravel_index(int(marked.argmax()), marked.shape) == (8, 6, 10)
    assert marked.max() == pytest.approx(1.0)


def test_a_window_ends_at_minus_one_and_one() -> None:
    hu = np.array([[[-2000.0, -1000.0, -300.0, 400.0, 3000.0]]], dtype=np.float32)
    assert scaled(hu, -1000, 400).ravel().tolist() == [-1, -1, 0, 1, 1]

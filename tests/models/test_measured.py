from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.measured import measured_extent

WHOLE = (slice(0, 12), slice(0, 20), slice(0, 16))
margins = st.tuples(*[st.tuples(st.integers(0, 9), st.integers(0, 9))] * 3)
fills = st.sampled_from([{"mode": "edge"}, *({"constant_values": hu} for hu in (-2000, -1000, 0, 40))])


def noise(seed: int = 0, shape: tuple[int, ...] = (12, 20, 16), sd_hu: float = 10.0) -> np.ndarray:
    hu = np.random.default_rng(seed).normal(-850, sd_hu, shape)
    return np.rint(hu).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(around=margins, fill=fills, seed=st.integers(0, 99), sd_hu=st.sampled_from([2.0, 10.0, 60.0]))
def test_what_was_put_around_an_image_is_found_on_each_side(
    around: tuple[tuple[int, int], ...], fill: dict[str, Any], seed: int, sd_hu: float
) -> None:
    image = noise(seed, sd_hu=sd_hu)
    found = measured_extent(np.pad(image, around, **fill))
    assert found == tuple(slice(low, low + n) for (low, _), n in zip(around, image.shape, strict=True))


@given(around=margins)
def test_of_two_paddings_around_each_other_both_are_found(around: tuple[tuple[int, int], ...]) -> None:
    large = np.pad(np.pad(noise(), around, mode="edge"), 2, constant_values=-1000)
    found = measured_extent(large)
    assert found == tuple(
        slice(low + 2, low + 2 + n) for (low, _), n in zip(around, (12, 20, 16), strict=True)
    )


@given(around=margins, mode=st.sampled_from(["reflect", "symmetric", "wrap"]))
def test_mirrored_and_wrapped_surroundings_pass_for_measured(
    around: tuple[tuple[int, int], ...], mode: str
) -> None:
    large = np.pad(noise(), [(max(low, 2), max(high, 2)) for low, high in around], mode=mode)  # type: ignore[call-overload]
    found = measured_extent(large)
    assert all(side.stop - side.start >= n - 2 for side, n in zip(found, large.shape, strict=True))


def rod(length: int, caps: int = 0) -> np.ndarray:
    """Return a rod along k that begins at the first slice, with a rounded end when it has caps, without noise."""
    k, r, c = np.indices((40, 30, 30))
    beyond = np.maximum(k - length, 0)
    inside = ((r - 15) ** 2 + (c - 15) ** 2 + beyond**2 <= 36) & (k <= length + caps)
    return np.where(inside, np.float32(40), np.float32(-850))


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(rod(39), id="a-rod-through-all-slices"),
        pytest.param(rod(20), id="a-rod-that-ends-flat"),
        pytest.param(rod(20, 6), id="a-capsule"),
        pytest.param(np.full((5, 6, 7), -1000.0), id="one-value"),
        pytest.param(np.zeros((1, 1, 1)), id="one-voxel"),
        pytest.param(np.where(np.arange(40)[:, None, None] < 20, np.zeros((40, 9, 9)), 40), id="two-slabs"),
        pytest.param(np.repeat(noise(), 2, axis=0)[:, :1, :1], id="doubled-slices-of-one-voxel"),
    ],
)
def test_a_phantom_without_noise_stays_whole(image: np.ndarray) -> None:
    assert measured_extent(image) == tuple(slice(0, n) for n in image.shape)


@given(radius=st.floats(1.0, 9.0), off=st.floats(-0.5, 0.5))
def test_a_ball_without_noise_stays_whole_whatever_its_size(radius: float, off: float) -> None:
    at = np.indices((24, 24, 24)) - (12 + off)
    image = np.where((at**2).sum(axis=0) <= radius**2, np.float32(40), np.float32(-850))
    assert measured_extent(image) == (slice(0, 24),) * 3


def test_one_image_many_times_keeps_all_its_slices_and_loses_its_frame() -> None:
    stacked = np.stack([np.pad(noise()[0], 4, constant_values=-1000)] * 7)
    assert measured_extent(stacked) == (slice(0, 7), slice(4, 24), slice(4, 20))


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("first", [0, 1])
def test_slices_that_were_doubled_are_all_measured(times: int, first: int) -> None:
    doubled = np.repeat(noise(), times, axis=0)[first:]
    assert measured_extent(doubled) == (slice(0, len(doubled)), *WHOLE[1:])


def test_planes_that_are_equal_inside_of_an_image_are_measured() -> None:
    image = noise()
    image[5] = image[4]
    image[7] = -1000
    assert measured_extent(image) == WHOLE


def test_one_voxel_that_differs_makes_a_plane_a_measured_one() -> None:
    large = np.pad(noise(), 4, mode="edge")
    large[1, 3, 3] += 1
    assert measured_extent(large)[0] == slice(0, 16)

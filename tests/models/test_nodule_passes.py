from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from models.nodule_passes import NoduleView, channels, draw, nearest_piece

VIEW = NoduleView(
    shape=(24, 24, 24),
    voxels_mm=(0.5, 1.0, 2.0),
    fits_mm=(8.0, 16.0),
    first=1,
    windows_hu=((-1000.0, 400.0),),
    point_sigma_mm=3.0,
)


def bright(patches: np.ndarray) -> np.ndarray:
    """Stand in for a network: what is brighter than -300 HU is nodule."""
    return np.asarray(patches[:, :1] * 20, dtype=np.float32)


def ball(centre: tuple[float, ...], radius_mm: float, spacing: tuple[float, ...]) -> np.ndarray:
    at = (np.indices((30, 50, 50)).reshape(3, -1).T - centre) * spacing
    return (
        np.where(np.linalg.norm(at, axis=1) <= radius_mm, 400.0, -1000.0)
        .reshape(30, 50, 50)
        .astype(np.float32)
    )


@pytest.mark.parametrize(("radius_mm", "voxel_mm"), [(3.0, 0.5), (7.0, 1.0), (10.0, 2.0)])
def test_the_voxel_size_follows_the_size_of_the_nodule(radius_mm: float, voxel_mm: float) -> None:
    spacing = (1.0, 0.7, 0.7)
    image = ball((15, 25, 25), radius_mm, spacing)
    drawn = draw([bright], VIEW, image, spacing, (15, 25, 25))
    assert drawn.grid.spacing_mm == (voxel_mm,) * 3
    found = drawn.probabilities(image.shape, spacing) > 0.5
    both = np.count_nonzero(found & (image > 0))
    assert 2 * both / (np.count_nonzero(found) + np.count_nonzero(image > 0)) > 0.9


def test_a_point_beside_the_centre_is_moved_to_the_centre() -> None:
    spacing = (1.0, 0.7, 0.7)
    image = ball((14.3, 25.2, 24.6), 5.0, spacing)
    drawn = draw([bright], VIEW, image, spacing, (16.3, 27.2, 22.6))
    assert np.abs((np.asarray(drawn.point) - (14.3, 25.2, 24.6)) * spacing).max() < 0.3


def test_one_pass_moves_the_point_by_no_more_than_it_may() -> None:
    image = ball((15, 25, 38), 4.0, (1.0, 1.0, 1.0))
    view = NoduleView(**{**VIEW.__dict__, "furthest_mm": 2.0, "passes": 2})
    drawn = draw([bright], view, image, (1.0, 1.0, 1.0), (15, 25, 30))
    assert drawn.point == pytest.approx((15, 25, 32), abs=0.05)


def test_mirrors_and_networks_are_averaged_after_they_are_turned_back() -> None:
    image = np.random.default_rng(0).normal(-300, 300, (30, 50, 50)).astype(np.float32)
    view = NoduleView(**{**VIEW.__dict__, "passes": 1})
    one = draw([bright], view, image, (1, 1, 1), (15, 25, 25))
    eight = draw([bright, lambda x: bright(x) * 3], view, image, (1, 1, 1), (15, 25, 25), mirrors=8)
    assert np.allclose(eight.logits, 2 * one.logits, atol=1e-4)


def test_nothing_is_drawn_where_nothing_is_seen() -> None:
    image = np.full((5, 9, 9), -1000, dtype=np.float32)
    drawn = draw([lambda x: x[:, :1] * 0 - 9], VIEW, image, (1, 1, 1), (2, 4, 4))
    assert drawn.probabilities(image.shape, (1, 1, 1)).max() < 0.01


def test_the_acquisition_is_told_when_the_view_says_so() -> None:
    view = NoduleView(**{**VIEW.__dict__, "tells_acquisition": True})
    shown = channels(view, np.zeros(view.shape, np.float32), 0.8, (2.5, 0.7, 0.7), np.full(24, 0.25))
    assert shown.shape == (view.channels, 24, 24, 24)
    assert shown[2:, 3, 4, 5].tolist() == pytest.approx([0.25, 1.0, 0.0, 0.0])


def test_of_two_pieces_the_nearer_is_kept() -> None:
    mask = np.zeros((3, 3, 9), dtype=bool)
    mask[1, 1, 1] = mask[1, 1, 5:8] = True
    assert np.argwhere(nearest_piece(mask, (1, 1, 2), (1, 1, 1))).tolist() == [[1, 1, 1]]
    assert nearest_piece(mask, (1, 1, 2), (1, 1, 1)).sum() == 1


def test_a_view_is_read_from_a_card() -> None:
    plain = {
        "shape": [24, 24, 24],
        "voxels_mm": [0.5, 1, 2],
        "fits_mm": [8, 16],
        "first": 1,
        "windows_hu": [[-1000, 400]],
        "point_sigma_mm": 3.0,
    }
    assert NoduleView.of(plain) == VIEW


@pytest.mark.parametrize(
    ("key", "said"), [("voxels_mm", [2, 1, 0.5]), ("fits_mm", [16, 8]), ("fits_mm", [8, 8])]
)
def test_a_view_whose_sizes_are_not_in_ascending_order_is_refused(key: str, said: list[float]) -> None:
    plain = {**asdict(VIEW), key: said}
    with pytest.raises(
        ValueError, match="voxels_mm and fits_mm are named in ascending order, the finest first"
    ):
        NoduleView.of(plain)

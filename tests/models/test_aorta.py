from __future__ import annotations

import numpy as np
import pytest
from tube_phantom import FAT, LUNG, TISSUE, grid_mm, tube

from models.aorta import LENGTH_MM, tube_beside
from models.mass_outline import WALL_MM

MM = (3.0, 1.5, 1.5)
SHAPE = (50, 90, 90)


def ct(solid: np.ndarray, hu: float = TISSUE, noise_hu: float = 15.0) -> np.ndarray:
    """Return a CT with something in fat, and lung to one side of it."""
    image = np.full(solid.shape, FAT)
    image[:, :, 3 * solid.shape[2] // 5 :] = LUNG
    image[solid] = hu
    return (image + np.random.default_rng(1).normal(0, noise_hu, solid.shape)).astype(np.float32)


def beside(shape: tuple[int, int, int]) -> np.ndarray:
    """Return a lesion in the middle."""
    mask = np.zeros(shape, dtype=np.bool_)
    mask[tuple(slice(2 * n // 5, 3 * n // 5) for n in shape)] = True
    return mask


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@pytest.mark.parametrize("radius_mm", [10.0, 13.0, 17.0])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("hu", [TISSUE, 300.0])
def test_an_aorta_is_found_with_and_without_contrast(radius_mm: float, tilt: float, hu: float) -> None:
    truth = tube(SHAPE, MM, middle=(42.0, 47.0), radius_mm=radius_mm, tilt=tilt)
    found = tube_beside(ct(truth, hu), MM, beside(SHAPE))
    assert found is not None
    assert len(found.slices) >= SHAPE[0] - 3
    assert np.median(found.radii_mm) == pytest.approx(radius_mm - WALL_MM, abs=0.6)
    inner = slice(found.slices[0], found.slices[-1] + 1)
    assert dice(found.mask(SHAPE, MM, WALL_MM)[inner], truth[inner]) > 0.93


@pytest.mark.parametrize(("slice_mm", "pixel_mm"), [(1.0, 0.7), (5.0, 0.9)])
def test_it_is_found_on_other_grids(slice_mm: float, pixel_mm: float) -> None:
    spacing = (slice_mm, pixel_mm, pixel_mm)
    shape = (round(150 / slice_mm), round(130 / pixel_mm), round(130 / pixel_mm))
    truth = tube(shape, spacing, middle=(60 / pixel_mm, 70 / pixel_mm), radius_mm=12.0, tilt=0.1)
    found = tube_beside(ct(truth, noise_hu=25.0), spacing, beside(shape))
    assert found is not None
    inner = slice(found.slices[0], found.slices[-1] + 1)
    assert len(found.slices) * slice_mm > 130
    assert dice(found.mask(shape, spacing, WALL_MM)[inner], truth[inner]) > 0.93


def test_a_mass_on_it_hides_it_for_some_slices_and_no_more() -> None:
    truth = tube(SHAPE, MM, middle=(42.0, 47.0), radius_mm=13.0)
    mass = np.linalg.norm(grid_mm(SHAPE, MM) - np.array([75.0, 63.0, 105.0]), axis=-1) <= 25.0
    found = tube_beside(ct(truth | mass), MM, mass)
    assert found is not None
    assert dice(found.mask(SHAPE, MM, WALL_MM)[2:-2], truth[2:-2]) > 0.9
    assert (found.mask(SHAPE, MM, WALL_MM) & mass & ~truth).sum() < 0.05 * mass.sum()


NONE = {
    "a ball": np.linalg.norm(grid_mm(SHAPE, MM) - np.array([75.0, 63.0, 70.0]), axis=-1) <= 20.0,
    "a short tube": tube(SHAPE, MM, middle=(42.0, 47.0), radius_mm=13.0, slices=(15, 34)),
    "a vessel": tube(SHAPE, MM, middle=(42.0, 47.0), radius_mm=5.0),
    "a heart": tube(SHAPE, MM, middle=(42.0, 47.0), radius_mm=40.0),
}


@pytest.mark.parametrize("what", NONE)
def test_what_is_shorter_thinner_or_wider_is_none(what: str) -> None:
    assert tube_beside(ct(NONE[what]), MM, beside(SHAPE)) is None


def test_what_lies_across_the_slices_is_none() -> None:
    at = grid_mm(SHAPE, MM)
    across = np.hypot(at[..., 0] - 75.0, at[..., 1] - 63.0) <= 13.0
    assert tube_beside(ct(across), MM, beside(SHAPE)) is None


@pytest.mark.parametrize("hu", [-1000.0, 700.0])
def test_a_windpipe_and_a_column_of_bone_are_none(hu: float) -> None:
    assert (
        tube_beside(ct(tube(SHAPE, MM, middle=(42.0, 47.0), radius_mm=12.0), hu), MM, beside(SHAPE)) is None
    )


def test_an_image_shorter_than_a_tube_holds_none() -> None:
    few = int(LENGTH_MM / MM[0]) - 1
    shape = (few, *SHAPE[1:])
    truth = tube(shape, MM, middle=(42.0, 47.0), radius_mm=13.0)
    assert tube_beside(ct(truth), MM, beside(shape)) is None

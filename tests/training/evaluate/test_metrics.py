from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from training.evaluate.metrics import (
    dice,
    hd95_mm,
    long_axis_mm,
    region_figures,
    surface_dice,
    surface_distances_mm,
)

SPACING = (1.5, 0.8, 0.7)
Mask = np.typing.NDArray[np.bool_]


def sphere(
    centre_mm: tuple[float, float, float], radius_mm: float, step_mm: float = 0.5, size: int = 72
) -> Mask:
    axes = np.arange(size) * step_mm
    k, r, c = np.meshgrid(axes, axes, axes, indexing="ij")
    far = (k - centre_mm[0]) ** 2 + (r - centre_mm[1]) ** 2 + (c - centre_mm[2]) ** 2
    return np.asarray(far <= radius_mm**2)


def blobs(seed: int, shape: tuple[int, int, int] = (14, 22, 20)) -> tuple[Mask, Mask]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(2, *shape)), (0, 2, 2, 2))
    return noise[0] > 0.02, noise[1] > 0.02


@pytest.mark.parametrize("shift_mm", [0.0, 2.0, 5.0])
def test_two_spheres_overlap_as_geometry_says(shift_mm: float) -> None:
    radius = 8.0
    first, second = sphere((18, 18, 18), radius), sphere((18, 18, 18 + shift_mm), radius)
    lens = np.pi * (4 * radius + shift_mm) * (2 * radius - shift_mm) ** 2 / 12
    whole = 4 / 3 * np.pi * radius**3
    found = region_figures(second, first, (0.5, 0.5, 0.5))
    assert found.dice == pytest.approx(lens / whole, abs=0.005)
    assert found.iou == pytest.approx(lens / (2 * whole - lens), abs=0.007)
    assert found.sensitivity == pytest.approx(lens / whole, abs=0.005)
    assert found.truth_ml == pytest.approx(whole / 1000, rel=0.01)
    assert found.volume_error == pytest.approx(0, abs=0.001)
    assert found.truth_long_axis_mm == pytest.approx(2 * radius, abs=0.75)
    assert found.long_axis_error_mm == pytest.approx(0, abs=1e-9)


def test_distance_of_concentric_spheres_is_the_difference_of_their_radii() -> None:
    inner, outer = sphere((18, 18, 18), 6.0), sphere((18, 18, 18), 9.0)
    distances = surface_distances_mm(inner, outer, (0.5, 0.5, 0.5))
    assert hd95_mm(distances) == pytest.approx(3.0, abs=0.5)
    assert surface_dice(distances, 2.4) == 0.0
    assert surface_dice(distances, 3.6) == 1.0
    found = region_figures(outer, inner, (0.5, 0.5, 0.5))
    assert found.volume_error == pytest.approx((9 / 6) ** 3 - 1, rel=0.02)
    assert found.long_axis_error_mm == pytest.approx(6.0, abs=0.6)


def test_two_planes_are_as_far_apart_as_their_slices() -> None:
    first, second = np.zeros((2, 12, 8, 8), dtype=np.bool_)
    first[2], second[6] = True, True
    distances = surface_distances_mm(first, second, SPACING)
    assert hd95_mm(distances) == pytest.approx(4 * SPACING[0])
    assert surface_dice(distances, 4 * SPACING[0] - 0.01) == 0.0
    assert surface_dice(distances, 4 * SPACING[0]) == 1.0


def test_where_both_are_empty_all_is_right_and_where_one_is_all_is_wrong() -> None:
    empty = np.zeros((5, 6, 7), dtype=np.bool_)
    some = empty.copy()
    some[2, 2:5, 2:6] = True
    both = region_figures(empty, empty, SPACING)
    assert (both.dice, both.iou, both.hd95_mm, both.surface_dice) == (1.0, 1.0, 0.0, (1.0, 1.0))
    assert (both.sensitivity, both.volume_error, both.specificity) == (None, None, 1.0)
    missed = region_figures(empty, some, SPACING)
    assert (missed.dice, missed.iou, missed.hd95_mm, missed.surface_dice) == (0.0, 0.0, None, (0.0, 0.0))
    assert (missed.sensitivity, missed.volume_error) == (0.0, -1.0)
    assert missed.long_axis_error_mm == pytest.approx(-long_axis_mm(some, SPACING))
    invented = region_figures(some, empty, SPACING)
    assert (invented.dice, invented.hd95_mm, invented.surface_dice) == (0.0, None, (0.0, 0.0))
    assert invented.specificity == pytest.approx(1 - 12 / 210)


def test_masks_of_two_grids_are_no_case() -> None:
    with pytest.raises(ValueError, match="shape"):
        dice(np.zeros((2, 2, 2), dtype=np.bool_), np.zeros((2, 2, 3), dtype=np.bool_))


@pytest.mark.filterwarnings("ignore:monai.metrics.utils:FutureWarning")
@pytest.mark.parametrize("seed", range(6))
def test_surfaces_agree_with_monai_on_random_masks(seed: int) -> None:
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    drawn, truth = blobs(seed)
    given = [torch.from_numpy(m[None, None].astype(np.float32)) for m in (drawn, truth)]
    found = region_figures(drawn, truth, SPACING)
    theirs = compute_hausdorff_distance(*given, include_background=True, percentile=95, spacing=SPACING)
    assert found.hd95_mm == pytest.approx(float(theirs), abs=1e-4)
    for own, tolerance in zip(found.surface_dice, (1.0, 2.0), strict=True):
        both = compute_surface_dice(
            *given, class_thresholds=[tolerance], include_background=True, spacing=SPACING
        )
        assert own == pytest.approx(float(both), abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_overlaps_agree_with_simpleitk_on_random_masks(seed: int) -> None:
    drawn, truth = blobs(seed)
    measures = SimpleITK.LabelOverlapMeasuresImageFilter()
    measures.Execute(*(SimpleITK.GetImageFromArray(m.astype(np.uint8)) for m in (drawn, truth)))
    found = region_figures(drawn, truth, SPACING)
    assert found.dice == pytest.approx(measures.GetDiceCoefficient())
    assert found.iou == pytest.approx(measures.GetJaccardCoefficient())
    assert found.sensitivity == pytest.approx(1 - measures.GetFalseNegativeError())
    assert found.volume_error == pytest.approx(int(drawn.sum()) / int(truth.sum()) - 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_turning_both_masks_changes_nothing_but_the_plane_of_the_long_axis(
    seed: int, order: list[int], flipped: tuple[bool, bool, bool]
) -> None:
    drawn, truth = blobs(seed, (9, 10, 11))
    axes = [axis for axis, turned in enumerate(flipped) if turned]
    turned = [np.flip(m, axes).transpose(order) for m in (drawn, truth)]
    before = region_figures(drawn, truth, SPACING)
    after = region_figures(*turned, tuple(SPACING[axis] for axis in order))  # type: ignore[arg-type]
    assert after.dice == before.dice
    assert after.hd95_mm == (None if before.hd95_mm is None else pytest.approx(before.hd95_mm))
    assert after.surface_dice == pytest.approx(before.surface_dice)

"""Long and short axis: closed-form bodies, an independent brute force, and properties."""

from __future__ import annotations

import itertools
from dataclasses import replace

import highdicom
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from shapes import around, grid
from skimage.measure import find_contours

from plugins.contract import Mask, Volume
from plugins.errors import Refused
from plugins.measure.axes import (
    CONTOUR,
    PIXEL_CENTRE,
    Axes,
    axes_method,
    measure_axes,
    measure_node_axes,
    plane_name,
)

SPACINGS = ((1.0, 0.7, 0.7), (2.5, 0.5, 0.9), (3.0, 0.9766, 0.9766), (1.5, 1.2, 0.8))
ORIENTATIONS = ("axial", "coronal", "sagittal")
small_masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)).filter(
    np.any
)


def end_to_end(axes: Axes) -> tuple[float, float]:
    return tuple(
        float(np.linalg.norm(np.subtract(*ends)))
        for ends in (axes.long_end_points_mm, axes.short_end_points_mm)
    )


def brute_long_axis(pixels: NDArray[np.bool_], row_mm: float, column_mm: float) -> float:
    """Return the largest distance between any two points of scikit-image's 0.5-level contours."""
    points = np.concatenate(find_contours(np.pad(pixels, 1).astype(float), 0.5)) * [row_mm, column_mm]
    return float(pdist(points).max())


def brute_chord(
    pixels: NDArray[np.bool_], ends: NDArray[np.float64], row_mm: float, column_mm: float
) -> float:
    """Return the longest perpendicular run of points inside the contours, sampled every 0.02 mm, even-odd."""
    scale = np.array([row_mm, column_mm])
    contours = find_contours(np.pad(pixels, 1).astype(float), 0.5, fully_connected="high")
    polygons = [Polygon((c - 1) * scale) for c in contours]
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    across = np.array([-along[1], along[0]])
    corners = np.concatenate([p.vertices for p in polygons])
    t = np.arange((corners @ along).min() + 1e-4, (corners @ along).max(), 0.02)
    s = np.arange((corners @ across).min() - 0.02, (corners @ across).max() + 0.02, 0.02)
    points = (t[:, None, None] * along + s[None, :, None] * across).reshape(-1, 2)
    inside = np.sum([p.contains_points(points) for p in polygons], axis=0).reshape(len(t), len(s)) % 2 == 1
    runs = [sum(group) for row in inside for hit, group in itertools.groupby(row) if hit]
    return max(runs, default=0) * 0.02


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("diameter", [5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0])
def test_the_axes_of_a_sphere_are_within_one_pixel_of_its_largest_section(
    diameter: float, spacing: tuple[float, float, float], orientation: str
) -> None:
    volume, mask, body = around((diameter / 2,) * 3, spacing, orientation, offset_voxels=(0.2, -0.3, 0.4))
    axes = measure_axes(mask, volume)
    long_mm, short_mm = body.largest_section_axes_mm(volume)
    pixel_mm = max(spacing[1:])
    assert abs(axes.long_axis_mm - long_mm) <= pixel_mm
    assert abs(axes.short_axis_mm - short_mm) <= pixel_mm
    assert end_to_end(axes) == pytest.approx((axes.long_axis_mm, axes.short_axis_mm))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (20.0, -10.0, 35.0)])
@pytest.mark.parametrize("turn", [(0.0, 0.0, 30.0), (25.0, 40.0, 70.0), (80.0, 15.0, 110.0)])
@pytest.mark.parametrize("semi_axes", [(4.0, 3.0, 6.0), (12.0, 7.0, 9.0), (30.0, 14.0, 20.0)])
def test_the_axes_of_an_oblique_ellipsoid_are_within_one_pixel_of_its_largest_section(
    semi_axes: tuple[float, float, float],
    turn: tuple[float, float, float],
    tilt: tuple[float, float, float],
    orientation: str,
) -> None:
    spacing = (1.25, 0.6, 0.85)
    volume, mask, body = around(semi_axes, spacing, orientation, turn_degrees=turn, tilt_degrees=tilt)
    axes = measure_axes(mask, volume)
    long_mm, short_mm = body.largest_section_axes_mm(volume)
    assert abs(axes.long_axis_mm - long_mm) <= max(spacing[1:])
    assert abs(axes.short_axis_mm - short_mm) <= max(spacing[1:])


def test_the_end_points_of_a_known_bar_are_its_ends_in_patient_coordinates() -> None:
    full = np.zeros((5, 9, 12), dtype=bool)
    full[2, 4, 3:10] = True
    volume = grid((5, 9, 12), (3.0, 0.5, 0.8), start_mm=(10.0, 20.0, 30.0))
    axes = measure_axes(Mask.from_full(full), volume)
    assert axes.long_axis_mm == pytest.approx(7 * 0.8)
    assert axes.short_axis_mm == pytest.approx(0.5)
    assert axes.slice_index == 2
    assert sorted(axes.long_end_points_mm) == [
        pytest.approx((12.0, 22.0, 36.0)),
        pytest.approx((17.6, 22.0, 36.0)),
    ]


@pytest.mark.parametrize(
    ("convention", "long_mm", "short_mm"), [(CONTOUR, 0.9, 0.6), (PIXEL_CENTRE, 0.0, 0.0)]
)
def test_a_single_voxel_measures_one_pixel_or_nothing(
    convention: str, long_mm: float, short_mm: float
) -> None:
    full = np.zeros((3, 4, 5), dtype=bool)
    full[1, 2, 3] = True
    axes = measure_axes(Mask.from_full(full), grid((3, 4, 5), (2.0, 0.6, 0.9)), convention)  # type: ignore[arg-type]
    assert (axes.long_axis_mm, axes.short_axis_mm) == pytest.approx((long_mm, short_mm))


def test_the_pixel_centre_convention_measures_from_centre_to_centre() -> None:
    full = np.zeros((1, 7, 11), dtype=bool)
    full[0, 1:6, 1:10] = True
    full[0, 1, 1] = full[0, 1, 9] = full[0, 5, 1] = full[0, 5, 9] = False
    full[0, 0, 5] = True
    axes = measure_axes(Mask.from_full(full), grid((1, 7, 11), (1.0, 1.0, 1.0)), PIXEL_CENTRE)
    assert axes.long_axis_mm == pytest.approx(np.hypot(8, 2), abs=1e-5)
    assert end_to_end(axes) == pytest.approx((axes.long_axis_mm, axes.short_axis_mm))


def test_the_short_axis_is_a_chord_and_not_the_width_between_the_arms_of_a_bay() -> None:
    full = np.zeros((1, 12, 32), dtype=bool)
    full[0, 0:2, 1:31] = True
    full[0, :10, 1:4] = full[0, :10, 28:31] = True
    axes = measure_axes(Mask.from_full(full), grid((1, 12, 32), (1.0, 1.0, 1.0)))
    caliper_mm = 10.0
    assert axes.long_axis_mm > 30.0
    assert 9.0 < axes.short_axis_mm < 11.0
    full[0, :10, 28:31] = False
    full[0, 0:2, 28:31] = True
    full[0, 8:10, 1:4] = False
    bay = measure_axes(Mask.from_full(full), grid((1, 12, 32), (1.0, 1.0, 1.0)))
    assert bay.short_axis_mm < caliper_mm


def test_a_cavity_is_measured_across() -> None:
    volume, mask, _ = around((12.0, 12.0, 12.0), (2.0, 0.8, 0.8))
    solid = measure_axes(mask, volume)
    voxels = mask.voxels.copy()
    k, r, c = (n // 2 for n in voxels.shape)
    voxels[k - 2 : k + 3, r - 6 : r + 7, c - 6 : c + 7] = False
    hollow = measure_axes(replace(mask, voxels=voxels), volume)
    assert hollow.short_axis_mm == pytest.approx(solid.short_axis_mm)
    assert hollow.long_axis_mm == pytest.approx(solid.long_axis_mm)


def test_the_largest_piece_is_measured_and_not_the_distance_to_another() -> None:
    full = np.zeros((3, 20, 40), dtype=bool)
    full[1, 2:8, 2:8] = True
    full[1, 12, 20:34] = True
    axes = measure_axes(Mask.from_full(full), grid((3, 20, 40), (1.0, 1.0, 1.0)))
    assert axes.pieces == 2
    assert axes.long_axis_mm == pytest.approx(np.hypot(6, 5))


def test_a_mask_that_is_read_only_is_measured_as_any_other() -> None:
    volume, mask, _ = around((9.0, 6.0, 5.0), (2.0, 0.9, 0.9))
    expected = measure_axes(mask, volume)
    mask.voxels.flags.writeable = False
    assert measure_axes(mask, volume) == expected


def test_two_islands_of_one_slice_that_belong_together_are_measured_apart() -> None:
    full = np.zeros((2, 5, 30), dtype=bool)
    full[0, 2, 2:28] = True
    full[1, 2, 2:8] = full[1, 2, 20:28] = True
    full[0, 2, 12:14] = False
    joined = full.copy()
    joined[1, 2, 8:20] = True
    volume = grid((2, 5, 30), (1.0, 1.0, 1.0))
    assert measure_axes(Mask.from_full(joined), volume).long_axis_mm == pytest.approx(26.0)
    apart = measure_axes(Mask.from_full(full), volume)
    assert apart.pieces == 2
    assert apart.long_axis_mm == pytest.approx(14.0)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    full = np.zeros((1, 4, 4), dtype=bool)
    full[0, 1, 1] = full[0, 2, 2] = True
    axes = measure_axes(Mask.from_full(full), grid((1, 4, 4), (1.0, 1.0, 1.0)))
    assert axes.pieces == 1
    assert axes.long_axis_mm == pytest.approx(np.hypot(2, 1))


def test_a_node_is_measured_where_its_perpendicular_is_largest() -> None:
    full = np.zeros((2, 20, 40), dtype=bool)
    full[0, 8:11, 2:38] = True
    full[1, 3:17, 10:26] = True
    mask, volume = Mask.from_full(full), grid((2, 20, 40), (1.0, 1.0, 1.0))
    assert measure_axes(mask, volume).slice_index == 0
    node = measure_node_axes(mask, volume)
    assert node.slice_index == 1
    assert node.short_axis_mm > measure_axes(mask, volume).short_axis_mm


def test_slightly_uneven_slices_keep_their_own_position() -> None:
    full = np.zeros((3, 5, 5), dtype=bool)
    full[1, 2, 1:4] = True
    positions = ((0.0, 0.0, 0.0), (0.0, 0.0, 3.02), (0.0, 0.0, 6.0))
    volume = grid((3, 5, 5), (3.0, 1.0, 1.0), start_mm=(0.0, 0.0, 0.0), slice_positions=positions)
    axes = measure_axes(Mask.from_full(full), volume)
    assert {p[2] for p in axes.long_end_points_mm} == {3.02}


def test_a_mask_of_another_grid_and_an_empty_one_are_refused_with_their_codes() -> None:
    volume = grid((3, 4, 5), (1.0, 1.0, 1.0))
    with pytest.raises(Refused) as other:
        measure_axes(Mask.from_full(np.ones((3, 4, 6), dtype=bool)), volume)
    assert other.value.code == "mask-of-another-grid"
    with pytest.raises(Refused) as empty:
        measure_axes(Mask.from_full(np.zeros((3, 4, 5), dtype=bool)), volume)
    assert empty.value.code == "empty-mask"


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_plane_is_named_after_the_series(orientation: str) -> None:
    assert plane_name(grid((2, 2, 2), (1, 1, 1), orientation)) == orientation
    tilted = grid((2, 2, 2), (1, 1, 1), orientation, tilt_degrees=(25, 25, 25))
    assert plane_name(tilted).startswith("oblique ")
    long_words, short_words = axes_method(tilted)
    assert long_words == f"0.5-level contour, {plane_name(tilted)} slice of largest long axis"
    assert short_words == "0.5-level contour, longest perpendicular chord, same slice"
    assert "largest short axis" in axes_method(tilted, PIXEL_CENTRE, node=True)[0]


def test_only_the_box_of_the_mask_is_looked_at() -> None:
    shape = (2000, 4096, 4096)
    whole = np.broadcast_to(np.float32(0.0), shape)
    volume = replace(grid((2, 2, 2), (1.0, 0.7, 0.7)), array=whole, slice_positions=())
    small, mask, _ = around((10.0, 8.0, 6.0), (1.0, 0.7, 0.7))
    far = Mask(shape=shape, origin=(1500, 3000, 2000), voxels=mask.voxels)
    assert measure_axes(far, volume).long_axis_mm == pytest.approx(measure_axes(mask, small).long_axis_mm)


@settings(max_examples=60, deadline=None)
@given(small_masks)
def test_the_long_axis_equals_a_brute_force_over_scikit_image_contours(full: NDArray[np.bool_]) -> None:
    full = full[:1]
    if not full.any():
        return
    volume = grid(full.shape, (2.0, 0.7, 1.1))  # type: ignore[arg-type]
    axes = measure_axes(Mask.from_full(full), volume)
    if axes.pieces == 1:
        assert axes.long_axis_mm == pytest.approx(brute_long_axis(full[0], 0.7, 1.1))
    else:
        assert axes.long_axis_mm <= brute_long_axis(full[0], 0.7, 1.1) + 1e-9


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.bool_, (1, 6, 7)).filter(np.any))
def test_the_short_axis_equals_a_brute_force_inside_the_contour(full: NDArray[np.bool_]) -> None:
    from scipy import ndimage

    full = ndimage.binary_fill_holes(full[0])[None]
    volume = grid((1, 6, 7), (2.0, 0.7, 1.1), start_mm=(0.0, 0.0, 0.0))
    axes = measure_axes(Mask.from_full(full), volume)
    if axes.pieces > 1:
        return
    ends = np.array(axes.long_end_points_mm)[:, 1::-1]
    assert axes.short_axis_mm == pytest.approx(brute_chord(full[0], ends, 0.7, 1.1), abs=0.08)


@settings(max_examples=60, deadline=None)
@given(small_masks, st.sampled_from([CONTOUR, PIXEL_CENTRE]))
def test_flips_and_in_plane_transposes_change_no_length(full: NDArray[np.bool_], convention: str) -> None:
    spacing = (2.0, 0.7, 1.1)
    axes = measure_axes(Mask.from_full(full), grid(full.shape, spacing), convention)  # type: ignore[arg-type]
    expected = pytest.approx((axes.long_axis_mm, axes.short_axis_mm), abs=1e-5)
    for axis in range(3):
        turned = np.flip(full, axis)
        other = measure_axes(Mask.from_full(turned), grid(full.shape, spacing), convention)  # type: ignore[arg-type]
        assert (other.long_axis_mm, other.short_axis_mm) == expected
    swapped = full.transpose(0, 2, 1)
    volume = grid(swapped.shape, (2.0, 1.1, 0.7))  # type: ignore[arg-type]
    other = measure_axes(Mask.from_full(swapped), volume, convention)  # type: ignore[arg-type]
    assert (other.long_axis_mm, other.short_axis_mm) == expected


@settings(max_examples=60, deadline=None)
@given(small_masks, st.floats(0.2, 5.0), st.tuples(*[st.floats(-180, 180)] * 3))
def test_lengths_scale_with_the_spacing_and_ignore_orientation_and_place(
    full: NDArray[np.bool_], factor: float, tilt: tuple[float, float, float]
) -> None:
    shape: tuple[int, int, int] = full.shape  # type: ignore[assignment]
    mask = Mask.from_full(full)
    axes = measure_axes(mask, grid(shape, (2.0, 0.7, 1.1)))
    scaled = measure_axes(
        mask,
        grid(shape, (2.0 * factor, 0.7 * factor, 1.1 * factor), tilt_degrees=tilt, start_mm=(400, -300, 900)),
    )
    assert scaled.long_axis_mm == pytest.approx(axes.long_axis_mm * factor)
    assert scaled.short_axis_mm == pytest.approx(axes.short_axis_mm * factor, abs=1e-5)


@settings(max_examples=80, deadline=None)
@given(small_masks, st.sampled_from([CONTOUR, PIXEL_CENTRE]))
def test_the_end_points_are_as_far_apart_as_the_value_perpendicular_and_in_the_slice(
    full: NDArray[np.bool_], convention: str
) -> None:
    volume = _tilted(full.shape)
    axes = measure_axes(Mask.from_full(full), volume, convention)  # type: ignore[arg-type]
    assert axes.short_axis_mm <= axes.long_axis_mm + 1e-9
    assert end_to_end(axes) == pytest.approx((axes.long_axis_mm, axes.short_axis_mm), abs=1e-6)
    long, short = (np.subtract(*ends) for ends in (axes.long_end_points_mm, axes.short_end_points_mm))
    assert abs(long @ short) < 1e-6
    for point in (*axes.long_end_points_mm, *axes.short_end_points_mm):
        assert volume.to_index(point)[0] == pytest.approx(axes.slice_index, abs=1e-6)


def _tilted(shape: tuple[int, ...]) -> Volume:
    volume = grid(shape, (2.0, 0.7, 1.1), tilt_degrees=(12.0, 33.0, -71.0))  # type: ignore[arg-type]
    assert isinstance(volume.geometry, highdicom.VolumeGeometry)
    return volume

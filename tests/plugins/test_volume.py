"""Volume: closed-form bodies, SimpleITK, uneven slices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from shapes import around, grid

from plugins import codes
from plugins.contract import Mask
from plugins.errors import Refused
from plugins.measure.lesion import measure_lesion
from plugins.measure.volume import slice_thickness_mm, volume_by_positions_mm3, volume_mm3


@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (18.0, -31.0, 50.0)])
@pytest.mark.parametrize(
    ("semi_axes", "spacing"),
    [
        ((2.5, 2.5, 2.5), (0.4, 0.3, 0.3)),
        ((5.0, 5.0, 5.0), (1.0, 0.5, 0.6)),
        ((5.0, 3.0, 4.0), (0.6, 0.4, 0.4)),
        ((10.0, 10.0, 10.0), (1.25, 0.7, 0.7)),
        ((15.0, 8.0, 11.0), (1.5, 0.7, 0.9)),
        ((30.0, 30.0, 30.0), (3.0, 0.98, 0.98)),
        ((30.0, 14.0, 20.0), (2.0, 0.8, 0.8)),
    ],
)
def test_the_volume_of_a_body_of_many_voxels_is_within_two_percent(
    semi_axes: tuple[float, float, float],
    spacing: tuple[float, float, float],
    tilt: tuple[float, float, float],
    orientation: str,
) -> None:
    volume, mask, body = around(
        semi_axes,
        spacing,
        orientation,
        turn_degrees=(20.0, 50.0, 110.0),
        tilt_degrees=tilt,
        offset_voxels=(0.3, 0.1, 0.4),
    )
    assert volume_mm3(mask, volume) == pytest.approx(body.volume_mm3, rel=0.02)


@pytest.mark.parametrize("diameter", [5.0, 8.0, 10.0])
@pytest.mark.parametrize("spacing", [(2.5, 0.7, 0.9), (3.0, 0.9766, 0.9766), (5.0, 0.8, 0.8)])
def test_on_coarse_grids_the_volume_is_right_on_average_over_placements(
    diameter: float, spacing: tuple[float, float, float]
) -> None:
    """One placement may be off by far more than 2 %, up to the discretisation bound: counting is unbiased only."""
    steps = (np.arange(6) + 0.5) / 6
    ratios = []
    for offset in itertools.product(steps, steps, steps):
        volume, mask, body = around((diameter / 2,) * 3, spacing, offset_voxels=offset)
        ratios.append(volume_mm3(mask, volume) / body.volume_mm3)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.02)
    half_diagonal = np.linalg.norm(spacing) / 2
    assert np.max(ratios) - 1 < (1 + half_diagonal / (diameter / 2)) ** 3 - 1


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)).filter(np.any),
    st.tuples(*[st.floats(0.3, 6.0)] * 3),
)
def test_the_volume_is_that_of_simple_itk_and_ignores_flips_and_orientation(
    full: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> None:
    image = SimpleITK.GetImageFromArray(full.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    shapes = SimpleITK.LabelShapeStatisticsImageFilter()
    shapes.Execute(image)
    shape: tuple[int, int, int] = full.shape  # type: ignore[assignment]
    for orientation in ("axial", "coronal", "sagittal"):
        volume = grid(shape, spacing, orientation, tilt_degrees=(10, 20, 30))
        for turned in (full, full[::-1], full[:, ::-1, ::-1]):
            assert volume_mm3(Mask.from_full(turned), volume) == pytest.approx(shapes.GetPhysicalSize(1))


def test_uneven_slices_count_with_their_mean_distance_and_the_difference_is_told() -> None:
    z = (0.0, 3.0, 6.1, 9.0)
    volume = grid(
        (4, 2, 2),
        (3.0, 2.0, 2.0),
        start_mm=(0, 0, 0),
        slice_positions=tuple((0.0, 0.0, position) for position in z),
    )
    assert slice_thickness_mm(volume) == pytest.approx([3.0, 3.05, 3.0, 2.9])
    full = np.zeros((4, 2, 2), dtype=bool)
    full[1, 0, 0] = full[3, 1, 1] = True
    mask = Mask.from_full(full)
    assert volume_by_positions_mm3(mask, volume) == pytest.approx(4.0 * (3.05 + 2.9))
    assert volume_mm3(mask, volume) == pytest.approx(4.0 * 6.0)
    (measured,) = (m for m in measure_lesion(mask, volume) if m.name == "volume")
    assert measured.value == pytest.approx(0.024)
    assert "slices are uneven: 0.0238 ml" in measured.method
    even = grid((4, 2, 2), (3.0, 2.0, 2.0))
    assert volume_by_positions_mm3(mask, even) == pytest.approx(volume_mm3(mask, even))


def test_all_pieces_count_and_the_unit_is_millilitre() -> None:
    full = np.zeros((4, 5, 6), dtype=bool)
    full[0, 0, 0] = full[3, 4, 5] = True
    volume = grid((4, 5, 6), (5.0, 10.0, 10.0))
    (measured,) = (m for m in measure_lesion(Mask.from_full(full), volume) if m.name == "volume")
    assert measured.value == pytest.approx(1.0)
    assert measured.unit == codes.ML
    assert "voxel" in measured.method


def test_a_mask_of_another_grid_is_refused() -> None:
    with pytest.raises(Refused, match="mask-of-another-grid"):
        volume_mm3(Mask.from_full(np.ones((2, 2, 2), dtype=bool)), grid((2, 2, 3), (1, 1, 1)))

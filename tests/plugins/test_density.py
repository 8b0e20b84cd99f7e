"""Statistics of voxel values and lung density indices, with analytic truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from shapes import around, grid

from plugins import codes
from plugins.contract import Mask
from plugins.errors import Refused
from plugins.measure.density import density_indices, statistics
from plugins.measure.lesion import measure_lesion


def test_the_statistics_are_those_of_the_voxels_inside() -> None:
    array = np.full((3, 4, 5), 999.0, dtype=np.float32)
    full = np.zeros((3, 4, 5), dtype=bool)
    full[1, 1, :4] = True
    array[1, 1, :4] = [-100.0, 0.0, 40.0, 100.0]
    found = statistics(Mask.from_full(full), grid((3, 4, 5), (1, 1, 1), array=array))
    assert (found.mean, found.minimum, found.maximum, found.median) == (10.0, -100.0, 100.0, 20.0)
    assert found.sd == pytest.approx(np.sqrt(((-110.0) ** 2 + 10.0**2 + 30.0**2 + 90.0**2) / 4))


def test_voxels_without_a_value_are_left_out_and_a_region_of_none_but_them_is_refused() -> None:
    array = np.array([[[1.0, np.nan, 3.0]]], dtype=np.float32)
    volume = grid((1, 1, 3), (1, 1, 1), array=array)
    assert statistics(Mask.from_full(np.ones((1, 1, 3), dtype=bool)), volume).mean == 2.0
    with pytest.raises(Refused, match="no-values"):
        statistics(Mask.from_full(np.array([[[False, True, False]]])), volume)


def test_the_lung_indices_of_a_normal_distribution_are_its_closed_form() -> None:
    rng = np.random.default_rng(7)
    found = density_indices(rng.normal(-870.0, 50.0, 384_000).astype(np.float32))
    assert found.laa_950_percent == pytest.approx(100 * norm.cdf(-950, -870, 50), abs=0.1)
    assert found.laa_910_percent == pytest.approx(100 * norm.cdf(-910, -870, 50), abs=0.2)
    assert found.perc_15_hu == pytest.approx(norm.ppf(0.15, -870, 50), abs=0.5)
    assert found.mean_hu == pytest.approx(-870, abs=0.3)


def test_a_voxel_at_the_threshold_is_not_below_it() -> None:
    found = density_indices(np.array([-951.0, -950.0, -911.0, -910.0], dtype=np.float32))
    assert (found.laa_950_percent, found.laa_910_percent) == (25.0, 75.0)


def test_a_lesion_on_ct_has_axes_volume_and_attenuation_each_with_its_convention() -> None:
    volume, mask, body = around((10.0, 8.0, 6.0), (1.0, 0.7, 0.7), values=(-800.0, 40.0))
    measured = {m.name: m for m in measure_lesion(mask, volume)}
    assert list(measured) == [
        "long_axis", "short_axis", "volume", "hu_mean", "hu_sd", "hu_min", "hu_max", "hu_median",
    ]  # fmt: skip
    assert measured["hu_mean"].value == 40.0
    assert measured["hu_sd"].value == 0.0
    assert measured["hu_mean"].unit == codes.HU
    assert measured["hu_mean"].derivation == codes.MEAN
    assert measured["volume"].value == pytest.approx(body.volume_mm3 / 1000, rel=0.02)
    assert all(m.method for m in measured.values())
    assert "axial slice of largest long axis" in measured["long_axis"].method
    assert measured["long_axis"].slice_index == measured["short_axis"].slice_index


@pytest.mark.parametrize(
    ("role", "concept"),
    [
        ("mr", codes.MR_SIGNAL_INTENSITY),
        ("pet_activity", codes.TOMOGRAPHIC_ACTIVITY),
        ("other", codes.VOXEL_VALUE),
    ],
)
def test_other_images_have_plain_statistics_in_their_own_unit(role: str, concept: object) -> None:
    volume, mask, _ = around((4.0, 4.0, 4.0), (1.0, 1.0, 1.0), role=role, values=(0.0, 5.0))
    measured = {m.name: m for m in measure_lesion(mask, volume)}
    assert list(measured) == ["long_axis", "short_axis", "volume", "mean", "sd", "min", "max", "median"]
    assert measured["mean"].value == 5.0
    assert measured["mean"].concept == concept
    assert measured["mean"].unit == volume.unit

"""SUV peak, MTV and TLG: the IBSI phantom, published sarcoma values, an independent brute force, closed forms."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from shapes import around, grid

from plugins import codes
from plugins.contract import Mask, Volume
from plugins.errors import Refused
from plugins.measure.density import statistics
from plugins.measure.lesion import measure_lesion
from plugins.measure.uptake import (
    PEAK_RADIUS_MM,
    Threshold,
    metabolism,
    peak_method,
    sphere_weights,
    suv_peak,
)
from plugins.measure.volume import volume_mm3


def nifti(image: Path, mask: Path) -> tuple[Volume, Mask]:
    """Return a PET volume and its mask from NIfTI, K R C; orientation does not matter here."""
    loaded = nibabel.load(image)
    spacing = tuple(float(s) for s in loaded.header.get_zooms()[::-1])
    array = np.asarray(loaded.dataobj).transpose(2, 1, 0)
    full = np.asarray(nibabel.load(mask).dataobj).transpose(2, 1, 0) > 0
    return grid(array.shape, spacing, role="pet_suv", array=array), Mask.from_full(full)  # type: ignore[arg-type]


def brute_peak(
    full: NDArray[np.bool_], array: NDArray[np.float32], spacing: tuple[float, float, float]
) -> float:
    """Return the global peak by looking at every pair of voxels."""
    centres = np.argwhere(np.ones(full.shape, dtype=bool)) * spacing
    values = array.ravel().astype(np.float64)
    return max(
        values[np.linalg.norm(centres - np.multiply(voxel, spacing), axis=1) <= PEAK_RADIUS_MM].mean()
        for voxel in np.argwhere(full)
    )


def test_the_radius_is_that_of_one_millilitre() -> None:
    assert pytest.approx(6.2035, abs=1e-4) == PEAK_RADIUS_MM
    assert 4 / 3 * np.pi * PEAK_RADIUS_MM**3 == pytest.approx(1000.0)


def test_the_ibsi_phantom_has_a_local_peak_of_2_6_and_a_global_peak_of_3_1(data: Path) -> None:
    folder = data / "ibsi" / "ibsi1_digital_phantom"
    volume, mask = nifti(folder / "phantom_image.nii.gz", folder / "phantom_mask.nii.gz")
    assert suv_peak(mask, volume, "local") == pytest.approx(2.6, abs=0.005)
    assert suv_peak(mask, volume, "global") == pytest.approx(3.1, abs=0.005)
    assert suv_peak(mask, volume) == suv_peak(mask, volume, "global")


@pytest.mark.parametrize(
    ("case", "suv_max", "volume_ml", "mtv_41_ml", "mtv_4_ml"),
    [
        ("STS_001", 7.91, 366.1, 113.0, 55.9),
        ("STS_002", 21.68, 54.3, 18.8, 30.8),
        ("STS_003", 10.27, 79.9, 62.7, 64.2),
        ("STS_004", 5.37, 297.5, 27.3, 0.2),
    ],
)
def test_the_sarcomas_have_their_published_uptake(
    data: Path, case: str, suv_max: float, volume_ml: float, mtv_41_ml: float, mtv_4_ml: float
) -> None:
    folder = data / "sts_petct" / case
    volume, mask = nifti(folder / f"{case}_pet_suv.nii.gz", folder / f"{case}_pet_mask.nii.gz")
    assert statistics(mask, volume).maximum == pytest.approx(suv_max, abs=0.005)
    assert volume_mm3(mask, volume) / 1000 == pytest.approx(volume_ml, abs=0.05)
    assert metabolism(mask, volume, Threshold.percent(41)).mtv_ml == pytest.approx(mtv_41_ml, abs=0.05)
    assert metabolism(mask, volume, Threshold.fixed(4.0)).mtv_ml == pytest.approx(mtv_4_ml, abs=0.05)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, (4, 5, 6), elements=st.floats(0, 20, width=32)),
    hnp.arrays(np.bool_, (4, 5, 6)).filter(np.any),
    st.tuples(*[st.sampled_from([2.0, 3.27, 4.0, 5.47])] * 3),
)
def test_the_global_peak_equals_a_brute_force_also_at_the_edge_of_the_image(
    array: NDArray[np.float32], full: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> None:
    volume = grid((4, 5, 6), spacing, role="pet_suv", array=array)
    assert suv_peak(Mask.from_full(full), volume) == pytest.approx(brute_peak(full, array, spacing), abs=1e-5)


def test_on_a_coarse_grid_the_sphere_holds_seven_voxels_and_the_weighted_one_a_millilitre() -> None:
    spacing = (3.27, 5.47, 5.47)
    voxel_ml = np.prod(spacing) / 1000
    centres = sphere_weights(spacing, weighted=False)
    assert centres.sum() == 7
    assert centres.sum() * voxel_ml == pytest.approx(0.68, abs=0.01)
    assert sphere_weights(spacing, weighted=True).sum() * voxel_ml == pytest.approx(1.0, rel=0.01)


def test_the_weights_are_the_parts_of_the_voxels_inside() -> None:
    weights = sphere_weights((4.0, 4.0, 4.0), weighted=True)
    fine = (np.arange(-100, 100) + 0.5) / 10
    inside = np.add.outer(np.add.outer(fine**2, fine**2), fine**2) <= PEAK_RADIUS_MM**2
    truth = inside.reshape(5, 40, 5, 40, 5, 40).mean(axis=(1, 3, 5))
    assert weights.shape == (5, 5, 5)
    assert np.abs(weights - truth).max() < 0.03


@pytest.mark.parametrize("variant", ["global", "local", "weighted"])
def test_an_even_body_has_its_own_uptake_as_peak_and_a_small_one_less(variant: str) -> None:
    volume, mask, _ = around((20.0, 20.0, 20.0), (3.0, 3.0, 3.0), role="pet_suv", values=(1.0, 6.0))
    assert suv_peak(mask, volume, variant) == pytest.approx(6.0)  # type: ignore[arg-type]
    volume, mask, _ = around((3.0, 3.0, 3.0), (2.0, 2.0, 2.0), role="pet_suv", values=(1.0, 6.0))
    assert 1.0 < suv_peak(mask, volume, variant) < 3.0  # type: ignore[arg-type]


def test_mtv_and_tlg_of_a_body_of_two_levels_are_closed_form() -> None:
    array = np.zeros((4, 5, 5), dtype=np.float32)
    array[1, 1:4, 1:4] = 3.0
    array[1, 2, 2] = 10.0
    full = array > 0
    volume = grid((4, 5, 5), (10.0, 10.0, 10.0), role="pet_suv", array=array)
    mask = Mask.from_full(full)
    fixed = metabolism(mask, volume, Threshold.fixed(2.5))
    assert (fixed.mtv_ml, fixed.tlg_g) == pytest.approx((9.0, 9.0 * 34 / 9))
    percent = metabolism(mask, volume, Threshold.percent(41))
    assert (percent.mtv_ml, percent.tlg_g, percent.level) == pytest.approx((1.0, 10.0, 4.1))
    liver = metabolism(mask, volume, Threshold.percist(1.6, 0.3))
    assert (liver.mtv_ml, liver.level) == pytest.approx((9.0, 3.0))
    nothing = metabolism(mask, volume, Threshold.fixed(20.0))
    assert (nothing.mtv_ml, nothing.tlg_g) == (0.0, 0.0)


@pytest.mark.parametrize("factor", [0.5, 2.0, 7.0])
def test_uptake_scales_with_the_image_and_a_relative_threshold_does_not_care(factor: float) -> None:
    rng = np.random.default_rng(3)
    array = rng.uniform(1, 9, (6, 8, 8)).astype(np.float32)
    mask = Mask.from_full(np.ones(array.shape, dtype=bool))
    once = grid(array.shape, (4, 4, 4), role="pet_suv", array=array)
    more = grid(array.shape, (4, 4, 4), role="pet_suv", array=array * np.float32(factor))
    assert suv_peak(mask, more) == pytest.approx(suv_peak(mask, once) * factor, rel=1e-5)
    a, b = (metabolism(mask, v, Threshold.percent(41)) for v in (once, more))
    assert b.mtv_ml == a.mtv_ml
    assert b.tlg_g == pytest.approx(a.tlg_g * factor, rel=1e-5)


def test_a_lesion_on_pet_has_every_uptake_measurement_and_says_how() -> None:
    volume, mask, body = around((15.0, 12.0, 12.0), (3.0, 4.0, 4.0), role="pet_suv", values=(1.0, 6.0))
    measured = {m.name: m for m in measure_lesion(mask, volume, threshold=Threshold.percent(41))}
    assert list(measured) == [
        "long_axis", "short_axis", "volume", "suv_max", "suv_mean", "suv_sd", "suv_min", "suv_median",
        "suv_peak", "mtv", "tlg",
    ]  # fmt: skip
    assert measured["mtv"].value == pytest.approx(measured["volume"].value)
    assert measured["mtv"].value == pytest.approx(body.volume_mm3 / 1000, rel=0.05)
    assert measured["tlg"].value == pytest.approx(6.0 * measured["mtv"].value)
    assert measured["suv_max"].unit == volume.unit
    assert measured["mtv"].unit == codes.ML
    assert measured["suv_peak"].method == peak_method("global")
    assert "41 %" in measured["mtv"].method
    assert "SUV >= 4 (fixed threshold)" in {m.name: m for m in measure_lesion(mask, volume)}["tlg"].method


@pytest.mark.parametrize("measure", [suv_peak, lambda m, v: metabolism(m, v, Threshold.fixed())])
def test_uptake_of_an_image_without_suv_is_refused(measure: object) -> None:
    for role in ("ct", "pet_activity"):
        volume, mask, _ = around((5.0, 5.0, 5.0), (2.0, 2.0, 2.0), role=role)
        with pytest.raises(Refused, match="not-suv"):
            measure(mask, volume)  # type: ignore[operator]


def test_a_threshold_is_one_thing_or_the_other() -> None:
    for suv, fraction in itertools.product((None, 4.0), (None, 0.4)):
        if (suv is None) == (fraction is None):
            with pytest.raises(ValueError, match="either"):
                Threshold(words="x", suv=suv, fraction_of_maximum=fraction)


def test_the_peak_of_a_tall_region_does_not_depend_on_how_it_is_cut_into_slabs() -> None:
    array = np.random.default_rng(11).uniform(0, 9, (70, 5, 5)).astype(np.float32)
    volume = grid(array.shape, (3.0, 4.0, 4.0), role="pet_suv", array=array)  # type: ignore[arg-type]
    full = np.ones(array.shape, dtype=bool)
    assert suv_peak(Mask.from_full(full), volume) == pytest.approx(brute_peak(full, array, (3.0, 4.0, 4.0)))

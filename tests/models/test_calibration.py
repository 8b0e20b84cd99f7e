from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from models.calibration import (
    error_auroc,
    fit_scale,
    fit_temperature,
    lesion_region,
    negative_log_likelihood,
    reliability,
    scaled_logit,
    tempered,
    uncertainty_error,
)


def overconfident(
    temperature: float, cases: int = 20, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Targets drawn from true logits, and the logits of a model that says them `temperature` times too loud."""
    random = np.random.default_rng(seed)
    true = [random.normal(0, 2, 3000) for _ in range(cases)]
    targets = [random.random(z.shape) < special.expit(z) for z in true]
    return [z * temperature for z in true], targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_a_model_too_loud_is_found_again(temperature: float) -> None:
    logits, targets = overconfident(temperature)
    assert fit_temperature(logits, targets) == pytest.approx(temperature, rel=0.05)


def test_calibration_brings_the_error_of_an_overconfident_model_to_nothing() -> None:
    logits, targets = overconfident(3.0)
    others, truths = overconfident(3.0, seed=1)
    found = fit_temperature(logits, targets)
    loud = sum(
        (reliability(tempered(z, 1.0), t) for z, t in zip(others[1:], truths[1:], strict=True)),
        start=reliability(tempered(others[0], 1.0), truths[0]),
    )
    calm = reliability(tempered(np.concatenate(others), found), np.concatenate(truths))
    assert loud.ece > 0.1
    assert calm.ece < 0.01
    assert calm.points[:, 0] == pytest.approx(calm.points[:, 1], abs=0.03)


def test_a_large_case_does_not_outvote_a_small_one() -> None:
    (small,), (small_truth,) = overconfident(1.0, cases=1)
    (large,), (large_truth,) = overconfident(4.0, cases=1, seed=1)
    both = fit_temperature([small, np.tile(large, 50)], [small_truth, np.tile(large_truth, 50)])
    assert both == pytest.approx(fit_temperature([small, large], [small_truth, large_truth]), rel=1e-3)


def test_the_calibration_error_in_closed_form() -> None:
    p = np.array([0.9, 0.9, 0.9, 0.9, 0.2, 0.2])
    t = np.array([True, True, False, False, False, False])
    found = reliability(p, t, bins=10)
    assert found.ece == pytest.approx((4 * 0.4 + 2 * 0.2) / 6)
    assert found.points.tolist() == [pytest.approx([0.2, 0.0, 2]), pytest.approx([0.9, 0.5, 4])]
    parts = reliability(p[:3], t[:3], bins=10) + reliability(p[3:], t[3:], bins=10)
    assert parts.ece == pytest.approx(found.ece)


def test_certain_voxels_fall_into_the_outer_bins_and_nonsense_is_refused() -> None:
    sure = reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert sure.ece == 0.0 and sure.count[0] == 1 and sure.count[-1] == 1
    assert np.isnan(reliability(np.array([]), np.array([], dtype=bool)).ece)
    for wrong in (1.2, -0.1, np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            reliability(np.array([wrong]), np.array([True]))
    with pytest.raises(ValueError, match="no voxel"):
        fit_temperature([np.array([])], [np.array([], dtype=bool)])


def test_the_region_of_a_lesion_reaches_as_far_in_mm_along_every_axis() -> None:
    mask = np.zeros((11, 21, 41), dtype=bool)
    mask[5, 10, 20] = True
    region = lesion_region(mask, (2.0, 1.0, 0.5), margin_mm=4.0)
    assert [np.flatnonzero(region.any(axis=tuple({0, 1, 2} - {a}))).size for a in range(3)] == [5, 9, 17]
    assert not lesion_region(np.zeros((3, 3, 3), dtype=bool), (1.0, 1.0, 1.0)).any()


def test_the_likelihood_of_wild_logits_is_finite() -> None:
    assert negative_log_likelihood(np.array([800.0, -800.0]), np.array([True, False])) == 0.0
    assert negative_log_likelihood(np.array([800.0]), np.array([False])) == 800.0


def test_the_correlation_is_spearmans_and_its_interval_holds_it() -> None:
    random = np.random.default_rng(0)
    dice = random.uniform(0.3, 0.95, 80)
    doubt = np.round(1 - dice + random.normal(0, 0.15, 80), 1)  # ties
    found = uncertainty_error(doubt, dice, [f"P{i // 2}" for i in range(80)])
    assert found.rho == pytest.approx(stats.spearmanr(doubt, 1 - dice).statistic, abs=1e-12)
    assert found.low < found.rho < found.high
    assert found == uncertainty_error(doubt, dice, [f"P{i // 2}" for i in range(80)])


def test_one_patient_seen_many_times_does_not_make_the_interval_narrow() -> None:
    random = np.random.default_rng(3)
    doubt, dice = random.random(40), random.random(40)
    own = uncertainty_error(doubt, dice, [str(i) for i in range(40)])
    copied = uncertainty_error(np.repeat(doubt, 5), np.repeat(dice, 5), [str(i // 5) for i in range(200)])
    assert copied.rho == pytest.approx(own.rho)
    assert copied.high - copied.low == pytest.approx(own.high - own.low, rel=0.1)


def test_too_few_cases_have_no_correlation() -> None:
    with pytest.raises(ValueError, match="too few"):
        uncertainty_error(np.arange(29.0), np.arange(29.0), [str(i) for i in range(29)])
    with pytest.raises(ValueError, match="not a number"):
        uncertainty_error(np.full(30, np.nan), np.arange(30.0), [str(i) for i in range(30)])
    alike = uncertainty_error(np.full(30, np.inf), np.linspace(0, 1, 30), [str(i) for i in range(30)])
    assert np.isnan([alike.rho, alike.low, alike.high]).all()


def test_doubt_that_knows_where_the_errors_are_counted_in_pairs() -> None:
    doubt, wrong = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert error_auroc(doubt, wrong) == pytest.approx((2 + 1.5) / 4)
    assert np.isnan(error_auroc(doubt, np.zeros(4, dtype=bool)))


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.5, 1.5), (2.0, -0.7)])
def test_the_scale_that_made_probabilities_wrong_is_found_again(slope: float, shift: float) -> None:
    logits, targets = overconfident(1.0)
    said = [special.expit((z - shift) / slope) for z in logits]
    found = fit_scale(said, targets)
    assert found == pytest.approx((slope, shift), abs=0.06)
    right = scaled_logit(said[0], *found)
    assert np.abs(right - special.expit(logits[0])).max() < 0.05


def test_a_scale_needs_a_voxel() -> None:
    with pytest.raises(ValueError, match="no voxel"):
        fit_scale([np.zeros(0)], [np.zeros(0, dtype=np.bool_)])

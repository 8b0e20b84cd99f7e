from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.conformal import ConformalInterval, Coverage, conformal_quantile, fit_interval


def lesions(n: int, seed: int, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Volumes as a reader and as a model measures them, mm3."""
    random = np.random.default_rng(seed)
    truth = np.exp(random.normal(6, 1.5, n))
    return truth * np.exp(random.normal(-0.1, spread, n)), truth


@pytest.mark.parametrize(
    ("n", "alpha", "rank"),
    [(9, 0.1, 9), (19, 0.05, 19), (19, 0.1, 18), (99, 0.1, 90), (100, 0.1, 91), (1, 0.5, 1)],
)
def test_the_quantile_is_the_finite_sample_one(n: int, alpha: float, rank: int) -> None:
    assert conformal_quantile(np.arange(1, n + 1)[::-1], alpha) == rank


@pytest.mark.parametrize(("n", "alpha"), [(8, 0.1), (18, 0.05), (0, 0.1)])
def test_too_few_cases_promise_nothing(n: int, alpha: float) -> None:
    assert conformal_quantile(np.ones(n), alpha) == math.inf


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(20, 200), alpha=st.sampled_from([0.05, 0.1, 0.2]))
def test_exchangeable_cases_are_covered_as_often_as_promised(seed: int, n: int, alpha: float) -> None:
    random = np.random.default_rng(seed)
    scores = random.standard_cauchy((400, n + 1)) ** 2
    hits = sum(row[-1] <= conformal_quantile(row[:-1], alpha) for row in scores)
    # Exactly k / (n + 1) of all orders cover; 1e-6 either way is never met by chance in 15 examples.
    p = math.ceil((n + 1) * (1 - alpha) - 1e-9) / (n + 1)
    assert stats.binom.ppf(1e-6, 400, p) <= hits <= stats.binom.ppf(1 - 1e-6, 400, p)


@pytest.mark.parametrize("edges", [(), (200.0, 1000.0)])
def test_volumes_of_other_patients_are_covered(edges: tuple[float, ...]) -> None:
    fitted = fit_interval(*lesions(600, 0), kind="log", edges=edges)
    assert 0.87 < fitted.coverage(*lesions(4000, 1)).fraction < 0.93
    assert sum(fitted.cases) == 600


def test_groups_hold_in_every_size_what_one_quantile_holds_only_on_average() -> None:
    def measured(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        predicted = random.uniform(3, 30, 3000)
        return predicted, predicted + random.normal(0, np.where(predicted > 15, 3.0, 0.5))

    one = fit_interval(*measured(0), kind="absolute")
    grouped = fit_interval(*measured(0), kind="absolute", edges=[15.0])
    predicted, truth = measured(1)
    large = predicted > 15
    assert one.coverage(predicted[large], truth[large]).fraction < 0.85
    assert grouped.coverage(predicted[large], truth[large]).fraction == pytest.approx(0.9, abs=0.025)
    assert grouped.coverage(predicted[~large], truth[~large]).fraction == pytest.approx(0.9, abs=0.025)


def test_the_group_goes_by_what_was_predicted() -> None:
    fitted = ConformalInterval(
        kind="absolute", alpha=0.1, edges=(10.0,), quantiles=(1.0, 4.0), cases=(50, 50)
    )
    low, high = fitted.interval([9.0, 10.0, 20.0])
    assert low.tolist() == [8.0, 6.0, 16.0] and high.tolist() == [10.0, 14.0, 24.0]


def test_a_doubtful_case_gets_a_wider_interval() -> None:
    random = np.random.default_rng(2)
    doubt = random.uniform(0.1, 1.0, 2000)
    truth = np.exp(random.normal(6, 1, 2000))
    predicted = truth * np.exp(random.normal(0, doubt))
    fitted = fit_interval(predicted[:1000], truth[:1000], kind="log", scale=doubt[:1000])
    assert fitted.quantiles[0] == pytest.approx(stats.norm.ppf(0.95), abs=0.12)
    assert fitted.coverage(predicted[1000:], truth[1000:], doubt[1000:]).fraction == pytest.approx(
        0.9, abs=0.03
    )
    plain = fit_interval(predicted[:1000], truth[:1000], kind="log")
    sure, unsure = doubt[1000:] < 0.3, doubt[1000:] > 0.8
    assert plain.coverage(predicted[1000:][sure], truth[1000:][sure]).fraction > 0.97
    assert plain.coverage(predicted[1000:][unsure], truth[1000:][unsure]).fraction < 0.85


def test_intervals_of_volumes_are_factors_and_lengths_stay_above_zero() -> None:
    volume = ConformalInterval(kind="log", alpha=0.1, edges=(), quantiles=(math.log(2),), cases=(50,))
    low, high = volume.interval(100.0)
    assert (float(low), float(high)) == (pytest.approx(50.0), pytest.approx(200.0))
    length = ConformalInterval(kind="absolute", alpha=0.1, edges=(), quantiles=(5.0,), cases=(50,))
    assert [float(end) for end in length.interval(3.0)] == [0.0, 8.0]


def test_a_lesion_that_was_not_drawn_counts_as_missed_and_is_promised_nothing() -> None:
    predicted, truth = lesions(19, 0)
    predicted[:2] = 0.0
    fitted = fit_interval(predicted, truth, kind="log")
    assert fitted.quantiles == (math.inf,)
    few = ConformalInterval(kind="log", alpha=0.1, edges=(), quantiles=(0.3,), cases=(50,))
    assert [float(end) for end in few.interval(0.0)] == [0.0, math.inf]


def test_the_card_gives_back_what_was_fitted() -> None:
    fitted = fit_interval(*lesions(40, 0), kind="log", edges=(1.0, 400.0))
    assert fitted.quantiles[0] == math.inf
    assert ConformalInterval.of_card(json.loads(json.dumps(fitted.as_card()))) == fitted
    with pytest.raises(ValueError, match="one quantile more"):
        ConformalInterval.of_card(fitted.as_card() | {"edges": []})


def test_what_has_no_logarithm_and_edges_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="logarithm"):
        fit_interval([1.0], [0.0], kind="log")
    with pytest.raises(ValueError, match="rise"):
        fit_interval([1.0], [1.0], kind="log", edges=[3.0, 2.0])


def test_coverage_has_the_exact_binomial_interval() -> None:
    found = Coverage.of(np.repeat([True, False], 20))
    assert found.fraction == 0.5 and found.cases == 40
    exact = stats.beta.ppf([0.025, 0.975], [20, 21], [21, 20])
    assert (found.low, found.high) == tuple(pytest.approx(x) for x in exact)

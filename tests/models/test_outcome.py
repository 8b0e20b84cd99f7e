from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.outcome import Outcomes, concordance, simulate


def test_without_censoring_the_times_are_those_of_the_weibull_hazard() -> None:
    made = simulate(np.full(40_000, np.log(2.0)), scale=10.0, shape=1.5, seed=0)
    assert made.event.all()
    for t in (2.0, 5.0, 9.0):
        assert np.mean(made.duration > t) == pytest.approx(np.exp(-2.0 * (t / 10.0) ** 1.5), abs=0.01)


def test_of_two_exponential_clocks_the_hazards_say_which_rings_first() -> None:
    made = simulate(np.zeros(40_000), scale=10.0, censoring_scale=30.0, seed=1)
    assert made.event.mean() == pytest.approx(0.75, abs=0.01)


def test_nobody_is_followed_beyond_the_end_of_the_study() -> None:
    made = simulate(np.zeros(20_000), scale=10.0, follow_up=5.0, seed=2)
    assert made.duration.max() == 5.0 and not made.event[made.duration == 5.0].any()
    assert made.event.mean() == pytest.approx(1 - np.exp(-0.5), abs=0.01)


def test_a_seed_has_the_same_deaths_however_patients_are_censored() -> None:
    free = simulate(np.linspace(-1, 1, 50), scale=3.0, seed=7)
    censored = simulate(np.linspace(-1, 1, 50), scale=3.0, censoring_scale=4.0, follow_up=6.0, seed=7)
    assert np.array_equal(censored.duration[censored.event], free.duration[censored.event])
    assert not np.array_equal(free.duration, simulate(np.linspace(-1, 1, 50), scale=3.0, seed=8).duration)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_the_concordance_of_the_true_hazard_is_that_of_two_groups_in_closed_form(ratio: float) -> None:
    # Of a pair of unlike hazards the greater dies first with h / (1 + h); like pairs are ties, worth one half.
    eta = np.repeat([0.0, np.log(ratio)], 1500)
    made = simulate(eta, scale=1.0, seed=3)
    unlike = max(ratio, 1.0) / (1.0 + ratio)
    assert concordance(eta, made) == pytest.approx((unlike + 0.5) / 2, abs=0.01)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_concordance_asks_for_the_order_only_and_noise_has_less_of_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    eta = random.normal(0, 1.5, 200)
    made = simulate(eta, scale=24.0, shape=1.2, censoring_scale=60.0, follow_up=60.0, seed=seed)
    true = concordance(eta, made)
    assert concordance(3 * eta - 1, made) == true
    assert concordance(-eta, made) == pytest.approx(1 - true)
    assert concordance(random.normal(size=200), made) < 0.95 * true


def test_without_an_event_nobody_can_be_compared() -> None:
    nothing = Outcomes(duration=np.array([1.0, 2.0]), event=np.array([False, False]))
    with pytest.raises(ValueError, match="too few events"):
        concordance([0.0, 1.0], nothing)


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"scale": 0.0}, {"scale": 1.0, "shape": -1.0}, {"scale": 1.0, "follow_up": 0.0}):
        with pytest.raises(ValueError, match="above 0"):
            simulate([0.0], seed=0, **wrong)
    with pytest.raises(ValueError, match="finite"):
        simulate([np.nan], scale=1.0, seed=0)

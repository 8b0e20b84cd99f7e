from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from training.stability import benjamini_hochberg, category_shift, histogram_shift, ks, psi, shares


def test_the_index_is_the_sum_of_differences_times_logarithms() -> None:
    before, now = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    assert float(psi(before, now)) == pytest.approx(0.4 * math.log(9))
    assert float(psi(now, before)) == pytest.approx(0.4 * math.log(9))
    assert float(psi(before, before)) == 0.0


def test_a_category_that_one_side_lacks_counts_as_half_a_case() -> None:
    assert shares(np.array([3, 0])).tolist() == [3.5 / 4, 0.5 / 4]


def test_the_distance_is_the_largest_between_the_steps_and_its_p_is_scipys() -> None:
    before, now = np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5, 4.5, 5.5, 6.5])
    distance, p = ks(before, now)
    assert distance == 0.75
    assert p == stats.ks_2samp(before, now, method="asymp").pvalue
    assert p == pytest.approx(float(stats.kstwo.sf(0.75, 2)))


@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=20), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_rule_of_benjamini_and_hochberg_is_scipys(p: list[float], rate: float) -> None:
    adjusted = stats.false_discovery_control(p)
    if min(abs(adjusted - rate)) > 1e-12:
        assert benjamini_hochberg(p, rate) == tuple(bool(a <= rate) for a in adjusted)


def test_without_drift_chance_gives_what_the_literature_says() -> None:
    """Yurdakul 2018: (B - 1)(1/n + 1/m) on average, so 20 against 100 in 6 bins are beyond 0.2 by chance alone."""
    random, found = np.random.default_rng(1), []
    for _ in range(400):
        counts = [random.multinomial(n, np.full(6, 1 / 6)) for n in (100, 20)]
        found.append(float(psi(shares(counts[0]), shares(counts[1]))))
    assert np.mean(found) == pytest.approx(5 * (1 / 100 + 1 / 20), rel=0.15)


def test_a_small_sample_without_drift_is_not_beyond_chance() -> None:
    random = np.random.default_rng(2)
    rare = 0
    for _ in range(500):
        before, now = ([str(v) for v in random.integers(0, 6, n)] for n in (100, 20))
        value, p = category_shift(before, now, 0.2, random)
        rare += value >= 0.2 and p <= 0.05
    assert rare / 500 <= 0.06


def test_a_new_category_is_found_at_once() -> None:
    before, now = ["A"] * 70 + ["B"] * 30, ["A"] * 14 + ["C"] * 6
    value, p = category_shift(before, now, 0.2, np.random.default_rng(3))
    assert value > 1.0
    assert p < 0.001


def test_cases_of_a_histogram_are_studies_and_not_voxels() -> None:
    """Studies that differ as much among each other as the sides do show no drift, however many voxels they have."""
    random = np.random.default_rng(4)
    mixed = random.dirichlet(np.full(8, 0.4), size=60)
    _, p = histogram_shift(mixed[:40], mixed[40:], 0.2, random)
    assert p > 0.05
    alike = random.dirichlet(np.full(8, 200.0), size=60)
    alike[40:] = alike[40:, ::-1] * np.linspace(0.3, 1.7, 8)
    alike[40:] /= alike[40:].sum(axis=1, keepdims=True)
    value, p = histogram_shift(alike[:40], alike[40:], 0.2, random)
    assert value > 0.2
    assert p == pytest.approx(1 / 5000)

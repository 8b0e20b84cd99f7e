from __future__ import annotations

import numpy as np
import pytest

from training.evaluate.bootstrap import interval, summary


def test_the_interval_of_a_mean_is_what_the_standard_error_says() -> None:
    values = np.random.default_rng(1).normal(0.8, 0.1, 400)
    found = summary(values, [str(n) for n in range(400)])
    assert found is not None and found.low is not None and found.high is not None
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.002)
    assert found.high == pytest.approx(values.mean() + half, abs=0.002)


def test_patients_are_drawn_and_not_cases() -> None:
    values = np.random.default_rng(2).normal(0.8, 0.1, 50)
    once = summary(values, [str(n) for n in range(50)])
    often = summary(np.repeat(values, 9), [str(n) for n in range(50) for _ in range(9)])
    assert once is not None and often is not None
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))
    assert (often.cases, often.patients) == (450, 50)


def test_one_patient_has_a_figure_and_no_interval() -> None:
    found = summary([0.7, 0.9], ["P", "P"])
    assert found is not None
    assert (found.value, found.low, found.high) == (pytest.approx(0.8), None, None)


def test_cases_without_a_value_are_left_out_and_none_at_all_is_told_as_none() -> None:
    found = summary([0.5, None, float("nan"), 0.7], ["A", "B", "C", "D"], np.median)
    assert found is not None and found.value == pytest.approx(0.6) and found.patients == 2
    assert summary([None, None], ["A", "B"]) is None


def test_a_figure_that_most_draws_leave_undefined_gets_no_interval() -> None:
    rare = np.array([True] + [False] * 9)
    found = interval(lambda i: 1.0 if rare[i].any() else float("nan"), [str(n) for n in range(10)])
    assert found is not None and found.low is None


def test_the_same_seed_gives_the_same_interval() -> None:
    values, patients = np.arange(20.0), [str(n) for n in range(20)]
    assert summary(values, patients, seed=3) == summary(values, patients, seed=3)
    assert summary(values, patients, seed=3) != summary(values, patients, seed=4)

from __future__ import annotations

import numpy as np
import pytest

from training.evaluate.classify import calibration_error, class_figures
from training.evaluate.judged import RatedCase


def rated(pairs: list[tuple[bool, float]]) -> list[RatedCase]:
    return [
        RatedCase(case_id=str(n), patient_id=str(n), positive=positive, probability=probability)
        for n, (positive, probability) in enumerate(pairs)
    ]


def test_figures_are_those_counted_by_hand() -> None:
    # called positive from 0.5: two of three positives, one of four negatives
    cases = rated(
        [(True, 0.9), (True, 0.6), (True, 0.3), (False, 0.7), (False, 0.4), (False, 0.2), (False, 0.1)]
    )
    found = class_figures(cases, resamples=100)
    value = {name: one.value for name, one in found.figures.items() if one is not None}
    assert found.confusion == ((3, 1), (1, 2))
    assert value["auc"] == pytest.approx(9 / 12)
    assert value["precision"] == value["recall"] == value["f1"] == pytest.approx(2 / 3)
    assert value["specificity"] == pytest.approx(3 / 4)
    assert value["accuracy"] == pytest.approx(5 / 7)


def test_probabilities_that_mean_what_they_say_have_no_calibration_error() -> None:
    truth = np.array([True] * 2 + [False] * 8 + [True] * 9 + [False])
    said = np.array([0.2] * 10 + [0.9] * 10)
    assert calibration_error(truth, said) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(truth, np.full(20, 0.75)) == pytest.approx(0.2)


def test_cases_of_one_class_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="one class"):
        class_figures(rated([(True, 0.3), (True, 0.8)]))


def test_a_guess_has_an_auc_whose_interval_holds_one_half() -> None:
    random = np.random.default_rng(4)
    cases = rated([(bool(random.random() < 0.5), float(random.random())) for _ in range(120)])
    auc = class_figures(cases, resamples=200).figures["auc"]
    assert auc is not None and auc.low is not None and auc.high is not None
    assert auc.low < 0.5 < auc.high

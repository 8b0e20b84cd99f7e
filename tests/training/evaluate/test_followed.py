from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.evaluate.followed import concordance
from training.evaluate.judged import FollowedCase
from training.evaluate.sections import followed_part


def patient(n: int, risk: float, days: float, event: bool, true: float | None = None) -> FollowedCase:
    return FollowedCase(
        case_id=str(n), patient_id=str(n), risk=risk, duration_days=days, event=event, true_risk=true
    )


def test_pairs_are_counted_as_censoring_allows() -> None:
    # comparable pairs: (0,1) right, (0,2) right, (0,3) wrong, (2,3) wrong; patient 1 is censored on day 20
    cases = [
        patient(0, 3.0, 10, True),
        patient(1, 1.0, 20, False),
        patient(2, 2.0, 30, True),
        patient(3, 4.0, 40, False),
    ]
    found = concordance(cases, resamples=100)
    assert found["c_index"] is not None and found["c_index"].value == pytest.approx(2 / 4)
    assert "of_true" not in found


def test_a_model_that_says_the_true_hazard_reaches_all_of_its_c_index() -> None:
    random = np.random.default_rng(5)
    risks = random.normal(size=80)
    days = random.exponential(np.exp(-risks) * 100)
    cases = [
        patient(n, float(r), float(d), True, float(r))
        for n, (r, d) in enumerate(zip(risks, days, strict=True))
    ]
    found = concordance(cases, resamples=100)
    assert found["of_true"] is not None and found["of_true"].value == pytest.approx(1.0)
    assert found["c_index"] == found["true_c_index"]


def test_where_nobody_can_be_compared_there_is_no_figure() -> None:
    assert (
        concordance([patient(0, 1.0, 5, False), patient(1, 2.0, 6, False)], resamples=100)["c_index"] is None
    )


def test_the_outcomes_of_one_patient_give_no_figure_and_the_report_says_so() -> None:
    outcomes = [replace(patient(n, 1.0, 5.0 + n, True, 1.0), patient_id="only") for n in range(5)]
    found = concordance(outcomes, resamples=100)
    assert found == {"c_index": None, "true_c_index": None, "of_true": None}
    headlines, (section,), plain = followed_part(outcomes, resamples=100)
    assert [one.value for one in headlines] == ["not known", "not known"]
    assert "It is not known here: no two patients can be compared." in section.text
    assert plain["figures"] == found


def test_outcomes_of_one_patient_count_as_ties_beside_those_of_others() -> None:
    # four pairs between the two are right, the pair within each is a tie
    outcomes = [replace(patient(n, 2.0, 5.0 + n, True), patient_id="high") for n in range(2)]
    outcomes += [replace(patient(n, 1.0, 9.0 + n, True), patient_id="low") for n in range(2)]
    found = concordance(outcomes, resamples=100)["c_index"]
    assert found is not None and found.value == pytest.approx((4 + 2 * 0.5) / 6)

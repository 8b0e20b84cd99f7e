"""The time to progression of a cohort: what is an event, and the estimate with its band against lifelines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.cohort_rows import Short
from store.progression import Followed, followed, kaplan_meier


@pytest.mark.parametrize(
    ("verdicts", "days", "progressed"),
    [
        (((56, "SD"), (112, "PD"), (168, "PR")), 112, True),
        (((56, "SMD"), (112, "PMD")), 112, True),
        (((56, "iUPD"), (112, "iSD"), (168, "iUPD"), (200, "iUPD"), (224, "iCPD")), 168, True),
        (((56, "iUPD"), (112, "iSD")), 300, False),
        (((56, "SD"), (300, "NE")), 300, False),
        (((45, "iUPD"), (73, "NE"), (104, "iCPD")), 45, True),
        (((45, "iUPD"), (91, "iUPD"), (300, "NE")), 45, True),
        (((45, "iUPD"), (91, "iPR"), (300, "iUPD")), 300, False),
    ],
)
def test_a_progression_is_dated_by_the_visit_that_showed_it_and_by_irecist_by_the_first_that_stands(
    verdicts: tuple[tuple[int, str], ...], days: int, progressed: bool
) -> None:
    course = Short(patient_pk=1, days=300, verdicts=verdicts)
    assert followed(course) == Followed(days=days, progressed=progressed)
    assert followed(Short(patient_pk=1)) is None


def test_the_estimate_of_a_few_is_that_of_the_hand() -> None:
    times = [(56, True), (56, False), (112, True), (168, False), (224, True)]
    made = kaplan_meier(Followed(days=days, progressed=is_event) for days, is_event in times)
    assert made is not None
    assert [(s.day, s.at_risk, s.events, s.censored) for s in made.steps] == [
        (0, 5, 0, 0),
        (56, 5, 1, 1),
        (112, 3, 1, 0),
        (168, 2, 0, 1),
        (224, 1, 1, 0),
    ]
    assert [s.free for s in made.steps] == pytest.approx([1, 4 / 5, 8 / 15, 8 / 15, 0])
    assert (made.persons, made.events, made.median_days) == (5, 3, 224)
    assert (made.steps[-1].low, made.steps[-1].high) == (None, None)
    assert [(day, at_risk) for day, at_risk, _ in made.table] == [
        (0, 5),
        (56, 5),
        (112, 3),
        (168, 2),
        (224, 1),
    ]
    assert kaplan_meier([]) is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=30))
def test_curve_band_and_median_are_those_of_lifelines(times: list[tuple[int, bool]]) -> None:
    from lifelines import KaplanMeierFitter

    made = kaplan_meier(Followed(days=days, progressed=is_event) for days, is_event in times)
    fitter = KaplanMeierFitter().fit([days for days, _ in times], [is_event for _, is_event in times])
    assert made is not None
    days = [step.day for step in made.steps]
    assert [step.free for step in made.steps] == pytest.approx(list(fitter.predict(days)), abs=1e-12)
    if not any(abs(step.free - 0.5) < 1e-9 for step in made.steps):  # which lifelines rounds to either side
        assert (made.median_days or float("inf")) == fitter.median_survival_time_
    band = fitter.confidence_interval_.loc[days].to_numpy()
    for step, (low, high) in zip(made.steps, band, strict=True):
        if step.low is not None:
            assert (step.low, step.high) == pytest.approx((low, high), abs=1e-9)

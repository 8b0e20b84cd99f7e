from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from weeks_of_use import week_of

from store.facts import Observed
from training.drift import Limits, Week, iso_week, judge, short
from training.drift_told import Course, alarms, newest, plain, state


def used(weeks: int, changed: int, seed: int = 0, studies: int = 30, **drift: object) -> list[Observed]:
    """Return so many weeks of use, the last `changed` of which are otherwise."""
    random = np.random.default_rng(seed)
    return [
        one
        for week in range(weeks)
        for one in week_of(week, random, studies=studies, **(drift if week >= weeks - changed else {}))  # type: ignore[arg-type]
    ]


def course(weeks: tuple[Week, ...]) -> Course:
    return Course(plugin="lung_nodule", families=("nodule_segmenter",), weeks=weeks, limits=Limits())


@pytest.mark.parametrize(
    ("drift", "what", "change"),
    [
        ({"kernels": ("soft", "sharp", "sharp", "lung")}, "convolution_kernel", "'sharp' 0% -> "),
        ({"shift_hu": 30.0}, "values in [hnsf'U]", "-1010 to -990: "),
        ({"slice_mm": 3.0}, "slice_distance", "'2.60 to 3.10 mm' 0% -> 100%"),
        ({"volumes": 3.0}, "volume", "median "),
    ],
)
def test_what_changed_is_an_alarm_in_the_week_in_which_it_changed(
    drift: dict[str, object], what: str, change: str
) -> None:
    *before, week = judge(used(10, 1, **drift))
    assert not any(one.alarms for one in before)
    found = {shift.what: shift for shift in week.alarms}
    assert change in found[what].change
    assert found[what].since == "2026-W11"
    (told,) = [a for a in alarms(course((*before, week)), [week]) if a.what == what]
    assert "against 240 of 2026-W02 to 2026-W09" in told.sentence
    assert found[what].change in told.sentence


def test_weeks_that_are_as_they_were_raise_no_alarm() -> None:
    judged = [week for seed in range(4) for week in judge(used(13, 0, seed)) if not week.is_reference]
    assert len(judged) == 20
    assert sum(bool(week.alarms) for week in judged) <= 1
    assert state(judged[0]) == f"as it was ({len(judged[0].shifts)} quantities)"


def test_what_is_small_and_lasts_is_seen_in_several_weeks_together() -> None:
    weeks = judge(used(16, 8, studies=40, volumes=1.5))
    late = [shift for week in weeks[11:] for shift in week.alarms if shift.what == "volume"]
    assert late
    assert {shift.weeks for shift in late} == {4}


def test_an_alarm_says_since_when_it_stands() -> None:
    weeks = judge(used(12, 3, kernels=("sharp",)))
    assert [w.week for w in weeks if w.alarms] == ["2026-W11", "2026-W12", "2026-W13"]
    told = alarms(course(weeks), weeks)
    assert len(told) == 3
    (last,) = newest(told)
    assert last.week == "2026-W13"
    assert "since 2026-W11" in last.sentence


def test_too_few_studies_are_not_judged_and_that_is_said() -> None:
    few = judge(used(10, 1, studies=1, kernels=("sharp",)))
    assert all(week.is_reference for week in few)
    assert few[-1].not_judged == "the reference holds 10 of 20 studies"
    weeks = judge([*used(8, 0), *week_of(9, np.random.default_rng(1), studies=3, kernels=("sharp",))])
    assert [week.studies for week in weeks[-2:]] == [0, 3]
    assert not weeks[-1].shifts
    assert state(weeks[-1]) == "not judged: fewer than 20 studies: 3 in one week and 3 in 2 weeks"


def test_a_week_without_studies_raises_no_alarm_and_ends_none() -> None:
    random = np.random.default_rng(0)
    later = [one for week in (8, 10) for one in week_of(week, random, kernels=("sharp",))]
    weeks = judge([*used(8, 0), *later])
    assert [state(week) for week in weeks[8:]] == [
        "changed: reconstruction kernel",
        "not judged: no studies",
        "changed: reconstruction kernel",
    ]
    assert weeks[-1].alarms[0].since == "2026-W10"


def test_a_reference_that_is_too_small_goes_on_until_it_is_large_enough() -> None:
    weeks = judge(used(14, 2, studies=2), Limits(together_weeks=2))
    assert [week.is_reference for week in weeks] == [True] * 10 + [False] * 4


def test_the_same_studies_in_another_order_give_the_same_answer() -> None:
    observed = used(10, 1, kernels=("sharp",))
    assert judge(observed[::-1]) == judge(observed)
    assert plain(course(judge(observed)), judge(observed)[-1:])["weeks"][0]["week"] == "2026-W11"


def test_weeks_are_those_of_iso_also_at_the_turn_of_the_year() -> None:
    assert iso_week(datetime(2027, 1, 3, tzinfo=UTC)) == "2026-W53"
    assert judge([]) == ()


def test_numbers_are_told_with_three_digits_and_without_powers_of_ten() -> None:
    assert [short(value) for value in (1074.2, 8.941, 0.05, 0.0, 12.0)] == ["1070", "8.94", "0.05", "0", "12"]


def test_limits_with_which_nothing_can_be_judged_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        judge([], Limits(studies=0))

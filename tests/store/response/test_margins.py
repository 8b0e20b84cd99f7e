"""How far a length is from another verdict: against thresholds on paper and against trying every tenth."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesion_courses import START, course, new, non_target, target

from store.response.history import History, Status
from store.response.margins import Number, margins
from store.response.recist import judge
from store.response.verdict import Margin


def test_both_directions_are_told_with_the_standard_deviations_between() -> None:
    # 100 -> 75 -> 75 mm is stable: 70 mm would be partial response, 90 mm (20 % above the nadir) progression.
    history = course(target("T1", 60, 45, 45, sd_mm=2.0), target("T2", 40, 30, 30))
    first, second, third, fourth = judge(history).time_points[2].margins
    assert first == Margin(
        lesion="T1",
        quantity="long_axis",
        value=45.0,
        change=-5.0,
        unit="mm",
        verdict="PR",
        standard_deviations=2.5,
    )
    assert (second.lesion, second.change, second.verdict, second.standard_deviations) == (
        "T2",
        -5.0,
        "PR",
        None,
    )
    assert (third.lesion, third.change, third.verdict, third.standard_deviations) == ("T1", 15.0, "PD", 7.5)
    assert (fourth.lesion, fourth.change, fourth.verdict) == ("T2", 15.0, "PD")


def test_a_verdict_that_one_length_cannot_change_has_no_margin() -> None:
    # A new lesion is progression whatever the target measures.
    points = judge(course(target("T1", 50, 50), new("X", None, "present"))).time_points
    assert points[0].margins == points[1].margins == ()


def test_a_node_leaves_complete_response_at_ten_millimetres() -> None:
    (margin,) = judge(course(target("N", 20, 8.5, node=True))).time_points[1].margins
    assert (margin.quantity, margin.value, margin.change, margin.verdict) == ("short_axis", 8.5, 1.5, "PR")


def test_a_new_lesion_would_have_to_be_gone() -> None:
    (margin,) = judge(course(target("T1", 50, 50), new("X", None, 12))).time_points[1].margins
    assert (margin.lesion, margin.change, margin.verdict) == ("X", -12.0, "SD")


def test_volumes_and_uptakes_have_margins_in_their_own_steps() -> None:
    number = Number(
        lesion="L", quantity="suv_peak", steps=500, steps_per_unit=100, unit="g/ml{SUVlbm}", most=10_000
    )
    found = margins(
        (number,), lambda values: "PMR" if values[0] <= 350 else "PMD" if values[0] > 650 else "SMD"
    )
    assert [(margin.value, margin.change, margin.verdict) for margin in found] == [
        (5.0, -1.5, "PMR"),
        (5.0, 1.51, "PMD"),
    ]
    assert margins((), lambda values: "SMD") == ()


def changed(history: History, visit: int, lesion: str, tenths: int) -> History:
    seen = tuple(
        replace(one, **{"short_axis_tenths" if one.node else "long_axis_tenths": tenths})
        if one.lesion == lesion
        else one
        for one in history.visits[visit].seen
    )
    visits = [replace(v, seen=seen) if n == visit else v for n, v in enumerate(history.visits)]
    return replace(history, visits=tuple(visits))


SIZES = st.integers(1, 300).map(lambda tenths: tenths / 10)


@settings(max_examples=40)
@given(
    first=st.lists(SIZES, min_size=3, max_size=3),
    second=st.lists(SIZES, min_size=3, max_size=3),
    gone=st.booleans(),
)
def test_one_tenth_less_than_the_margin_changes_nothing_and_the_margin_gives_its_verdict(
    first: list[float], second: list[float], gone: bool
) -> None:
    history = course(
        target("T1", *first),
        target("N1", *second, node=True),
        non_target("B", "present", "absent", "absent" if gone else "present"),
    )
    for visit, point in enumerate(judge(history).time_points):
        for margin in point.margins:
            tenths, step = round(margin.value * 10), round(margin.change * 10)
            there = changed(history, visit, margin.lesion, tenths + step)
            before = changed(history, visit, margin.lesion, tenths + step - (1 if step > 0 else -1))
            assert judge(there).time_points[visit].overall == margin.verdict != point.overall
            assert judge(before).time_points[visit].overall == point.overall


@pytest.mark.parametrize("lesions", [5])
def test_ten_visits_of_five_lesions_are_judged_at_once(lesions: int) -> None:
    lines = [
        target(f"T{n}", *[30 + (n * 7 + v * 3) % 11 for v in range(10)], sd_mm=1.0) for n in range(lesions)
    ]
    history = course(*lines, dates=[START + timedelta(days=56 * v) for v in range(10)])
    assert all(one.status is Status.MEASURED for visit in history.visits for one in visit.seen)
    began = process_time()
    response = judge(history)
    assert process_time() - began < 0.1
    assert all(len(point.margins) >= lesions for point in response.time_points[1:])

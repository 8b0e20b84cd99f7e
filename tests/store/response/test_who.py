"""WHO 1979: products, their borders, the tables and the properties that any course must have."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seen_courses import GONE, UNKNOWN, history, lesion

from store.response import volumetric
from store.response.history import History, Role, Seen, Status
from store.response.verdict import Response
from store.response.who import judge


def overalls(course: History) -> list[str | None]:
    return [point.overall for point in judge(course).time_points[1:]]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (((20, 10), (10, 10)), ["PR"]),
        (((20, 10), (10.1, 10)), ["SD"]),
        (((20, 10), (12.5, 8)), ["PR"]),
        (((20, 10), (12.5, 8.1)), ["SD"]),
        (((20, 10), (25, 10)), ["PD"]),
        (((20, 10), (24.9, 10)), ["SD"]),
        (((20, 10), (10, 10), (12.5, 10)), ["PR", "PD"]),
        (((20, 10), (10, 10), (12.4, 10)), ["PR", "SD"]),
        (((20, 10), (10, 8), (9.9, 10)), ["PR", "PR"]),
        (((33.3, 33.3), (33.3, 16.6)), ["PR"]),
        (((33.3, 33.3), (33.3, 16.7)), ["SD"]),
        (((20, 10), (0, 0), (0.1, 0.1)), ["CR", "PD"]),
    ],
)
def test_one_target_is_judged_at_its_borders(
    axes: tuple[tuple[float, float], ...], expected: list[str]
) -> None:
    assert overalls(history(*((lesion("T1", *both),) for both in axes))) == expected


def test_a_target_that_is_there_again_after_a_complete_response_is_progression_without_a_size_too() -> None:
    for status, word in ((Status.PRESENT, "PD"), (Status.TOO_SMALL, "PD"), (UNKNOWN, "NE"), (GONE, "CR")):
        course = history((lesion("A", 20, 10),), (lesion("A", status=GONE),), (lesion("A", status=status),))
        assert overalls(course) == ["CR", word]
        before = history((lesion("A", 20, 10),), (lesion("A", 10, 5),), (lesion("A", status=Status.PRESENT),))
        assert overalls(before) == ["PR", "NE"]


def test_sum_and_nadir_are_products_in_square_millimetres() -> None:
    course = history(
        (lesion("A", 20, 10), lesion("B", 30.5, 10)),
        (lesion("A", 10, 5), lesion("B", 10, 10)),
        (lesion("A", 11, 5),),
    )
    points = judge(course).time_points
    assert [point.sum for point in points] == [505.0, 150.0, None]
    assert [point.nadir for point in points] == [None, 505.0, 150.0]
    assert [point.overall for point in points] == [None, "PR", "NE"]
    assert (
        "50 % below" in points[1].because and "70.29 % below the baseline of 505.0 mm2" in points[1].because
    )
    assert "Not measured: B" in points[2].because


def test_what_was_measured_may_prove_progression_beside_a_lesion_that_was_not() -> None:
    course = history(
        (lesion("A", 20, 10), lesion("B", 5, 4)), (lesion("A", 30, 10), lesion("B", status=UNKNOWN))
    )
    assert overalls(course) == ["PD"]


def test_a_lesion_too_small_to_measure_counts_five_by_five_millimetres() -> None:
    course = history((lesion("A", 20, 10),), (lesion("A", status=Status.TOO_SMALL),))
    assert judge(course).time_points[1].sum == 25.0


#: Targets, non-target lesions, a new one, the verdict.
TABLE = [
    (target, rest, new, word)
    for new in (False, True)
    for target, rest, word in [
        ("CR", "CR", "CR"),
        ("CR", "NON-CR/NON-PD", "PR"),
        ("CR", "NE", "PR"),
        ("CR", "PD", "PD"),
        *[("PR", rest, "PR") for rest in ("CR", "NON-CR/NON-PD", "NE")],
        ("PR", "PD", "PD"),
        *[("SD", rest, "SD") for rest in ("CR", "NON-CR/NON-PD", "NE")],
        ("SD", "PD", "PD"),
        *[("NE", rest, "NE") for rest in ("CR", "NON-CR/NON-PD", "NE")],
        ("NE", "PD", "PD"),
        *[("PD", rest, "PD") for rest in ("CR", "NON-CR/NON-PD", "NE", "PD")],
    ]
]
TARGETS = {
    "CR": lesion("T", status=GONE),
    "PR": lesion("T", 10, 10),
    "SD": lesion("T", 20, 10),
    "PD": lesion("T", 30, 10),
    "NE": lesion("T", status=UNKNOWN),
}
OTHERS = {
    "CR": GONE,
    "NON-CR/NON-PD": Status.PRESENT,
    "NE": UNKNOWN,
    "PD": Status.PROGRESSED,
}


@pytest.mark.parametrize(("target", "rest", "new", "word"), TABLE)
def test_targets_others_and_new_lesions_come_to_the_verdict_of_the_table(
    target: str, rest: str, new: bool, word: str
) -> None:
    other = lesion("N", role=Role.NON_TARGET, status=Status.PRESENT)
    seen = [TARGETS[target], replace(other, status=OTHERS[rest])]
    if new:
        seen.append(lesion("X", 12, 12, role=Role.NEW))
    point = judge(history((lesion("T", 20, 10), other), tuple(seen))).time_points[1]
    assert (point.target, point.non_target, point.new) == (target, rest, new)
    assert point.overall == ("PD" if new else word)


def test_margins_are_the_smallest_changes_that_give_another_verdict() -> None:
    course = history(
        (lesion("A", 20, 10),), (lesion("A", 12, 10, long_axis_sd_mm=0.5, short_axis_sd_mm=0.5),)
    )
    found = {(margin.quantity, margin.verdict): margin for margin in judge(course).time_points[1].margins}
    assert found["long_axis", "PR"].change == pytest.approx(-2.0)
    assert found["long_axis", "PD"].change == pytest.approx(13.0)
    assert found["short_axis", "PR"].change == pytest.approx(-1.7)
    assert found["long_axis", "PR"].standard_deviations == pytest.approx(4.0)


def test_one_lesion_that_grew_is_told_where_the_sum_did_not() -> None:
    course = history((lesion("A", 20, 10), lesion("B", 60, 50)), (lesion("A", 26, 10), lesion("B", 60, 49)))
    point = judge(course).time_points[1]
    assert point.overall == "SD"
    assert any(doubt.startswith("A alone is 25 %") for doubt in point.doubts)


def test_best_response_with_and_without_confirmation() -> None:
    once = judge(history(*((lesion("A", *axes),) for axes in ((20, 10), (10, 10), (20, 10)))))
    assert (once.best_overall, once.best_overall_confirmed) == ("PR", "SD")
    twice = judge(history(*((lesion("A", *axes),) for axes in ((20, 10), (10, 10), (10, 10)))))
    assert (twice.best_overall, twice.best_overall_confirmed) == ("PR", "PR")


AXES = st.tuples(st.integers(10, 900), st.integers(10, 900))
COURSES = st.integers(1, 4).flatmap(
    lambda lesions: st.lists(st.lists(AXES, min_size=lesions, max_size=lesions), min_size=2, max_size=4)
)


def _course(visits: list[list[tuple[int, int]]], factor: int = 1) -> History:
    return history(
        *(
            tuple(lesion(f"T{at}", a * factor / 10, b * factor / 10) for at, (a, b) in enumerate(visit))
            for visit in visits
        )
    )


@settings(max_examples=40, deadline=None)
@given(COURSES, st.integers(2, 5), st.randoms(use_true_random=False))
def test_neither_order_nor_scale_nor_which_axis_is_longer_matters(
    visits: list[list[tuple[int, int]]], factor: int, order: random.Random
) -> None:
    expected = overalls(_course(visits))
    assert overalls(_course(visits, factor)) == expected
    assert overalls(_course([[(b, a) for a, b in visit] for visit in visits])) == expected
    mixed = _course(visits)

    def shuffled(seen: tuple[Seen, ...]) -> tuple[Seen, ...]:
        return tuple(order.sample(seen, len(seen)))

    mixed = replace(mixed, visits=tuple(replace(one, seen=shuffled(one.seen)) for one in mixed.visits))
    assert overalls(mixed) == expected


@settings(max_examples=40, deadline=None)
@given(COURSES, st.integers(1, 200))
def test_a_larger_last_visit_is_never_a_better_verdict(
    visits: list[list[tuple[int, int]]], more: int
) -> None:
    better = ["CR", "PR", "SD", "PD"]
    larger = [*visits[:-1], [(visits[-1][0][0] + more, visits[-1][0][1]), *visits[-1][1:]]]
    words = [overalls(_course(one))[-1] for one in (visits, larger)]
    assert better.index(str(words[0])) <= better.index(str(words[1]))


@pytest.mark.parametrize("judged", [judge, volumetric.judge])
def test_what_recist_doubts_of_roles_and_sizes_is_doubted_whatever_is_added_up(
    judged: Callable[[History], Response],
) -> None:
    course = history(
        (lesion("A", 8, 7, volume_mm3=200.0), lesion("B", volume_mm3=900.0)),
        (lesion("A", 8, 7, volume_mm3=200.0), lesion("X", role=Role.NEW, status=UNKNOWN)),
    )
    found = judged(course)
    first, second = found.time_points
    assert first.doubts == ("A is a target of 8.0 mm; a measurable one has 10.0 mm at least.",)
    assert second.doubts == ("X is an equivocal new lesion: it counts when a later visit is certain of it.",)
    assert found.doubts == (
        "The start of treatment is not known: stable disease is counted from the baseline.",
    )

"""RECIST 1.1: the tables, the borders and the corners."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from lesion_courses import Line, course, new, non_target, target
from seen_courses import history as history_of
from seen_courses import lesion

from plugins.errors import Refused
from store.response import irecist, who
from store.response.history import Role, Seen, Status
from store.response.recist import judge
from store.response.rules import USUAL, Rules


def overalls(*lines: Line, rules: Rules = USUAL) -> list[str | None]:
    return [point.overall for point in judge(course(*lines), rules).time_points[1:]]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((100, 70), ["PR"]),
        ((100, 70.1), ["SD"]),
        ((100, 69.9), ["PR"]),
        ((30, 20, 24), ["PR", "SD"]),
        ((40, 20, 24), ["PR", "PR"]),
        ((30, 25, 30), ["SD", "PD"]),
        ((30, 25, 29.9), ["SD", "SD"]),
        ((60, 50, 60), ["SD", "PD"]),
        ((60, 50, 59.9), ["SD", "SD"]),
        ((25, 30), ["PD"]),
        ((30, 36), ["PD"]),
        ((50, 0, 4), ["CR", "PD"]),
        ((50, 0, 0.1), ["CR", "PD"]),
        ((50, 0, "NE", 12), ["CR", "NE", "PD"]),
        ((50, 0, "too-small"), ["CR", "PD"]),
        ((50, "absent", "absent"), ["CR", "CR"]),
        ((20, "too-small"), ["PR"]),
        ((70.1, 49.1), ["SD"]),
        ((70.1, 49.0), ["PR"]),
        ((33.3, 40.0), ["PD"]),
        ((33.3, 39.9), ["SD"]),
        ((0.7, 5.6), ["SD"]),
        ((0.7, 5.7), ["PD"]),
    ],
)
def test_a_single_target_is_judged_at_its_borders(sizes: tuple[Any, ...], expected: list[str]) -> None:
    assert overalls(target("T1", *sizes)) == expected


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((15, 9.9), ["CR"]),
        ((15, 10), ["PR"]),
        ((20, 9.9, 10), ["CR", "PD"]),
        ((20, 4, 9.9), ["CR", "CR"]),
        ((20, "too-small"), ["CR"]),
        ((20, "absent"), ["CR"]),
    ],
)
def test_a_node_is_judged_by_its_short_axis(sizes: tuple[Any, ...], expected: list[str]) -> None:
    assert overalls(target("N1", *sizes, node=True)) == expected


def test_complete_response_leaves_a_sum_where_nodes_are_normal() -> None:
    point = judge(course(target("T1", 30, 0), target("N1", 20, 9.9, node=True))).time_points[1]
    assert (point.overall, point.sum, point.nadir) == ("CR", 9.9, 50.0)
    assert point.because == ("CR: Targets CR. What is left are nodes below 10 mm: N1 9.9 mm. No new lesion.")


def test_too_small_counts_five_millimetres_and_a_node_keeps_its_short_axis() -> None:
    seen = Seen(lesion="N1", role=Role.TARGET, status=Status.TOO_SMALL, node=True, short_axis_tenths=32)
    history = course(target("T1", 30, "too-small"), target("N1", 20, None, node=True))
    last = replace(history.visits[1], seen=(*history.visits[1].seen, seen))
    point = judge(replace(history, visits=(history.visits[0], last))).time_points[1]
    assert point.sum == 8.2
    assert judge(course(target("T1", 30, "too-small"))).time_points[1].sum == 5.0


def test_the_words_name_the_rule_and_its_numbers() -> None:
    points = judge(course(target("T1", 60, 40, 47.9), non_target("B", *["present"] * 3))).time_points
    assert points[2].because == (
        "SD: Targets SD. Sum of diameters 47.9 mm. 20.16 % below the baseline of 60.0 mm (PR: 30 % below, "
        "42.0 mm or less). 19.75 %, 7.9 mm above the nadir of 40.0 mm on 2024-02-26 (PD: 20 % and 5 mm above, "
        "48.0 mm or more). Non-target lesions NON-CR/NON-PD. Still there: B. No new lesion."
    )


def test_the_nadir_is_the_smallest_complete_sum_before_the_visit() -> None:
    points = judge(
        course(
            target("T1", 40, 30, 10, 32, 30),
            target("T2", 40, 30, "NE", 32, 30),
        )
    ).time_points
    assert [point.nadir for point in points] == [None, 80.0, 60.0, 60.0, 60.0]
    assert [point.sum for point in points] == [80.0, 60.0, None, 64.0, 60.0]
    assert [point.overall for point in points] == [None, "SD", "NE", "SD", "SD"]


def test_a_missing_target_is_not_evaluable_unless_the_rest_proves_progression() -> None:
    for gone in (None, "NE", "present"):
        assert overalls(target("T1", 40, 48), target("T2", 10, gone)) == ["NE"]
        assert overalls(target("T1", 40, 59.9), target("T2", 10, gone)) == ["NE"]
        assert overalls(target("T1", 40, 60), target("T2", 10, gone)) == ["PD"]
        assert overalls(target("T1", 40, 0), target("T2", 10, gone)) == ["NE"]
    point = judge(course(target("T1", 40, 60), target("T2", 10, "NE"))).time_points[1]
    assert point.because == (
        "PD: Targets PD. Not assessed: T2. What was measured adds up to 60.0 mm. 20.00 %, 10.0 mm above the nadir "
        "of 50.0 mm on 2024-01-01 (PD: 20 % and 5 mm above, 60.0 mm or more). No new lesion."
    )
    point = judge(course(target("T1", 40, 59.9), target("T2", 10, "NE"))).time_points[1]
    assert point.because == (
        "NE: Targets NE. Not assessed: T2. What was measured adds up to 59.9 mm. From that progression can neither be "
        "shown nor excluded: 20 % and 5 mm above the nadir of 50.0 mm on 2024-01-01 are 60.0 mm. No new lesion."
    )
    point = judge(course(target("T1", 40, "NE"), target("T2", 10, "NE"))).time_points[1]
    assert point.because == (
        "NE: Targets NE. Not assessed: T1, T2. Progression can neither be shown nor excluded. No new lesion."
    )
    point = judge(course(target("T1", 40, 0), target("T2", 10, "NE"))).time_points[1]
    assert "What was measured adds up to 0.0 mm. From that progression can neither" in point.because


def test_after_a_complete_response_any_target_is_progression_although_another_is_missing() -> None:
    assert overalls(target("T1", 20, 0, 3), target("T2", 20, 0, "NE")) == ["CR", "PD"]


def test_a_target_that_is_back_is_no_progression_of_itself_when_other_disease_stayed() -> None:
    # recist.eortc.org: lesions that disappear and reappear are progression after an overall CR only.
    lesions = (target("T1", 50, 0, 4), non_target("B", "present", "present", "present"))
    assert overalls(*lesions) == ["PR", "PR"]


def test_a_non_target_lesion_that_is_back_after_a_complete_response_is_progression() -> None:
    assert overalls(target("T1", 20, 0, 0), non_target("B", "present", "absent", "present")) == ["CR", "PD"]
    node = non_target("N", 12, 8, 11, node=True)
    assert overalls(target("T1", 20, 0, 0), node) == ["CR", "PR"]
    node = non_target("N", 12, 8, "unequivocal-progression", node=True)
    assert overalls(target("T1", 20, 0, 0), node) == ["CR", "PD"]


TARGETS = {"CR": 0, "PR": 50, "SD": 100, "PD": 130, "NE": "NE"}
NON_TARGETS = {
    "CR": "absent",
    "NON-CR/NON-PD": "present",
    "NE": "NE",
    "PD": "unequivocal-progression",
}
TABLE = {
    ("CR", None): "CR",
    ("CR", "CR"): "CR",
    ("CR", "NON-CR/NON-PD"): "PR",
    ("CR", "NE"): "PR",
    **{("PR", other): "PR" for other in (None, "CR", "NON-CR/NON-PD", "NE")},
    **{("SD", other): "SD" for other in (None, "CR", "NON-CR/NON-PD", "NE")},
    **{("NE", other): "NE" for other in (None, "CR", "NON-CR/NON-PD", "NE")},
    (None, "CR"): "CR",
    (None, "NON-CR/NON-PD"): "NON-CR/NON-PD",
    (None, "NE"): "NE",
}


@pytest.mark.parametrize("appears", [False, True])
@pytest.mark.parametrize(
    ("first", "second"),
    [pair for pair in product([*TARGETS, None], [*NON_TARGETS, None]) if pair != (None, None)],
)
def test_every_cell_of_the_time_point_tables(first: str | None, second: str | None, appears: bool) -> None:
    lines = []
    if first:
        lines.append(target("T1", 100, TARGETS[first]))
    if second:
        lines.append(non_target("B", "present", NON_TARGETS[second]))
    if appears:
        lines.append(new("X", None, "present"))
    point = judge(course(*lines)).time_points[1]
    expected = "PD" if appears or "PD" in (first, second) else TABLE[first, second]
    assert (point.target, point.non_target, point.new, point.overall) == (first, second, appears, expected)
    assert point.because.startswith(f"{expected}: ")


def test_several_non_target_lesions_are_gone_only_together() -> None:
    assert overalls(non_target("A", "present", "absent"), non_target("B", "present", "present")) == [
        "NON-CR/NON-PD"
    ]
    assert overalls(non_target("A", "present", "absent"), non_target("B", "present", None)) == ["NE"]
    assert overalls(non_target("A", 12, 9.9, node=True), non_target("B", "present", "absent")) == ["CR"]


def test_patients_with_other_than_target_disease_have_no_sum() -> None:
    response = judge(course(non_target("A", "present", "present", "present")))
    assert [point.sum for point in response.time_points] == [None, None, None]
    assert response.best_overall == response.best_overall_confirmed == "NON-CR/NON-PD"


def test_new_lesions_are_progression_whatever_was_seen_of_them_and_from_then_on() -> None:
    for seen in (12, "present", "too-small", "unequivocal-progression"):
        assert overalls(target("T1", 50, 50, 10), new("X", None, seen, None)) == ["PD", "PD"]
    assert overalls(target("T1", 50, 50), new("X", "absent", "absent")) == ["SD"]
    several = judge(course(target("T1", 50, 50), new("Y", None, 9), new("X", None, 12))).time_points[1]
    assert "New: X, Y." in several.because
    gone = judge(course(target("T1", 50, 50, 50), new("X", None, 9, "absent"))).time_points[2]
    assert (gone.new, gone.overall) == (True, "PD")
    assert "New since an earlier visit: X. Not seen any more: X." in gone.because


def test_a_new_node_counts_from_ten_millimetres_on_and_below_fifteen_it_is_doubted() -> None:
    small, border, large = (
        judge(course(target("T1", 50, 50), new("N", None, size, node=True))).time_points[1]
        for size in (9.9, 10, 15)
    )
    assert (small.overall, border.overall, large.overall) == ("SD", "PD", "PD")
    assert small.doubts == ("The node N of 9.9 mm is below 10 mm: normal, and not a new lesion.",)
    assert border.doubts == ("The new node N has 10.0 mm: below 15 mm it may be no progression.",)
    assert large.doubts == ()


def test_an_equivocal_new_lesion_is_followed_and_progression_is_dated_at_its_first_appearance() -> None:
    stable = target("T1", 50, 50, 50, 50)
    assert overalls(stable, new("X", None, "NE", "NE", "NE")) == ["SD", "SD", "SD"]
    assert overalls(stable, new("X", None, "NE", "NE", 12)) == ["PD", "PD", "PD"]
    assert overalls(stable, new("X", None, "NE", "absent", 12)) == ["SD", "SD", "PD"]
    point = judge(course(stable, new("X", None, "NE", None, 12))).time_points[1]
    assert "progression is dated at its first appearance" in point.because


def test_a_node_that_was_normal_at_the_baseline_is_doubted_when_it_is_none_any_more_and_new_when_called_so() -> (
    None
):
    grown = judge(course(target("T1", 50, 50, 50), non_target("N", 8, 9.9, 22, node=True)))
    assert [point.overall for point in grown.time_points] == [None, "SD", "SD"]
    assert [point.doubts for point in grown.time_points] == [
        (),
        (),
        (
            "The node N was normal at the baseline, with 8.0 mm, and has 22.0 mm now: it may be a new lesion, which "
            "would be progression.",
        ),
    ]
    assert judge(course(target("T1", 50, 50), non_target("N", 10, 22, node=True))).time_points[1].doubts == ()
    called = judge(course(target("T1", 50, 50, 50), new("N", 8, 9.9, 22, node=True)))
    assert [point.overall for point in called.time_points] == [None, "SD", "PD"]
    assert (called.time_points[0].doubts, called.time_points[2].doubts) == ((), ())


def test_a_lesion_is_what_it_was_at_the_baseline() -> None:
    # A target that the baseline does not know is a new lesion.
    point = judge(course(target("T1", 50, 50), target("T2", None, 12))).time_points[1]
    assert (point.overall, point.sum) == ("PD", 50.0)
    assert point.doubts == ("T2, called target, was not there at the baseline: it is a new lesion.",)
    assert overalls(target("T1", 50, 50), target("T2", "absent", 12)) == ["PD"]
    assert overalls(target("T1", 50, 50), non_target("B", "absent", "present")) == ["PD"]
    assert overalls(target("T1", 50, 50), target("T2", None, "absent")) == ["SD"]
    # A lesion that the baseline knows is none.
    history = course(target("T1", 50, 50), new("X", 12, 12))
    assert judge(history).time_points[1].overall == "SD"
    assert "X is called new at the baseline" in judge(history).time_points[0].doubts[0]


def test_a_role_that_changes_is_doubted_and_the_first_counts() -> None:
    history = course(target("T1", 50, 20))
    seen = replace(history.visits[1].seen[0], role=Role.NON_TARGET)
    changed = replace(history, visits=(history.visits[0], replace(history.visits[1], seen=(seen,))))
    point = judge(changed).time_points[1]
    assert point.overall == "PR"
    assert point.doubts == ("T1 was called target first and is called non-target now: the first counts.",)


def test_a_baseline_without_any_lesion_divides_by_nothing() -> None:
    response = judge(course(target("T1", 0, 0, 7)))
    assert [point.overall for point in response.time_points] == [None, "NE", "PD"]
    assert [point.sum for point in response.time_points] == [None, None, None]


def test_a_baseline_with_a_target_that_was_not_measured_has_no_sum_to_compare_with() -> None:
    lines = (target("T1", "NE", 20, 30, 0), target("T2", 20, 20, 20, 0))
    assert overalls(*lines) == ["NE", "PD", "CR"]
    assert "T1 is a target without a length" in judge(course(*lines)).time_points[0].doubts[0]


def test_partial_response_lasts_until_progression_where_the_protocol_says_so(data: Path) -> None:
    kept = json.loads((data / "response" / "eortc_sticky_pr.json").read_text())
    lasting = Rules(pr_persistence="eortc")
    assert overalls(target("T1", *kept["sums"]), rules=lasting) == kept["eortc_tp_response"][1:]
    assert overalls(target("T1", *kept["sums"])) == ["PR", "PR", "SD", "SD", "SD"]
    assert overalls(target("T1", 100, 70, 84, 80), rules=lasting) == ["PR", "PD", "SD"]
    assert overalls(target("T1", 165, 63, 65), rules=lasting) == ["PR", "PR"]
    assert overalls(target("T1", 100, 90, 80), rules=lasting) == ["SD", "SD"]


def test_unequivocal_progression_of_a_target_in_words_is_progression() -> None:
    assert overalls(target("T1", 50, "unequivocal-progression")) == ["PD"]


def test_measurements_that_are_missing_make_a_target_not_evaluable() -> None:
    seen = Seen(lesion="N1", role=Role.TARGET, status=Status.MEASURED, node=True, long_axis_tenths=300)
    history = course(target("N1", 20, None, node=True), target("T1", 20, 20))
    last = replace(history.visits[1], seen=(*history.visits[1].seen, seen))
    point = judge(replace(history, visits=(history.visits[0], last))).time_points[1]
    assert (point.overall, point.sum) == ("NE", None)
    assert point.doubts == ("N1 is measured and has no length: it was not evaluable as a target.",)


def test_visits_are_taken_by_date() -> None:
    history = course(target("T1", 100, 60, 80))
    assert judge(replace(history, visits=history.visits[::-1])) == judge(history)


def test_what_one_visit_calls_a_node_is_one_at_all_of_them() -> None:
    history = course(target("N1", 30, 15, node=True))
    unsaid = replace(history.visits[0], seen=(replace(history.visits[0].seen[0], node=False),))
    assert judge(replace(history, visits=(unsaid, history.visits[1]))) == judge(history)


def test_a_history_that_cannot_be_judged_is_refused() -> None:
    history = course(target("T1", 50, 50))
    twice = replace(history.visits[1], seen=history.visits[1].seen * 2)
    with pytest.raises(
        Refused, match="lesion-twice: There are two entries for lesion T1 of P1 on 2024-02-26"
    ):
        judge(replace(history, visits=(history.visits[0], twice)))
    with pytest.raises(Refused, match="date-twice"):
        judge(replace(history, visits=history.visits + history.visits[1:]))
    with pytest.raises(Refused, match="no-visit"):
        judge(replace(history, visits=()))
    with pytest.raises(Refused, match="negative-length: The length -1 mm of lesion T1"):
        judge(course(target("T1", 50, -1)))


def test_one_visit_is_a_baseline_without_a_verdict() -> None:
    response = judge(course(target("T1", 50), non_target("B", "present")))
    (point,) = response.time_points
    assert (point.overall, point.nadir, point.sum) == (None, None, 50.0)
    assert point.because == "Baseline. Targets: 1, sum of diameters 50.0 mm. Non-target lesions: 1."
    assert response.best_overall is None and response.best_overall_confirmed is None


def test_targets_beyond_the_rules_are_doubted() -> None:
    doubts = judge(course(*(target(f"T{n}", 12) for n in range(6)), target("S", 9.9))).time_points[0].doubts
    assert doubts == (
        "There are 7 targets; RECIST 1.1 takes 5 at most.",
        "S is a target of 9.9 mm; a measurable one has 10.0 mm at least.",
    )


@pytest.mark.parametrize(
    ("sites", "node", "rules", "said"),
    [
        (("left lung", "lung", "right lung"), False, Rules(), ("3 targets of one organ (lung)", 2)),
        (("neck", "axilla", "groin"), True, Rules(), ("3 targets of one organ (lymph nodes)", 2)),
        (("neck", "axilla", "groin"), True, Rules(nodes_are_one_organ=False), None),
        (("lung", "lung", "liver"), False, Rules(), None),
        (("", "", ""), False, Rules(), None),
        (("lung", "lung", "lung"), False, Rules(most_targets_per_organ=3), None),
        (("liver", "liver"), False, Rules(most_targets_per_organ=1), ("2 targets of one organ (liver)", 1)),
    ],
)
def test_more_targets_of_one_organ_than_the_rules_take_are_doubted(
    sites: tuple[str, ...], node: bool, rules: Rules, said: tuple[str, int] | None
) -> None:
    seen = tuple(lesion(f"T{n}", 20, 20, site=site, node=node) for n, site in enumerate(sites))
    sentence = said and f"There are {said[0]}; RECIST 1.1 takes {said[1]} at most."
    for judged in (judge, irecist.judge):
        assert judged(history_of(seen), rules).time_points[0].doubts == ((sentence,) if sentence else ())
    assert who.judge(history_of(seen), rules).time_points[0].doubts == ()


def test_best_response_follows_from_the_verdicts() -> None:
    response = judge(course(target("T1", 100, 60, 50, 90)))
    assert (response.best_overall, response.best_overall_confirmed) == ("PR", "PR")
    response = judge(course(target("T1", 100, 60, 90)))
    assert (response.best_overall, response.best_overall_confirmed) == ("PR", "SD")

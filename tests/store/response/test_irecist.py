"""iRECIST: what confirms a progression, what takes it back, and the best response of the published table."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesion_courses import START, Line, course, new, non_target, target

from store.response import recist
from store.response.best import IRECIST, best_confirmed, best_overall
from store.response.irecist import judge
from store.response.rules import USUAL, Rules

PROGRESSED = "unequivocal-progression"


def overalls(*lines: Line, days: int = 42, rules: Rules = USUAL) -> list[str | None]:
    return [point.overall for point in judge(course(*lines, days=days), rules).time_points[1:]]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((100, 120), ["iUPD"]),
        ((100, 120, 125), ["iUPD", "iCPD"]),
        ((100, 120, 124.9), ["iUPD", "iUPD"]),
        ((100, 120, 124, 126), ["iUPD", "iUPD", "iCPD"]),  # 4 mm, then 2 mm: increases add up
        ((100, 120, 120, 120), ["iUPD", "iUPD", "iUPD"]),
        ((100, 120, 119), ["iUPD", "iSD"]),
        ((100, 130, 125, 134.9), ["iUPD", "iUPD", "iUPD"]),
        ((100, 130, 125, 135), ["iUPD", "iUPD", "iCPD"]),
        ((100, 120, 60), ["iUPD", "iPR"]),
        ((100, 120, 0), ["iUPD", "iCR"]),
        ((100, 120, "NE", 125), ["iUPD", "NE", "iCPD"]),
        ((100, 120, "NE", 110), ["iUPD", "NE", "iSD"]),
        ((100, 120, 110, 121, 130), ["iUPD", "iSD", "iUPD", "iCPD"]),  # the bar is reset: a new iUPD
        ((100, 120, 110, 126), ["iUPD", "iSD", "iUPD"]),
        ((100, 50, 60, 66), ["iPR", "iUPD", "iCPD"]),
        ((100, 120, 125, 50), ["iUPD", "iCPD", "iCPD"]),
        ((100, 70, 80), ["iPR", "iSD"]),
    ],
)
def test_targets_progress_are_confirmed_and_taken_back(sizes: tuple[Any, ...], expected: list[str]) -> None:
    assert overalls(target("T1", *sizes)) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # Not measured at the iUPD: the growth is that of the others.
        ((40, 70, 90, 130), (10, "NE", 10, 10), ["iUPD", "iCPD", "iCPD"]),
        ((40, 70, 74.9, 75), (10, "NE", 10, 10), ["iUPD", "iUPD", "iCPD"]),
        ((40, 70, 70, 74), (10, None, 60, 60), ["iUPD", "iUPD", "iUPD"]),
        ((40, 70, 40), (10, "NE", 10), ["iUPD", "iSD"]),
        # Measured at the iUPD and not now: it may be gone.
        ((40, 60, 74.9), (10, 10, "NE"), ["iUPD", "iUPD"]),
        ((40, 60, 75), (10, 10, "NE"), ["iUPD", "iCPD"]),
        # Without any length: said again is grown further, as of non-target lesions.
        ((40, PROGRESSED, PROGRESSED), (10, 10, 10), ["iUPD", "iCPD"]),
        ((40, PROGRESSED, PROGRESSED), (10, "NE", "NE"), ["iUPD", "iCPD"]),
        ((40, PROGRESSED, "present"), (10, 10, 10), ["iUPD", "NE"]),
        ((40, PROGRESSED, "NE", PROGRESSED), (10, 10, 10, 10), ["iUPD", "NE", "iCPD"]),
        ((40, 60, PROGRESSED), (10, 10, 10), ["iUPD", "iUPD"]),
    ],
)
def test_growth_is_confirmed_by_the_targets_that_were_measured_or_called_so(
    first: tuple[Any, ...], second: tuple[Any, ...], expected: list[str]
) -> None:
    assert overalls(target("T1", *first), target("T2", *second)) == expected


def test_the_words_tell_which_targets_the_growth_is_of() -> None:
    def why(*sizes: tuple[Any, ...]) -> str:
        lines = (target(f"T{number}", *own) for number, own in enumerate(sizes, 1))
        point = judge(course(*lines, days=42)).time_points[2]
        return point.because.partition(" By RECIST")[0]

    assert why((40, 70, 90), (10, "NE", 10)) == (
        "iCPD: The iUPD of 2024-02-12 is confirmed after 42 days: the sum of diameters without T2, not measured at the "
        "iUPD, is 20.0 mm larger (5 mm or more)."
    )
    assert why((40, 60, 80), (10, 10, "NE")) == (
        "iCPD: The iUPD of 2024-02-12 is confirmed after 42 days: the sum of diameters is at least 10.0 mm larger "
        "(5 mm or more)."
    )
    assert why((40, PROGRESSED, PROGRESSED)) == (
        "iCPD: The iUPD of 2024-02-12 is confirmed after 42 days: T1 is called unequivocal progression again."
    )
    assert why((40, 70, 72), (10, "NE", 10)) == (
        "iUPD: No further progression since the iUPD of 2024-02-12 can be shown: T2 not measured at both visits."
    )
    assert why((40, 70, 72), (10, 10, 10)) == "iUPD: No further progression since the iUPD of 2024-02-12."


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        ((20, 0, 0, 0), ("present", "absent", 12, 12.1), ["iCR", "iUPD", "iCPD"]),
        ((20, 0, 0, 0), ("present", "absent", 12, 12), ["iCR", "iUPD", "iUPD"]),
        ((20, 0, 0, 0), ("present", "absent", "present", PROGRESSED), ["iCR", "iUPD", "iCPD"]),
        ((20, 0, 0, 0), ("present", "absent", "present", "present"), ["iCR", "iUPD", "iUPD"]),
        ((20, 0, "present", PROGRESSED), ("present", "absent", "absent", "absent"), ["iCR", "iUPD", "iCPD"]),
        ((20, 0, "present", "present"), ("present", "absent", "absent", "absent"), ["iCR", "iUPD", "iUPD"]),
    ],
)
def test_what_is_back_after_a_complete_response_is_confirmed_when_it_grows(
    first: tuple[Any, ...], other: tuple[Any, ...], expected: list[str]
) -> None:
    assert overalls(target("T1", *first), non_target("B", *other)) == expected


def test_a_confirmation_needs_four_weeks_and_a_protocol_may_allow_less() -> None:
    for days, word in ((27, "iUPD"), (28, "iCPD"), (56, "iCPD")):
        dates = [START, START + timedelta(days=60), START + timedelta(days=60 + days)]
        response = judge(course(target("T1", 100, 120, 130), dates=dates))
        assert response.time_points[2].overall == word
        assert response.time_points[2].doubts == ()
    dates = [START, START + timedelta(days=60), START + timedelta(days=80), START + timedelta(days=100)]
    history = course(target("T1", 100, 120, 130, 130), dates=dates)
    assert [point.overall for point in judge(history).time_points[1:]] == ["iUPD", "iUPD", "iCPD"]
    early = Rules(progression_confirm_days=14)
    assert [point.overall for point in judge(history, early).time_points[1:]] == ["iUPD", "iCPD", "iCPD"]


def test_a_late_confirmation_counts_and_is_told() -> None:
    point = judge(course(target("T1", 100, 120, 130), days=84)).time_points[2]
    assert point.overall == "iCPD"
    assert point.doubts == ("The confirmation came 84 days after the iUPD; iRECIST asks for 4 to 8 weeks.",)


def test_the_words_tell_the_rule_of_irecist_and_the_numbers_of_recist() -> None:
    point = judge(course(target("T1", 100, 120, 126), days=42)).time_points[2]
    assert point.because == (
        "iCPD: The iUPD of 2024-02-12 is confirmed after 42 days: the sum of diameters is 6.0 mm larger (5 mm or "
        "more). By RECIST 1.1: Targets PD. Sum of diameters 126.0 mm. 26.00 % above the baseline of 100.0 mm "
        "(PR: 30 % below, 70.0 mm or less). 26.00 %, 26.0 mm above the nadir of 100.0 mm on 2024-01-01 "
        "(PD: 20 % and 5 mm above, 120.0 mm or more). No new lesion."
    )
    assert (point.target, point.non_target, point.new, point.sum) == ("iUPD", None, False, 126.0)


STABLE = target("T1", 100, 100, 100, 100)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # One that is called progressed again grew further; with lengths they decide.
        ((non_target("B", "present", PROGRESSED, PROGRESSED),), ["iUPD", "iCPD"]),
        ((non_target("B", "present", PROGRESSED, "present"),), ["iUPD", "iSD"]),
        ((non_target("B", "present", PROGRESSED, "NE"),), ["iUPD", "iSD"]),
        # Progression of another kind confirms.
        ((non_target("B", "present", PROGRESSED, "present"), new("X", None, None, 12)), ["iUPD", "iCPD"]),
        ((non_target("B", "present", "present", PROGRESSED), new("X", None, 12, 12)), ["iUPD", "iCPD"]),
        # New lesions: more of them, larger ones, or neither.
        ((new("X", None, 12, 12), new("Y", None, None, 8)), ["iUPD", "iCPD"]),
        ((new("X", None, 12, 16.9),), ["iUPD", "iUPD"]),
        ((new("X", None, 12, 17),), ["iUPD", "iCPD"]),
        ((new("X", None, 12, 14), new("Y", None, 20, 23)), ["iUPD", "iCPD"]),
        ((new("X", None, 12, 14), new("Y", None, 20, 20)), ["iUPD", "iUPD"]),
        ((new("X", None, 9, 9.1),), ["iUPD", "iCPD"]),  # not measurable: any increase
        ((new("X", None, 9, 9),), ["iUPD", "iUPD"]),
        ((new("N", None, 14, 14.1, node=True),), ["iUPD", "iCPD"]),
        ((new("N", None, 15, 19.9, node=True),), ["iUPD", "iUPD"]),
        ((new("X", None, "present", PROGRESSED),), ["iUPD", "iCPD"]),
        ((new("X", None, "present", "present"),), ["iUPD", "iUPD"]),
        # Gone: taken back. Not looked at: neither gone nor confirmed.
        ((new("X", None, 12, "absent"),), ["iUPD", "iSD"]),
        ((new("X", None, 12, None),), ["iUPD", "iUPD"]),
        ((new("X", None, 12, 14, 17),), ["iUPD", "iUPD", "iCPD"]),
    ],
)
def test_other_lesions_progress_are_confirmed_and_taken_back(
    lines: tuple[Line, ...], expected: list[str]
) -> None:
    visits = len(expected) + 1
    assert overalls(replace(STABLE, sizes=STABLE.sizes[:visits]), *lines) == expected


def test_any_growth_of_a_measured_non_target_lesion_confirms_its_progression() -> None:
    for size, word in ((30.1, "iCPD"), (30, "iUPD")):
        history = course(target("T1", 50, 50, 50), non_target("B", 20, 30, size), days=42)
        visits = [
            replace(
                visit,
                seen=tuple(
                    replace(one, status=type(one.status)(PROGRESSED)) if one.lesion == "B" and index else one
                    for one in visit.seen
                ),
            )
            for index, visit in enumerate(history.visits)
        ]
        assert judge(replace(history, visits=tuple(visits))).time_points[2].overall == word


def test_a_new_lesion_does_not_preclude_a_later_response_but_no_change_stays_unconfirmed() -> None:
    # Scenarios B, D and F of the supplement, as told at recist.eortc.org.
    assert overalls(target("T1", 100, 100, 60), new("X", None, 12, 12)) == ["iUPD", "iPR"]
    assert overalls(target("T1", 100, 60, 80, 65)) == ["iPR", "iUPD", "iPR"]
    assert overalls(target("T1", 100, 60, 60, 60), new("X", None, None, 12, 12)) == ["iPR", "iUPD", "iUPD"]
    assert overalls(target("T1", 100, 130, 100), new("X", None, 12, 12)) == ["iUPD", "iSD"]


def test_new_lesions_are_never_added_to_the_sum_and_keep_a_complete_response_away() -> None:
    points = judge(course(target("T1", 50, 50, 0, 0), new("X", None, 12, 12, "absent"), days=42)).time_points
    assert [point.sum for point in points] == [50.0, 50.0, 0.0, 0.0]
    assert [point.overall for point in points[1:]] == ["iUPD", "iPR", "iCR"]
    assert "No complete response" not in points[3].because


def test_after_it_was_taken_back_a_new_lesion_progresses_by_the_rules_of_recist_only() -> None:
    shrinks = target("T1", 100, 100, 60, 60)
    # Above its smallest sum of 20 mm: 24 mm is 20 % and 4 mm, 25 mm is progression.
    assert overalls(shrinks, new("X", None, 20, 20, 24.9)) == ["iUPD", "iPR", "iPR"]
    assert overalls(shrinks, new("X", None, 20, 20, 25)) == ["iUPD", "iPR", "iUPD"]
    assert overalls(shrinks, new("X", None, 25, 20, 25)) == ["iUPD", "iPR", "iUPD"]
    assert overalls(shrinks, new("X", None, 20, 20, PROGRESSED)) == ["iUPD", "iPR", "iUPD"]
    assert overalls(shrinks, new("X", None, 20, 20, 20), new("Y", None, None, None, 9)) == [
        "iUPD",
        "iPR",
        "iUPD",
    ]


@pytest.mark.parametrize(
    ("grown", "lesion", "expected"),
    [
        # Told 14 days after the iUPD of the first target, which is too early to confirm it.
        ((20, 30, 30, 30, 30), (None, None, 11, 11, 11), ["iUPD", "iUPD", "iCPD", "iCPD"]),
        ((20, 30, 30, 6, 0), (None, None, 11, 11, 11), ["iUPD", "iUPD", "iCPD", "iCPD"]),
        ((20, 30, 30, 6, 0), (None, None, 11, "absent", "absent"), ["iUPD", "iUPD", "iPR", "iCR"]),
        ((20, 30, 30, 6, 0), (None, None, 11, "NE", "absent"), ["iUPD", "iUPD", "iPR", "iCR"]),
        ((20, 30, 30, 6, 0), (None, None, 11, None, None), ["iUPD", "iUPD", "iPR", "iPR"]),
        ((20, 30, 30, 30, 30), (None, None, 11, "absent", "absent"), ["iUPD", "iUPD", "iUPD", "iUPD"]),
        ((20, 30, 30, 30, 30), (None, None, 11, None, 11), ["iUPD", "iUPD", "iUPD", "iCPD"]),
        # Equivocal there, and certain later: it is dated there.
        ((20, 30, 30, 30, 30), (None, None, 11, "NE", 11), ["iUPD", "iUPD", "iCPD", "iCPD"]),
        ((20, 30, 30, 6, 6), (None, None, None, "NE", 11), ["iUPD", "iUPD", "iCPD", "iCPD"]),
        # There again once the iUPD was taken back: a new lesion that no iUPD counted.
        ((20, 30, 30, 6, 6), (None, None, 11, "absent", 11), ["iUPD", "iUPD", "iPR", "iUPD"]),
        ((20, 30, 30, 6, 6), (None, None, 8, None, 8), ["iUPD", "iUPD", "iPR", "iUPD"]),
    ],
)
def test_more_new_lesions_confirm_only_while_they_are_there(
    grown: tuple[Any, ...], lesion: tuple[Any, ...], expected: list[str]
) -> None:
    dates = [date(2024, 1, 1), date(2024, 2, 26), date(2024, 3, 11), date(2024, 4, 8), date(2024, 6, 3)]
    points = judge(course(target("T1", *grown), new("X", *lesion), dates=dates)).time_points
    assert [point.overall for point in points[1:]] == expected


def test_five_new_lesions_and_two_an_organ_are_measured_and_any_growth_of_the_others_confirms() -> None:
    lung = [new(f"L{n}", None, 30 - n, 30 - n, site="lung") for n in range(2)]
    third = new("L2", None, 12, 12.1, site="lung")
    assert overalls(target("T1", 50, 50, 50), *lung, third) == ["iUPD", "iCPD"]
    assert overalls(target("T1", 50, 50, 50), *lung, replace(third, site="liver")) == ["iUPD", "iUPD"]


def test_patients_without_targets_have_their_own_words() -> None:
    lines = (non_target("B", "present", "present", "absent", "absent"), new("X", None, None, None, "present"))
    response = judge(course(*lines))
    assert [point.overall for point in response.time_points[1:]] == ["NON-iCR/NON-iUPD", "iCR", "iUPD"]
    assert response.time_points[1].non_target == "NON-iCR/NON-iUPD"
    assert response.best_overall == "iCR"


def test_an_equivocal_new_lesion_that_is_certain_later_progresses_from_its_first_appearance() -> None:
    lines = (target("T1", 50, 50, 50), new("X", None, "NE", 12))
    assert overalls(*lines) == ["iUPD", "iUPD"]


def test_partial_response_lasts_where_the_protocol_says_so() -> None:
    lasting = Rules(pr_persistence="eortc")
    assert overalls(target("T1", 100, 70, 70, 80, 80, 80), rules=lasting) == ["iPR"] * 5


ANY = ("iCR", "iPR", "iSD", "iUPD", "NE")


@pytest.mark.parametrize(
    ("sequence", "best"),
    [
        (("iCR", ANY[:2] + ANY[3:], ANY[:2] + ANY[3:], "iUPD", "iCPD"), "iCR"),
        (("iUPD", ("iPR", "iSD", "NE"), "iCR", ("iCR", "iUPD", "NE"), (*ANY, "iCPD")), "iCR"),
        (("iUPD", "iPR", ("iPR", "iSD", "iUPD", "NE"), (*ANY[1:], "iCPD"), (*ANY[1:], "iCPD")), "iPR"),
        (("iUPD", ("iSD", "NE"), "iPR", ANY[1:], (*ANY[1:], "iCPD")), "iPR"),
        (("iUPD", "iSD", ANY[2:], (*ANY[2:], "iCPD"), (*ANY[2:], "iCPD")), "iSD"),
        (("iUPD", "iCPD", (*ANY, "iCPD"), (*ANY, "iCPD"), (*ANY, "iCPD")), "iCPD"),
        (("iUPD", "iUPD", "iCPD", (*ANY, "iCPD"), (*ANY, "iCPD")), "iCPD"),
        (("iUPD", "NE", "NE", "NE", "NE"), "iUPD"),
    ],
)
def test_best_response_of_the_eight_examples_in_every_reading(sequence: Any, best: str) -> None:
    choices = [(step,) if isinstance(step, str) else step for step in sequence]
    for words in product(*choices):
        verdicts = [(START + timedelta(days=56 * n), word) for n, word in enumerate(words, 1)]
        assert best_overall(verdicts, START, USUAL, IRECIST) == best, words


def test_a_response_that_an_unconfirmed_progression_interrupts_is_not_confirmed() -> None:
    words = ("iPR", "iUPD", "iPR")
    verdicts = [(START + timedelta(days=56 * n), word) for n, word in enumerate(words, 1)]
    assert best_confirmed(verdicts, START, USUAL, IRECIST) == "iSD"


SIZES = st.integers(1, 600).map(lambda tenths: tenths / 10)
SEEN = st.one_of(SIZES, st.sampled_from(["absent", "too-small", "NE"]), st.none())


@st.composite
def lines(draw: st.DrawFn) -> list[Line]:
    visits = draw(st.integers(1, 5))
    found = [target(f"T{n}", draw(SIZES), *(draw(SEEN) for _ in range(visits))) for n in range(2)]
    found.append(new("X", None, *(draw(SEEN) for _ in range(visits))))
    states = st.sampled_from(["present", "absent", "NE", PROGRESSED])
    return [*found, non_target("B", "present", *(draw(states) for _ in range(visits)))]


@settings(max_examples=40)
@given(found=lines(), seed=st.randoms(use_true_random=False))
def test_irecist_differs_from_recist_by_what_follows_a_progression_only(found: list[Line], seed: Any) -> None:
    history = course(*found)
    immune, plain = judge(history), recist.judge(history)
    words = [point.overall for point in immune.time_points[1:]]
    expected = {"CR": "iCR", "PR": "iPR", "SD": "iSD", "PD": "iUPD", "NE": "NE"}
    for word, point in zip(words, plain.time_points[1:], strict=True):
        assert word == expected[point.overall or ""]
        if word == "iUPD":
            break
    if "iCPD" in words:
        at = words.index("iCPD")
        assert "iUPD" in words[:at] and set(words[at:]) == {"iCPD"}
    assert [point.sum for point in immune.time_points] == [point.sum for point in plain.time_points]
    visits = tuple(
        replace(visit, seen=tuple(seed.sample(visit.seen, len(visit.seen)))) for visit in history.visits
    )
    again = judge(replace(history, visits=visits))
    assert [point.overall for point in again.time_points[1:]] == words


ORDER = {"iCR": 0, "iPR": 1, "iSD": 2, "iUPD": 3, "iCPD": 4}


@settings(max_examples=40)
@given(found=lines(), more=SIZES, pick=st.integers(0, 2))
def test_a_lesion_that_is_larger_at_the_last_visit_never_betters_its_verdict(
    found: list[Line], more: float, pick: int
) -> None:
    sizes = list(found[pick].sizes)
    if not isinstance(sizes[-1], float):
        return
    sizes[-1] += more
    grown = [replace(line, sizes=sizes) if n == pick else line for n, line in enumerate(found)]
    was, now = overalls(*found)[-1], overalls(*grown)[-1]
    if "NE" in (was, now):
        assert now in (was, "iUPD", "iCPD")
    else:
        assert ORDER[now or ""] >= ORDER[was or ""]


def test_the_margins_lead_to_the_next_verdict() -> None:
    point = judge(course(target("T1", 100, 120, 122, sd_mm=1.5), days=42)).time_points[2]
    nearer, farther = point.margins
    assert (nearer.change, nearer.verdict, farther.change, farther.verdict) == (-2.1, "iSD", 3.0, "iCPD")
    assert farther.standard_deviations == 2.0
    assert point.date == date(2024, 3, 25)

"""Best overall response against admiralonco's vectors, the table of RECIST 1.1 and the table of its own corners."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.errors import Refused
from store.response.best import IRECIST, METABOLIC, best_confirmed, best_overall
from store.response.rules import Rules

STARTS = {
    "1": "2020-01-01",
    "2": "2019-12-12",
    "3": "2019-11-11",
    "4": "2019-12-30",
    "5": "2020-01-01",
    "6": "2020-02-02",
    "7": "2020-02-02",
    "8": "2020-04-01",
    "9": "2020-02-01",
}
COURSES = {
    "1": "2020-01-01 PR, 2020-02-01 CR, 2020-02-16 NE, 2020-03-01 CR, 2020-04-01 SD",
    "2": "2020-01-01 SD, 2020-02-01 PR, 2020-03-01 SD, 2020-03-13 CR",
    "3": "2019-11-12 CR, 2019-12-02 CR, 2020-01-01 SD",
    "4": "2020-01-01 PR, 2020-03-01 SD, 2020-04-01 SD, 2020-05-01 PR, 2020-05-15 NON-CR/NON-PD",
    "5": "2020-01-01 PR, 2020-01-10 SD, 2020-01-20 PR, 2020-05-15 NON-CR/NON-PD",
    "6": "2020-02-06 PR, 2020-02-16 CR, 2020-03-30 PR",
    "7": "2020-02-06 PR, 2020-02-16 CR, 2020-04-01 NE",
    "8": "",
    "9": "2020-02-16 PD, 2020-03-06 SD",
}
FIRST = Rules(min_stable_days=28, confirm_days=28, most_not_evaluable=1)
SECOND = Rules(
    min_stable_days=28, confirm_days=14, most_not_evaluable=0, accept_stable=True, missing_as_ne=True
)
UNCUT = Rules(min_stable_days=28, confirm_days=28, most_not_evaluable=1, cut_at_progression=False)


def course(text: str) -> list[tuple[date, str]]:
    return [(date.fromisoformat(part.split()[0]), part.split()[1]) for part in text.split(",") if part]


def test_the_nine_subjects_of_admiralonco_have_their_confirmed_response_under_each_set_of_parameters() -> (
    None
):
    replaced = {**COURSES, "7": "2020-04-02 ND"}
    for rules, courses, expected in (
        (FIRST, COURSES, "CR SD SD SD NON-CR/NON-PD SD NE None PD"),
        (SECOND, replaced, "PR PR CR SD PR SD ND NE PD"),
        (UNCUT, COURSES, "CR SD SD SD NON-CR/NON-PD SD NE None SD"),
    ):
        got = [
            str(best_confirmed(course(courses[subject]), date.fromisoformat(STARTS[subject]), rules))
            for subject in sorted(COURSES)
        ]
        assert got == expected.split()


def test_the_vectors_that_are_kept_as_a_file_are_met(data: Path) -> None:
    kept: dict[str, Any] = json.loads((data / "response" / "confirmed_bor.json").read_text())
    courses = {
        subject: [
            (date.fromisoformat(point["date"]), point["response"])
            for point in kept["timepoints"]
            if point["subject"] == subject
        ]
        for subject in kept["treatment_start"]
    }
    for case in kept["cases"]:
        asked: Mapping[str, Any] = case["params"]
        rules = Rules(
            min_stable_days=asked["ref_start_window"],
            confirm_days=asked["ref_confirm"],
            most_not_evaluable=asked["max_nr_ne"],
            accept_stable=asked["accept_sd"],
            missing_as_ne=asked.get("missing_as_ne", False),
            cut_at_progression=asked["use_pd_cutoff"],
        )
        expected = case.get("expected") or case["expected_difference_from_case1"]
        for subject, best in expected.items():
            points = courses[subject]
            if subject == "7" and "subject_7_replaced_by" in asked:
                points = [
                    (date.fromisoformat(p["date"]), p["response"]) for p in asked["subject_7_replaced_by"]
                ]
            start = date.fromisoformat(kept["treatment_start"][subject])
            assert best_confirmed(points, start, rules) == best, (case["params"], subject)


def test_without_confirmation_the_subjects_have_the_best_that_was_seen() -> None:
    # admiralonco test-derive_param_bor.R, test 1
    got = [
        str(best_overall(course(COURSES[subject]), date.fromisoformat(STARTS[subject]), FIRST))
        for subject in sorted(COURSES)
    ]
    assert got == ["CR", "CR", "CR", "PR", "PR", "CR", "CR", "None", "PD"]
    assert best_overall(course("2020-01-01 SD, 2020-01-03 SD"), date(2020, 2, 2), FIRST) == "NE"
    assert best_overall([], date(2020, 2, 2), SECOND) == "NE"


START = date(2024, 1, 1)


@pytest.mark.parametrize(
    ("first", "second", "met", "not_met"),
    [
        ("CR", "CR", "CR", "CR"),
        ("CR", "PR", "SD", "PD"),
        ("CR", "SD", "SD", "PD"),
        ("CR", "PD", "SD", "PD"),
        ("CR", "NE", "SD", "NE"),
        ("PR", "CR", "PR", "PR"),
        ("PR", "PR", "PR", "PR"),
        ("PR", "SD", "SD", "NE"),
        ("PR", "PD", "SD", "PD"),
        ("PR", "NE", "SD", "NE"),
        ("NE", "NE", "NE", "NE"),
        ("NE", "CR", "SD", "NE"),
        ("SD", "PD", "SD", "PD"),
        ("PD", "CR", "PD", "PD"),
    ],
)
def test_two_visits_give_the_confirmed_response_of_the_table(
    first: str, second: str, met: str, not_met: str
) -> None:
    # RECIST 1.1, table 3: with the least time of stable disease met by both visits, and by neither.
    visits = [(START + timedelta(days=56), first), (START + timedelta(days=84), second)]
    assert best_confirmed(visits, START, Rules(min_stable_days=42)) == met
    assert best_confirmed(visits, START, Rules(min_stable_days=100)) == not_met


def test_a_confirmation_counts_from_its_day_on_and_not_a_day_earlier() -> None:
    for days, best in ((27, "SD"), (28, "PR")):
        visits = [(START + timedelta(days=60), "PR"), (START + timedelta(days=60 + days), "PR")]
        assert best_confirmed(visits, START) == best


def test_a_visit_that_could_not_be_evaluated_does_not_break_a_confirmation_but_two_do() -> None:
    visits = [(START + timedelta(days=60), "CR"), (START + timedelta(days=80), "NE")]
    last = (START + timedelta(days=120), "CR")
    assert best_confirmed([*visits, last], START) == "CR"
    assert best_confirmed([*visits, (START + timedelta(days=90), "NE"), last], START) == "SD"


def test_stable_disease_counts_from_its_day_on() -> None:
    for days, best in ((41, "NE"), (42, "SD")):
        visits = [(START + timedelta(days=days), "SD")]
        assert best_overall(visits, START) == best_confirmed(visits, START) == best


def test_what_comes_after_progression_is_left_out_unless_the_protocol_wants_it() -> None:
    visits = [(START + timedelta(days=50), "PD"), (START + timedelta(days=100), "CR")]
    assert best_overall(visits, START) == "PD"
    assert best_overall(visits, START, Rules(cut_at_progression=False)) == "CR"


def test_other_criteria_are_judged_in_their_own_words() -> None:
    visits = [(START + timedelta(days=60), "PMR"), (START + timedelta(days=100), "SMD")]
    assert best_overall(visits, START, words=METABOLIC) == "PMR"
    assert best_confirmed(visits, START, words=METABOLIC) == "SMD"
    late = [(START + timedelta(days=50 * n), word) for n, word in enumerate(("iUPD", "NE", "iUPD"), 1)]
    assert best_overall(late, START, words=IRECIST) == "iUPD"


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(Refused, match="unknown-verdict: 'iCR' on 2024-01-01 is none of the verdicts CR"):
        best_overall([(START, "iCR")], START)


VERDICTS = st.lists(
    st.tuples(st.integers(1, 400), st.sampled_from(["CR", "PR", "SD", "NON-CR/NON-PD", "PD", "NE"])),
    min_size=1,
    max_size=8,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: [(START + timedelta(days=days), word) for days, word in pairs])
ORDER = ["CR", "PR", "SD", "NON-CR/NON-PD", "PD", "NE"]


@given(visits=VERDICTS, seed=st.randoms(use_true_random=False))
def test_the_order_of_visits_changes_nothing_and_confirmation_never_betters(visits: Any, seed: Any) -> None:
    best, confirmed = best_overall(visits, START), best_confirmed(visits, START)
    shuffled = list(visits)
    seed.shuffle(shuffled)
    assert (best, confirmed) == (best_overall(shuffled, START), best_confirmed(shuffled, START))
    assert best is not None and confirmed is not None
    # An early complete response may be worth NE unconfirmed; disease after it is progression.
    assert ORDER.index(confirmed) >= ORDER.index(best)

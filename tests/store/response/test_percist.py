"""PERCIST 1.0: the hottest lesion, its borders, measurability, scans that do not compare, and the properties."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seen_courses import GONE, UNKNOWN, history, lesion

from store.response.history import History, Reference, Role, Seen, Status
from store.response.percist import judge
from store.response.rules import USUAL, Rules
from store.response.verdict import TimePoint

LIVER = Reference(
    liver_mean=2.0,
    liver_sd=0.2,
    blood_pool_mean=1.5,
    blood_pool_sd=0.1,
    uptake_minutes=60,
    injected_mbq=300,
    scanner="A",
)


def hot(name: str, peak: float | None = None, **rest: Any) -> Seen:
    return lesion(name, suv_peak=peak, **rest)


def last(
    *visits: tuple[Seen, ...], references: tuple[Reference | None, ...] = (LIVER,), rules: Rules = USUAL
) -> TimePoint:
    return judge(history(*visits, references=references), rules).time_points[-1]


@pytest.mark.parametrize(
    ("then", "now", "word"),
    [
        (10.0, 7.0, "PMR"),
        (10.0, 7.001, "SMD"),
        (10.0, 7.01, "SMD"),
        (10.0, 13.0, "SMD"),
        (10.0, 13.001, "PMD"),
        (3.5, 2.45, "PMR"),
        (8.2, 5.74, "PMR"),
        (8.2, 5.75, "SMD"),
        (8.7, 6.09, "PMR"),
        (3.5, 4.55, "SMD"),
        (3.5, 4.56, "PMD"),
        (10.0, 1.69, "CMR"),
        (10.0, 1.7, "CMR"),
        (10.0, 1.71, "PMR"),
        (10.0, 0.0, "CMR"),
    ],
)
def test_the_hottest_lesion_is_judged_at_its_borders(then: float, now: float, word: str) -> None:
    assert last((hot("A", then),), (hot("A", now),)).overall == word


@pytest.mark.parametrize(("now", "change"), [(7.003, "-29.9 %"), (12.997, "+29.9 %"), (9.9999, "+0.0 %")])
def test_a_change_that_just_misses_the_rule_is_told_as_less(now: float, change: str) -> None:
    point = last((hot("A", 10.0), hot("B", 10.0)), (hot("A", now), hot("B", now)))
    assert point.overall == "SMD"
    assert f" now ({change}): neither down nor up by 30 % and 0.8 g/ml" in point.because
    assert point.because.endswith(f", {change}).")


@pytest.mark.parametrize(
    ("then", "now", "word"), [(2.6, 1.8, "PMR"), (2.6, 1.801, "SMD"), (2.5, 3.3, "SMD"), (2.5, 3.301, "PMD")]
)
def test_a_change_needs_eight_tenths_of_sul_too(then: float, now: float, word: str) -> None:
    low = Reference(liver_mean=1.4, liver_sd=0.1)
    assert last((hot("A", then),), (hot("A", now),), references=(low,)).overall == word


def test_the_hottest_lesion_may_be_another_one() -> None:
    point = last((hot("A", 10.0), hot("B", 6.0)), (hot("A", 3.0), hot("B", 7.0)))
    assert (point.overall, point.sum) == ("PMR", 7.0)
    assert "A 10.00 g/ml at baseline, B 7.00 g/ml now (-30.0 %)" in point.because
    assert "2 lesions" in point.because


def test_a_new_lesion_or_unequivocal_progression_is_progression_and_stays_one() -> None:
    course = history(
        (hot("A", 10.0),),
        (hot("A", 1.0), hot("X", 5.0, role=Role.NEW)),
        (hot("A", 1.0), hot("X", role=Role.NEW, status=GONE)),
        references=(LIVER,),
    )
    assert [(point.overall, point.new) for point in judge(course).time_points[1:]] == [
        ("PMD", True),
        ("PMD", True),
    ]
    other = hot("N", role=Role.NON_TARGET, status=Status.PRESENT)
    worse = replace(other, status=Status.PROGRESSED)
    assert last((hot("A", 10.0), other), (hot("A", 5.0), worse)).overall == "PMD"


@pytest.mark.parametrize(
    ("peak", "other", "because"),
    [
        (
            4.0,
            5.0,
            "PMD: unequivocal progression of B; SULpeak of the hottest lesion A 10.00 g/ml at baseline, A 5.00",
        ),
        (
            None,
            5.0,
            "PMD: unequivocal progression of B; SULpeak of the hottest lesion A 10.00 g/ml at baseline, A 5.00",
        ),
        (
            1.0,
            1.0,
            "PMD: unequivocal progression of B; SULpeak of the hottest lesion A 10.00 g/ml at baseline, A 1.00",
        ),
        (None, None, "PMD: unequivocal progression of B; no SULpeak at this visit"),
    ],
)
def test_a_target_that_a_reader_calls_unequivocal_progression_is_progression_whatever_its_uptake(
    peak: float | None, other: float | None, because: str
) -> None:
    then = (hot("A", 10.0), hot("B", 8.0))
    now = (hot("A", other), hot("B", peak, status=Status.PROGRESSED))
    response = judge(history(then, now, then, references=(LIVER,)))
    point, after = response.time_points[1:]
    assert (point.overall, point.target, point.non_target, after.overall) == ("PMD", "PMD", None, "SMD")
    assert point.because.startswith(because)
    assert response.best_overall == "PMD"


def test_a_small_new_node_with_uptake_is_a_new_lesion() -> None:
    node = lesion("X", 8, 6, suv_peak=4.0, node=True, role=Role.NEW)
    assert last((hot("A", 10.0),), (hot("A", 5.0), node)).overall == "PMD"


@pytest.mark.parametrize(("tlg", "word"), [(175.0, "SMD"), (175.1, "PMD")])
def test_total_lesion_glycolysis_up_by_more_than_three_quarters_is_progression(tlg: float, word: str) -> None:
    then = (hot("A", 10.0, tlg=60.0), hot("B", 8.0, tlg=40.0))
    now = (hot("A", 10.0, tlg=60.0), hot("B", 8.0, tlg=tlg - 60))
    assert last(then, now).overall == word


def test_growth_in_size_or_a_rise_elsewhere_forbids_a_partial_response() -> None:
    then = (lesion("A", 20, suv_peak=10.0), hot("B", 3.0))
    assert last(then, (lesion("A", 26, suv_peak=5.0), hot("B", 3.0))).overall == "PMR"
    grown = last(then, (lesion("A", 26.1, suv_peak=5.0), hot("B", 3.0)))
    assert (grown.overall, "A grew by more than 30 %" in grown.because) == ("SMD", True)
    risen = last(then, (lesion("A", 20, suv_peak=5.0), hot("B", 4.0)))
    assert (risen.overall, "B rose by more than 30 %" in risen.because) == ("SMD", True)


def test_every_lesion_has_to_be_below_liver_and_blood_pool_for_a_complete_response() -> None:
    then = (hot("A", 10.0), hot("B", 4.0))
    pool = replace(LIVER, blood_pool_sd=None)
    liver = replace(LIVER, blood_pool_mean=None, blood_pool_sd=None)
    assert "blood pool" not in last(then, (hot("A", 1.9), hot("B", 1.9)), references=(liver,)).because
    assert last(then, (hot("A", status=GONE), hot("B", 1.7))).overall == "CMR"
    assert last(then, (hot("A", status=GONE), hot("B", 1.71))).overall == "PMR"
    assert last(then, (hot("A", status=GONE), hot("B", 1.99)), references=(pool,)).overall == "CMR"
    assert last(then, (hot("A", status=GONE), hot("B", 2.0)), references=(pool,)).overall == "PMR"
    there = hot("N", role=Role.NON_TARGET, status=Status.PRESENT)
    assert last((*then, there), (hot("A", status=GONE), hot("B", status=GONE), there)).overall == "PMR"


def test_a_lesion_that_was_not_assessed_leaves_the_scan_not_evaluable_unless_the_rest_progressed() -> None:
    then = (hot("A", 10.0), hot("B", 6.0))
    assert last(then, (hot("A", 5.0), hot("B", status=UNKNOWN))).overall == "NE"
    assert last(then, (hot("A", 5.0),)).sum is None
    assert last(then, (hot("A", 14.0), hot("B", status=UNKNOWN))).overall == "PMD"
    assert last(then, (lesion("A", 20), lesion("B", 10))).overall == "NE"


def test_a_visit_that_tells_of_no_lesion_of_the_baseline_shows_no_change() -> None:
    then = (hot("A", 10.0), hot("B", 6.0))
    point = last(then, ())
    assert point.because == "NE: nothing is known of the lesions of the baseline at this visit."
    assert (point.sum, point.doubts) == (None, ())
    new = last(then, (hot("X", 5.0, role=Role.NEW),))
    assert new.because == "PMD: new: X; nothing is known of the lesions of the baseline at this visit."


def test_what_is_called_absent_where_nothing_has_a_number_is_a_doubt() -> None:
    gone = last((hot("A", 10.0), hot("B", 6.0)), (hot("A", status=GONE), hot("B", status=GONE)))
    assert (gone.overall, [one for one in gone.doubts if "called absent" in one]) == (
        "CMR",
        [
            "No lesion that counts has a SULpeak at this visit: one that is called absent was taken as one without "
            "uptake."
        ],
    )
    assert last((hot("A", 10.0),), (hot("A", status=Status.PRESENT),)).doubts == ()


@pytest.mark.parametrize(("peak", "word"), [(3.4, "PMR"), (3.399, "NE")])
def test_the_hottest_lesion_has_to_be_measurable_at_baseline(peak: float, word: str) -> None:
    assert last((hot("A", peak),), (hot("A", 2.1),)).overall == word


@pytest.mark.parametrize(("peak", "word"), [(3.2, "PMR"), (3.199, "NE")])
def test_the_blood_pool_is_asked_where_the_liver_is_diseased(peak: float, word: str) -> None:
    then, now = hot("A", peak, site="Liver"), hot("A", 2.1, site="Liver")
    assert last((then,), (now,)).overall == word


@pytest.mark.parametrize(
    ("changed", "is_comparable"),
    [
        ({"liver_mean": 2.299}, True),
        ({"liver_mean": 2.3}, False),
        ({"liver_mean": 1.701}, True),
        ({"liver_mean": 1.7}, False),
        ({"uptake_minutes": 75}, True),
        ({"uptake_minutes": 75.5}, False),
        ({"uptake_minutes": 45}, True),
        ({"injected_mbq": 500}, True),
        ({"scanner": "B"}, True),
    ],
)
def test_scans_that_do_not_compare_are_not_evaluable_or_doubted(
    changed: dict[str, Any], is_comparable: bool
) -> None:
    references = (LIVER, replace(LIVER, **changed))
    then, now = (hot("A", 10.0),), (hot("A", 5.0),)
    assert last(then, now, references=references).overall == ("PMR" if is_comparable else "NE")
    doubted = last(then, now, references=references, rules=Rules(incomparable_scans="doubt"))
    assert doubted.overall == "PMR"
    assert any("not comparable" in doubt for doubt in doubted.doubts) is not is_comparable


def test_a_liver_of_low_uptake_may_differ_by_a_fifth_only() -> None:
    low = replace(LIVER, liver_mean=1.3)
    for mean, word in [(1.56, "PMR"), (1.561, "NE")]:
        references = (low, replace(low, liver_mean=mean))
        assert last((hot("A", 10.0),), (hot("A", 5.0),), references=references).overall == word


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"liver_mean": 1.29}, "outside 1.3 to 3.0"),
        ({"liver_mean": 3.01}, "outside 1.3 to 3.0"),
        ({"uptake_minutes": 49.0}, "outside 50 to 70"),
        ({"uptake_minutes": 71.0}, "outside 50 to 70"),
        ({"injected_mbq": 361.0}, "more than 20 %"),
        ({"injected_mbq": 239.0}, "more than 20 %"),
        ({"scanner": "B"}, "Another scanner"),
        ({"liver_sd": None}, "taken as zero"),
        ({"liver_mean": None, "blood_pool_mean": None}, "Neither liver nor blood pool"),
    ],
)
def test_what_is_out_of_order_in_a_scan_is_a_doubt(changed: dict[str, Any], word: str) -> None:
    references = (LIVER, replace(LIVER, **changed))
    assert any(
        word in doubt for doubt in last((hot("A", 10.0),), (hot("A", 5.0),), references=references).doubts
    )
    assert last((hot("A", 10.0),), (hot("A", 5.0),)).doubts == ()


def test_without_normal_tissue_the_change_is_judged_and_the_gap_told() -> None:
    point = last((hot("A", 10.0),), (hot("A", 5.0),), references=(None,))
    assert (point.overall, len(point.doubts)) == ("PMR", 1)


def test_a_rise_from_the_nadir_is_told_and_the_baseline_decides() -> None:
    point = last((hot("A", 10.0),), (hot("A", 3.0),), (hot("A", 6.0),))
    assert (point.overall, point.nadir) == ("PMR", 3.0)
    assert any("From the lowest so far" in doubt for doubt in point.doubts)


def test_the_first_scan_with_uptake_is_the_baseline() -> None:
    course = history((lesion("A", 20),), (hot("A", 10.0),), (hot("A", 5.0),), references=(LIVER,))
    found = judge(course)
    assert [point.overall for point in found.time_points] == [None, None, "PMR"]
    nothing = judge(history((lesion("A", 20),), (lesion("A", 20),)))
    assert [point.overall for point in nothing.time_points] == [None, "NE"]
    assert (nothing.best_overall, nothing.time_points[1].because) == ("NE", "NE: no SULpeak at any visit.")
    assert "PERCIST cannot be told" in nothing.doubts[0]


def test_the_exploratory_sum_takes_five_lesions_and_two_of_an_organ() -> None:
    lung = tuple(hot(f"L{at}", 9.0 - at, site="lung") for at in range(3))
    others = tuple(hot(f"O{at}", 5.0 - at / 10) for at in range(4))
    point = judge(history((*lung, *others), references=(LIVER,))).time_points[0]
    assert "7 lesions (exploratory sum of the hottest 31.70 g/ml)" in point.because


def test_both_lungs_and_their_lobes_are_one_organ_of_the_exploratory_sum() -> None:
    sites = ("Left lung", "Left lung", "Right lung", "Upper lobe of right lung")
    lungs = tuple(hot(f"L{at}", 9.0 - at, site=site) for at, site in enumerate(sites))
    unknown = tuple(hot(f"U{at}", 5.0 - at) for at in range(3))
    point = judge(history((*lungs, *unknown), references=(LIVER,))).time_points[0]
    assert "7 lesions (exploratory sum of the hottest 29.00 g/ml)" in point.because


def test_margins_tell_how_far_the_peak_is_from_another_verdict() -> None:
    point = last((hot("A", 10.0),), (hot("A", 8.0, suv_peak_sd=0.5),))
    found = {margin.verdict: margin for margin in point.margins}
    assert found["PMR"].change == pytest.approx(-1.0)
    assert found["PMR"].standard_deviations == pytest.approx(2.0)
    assert found["PMD"].change == pytest.approx(5.001)


#: What the lesion with a number does, and what another one without does.
TARGETS = {"CMR": 1.0, "PMR": 5.0, "SMD": 9.0, "PMD": 14.0, "NE": None}
OTHERS = {"CMR": GONE, "NON-CMR/NON-PMD": Status.PRESENT, "NE": UNKNOWN, "PMD": Status.PROGRESSED}


@pytest.mark.parametrize(("target", "rest", "new"), list(product(TARGETS, OTHERS, (False, True))))
def test_the_table_of_visits(target: str, rest: str, new: bool) -> None:
    peak = TARGETS[target]
    other = hot("N", role=Role.NON_TARGET, status=Status.PRESENT)
    seen = [
        hot("A", peak, status=UNKNOWN if peak is None else Status.MEASURED),
        replace(other, status=OTHERS[rest]),
    ]
    if new:
        seen.append(hot("X", 5.0, role=Role.NEW))
    point = last((hot("A", 10.0), other), tuple(seen))
    assert (point.target, point.non_target, point.new) == (target, rest, new)
    if new or "PMD" in (target, rest):
        assert point.overall == "PMD"
    elif target == "CMR":
        assert point.overall == ("CMR" if rest == "CMR" else "PMR")
    else:
        assert point.overall == target


def test_best_responses_speak_the_words_of_percist() -> None:
    found = judge(history(*((hot("A", peak),) for peak in (10.0, 5.0, 4.0, 14.0)), references=(LIVER,)))
    assert (found.best_overall, found.best_overall_confirmed) == ("PMR", "PMR")
    assert (found.criteria, found.unit) == ("percist", "g/ml")


PEAKS = st.lists(st.integers(350, 3000), min_size=2, max_size=4)


def _word(course: History) -> str:
    return str(judge(course).time_points[-1].overall)


@settings(max_examples=40, deadline=None)
@given(PEAKS, st.data(), st.integers(1, 500))
def test_more_uptake_is_never_better_and_order_does_not_matter(
    then: list[int], data: st.DataObject, more: int
) -> None:
    now = data.draw(st.lists(st.integers(0, 3000), min_size=len(then), max_size=len(then)))

    def course(*visits: list[int]) -> History:
        return history(
            *(tuple(hot(f"T{at}", one / 100) for at, one in enumerate(visit)) for visit in visits),
            references=(LIVER,),
        )

    order = ["CMR", "PMR", "SMD", "PMD"]
    word = _word(course(then, now))
    assert order.index(word) <= order.index(_word(course(then, [now[0] + more, *now[1:]])))
    assert _word(course(then[::-1], now[::-1])) == word

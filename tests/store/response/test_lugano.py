"""Lugano: Deauville scores, metabolic response, response by CT, and which of both is used."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seen_courses import GONE, UNKNOWN, history, lesion

from store.response.deauville import score
from store.response.history import Reference, Role, Seen, Status
from store.response.lugano import judge
from store.response.lugano_ct import combine
from store.response.rules import USUAL, Rules
from store.response.verdict import TimePoint

NORMAL = Reference(liver_mean=2.0, mediastinum=1.5)


def scored(name: str, deauville: int | None = None, peak: float | None = None, **rest: Any) -> Seen:
    return lesion(name, deauville=deauville, suv_peak=peak, **rest)


def node(name: str, long_mm: float | None = None, short_mm: float | None = None, **rest: Any) -> Seen:
    return lesion(name, long_mm, short_mm, node=True, **rest)


def words(
    *visits: tuple[Seen, ...], references: tuple[Reference | None, ...] = (), rules: Rules = USUAL
) -> list[str]:
    points = judge(history(*visits, references=references), rules).time_points[1:]
    return [str(point.overall) for point in points]


def last(*visits: tuple[Seen, ...], references: tuple[Reference | None, ...] = ()) -> TimePoint:
    return judge(history(*visits, references=references)).time_points[-1]


@pytest.mark.parametrize(
    ("peak", "value"),
    [(0.0, 1), (1.4, 2), (1.5, 2), (1.501, 3), (2.0, 3), (2.001, 4), (3.999, 4), (4.0, 5), (9.0, 5)],
)
def test_uptake_beside_mediastinum_and_liver_gives_the_score(peak: float, value: int) -> None:
    found = score(scored("A", peak=peak), NORMAL, USUAL)
    assert found is not None
    assert (found.value, found.by_reader) == (value, False)
    assert "liver mean 2.00 g/ml" in found.words or not peak


def test_markedly_above_the_liver_is_what_the_protocol_says() -> None:
    found = score(scored("A", peak=4.0), NORMAL, Rules(markedly_above_liver=3))
    assert found is not None
    assert found.value == 4


def test_a_score_of_a_reader_counts_before_numbers_and_the_blood_pool_stands_in_for_the_mediastinum() -> None:
    by_reader = score(scored("A", 3, 9.0), NORMAL, USUAL)
    pool = score(scored("A", peak=1.4), Reference(liver_mean=2.0, blood_pool_mean=1.5), USUAL)
    assert by_reader is not None
    assert (by_reader.value, by_reader.by_reader) == (3, True)
    assert pool is not None
    assert (pool.value, "blood pool" in pool.words) == (2, True)
    assert score(scored("A", peak=1.4), Reference(mediastinum=1.5), USUAL) is None
    assert score(scored("A", status=UNKNOWN), NORMAL, USUAL) is None


@pytest.mark.parametrize(("then", "now"), list(product((4, 5), (1, 2, 3, 4, 5))))
def test_scores_of_readers_give_the_metabolic_response(then: int, now: int) -> None:
    expected = "CMR" if now <= 3 else "PMR" if now < then else "NMR" if now == then else "PMD"
    assert words((scored("A", then),), (scored("A", now),)) == [expected]


@pytest.mark.parametrize(
    ("then", "now", "word"),
    [
        (10.0, 2.0, "CMR"),
        (10.0, 2.001, "PMR"),
        (10.0, 7.0, "PMR"),
        (10.0, 7.001, "NMR"),
        (10.0, 12.999, "NMR"),
        (10.0, 13.0, "PMD"),
    ],
)
def test_uptake_gives_the_metabolic_response(then: float, now: float, word: str) -> None:
    assert words((scored("A", peak=then),), (scored("A", peak=now),), references=(NORMAL,)) == [word]
    same_score = (scored("A", 5, then),), (scored("A", 5, now),)
    assert words(*same_score) == ["PMR" if word == "CMR" else word]


def test_a_change_of_uptake_that_just_misses_the_rule_is_told_as_less() -> None:
    point = last((scored("A", 5, 10.0),), (scored("A", 5, 7.003),))
    assert point.overall == "NMR"
    assert "SULpeak -29.9 % since the first PET (a change from 30 % on)" in point.because


def test_a_new_focus_is_progression_unless_it_has_no_uptake() -> None:
    then = (scored("A", 5),)
    assert words(then, (scored("A", 2), scored("X", 5, role=Role.NEW))) == ["PMD"]
    assert words(then, (scored("A", 2), lesion("X", role=Role.NEW, status=Status.PRESENT))) == ["PMD"]
    cold = last(then, (scored("A", 2), scored("X", 2, role=Role.NEW)))
    assert (cold.overall, cold.new) == ("CMR", False)
    assert "does not count" in cold.doubts[0]


def test_one_lesion_that_rises_is_progression_beside_others_that_fall() -> None:
    then, now = (
        (scored("A", peak=10.0), scored("B", peak=4.5)),
        (scored("A", peak=5.0), scored("B", peak=6.0)),
    )
    assert words(then, now, references=(NORMAL,)) == ["PMD"]


def test_uptake_that_is_back_after_a_complete_response_is_progression() -> None:
    assert words((scored("A", 5),), (scored("A", 2),), (scored("A", 4),)) == ["CMR", "PMD"]
    assert words((scored("A", 5),), (scored("A", 4),), (scored("A", 4),)) == ["PMR", "PMR"]


def test_a_visit_without_scores_is_not_evaluable_and_tells_what_ct_says() -> None:
    ct = (node("A", 12, 10), lesion("B", 9, 8))
    then = (scored("A", 5, long_mm=30, short_mm=20, node=True), scored("B", 4, long_mm=20, short_mm=10))
    point = last(then, ct)
    assert point.overall == "NE"
    assert any(doubt.startswith("By CT alone it would be PR:") for doubt in point.doubts)
    assert words(then, (scored("A", 2), lesion("B", status=UNKNOWN))) == ["NE"]


def test_metabolic_sums_are_the_highest_scores() -> None:
    course = history(
        (scored("A", 5), scored("B", 4)), (scored("A", 2), scored("B", 4)), (scored("A", 1), scored("B", 1))
    )
    found = judge(course)
    assert [point.sum for point in found.time_points] == [5, 4, 1]
    assert [point.nadir for point in found.time_points] == [None, 5, 4]
    assert (found.quantity, found.unit) == ("highest Deauville score", "1")
    assert (found.best_overall, found.best_overall_confirmed) == ("CMR", "PMR")
    assert found.doubts[0].startswith("Judged by PET")


def test_without_a_pet_at_the_start_only_a_complete_response_can_be_told() -> None:
    start = (node("A", 30, 20),)
    assert words(start, (scored("A", 2),)) == ["CMR"]
    assert words(start, (scored("A", 4),), (scored("A", 5),)) == ["NE", "PMD"]


@pytest.mark.parametrize(
    ("then", "now", "word"),
    [
        ((20, 20), (20, 10), "PR"),
        ((20, 20), (20, 10.1), "SD"),
        ((30, 20), (15, 15), "CR"),
        ((30, 20), (15.1, 14), "PR"),
        ((20, 15), (25, 18), "PD"),
        ((20, 15), (24.9, 18), "SD"),
        ((20, 15), (22.5, 20), "PD"),
        ((20, 15), (24.9, 19.9), "SD"),
        ((20, 10), (25, 11.9), "SD"),
        ((20, 10), (25, 12), "PD"),
        ((20.1, 15), (29.9, 20), "SD"),
        ((20.1, 15), (30.1, 20), "PD"),
        ((40, 30), (50, 36), "PD"),
        ((40, 30), (50, 35.9), "SD"),
        ((10, 5), (15, 10), "CR"),
        ((10, 5), (15.1, 10), "PD"),
    ],
)
def test_one_node_is_judged_by_ct_at_its_borders(
    then: tuple[float, float], now: tuple[float, float], word: str
) -> None:
    assert words((node("A", *then),), (node("A", *now),)) == [word]


def test_progression_of_one_lesion_is_reckoned_from_its_smallest_product() -> None:
    lesions = [(node("A", *axes), node("B", 80, 60)) for axes in ((40, 30), (20, 15), (25, 18))]
    assert words(*lesions) == ["SD", "PD"]
    point = last(*lesions)
    assert "A had 20.0 mm x 15.0 mm, now 25.0 mm x 18.0 mm" in point.because
    assert (point.sum, point.nadir) == (5250.0, 5100.0)


@pytest.mark.parametrize(
    ("last", "word"),
    [
        (lesion("A", status=Status.PRESENT), "PD"),
        (lesion("A", 10.1), "PD"),
        (lesion("A", 10), "NE"),
        (lesion("A", status=UNKNOWN), "NE"),
        (lesion("A", status=Status.PRESENT, node=True), "NE"),
    ],
)
def test_an_extranodal_target_that_is_back_without_both_axes_is_progression(last: Seen, word: str) -> None:
    gone = lesion("A", status=GONE, node=last.node)
    points = judge(history((lesion("A", 30, 20, node=last.node),), (gone,), (last,))).time_points
    assert [(point.overall, point.target) for point in points[1:]] == [("CR", "CR"), (word, word)]
    assert ("A was gone and is there again." in points[2].because) is (word == "PD")


def test_an_extranodal_lesion_has_to_be_gone_and_one_that_is_back_is_progression() -> None:
    visits = [
        (lesion("A", 30, 20),),
        (lesion("A", 5, 5),),
        (lesion("A", status=GONE),),
        (lesion("A", 10.1, 5),),
    ]
    assert words(*visits) == ["PR", "CR", "PD"]
    assert words(*visits[:3], (lesion("A", 10, 5),)) == ["PR", "CR", "PR"]
    too_small = judge(history((lesion("A", 30, 20),), (lesion("A", status=Status.TOO_SMALL),))).time_points[1]
    assert (too_small.overall, too_small.sum) == ("PR", 25.0)


@pytest.mark.parametrize(
    ("new", "word"),
    [
        (node("X", 15, 10, role=Role.NEW), "PR"),
        (node("X", 15.1, 10, role=Role.NEW), "PD"),
        (lesion("X", 10, 10, role=Role.NEW), "PR"),
        (lesion("X", 10.1, 5, role=Role.NEW), "PD"),
        (lesion("X", 6, 5, role=Role.NEW, status=Status.PROGRESSED), "PD"),
        (lesion("X", role=Role.NEW, status=Status.PRESENT), "PD"),
        (lesion("X", role=Role.NEW, status=GONE), "PR"),
        (lesion("X", role=Role.NEW, status=UNKNOWN), "PR"),
    ],
)
def test_a_new_lesion_counts_from_its_size_on_or_when_it_is_unequivocal(new: Seen, word: str) -> None:
    assert words((node("A", 40, 30),), (node("A", 20, 15), new)) == [word]


@pytest.mark.parametrize(
    ("lengths", "word"),
    [
        ((150, 160), "SD"),
        ((150, 160.1), "PD"),
        ((150, 139.9), "PR"),
        ((130, 149.9), "SD"),
        ((130, 130), "PR"),
        ((130, 150), "PD"),
        ((150, 125, 144.9), "SD"),
        ((150, 125, 145), "PD"),
    ],
)
def test_the_spleen_progresses_by_its_length(lengths: tuple[float, ...], word: str) -> None:
    nodes = [(40, 30), *[(20, 15)] * (len(lengths) - 1)]
    visits = [
        (node("A", *axes), lesion("spleen", length, role=Role.NON_TARGET))
        for axes, length in zip(nodes, lengths, strict=True)
    ]
    assert words(*visits)[-1] == word


def test_an_enlarged_spleen_has_to_shrink_by_more_than_half_of_what_it_was_too_long() -> None:
    def verdict(length: float, axes: tuple[float, float] = (20, 15)) -> str:
        spleen = lesion("Spleen", 170, role=Role.NON_TARGET)
        now = replace(spleen, long_axis_tenths=round(10 * length))
        return words((node("A", 40, 30), spleen), (node("A", *axes), now))[0]

    assert [verdict(length) for length in (149.9, 150, 170)] == ["PR", "SD", "SD"]
    assert [verdict(length, (14, 10)) for length in (130, 130.1)] == ["CR", "PR"]
    appears = (node("A", 40, 30),), (node("A", 14, 10), lesion("spleen", 170, role=Role.NON_TARGET))
    assert words(*appears) == ["CR"]
    assert last(*appears).doubts == ("The spleen was not measured at the baseline: it is not judged.",)


TARGETS, OTHERS, SPLEENS = (
    (None, "CR", "PR", "SD", "PD", "NE"),
    (None, "CR", "NON-CR/NON-PD", "PD", "NE"),
    (None, "CR", "PR", "SD", "PD", "NE"),
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rest", OTHERS)
@pytest.mark.parametrize("spleen", SPLEENS)
def test_what_targets_others_and_spleen_come_to(
    target: str | None, rest: str | None, spleen: str | None
) -> None:
    parts = (target, rest, spleen)
    assert combine(*parts, new=True) == "PD"
    found = combine(*parts, new=False)
    if "PD" in parts:
        assert found == "PD"
    elif parts == (None, None, None) or target == "NE" or (target is None and "NE" in parts):
        assert found == "NE"
    elif set(parts) <= {None, "CR"}:
        assert found == "CR"
    elif target in ("CR", "PR"):
        assert found == ("SD" if spleen == "SD" else "PR")
    elif target == "SD":
        assert found == "SD"
    else:
        assert found == ("PR" if (rest, spleen) in ((None, "PR"), ("CR", "PR")) else "SD")


def test_what_a_reader_calls_unequivocal_and_what_is_back_is_progression_of_others() -> None:
    other = lesion("N", role=Role.NON_TARGET, status=Status.PRESENT)
    states = (GONE, Status.PRESENT, Status.PROGRESSED, UNKNOWN)
    nodes = (node("A", 40, 30), node("A", 20, 15))
    found = [words((nodes[0], other), (nodes[1], replace(other, status=state)))[0] for state in states]
    assert found == ["PR", "PR", "PD", "PR"]
    assert words((nodes[0], other), (nodes[1], replace(other, status=GONE)), (nodes[1], other)) == [
        "PR",
        "PD",
    ]


def test_six_targets_are_added_up_and_the_smallest_of_more_is_followed_without() -> None:
    seven = tuple(node(f"N{at}", 20 + at, 10) for at in range(7))
    point = judge(history(seven)).time_points[0]
    assert point.sum == sum((20 + at) * 10 for at in range(1, 7))
    assert "N0" in point.doubts[0]


def test_a_target_that_was_not_measured_is_not_evaluable_unless_another_progressed() -> None:
    then = (node("A", 40, 30), node("B", 20, 15))
    assert words(then, (node("A", 20, 15), node("B", status=UNKNOWN))) == ["NE"]
    assert words(then, (node("A", 40, 30),)) == ["NE"]
    assert words(then, (node("B", 25, 18),)) == ["PD"]


def test_ct_is_used_where_no_visit_has_a_score_and_says_so() -> None:
    found = judge(history((node("A", 40, 30),), (node("A", 20, 15),)))
    assert (found.unit, found.best_overall) == ("mm2", "PR")
    assert found.doubts[0].startswith("Judged by CT")
    uptake_alone = judge(history((node("A", 40, 30, suv_peak=9.0),), (node("A", 20, 15, suv_peak=3.0),)))
    assert uptake_alone.time_points[1].overall == "PR"


def test_margins_are_the_smallest_changes_that_give_another_verdict() -> None:
    point = last((node("A", 40, 30),), (node("A", 30, 30, long_axis_sd_mm=1.0),))
    found = {(margin.quantity, margin.verdict): margin for margin in point.margins}
    assert found["long_axis", "PR"].change == pytest.approx(-10.0)
    assert found["long_axis", "PR"].standard_deviations == pytest.approx(10.0)
    hot = last((scored("A", peak=10.0),), (scored("A", peak=8.0),), references=(NORMAL,))
    assert {margin.verdict: margin.change for margin in hot.margins} == {
        "PMR": pytest.approx(-1.0),
        "PMD": pytest.approx(5.0),
    }


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(50, 900), st.integers(50, 900), st.integers(0, 900), st.integers(0, 900)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 200),
)
def test_a_larger_node_is_never_better_and_order_does_not_matter(
    nodes: list[tuple[int, int, int, int]], more: int
) -> None:
    def verdict(rows: list[tuple[int, int, int, int]]) -> str:
        visits = [
            tuple(
                node(f"N{at}", max(row[0 + side], row[1 + side]) / 10, min(row[0 + side], row[1 + side]) / 10)
                for at, row in enumerate(rows)
            )
            for side in (0, 2)
        ]
        return words(*visits)[0]

    order = ["CR", "PR", "SD", "PD"]
    word = verdict(nodes)
    assert verdict(nodes[::-1]) == word
    first = (*nodes[0][:2], nodes[0][2] + more, nodes[0][3])
    assert order.index(word) <= order.index(verdict([first, *nodes[1:]]))

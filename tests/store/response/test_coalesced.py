from __future__ import annotations

import pytest
from seen_courses import history, lesion

from plugins.errors import Refused
from store.response import lugano, percist, recist, who
from store.response.cell import Cell
from store.response.history import Reference, Role, Seen, Status
from store.response.verdict import TimePoint

LIVER = Reference(liver_mean=2.0, liver_sd=0.2, mediastinum=1.5)
OTHER = Role.NON_TARGET


def hot(name: str, suv_peak: float, tlg: float | None = None, role: Role = Role.TARGET) -> Seen:
    return lesion(name, suv_peak=suv_peak, tlg=tlg, role=role)


def grown(name: str, role: Role = Role.TARGET) -> Seen:
    return lesion(name, status=Status.COALESCED, role=role)


def by_uptake(*visits: tuple[Seen, ...]) -> TimePoint:
    return percist.judge(history(*visits, references=(LIVER,))).time_points[-1]


def test_percist_counts_the_uptake_of_a_whole_once() -> None:
    point = by_uptake((hot("A", 8.0, 40.0), hot("B", 6.0, 30.0)), (hot("A", 8.0, 75.0), grown("B")))
    assert (point.overall, point.sum, "1 lesion" in point.because) == ("SMD", 8.0, True)


def test_percist_does_not_call_a_lesion_complete_that_lives_on_in_a_hot_one() -> None:
    baseline = (hot("A", 8.0), hot("B", 6.0, role=OTHER))
    assert by_uptake(baseline, (hot("A", 8.0), grown("B", OTHER))).non_target == "NON-CMR/NON-PMD"
    assert by_uptake(baseline, (hot("A", 1.0), grown("B", OTHER))).non_target == "CMR"


def test_percist_knows_a_lesion_that_had_grown_together_at_the_first_pet() -> None:
    reference = Reference(liver_mean=2.0, liver_sd=0.2, uptake_minutes=60)
    first = (lesion("1", 30), lesion("2", 10, role=OTHER))
    visits = (first, (hot("1", 8.0), grown("2", OTHER)), (hot("1", 4.0), grown("2", OTHER)))
    point = percist.judge(history(*visits, references=(reference,))).time_points[-1]
    assert (point.overall, point.new) == ("PMR", False)


@pytest.mark.parametrize(("peak", "word"), [(3.0, "PMR"), (12.0, "PMD")])
def test_percist_follows_a_target_that_parts_after_the_first_pet(peak: float, word: str) -> None:
    point = by_uptake((hot("A", 8.0), grown("B")), (hot("A", 4.0), hot("B", peak)))
    assert (point.overall, point.new, point.sum) == (word, False, max(4.0, peak))


PRESENT, BEFORE = {"status": Status.PRESENT, "role": OTHER}, (lesion("A", 30), lesion("B", 10, role=OTHER))


@pytest.mark.parametrize(
    ("at_first_pet", "now", "is_new"),
    [
        ((), lesion("B", **PRESENT), False),
        ((), hot("B", 5.0, role=OTHER), True),
        ((lesion("B", status=Status.ABSENT, role=OTHER),), lesion("B", **PRESENT), True),
    ],
)
def test_percist_takes_a_lesion_from_before_the_first_pet_for_new_by_its_uptake_only(
    at_first_pet: tuple[Seen, ...], now: Seen, is_new: bool
) -> None:
    visits = (BEFORE, (hot("A", 8.0), *at_first_pet), (hot("A", 4.0), now))
    point = percist.judge(history(*visits, references=(LIVER,))).time_points[-1]
    assert (point.overall, point.new) == (("PMD", True) if is_new else ("PMR", False))


def test_recist_adds_the_length_of_a_target_that_parts_after_the_baseline() -> None:
    points = recist.judge(
        history((lesion("A", 30), grown("B")), (lesion("A", 18), lesion("B", 14)))
    ).time_points
    assert [(p.sum, p.new) for p in points] == [(30.0, False), (32.0, False)]
    assert (points[1].overall, points[0].doubts, points[1].doubts) == ("SD", (), ())


def test_lugano_does_not_take_a_lesion_that_parts_again_for_one_that_came_back() -> None:
    whole = (lesion("A", 40, 30), grown("B"))
    parted = (lesion("A", 22, 20), lesion("B", 20, 20))
    points = lugano.judge(history((lesion("A", 20, 20), lesion("B", 20, 20)), whole, parted)).time_points
    assert [(p.sum, p.overall) for p in points[1:]] == [(1200.0, "PD"), (840.0, "SD")]
    non_target = lugano.judge(history((lesion("A", 20, 20), lesion("B", 20, 20, role=OTHER)),
                                      (lesion("A", 20, 20), grown("B", OTHER)))).time_points[1]  # fmt: skip
    assert non_target.non_target == "NON-CR/NON-PD"


def test_a_lesion_that_parts_again_is_not_held_against_nothing_by_who() -> None:
    baseline = (lesion("A", 20, 20), lesion("B", 20, 20))
    found = who.judge(history(baseline, (lesion("A", 28, 28), grown("B")), baseline)).time_points
    assert (found[1].sum, found[2].overall, found[2].doubts) == (784.0, "SD", ())


def test_a_table_cannot_say_it() -> None:
    with pytest.raises(Refused, match="no status") as refused:
        Cell("coalesced", 2, "status").status()
    assert refused.value.code == "bad-status"

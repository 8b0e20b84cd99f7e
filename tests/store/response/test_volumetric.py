"""Response by volume: the sphere equivalents, repeatability and doubling times in words."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seen_courses import GONE, UNKNOWN, history, lesion

from plugins.errors import Refused
from store.response import recist
from store.response.history import History, Role, Seen, Status
from store.response.rules import Rules
from store.response.volumetric import judge, volume_change


def sized(name: str, mm3: float | None = None, **rest: Any) -> Seen:
    return lesion(name, volume_mm3=mm3, **rest)


def overalls(course: History, rules: Rules | None = None) -> list[str | None]:
    return [point.overall for point in judge(course, rules or Rules()).time_points[1:]]


@pytest.mark.parametrize(
    ("volumes", "expected"),
    [
        ((1000, 343), ["PR"]),
        ((1000, 343.001), ["SD"]),
        ((1000, 1728), ["PD"]),
        ((1000, 1727.999), ["SD"]),
        ((1000, 500, 864), ["SD", "PD"]),
        ((1000, 500, 863.9), ["SD", "SD"]),
        ((1000, 300, 500), ["PR", "SD"]),
        ((0.1, 0.0343), ["PR"]),
    ],
)
def test_one_target_is_judged_at_its_borders(volumes: tuple[float, ...], expected: list[str]) -> None:
    assert overalls(history(*((sized("T1", mm3),) for mm3 in volumes))) == expected


def test_a_sphere_is_judged_as_its_diameter_is_by_recist() -> None:
    for tenths in range(20, 400, 7):
        volumes = history((sized("T", 1000.0),), (sized("T", (tenths / 200) ** 3 * 1000),))
        lengths = history((lesion("T", 20),), (lesion("T", tenths / 10),))
        by_length = recist.judge(lengths).time_points[1].overall
        if not 0 < tenths - 200 < 50:
            assert overalls(volumes) == [by_length], tenths


def test_sum_nadir_and_the_rule_are_told() -> None:
    course = history(
        (sized("A", 1000.0), sized("B", 500.0)),
        (sized("A", 400.0), sized("B", status=GONE)),
        (sized("A", 700.0), sized("B", status=UNKNOWN)),
        (sized("A", 690.0), sized("B", status=UNKNOWN)),
        (sized("A", status=GONE), sized("B", status=GONE)),
        (sized("A", 0.5), sized("B", status=GONE)),
    )
    points = judge(course).time_points
    assert [point.sum for point in points] == [1500.0, 400.0, None, None, 0.0, 0.5]
    assert [point.nadir for point in points] == [None, 1500.0, 400.0, 400.0, 400.0, 0.0]
    assert [point.overall for point in points[1:]] == ["PR", "PD", "NE", "CR", "PD"]
    assert "PR: 65.7 % below, 514.5 mm3" in points[1].because
    assert "PD: 72.8 % above, 691.2 mm3" in points[2].because


def test_a_new_lesion_is_progression_and_stays_one() -> None:
    course = history(
        (sized("A", 1000.0),),
        (sized("A", 1000.0), sized("X", 90.0, role=Role.NEW)),
        (sized("A", 900.0), sized("X", role=Role.NEW, status=GONE)),
    )
    points = judge(course).time_points
    assert [(point.overall, point.new) for point in points[1:]] == [("PD", True), ("PD", True)]
    assert "New: X." in points[1].because


def test_a_node_of_normal_size_is_gone() -> None:
    course = history(
        (lesion("N", 20, 16, node=True, volume_mm3=2000.0),),
        (lesion("N", 12, 9.9, node=True, volume_mm3=400.0),),
    )
    assert overalls(course) == ["CR"]
    course = history(
        (lesion("N", 20, 16, node=True, volume_mm3=2000.0),),
        (lesion("N", 12, 10, node=True, volume_mm3=400.0),),
    )
    assert overalls(course) == ["PR"]


@pytest.mark.parametrize(
    ("last", "word"),
    [
        (lesion("N", 16, 11, node=True, volume_mm3=850.0), "PD"),  # 70 % above the nadir
        (lesion("N", 14, 10, node=True, volume_mm3=500.0), "PD"),
        (lesion("N", 14, 9.9, node=True, volume_mm3=500.0), "CR"),
        (lesion("N", 14, 9.9, node=True, volume_mm3=900.0), "CR"),
        (lesion("N", node=True, status=Status.PRESENT), "PD"),
        (lesion("N", node=True, status=UNKNOWN), "NE"),
        (lesion("N", node=True, status=GONE), "CR"),
    ],
)
def test_a_target_that_is_there_again_after_a_complete_response_is_progression(last: Seen, word: str) -> None:
    course = history(
        (lesion("N", 30, 20, node=True, volume_mm3=6000.0),),
        (lesion("N", 14, 9.5, node=True, volume_mm3=500.0),),
        (last,),
    )
    point = judge(course).time_points[2]
    assert (overalls(course), point.target) == (["CR", word], word)
    assert ("There again after a complete response: N." in point.because) is (word == "PD")
    assert recist.judge(course).time_points[2].overall == word


@pytest.mark.parametrize(
    ("long_mm", "limit"), [(10, 39), (34.9, 39), (35, 29), (49.9, 29), (50, 24), (100, 24)]
)
def test_repeatability_is_that_of_the_longest_diameter(long_mm: float, limit: float) -> None:
    then = lesion("A", long_mm, volume_mm3=1000.0)
    for percent, is_real in [(limit, False), (limit + 0.1, True), (-limit, False), (-limit - 0.1, True)]:
        found = volume_change(then, sized("A", 1000 + 10 * percent))
        assert found is not None
        assert (found.limit_percent, found.is_real) == (limit, is_real)
        assert ("more than" if is_real else "within") in found.because
        assert "beyond" not in found.because


def test_a_change_of_volume_is_told_with_the_digits_of_the_sum_cut_off() -> None:
    because = judge(history((sized("A", 1000.0),), (sized("A", 700.3),))).time_points[1].because
    assert "29.97 % below" in because
    assert "-29.9 %, within repeatability" in because


def test_repeatability_beyond_what_it_was_found_for_says_so() -> None:
    for long_mm in (9.9, 100.1):
        found = volume_change(lesion("A", long_mm, volume_mm3=1000.0), sized("A", 1500.0))
        assert found is not None
        assert "beyond the 10 to 100 mm" in found.because


def test_a_protocol_and_the_measurements_own_uncertainties_come_before_the_table() -> None:
    then, now = sized("A", 1000.0, volume_sd_mm3=30.0), sized("A", 1100.0, volume_sd_mm3=40.0)
    own = volume_change(then, now)
    assert own is not None
    assert own.limit_percent == pytest.approx(1.959964 * 5.0)
    assert own.is_real
    protocol = volume_change(then, now, Rules(volume_change_percent=10))
    assert protocol is not None
    assert (protocol.limit_percent, protocol.is_real) == (10, False)


def test_a_verdict_that_repeatability_may_have_made_is_doubted() -> None:
    noisy = history((sized("A", 10.0, volume_sd_mm3=8.0),), (sized("A", 18.0, volume_sd_mm3=8.0),))
    sure = history((sized("A", 10.0, volume_sd_mm3=0.5),), (sized("A", 18.0, volume_sd_mm3=0.5),))
    assert judge(noisy).time_points[1].doubts == ("No target changed by more than repeatability.",)
    assert judge(sure).time_points[1].doubts == ()
    assert overalls(noisy) == overalls(sure) == ["PD"]


def test_the_verdict_tells_the_doubling_time_since_the_volume_was_measured_last() -> None:
    course = history((sized("A", 1000.0),), (sized("A", status=UNKNOWN),), (sized("A", 2000.0),), days=45)
    because = judge(course).time_points[2].because
    assert f"A since {date(2025, 1, 1)}: volume doubles in 90 days." in because


@pytest.mark.parametrize("between", [{"status": GONE}, {"status": Status.TOO_SMALL}, {"mm3": 0.0}])
def test_no_rate_goes_across_a_visit_at_which_the_lesion_was_gone_or_too_small(
    between: dict[str, Any],
) -> None:
    course = history(
        (sized("A", 1000.0),), (sized("A", **between),), (sized("A", 200.0),), (sized("A", 400.0),)
    )
    points = judge(course).time_points
    assert points[2].overall == "PD" and "A since 2025-01-01: -80.0 %" in points[2].because
    assert not {"halves", "doubles"} & set(points[2].because.split())
    assert f"A since {points[2].date}: volume doubles in" in points[3].because


def test_margins_are_exact_to_a_thousandth_of_a_cubic_millimetre() -> None:
    course = history((sized("A", 1000.0),), (sized("A", 900.0, volume_sd_mm3=100.0),))
    found = {margin.verdict: margin for margin in judge(course).time_points[1].margins}
    assert found["PR"].change == pytest.approx(-557.0)
    assert found["PD"].change == pytest.approx(828.0)
    assert found["PD"].standard_deviations == pytest.approx(8.28)


def test_a_volume_that_is_no_number_is_refused() -> None:
    for wrong in (float("nan"), -1.0):
        with pytest.raises(Refused, match="volume_mm3"):
            judge(history((sized("A", wrong),)))


def test_lesions_without_a_volume_are_not_evaluable_and_too_small_ones_are_spheres_of_five_millimetres() -> (
    None
):
    assert overalls(history((sized("A", 1000.0),), (lesion("A", 12, 10),))) == ["NE"]
    small = judge(history((sized("A", 1000.0),), (sized("A", status=Status.TOO_SMALL),))).time_points[1]
    assert small.sum == pytest.approx(65.45)


VOLUMES = st.lists(st.lists(st.integers(1, 10**6), min_size=2, max_size=2), min_size=2, max_size=4)


@settings(max_examples=30, deadline=None)
@given(VOLUMES, st.integers(2, 9), st.integers(1, 10**6))
def test_scale_does_not_matter_and_more_is_never_better(
    visits: list[list[int]], factor: int, more: int
) -> None:
    def words(volumes: list[list[int]]) -> list[str | None]:
        return overalls(history(*((sized("A", a / 8), sized("B", b / 8)) for a, b in volumes)))

    expected = words(visits)
    assert words([[factor * one for one in visit] for visit in visits]) == expected
    order = ["CR", "PR", "SD", "PD"]
    larger = words([*visits[:-1], [visits[-1][0] + more, visits[-1][1]]])
    assert order.index(str(expected[-1])) <= order.index(str(larger[-1]))

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from courses import START, course_of, ordinary, response_of
from hypothesis import given
from hypothesis import strategies as st
from reportlab.graphics.shapes import Circle, Drawing, Polygon, PolyLine, Rect, Shape, String

from node.report.longitudinal.axes import Axes, rows_without_overlap, spread, step_of, ticks
from node.report.longitudinal.charts import curve, spider
from node.report.longitudinal.cohort import cohort_of
from node.report.longitudinal.cohort_charts import parts, swimmer, waterfall
from node.report.longitudinal.course_view import lesions_of, visits_of
from node.report.longitudinal.page import svg
from node.report.longitudinal.report import build
from node.report.longitudinal.sums import sums_of
from node.report.longitudinal.view import LesionCourse, SumCourse, When
from node.report.longitudinal.words import spider_caption
from store import told

NOW = datetime(2024, 7, 1, tzinfo=UTC)


def ordinary_views() -> tuple[SumCourse, tuple[LesionCourse, ...], tuple[When, ...]]:
    course, responses = ordinary()
    visits = visits_of(course, responses)
    lesions = lesions_of(course, visits)
    return sums_of(responses[0], lesions), lesions, visits


def nowhere(name: str) -> Path:
    raise KeyError(name)


def shapes(drawing: Drawing, kind: type[Shape]) -> list[Shape]:
    return [shape for shape in drawing.contents if isinstance(shape, kind)]


def texts(drawing: Drawing) -> list[str]:
    return [shape.text for shape in shapes(drawing, String)]


def test_a_value_lies_where_its_share_of_the_scale_is() -> None:
    axes = Axes(left=10, bottom=20, width=100, height=50, lowest=-100, highest=100, first=0, last=200)
    assert (axes.x(50), axes.y(0), axes.y(-100), axes.y(500)) == (35.0, 45.0, 20.0, 70.0)
    one_day = Axes(left=10, bottom=20, width=100, height=50, lowest=0, highest=1, first=0, last=0)
    assert one_day.x(0) == 60.0


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 64.8) == [0, 20, 40, 60]
    assert ticks(-105, 50, 7) == [-100, -75, -50, -25, 0, 25, 50]
    assert step_of(0.9, 5) == pytest.approx(0.2)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=15))
def test_labels_are_apart_and_in_the_order_of_what_they_name(wanted: list[float]) -> None:
    placed = spread(wanted, 9.5, 0, 200)
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    assert all(placed[b] - placed[a] >= 9.5 - 1e-6 for a, b in pairwise(order))
    assert min(placed) >= 0 and max(placed) <= 200


def test_words_that_would_cover_others_go_a_row_up_or_away_and_the_last_stays() -> None:
    assert rows_without_overlap([0, 5, 100], [20, 20, 20], 2) == [0, 1, 0]
    assert rows_without_overlap([0, 5, 8], [20, 20, 20], 2) == [0, None, 1]
    assert rows_without_overlap([], [], 1) == []


def test_the_curve_goes_through_the_sums_and_is_judged_by_the_rules_of_the_criteria() -> None:
    sums, _, _ = ordinary_views()
    drawing = curve(sums)
    line = next(one for one in shapes(drawing, PolyLine) if one.strokeWidth == 1.8)
    xs, ys = line.points[::2], line.points[1::2]
    assert [(x - xs[0]) / (xs[-1] - xs[0]) for x in xs] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    per_mm = (ys[0] - ys[2]) / (60.0 - 38.0)
    assert ys[3] - ys[2] == pytest.approx(9.0 * per_mm)
    ring = next(one for one in shapes(drawing, Circle) if one.r == 6)
    assert (ring.cx, ring.cy) == (xs[2], ys[2])
    dashed = [one.points for one in shapes(drawing, PolyLine) if tuple(one.strokeDashArray or ()) == (5, 2.5)]
    heights = [(y - ys[2]) / per_mm + 38.0 for _, y, *_ in dashed]
    assert heights == pytest.approx([72.0, 49.2, 45.6, 45.6])
    assert {"60.0", "41.0", "38.0", "47.0", "PR ≤ 42.0", "PD ≥ 45.6 (next)", "2024-06-26"} <= set(
        texts(drawing)
    )


def test_the_band_is_1_96_standard_deviations_of_the_sum_wide() -> None:
    sums, _, _ = ordinary_views()
    drawing = curve(sums)
    line = next(one for one in shapes(drawing, PolyLine) if one.strokeWidth == 1.8)
    per_mm = (line.points[1] - line.points[5]) / 22.0
    band = shapes(drawing, Polygon)[0].points
    assert band[1] - band[7] == pytest.approx(2 * 1.96 * (3 * 0.8**2) ** 0.5 * per_mm)


def test_a_visit_that_cannot_be_evaluated_parts_the_curve_and_says_so() -> None:
    days = [START, date(2024, 3, 6), date(2024, 5, 1), date(2024, 6, 26), date(2024, 8, 21)]
    response = response_of(
        "P", list(zip(days, (60.0, 50.0, None, 40.0, 41.0), strict=True)), [None, "SD", "NE", "PR", "PR"]
    )
    sums = sums_of(response, ())
    drawing = curve(sums)
    runs = [one for one in shapes(drawing, PolyLine) if one.strokeWidth == 1.8]
    assert [len(one.points) // 2 for one in runs] == [2, 2]
    assert texts(drawing).count("NE") == 2
    assert [p.progression_from for p in sums.points] == [None, 72.0, 60.0, 60.0, 48.0]
    assert shapes(drawing, Polygon) == []


def test_every_line_of_the_spider_starts_at_zero_and_ends_at_its_change() -> None:
    _, lesions, visits = ordinary_views()
    drawing = spider(lesions, visits)
    lines = [one.points for one in shapes(drawing, PolyLine) if one.strokeWidth == 1.1]
    assert len(lines) == 3
    percent = (lines[0][1] - lines[0][7]) / (100 * (24.0 - 20.5) / 24.0)
    assert lines[2][1] - lines[2][7] == pytest.approx(percent * 100 * (18.0 - 11.5) / 18.0)
    assert {"T1  −14 %", "T2  −16 %", "T3  −36 %"} <= set(texts(drawing))
    assert (
        len({tuple(one.strokeDashArray or ()) for one in shapes(drawing, PolyLine) if one.strokeWidth == 1.1})
        == 3
    )


@pytest.mark.parametrize(("lesions", "named", "height"), [(5, 5, 230.0), (30, 30, 319.5), (120, 60, 604.5)])
def test_the_spider_has_room_for_its_names_and_of_many_lesions_names_those_that_changed_most(
    lesions: int, named: int, height: float
) -> None:
    course = course_of({n: (100.0, 100.0 + n) for n in range(1, lesions + 1)})
    report = build(course, [told.judge(course, "recist1.1")], nowhere, made_at=NOW)
    drawing = spider(report.lesions, report.visits)
    names = [one for one in shapes(drawing, String) if re.match(r"T\d", one.text)]
    last = range(lesions - named + 1, lesions + 1)
    assert {one.text for one in names} == {f"T{n}  +{n} %" for n in last}
    heights = sorted(one.y for one in names)
    assert all(b - a >= 9.5 - 1e-6 for a, b in pairwise(heights))
    assert heights[0] >= 29 and heights[-1] <= drawing.height == height
    lines = [one.strokeWidth for one in shapes(drawing, PolyLine) if len(one.points) == 4]
    assert (lines.count(1.1), lines.count(0.6)) == (named, lesions - named)
    said = "The drawing names the 60 of 120 lesions whose last change is the largest; the others are grey."
    assert (said in spider_caption(report)) == (lesions == 120)


def test_a_waterfall_has_bars_of_the_best_change_before_progression_ends() -> None:
    day = [date(2024, 1, 1), date(2024, 3, 1), date(2024, 5, 1), date(2024, 7, 1)]
    responses = [
        response_of("A", list(zip(day, (50.0, 40.0, 60.0, 10.0), strict=True)), [None, "SD", "PD", "PR"]),
        response_of("B", list(zip(day, (50.0, 60.0, None, None), strict=True)), [None, "SD", "NE", "NE"]),
        response_of("C", list(zip(day, (50.0, 10.0, 5.0, 30.0), strict=True)), [None, "PR", "PR", "PD"]),
        response_of("D", [(day[0], 50.0)], [None]),
    ]
    cohort = cohort_of(responses, criteria="recist1.1", made_at=NOW, software="S")
    assert [(one.patient, one.best_percent) for one in cohort.by_change] == [
        ("B", 20.0),
        ("A", -20.0),
        ("C", -90.0),
    ]
    assert [one.days for one in cohort.by_time] == [182, 182, 182]
    assert cohort.left_out == ("D",)
    bars = shapes(waterfall(cohort.by_change, cohort.largest_percent), Rect)
    assert [bar.height / bars[0].height for bar in bars] == pytest.approx([1, 1, 4.5])
    lanes = swimmer(cohort.by_time, 182)
    assert (
        sum(len(shape.points) == 6 for shape in shapes(lanes, Polygon)) == 1
    )  # B goes on without progression
    assert texts(lanes).count("PD") == 2


@pytest.mark.parametrize(
    ("sums", "verdicts", "percent", "progressed"),
    [
        ((40.0, 60.0, 10.0), ("iUPD", "iPR"), -75.0, False),
        ((40.0, 60.0, None), ("iUPD", "NE"), 50.0, False),
        ((40.0, 50.0, 30.0), ("iUPD", "iUPD"), 25.0, True),
        ((40.0, 20.0, 60.0, None, 70.0), ("iPR", "iUPD", "NE", "iCPD"), -50.0, True),
    ],
)
def test_an_unconfirmed_progression_that_is_taken_back_ends_nothing(
    sums: tuple[float | None, ...], verdicts: tuple[str, ...], percent: float, progressed: bool
) -> None:
    days = [date(2024, month, 1) for month in range(1, len(sums) + 1)]
    response = response_of("P", list(zip(days, sums, strict=True)), (None, *verdicts), criteria="irecist")
    (one,) = cohort_of([response], criteria="irecist", made_at=NOW).followed
    assert (one.best_percent, one.progressed) == (percent, progressed)


def test_many_patients_are_parted_evenly() -> None:
    cohort = cohort_of(
        [response_of(f"P{n}", [(START, 10.0), (date(2024, 3, 1), 9.0)], [None, "SD"]) for n in range(61)],
        criteria="recist1.1", made_at=NOW,
    )  # fmt: skip
    assert [len(group) for group in parts(cohort.followed, 60)] == [31, 30]
    assert parts((), 60) == []


def test_charts_of_one_page_keep_their_identifiers_apart_and_say_what_they_show() -> None:
    sums, lesions, visits = ordinary_views()
    one = svg(curve(sums), "curve0", "Sum", "a < b & c")
    other = svg(spider(lesions, visits), "spider", "Lesions", "words")
    identifiers = re.findall(r' id="([^"]+)"', one + other)
    assert len(identifiers) == len(set(identifiers))
    assert one.startswith('<svg role="img" aria-labelledby="curve0-title curve0-desc"')
    assert '<desc id="curve0-desc">a &lt; b &amp; c</desc>' in one
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]+"', "", one)


def test_a_course_of_one_visit_has_charts_too() -> None:
    course = course_of({1: (12.0,)})
    response = response_of("P", [(START, 12.0)], [None])
    visits = visits_of(course, [response])
    lesions = lesions_of(course, visits)
    assert "12.0" in texts(curve(sums_of(response, lesions)))
    assert texts(spider(lesions, visits)).count("2024-01-10") == 1

"""The charts of a patient's course: drawings that become SVG on a page and vectors in a document.

Everything is told by shape, dash and word; colour only helps. Lengths are points (1/72 inch).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from itertools import pairwise

from reportlab.graphics.shapes import Circle, Drawing, Line, Polygon, PolyLine, Rect, String
from reportlab.lib import colors
from reportlab.pdfbase.pdfmetrics import stringWidth

from node.report.longitudinal.axes import Axes, rows_without_overlap, spread, ticks
from node.report.longitudinal.marks import DASHES, INKS, mark
from node.report.longitudinal.view import LesionCourse, SumCourse, SumPoint, When
from node.report.longitudinal.words import MOST_NAMED
from node.report.pdf import BOLD, FAINT, INK, PLAIN, RULE, register_typefaces
from store.response.burden import cut_off

WIDTH = 480.0
SMALL, TEXT = 6.8, 7.5
GROWN, SHRUNK = colors.HexColor("#a3231b"), colors.HexColor("#1a6b3c")
BAND = colors.HexColor("#d9e2ec")
SUM = colors.HexColor("#0b4f8a")
Changes = list[tuple[int, float]]
"""Of a lesion: day and change, per cent."""
LABEL = 9.5
"""From one name of the spider to the next."""
MOST_PERCENT = 250.0
"""A lesion that grew more than this stands at the upper edge of the spider, with an arrow."""


def curve(course: SumCourse, height: float = 205.0) -> Drawing:
    """Return the sum over time: its uncertainty, its nadir, and what it is judged by.

    The band is 1.96 standard deviations to either side, at the visits at which that of every part is known.
    """
    register_typefaces()
    drawing = Drawing(WIDTH, height)
    axes = _curve_axes(course, height)
    grid(drawing, axes, ticks(axes.lowest, axes.highest), "{:.12g}", course.unit)
    _visits(drawing, axes, [(p.days, p.date) for p in course.points])
    _band(drawing, axes, course.points)
    labels = _thresholds(drawing, axes, course)
    runs: list[list[SumPoint]] = [[]]
    for point in course.points:
        if point.sum is None:
            runs.append([])
        else:
            runs[-1].append(point)
    for run in runs:
        if len(run) > 1:
            places = [value for p in run for value in (axes.x(p.days), axes.y(p.sum or 0))]
            drawing.add(PolyLine(places, strokeColor=SUM, strokeWidth=1.8, fillColor=None))
    _sums(drawing, axes, course)
    _right_labels(drawing, axes, labels)
    _verdicts(drawing, axes, course.points)
    return drawing


def _curve_axes(course: SumCourse, height: float) -> Axes:
    known = [p.sum + 1.96 * (p.sd or 0) for p in course.points if p.sum is not None]
    known += [v for v in (course.next_progression_from, course.response_to) if v is not None]
    known += [p.progression_from for p in course.points if p.progression_from is not None]
    days = [p.days for p in course.points]
    highest = 1.08 * max([*known, 1.0])
    widest = max(stringWidth(f"{tick:.12g} {course.unit}", PLAIN, SMALL) for tick in ticks(0.0, highest))
    left = max(34.0, widest + 5)
    return Axes(
        left=left, bottom=30, width=WIDTH - left - 92, height=height - 30 - 34, lowest=0.0, highest=highest,
        first=float(min(days)), last=float(max(days)),
    )  # fmt: skip


def _band(drawing: Drawing, axes: Axes, points: Sequence[SumPoint]) -> None:
    for one, other in pairwise(points):
        if one.sum is None or other.sum is None or one.sd is None or other.sd is None:
            continue
        ends = [(axes.x(p.days), axes.y(p.sum + 1.96 * p.sd), axes.y(p.sum - 1.96 * p.sd)) for p in (one, other)
                if p.sum is not None and p.sd is not None]  # fmt: skip
        (x1, high1, low1), (x2, high2, low2) = ends
        corners = [x1, high1, x2, high2, x2, low2, x1, low1]
        drawing.add(Polygon(corners, fillColor=BAND, strokeColor=None))
        for a, b in ((high1, high2), (low1, low2)):
            drawing.add(Line(x1, a, x2, b, strokeColor=FAINT, strokeWidth=0.35))


def _thresholds(drawing: Drawing, axes: Axes, course: SumCourse) -> list[tuple[float, str]]:
    """Draw what the sums are judged by, and return the labels at the right edge with their heights."""
    labels = []
    if course.response_to is not None:
        y = axes.y(course.response_to)
        _dashed(drawing, axes.left, axes.right, y, SHRUNK, (1.2, 2.2))
        labels.append((y, f"PR \N{LESS-THAN OR EQUAL TO} {course.response_to:.1f}"))
    for before, point in pairwise(course.points):
        if point.progression_from is not None:
            y = axes.y(point.progression_from)
            x = axes.x(before.days)
            _dashed(drawing, x, axes.x(point.days), y, GROWN, (5, 2.5))
    if course.next_progression_from is not None:
        y = axes.y(course.next_progression_from)
        _dashed(drawing, axes.right, axes.right + 8, y, GROWN, (5, 2.5))
        labels.append((y, f"PD \N{GREATER-THAN OR EQUAL TO} {course.next_progression_from:.1f} (next)"))
    return labels


def _dashed(
    drawing: Drawing, left: float, right: float, y: float, colour: colors.Color, dashes: Sequence[float]
) -> None:
    """Draw a dashed level; as a Line its SVG would go there and back, and fill its own gaps."""
    drawing.add(PolyLine([left, y, right, y], strokeColor=colour, strokeDashArray=dashes, fillColor=None))


def _sums(drawing: Drawing, axes: Axes, course: SumCourse) -> None:
    texts = [f"{p.sum:.1f}" if p.sum is not None else "NE" for p in course.points]
    places = [max(axes.x(p.days), axes.left + 14) for p in course.points]
    room = rows_without_overlap(places, [stringWidth(t, BOLD, TEXT) for t in texts], 1)
    for point, place, text, row in zip(course.points, places, texts, room, strict=True):
        x = axes.x(point.days)
        if point.sum is None:
            drawing.add(words(x, axes.bottom + 4, text, colour=FAINT, bold=True))
            continue
        y = axes.y(point.sum)
        if point.sum == course.nadir and point.date == course.nadir_date:
            drawing.add(Circle(x, y, 6, fillColor=None, strokeColor=INK, strokeWidth=0.9))
            drawing.add(words(x, max(y - 16, axes.bottom + 2), "nadir", colour=INK))
        drawing.add(Circle(x, y, 2.7, fillColor=SUM, strokeColor=colors.white, strokeWidth=0.6))
        if row is not None:
            above = y + 9 if y + 18 < axes.top else y - 15
            _halo(drawing, place, above, text)


def _verdicts(drawing: Drawing, axes: Axes, points: Sequence[SumPoint]) -> None:
    places = [axes.x(p.days) for p in points]
    widths = [stringWidth(p.verdict, BOLD, SMALL) for p in points]
    for point, x, row in zip(points, places, rows_without_overlap(places, widths, 2), strict=True):
        drawing.add(Line(x, axes.top, x, axes.top + 3, strokeColor=FAINT, strokeWidth=0.5))
        if row is not None:
            drawing.add(words(x, axes.top + 6 + 10 * row, point.verdict, bold=point.verdict != "baseline"))


def spider(lesions: Sequence[LesionCourse], visits: Sequence[When]) -> Drawing:
    """Return the change of each lesion that was measured twice, in per cent of its first axis, over time.

    It is as high as its names need. Of more than `MOST_NAMED` lesions those whose last change is the largest have a
    mark and a name, the others are grey.
    """
    register_typefaces()
    shown, others = _named(lesions, visits)
    height = max(230.0, LABEL * (len(shown) - 1) + 44)
    drawing = Drawing(WIDTH, height)
    changes = [change for points in (*others, *(points for _, _, points in shown)) for _, change in points]
    axes = Axes(
        left=34, bottom=30, width=WIDTH - 34 - 118, height=height - 30 - 16, lowest=-105.0,
        highest=max(50.0, min(MOST_PERCENT, 1.1 * max([0.0, *changes]))),
        first=float(visits[0].days), last=float(visits[-1].days),
    )  # fmt: skip
    marked = [t for t in ticks(axes.lowest, axes.highest, 7) if t >= -100]
    grid(drawing, axes, marked, "{:+g} %")
    _visits(drawing, axes, [(v.days, v.date) for v in visits])
    zero = axes.y(0)
    drawing.add(Line(axes.left, zero, axes.right, zero, strokeColor=INK, strokeWidth=0.7))
    for points in others:
        places = [at for day, change in points for at in (axes.x(day), axes.y(change))]
        drawing.add(PolyLine(places, strokeColor=RULE, strokeWidth=0.6, fillColor=None))
    ends = []
    for number, lesion, points in shown:
        _leg(drawing, axes, number, points)
        day, change = points[-1]
        ends.append((number, lesion, axes.x(day), axes.y(change), change))
    heights = spread([y for *_, y, _ in ends], LABEL, axes.bottom + 2, axes.top + 4)
    for (number, lesion, x, y, change), at in zip(ends, heights, strict=True):
        ink = INKS[number % len(INKS)]
        edge = axes.right + 12
        drawing.add(PolyLine([x + 4, y, max(x + 4, axes.right + 3), y if x > axes.right - 5 else at, edge, at],
                             strokeColor=ink, strokeWidth=0.35, fillColor=None))  # fmt: skip
        mark(drawing, edge + 5, at, number)
        drawing.add(
            words(
                edge + 12,
                at - 2.5,
                f"{lesion.code}  {_percent(change)}",
                anchor="start",
            )
        )
    return drawing


def _named(
    lesions: Sequence[LesionCourse], visits: Sequence[When]
) -> tuple[list[tuple[int, LesionCourse, Changes]], list[Changes]]:
    """Return those that have a name, with the numbers of their marks and their changes; the changes of the others."""
    every = [(number, lesion, _changes(lesion, visits)) for number, lesion in enumerate(lesions)]
    every = [one for one in every if len(one[2]) > 1]
    if len(every) <= MOST_NAMED:
        return every, []
    by_change = sorted(every, key=lambda one: -abs(one[2][-1][1]))
    first = sorted(by_change[:MOST_NAMED], key=lambda one: one[0])
    named = [(mark_number, lesion, points) for mark_number, (_, lesion, points) in enumerate(first)]
    return named, [points for _, _, points in by_change[MOST_NAMED:]]


def _changes(lesion: LesionCourse, visits: Sequence[When]) -> Changes:
    return [
        (visit.days, cell.to_baseline_percent)
        for visit, cell in zip(visits, lesion.cells, strict=True)
        if cell.to_baseline_percent is not None
    ]


def _leg(drawing: Drawing, axes: Axes, number: int, points: Sequence[tuple[int, float]]) -> None:
    ink = INKS[number % len(INKS)]
    places = [(axes.x(day), axes.y(change)) for day, change in points]
    if len(places) > 1:
        drawing.add(
            PolyLine([v for place in places for v in place], strokeColor=ink, strokeWidth=1.1, fillColor=None,
                     strokeDashArray=DASHES[number % len(DASHES)])
        )  # fmt: skip
    for (x, y), (_, change) in zip(places, points, strict=True):
        mark(drawing, x, y, number)
        if change > axes.highest:
            drawing.add(words(x, y + 3, "\N{UPWARDS ARROW}", bold=True))


def grid(drawing: Drawing, axes: Axes, marked: Sequence[float], form: str, unit: str = "") -> None:
    """Draw the frame and a line for each marked value; the unit stands at the highest."""
    drawing.add(Line(axes.left, axes.bottom, axes.left, axes.top, strokeColor=FAINT, strokeWidth=0.5))
    drawing.add(Line(axes.left, axes.bottom, axes.right, axes.bottom, strokeColor=FAINT, strokeWidth=0.5))
    for value in marked:
        y = axes.y(value)
        drawing.add(Line(axes.left, y, axes.right, y, strokeColor=RULE, strokeWidth=0.35))
        text = form.format(value).replace("-", "\N{MINUS SIGN}").replace("+0 ", "0 ")
        text = f"{text} {unit}".strip() if value == marked[-1] else text
        drawing.add(words(axes.left - 4, y - 2.4, text, anchor="end", colour=FAINT))


def _visits(drawing: Drawing, axes: Axes, visits: Sequence[tuple[int, date]]) -> None:
    places = [axes.x(days) for days, _ in visits]
    widths = [stringWidth("2024-01-01", PLAIN, SMALL)] * len(visits)
    for (_, day), x, row in zip(visits, places, rows_without_overlap(places, widths, 2), strict=True):
        drawing.add(Line(x, axes.bottom, x, axes.bottom - 3, strokeColor=FAINT, strokeWidth=0.5))
        if row is not None:
            y = axes.bottom - 10 - 9 * row
            drawing.add(words(x, y, day.isoformat(), colour=FAINT))
    drawing.add(
        words(axes.right + 40, axes.bottom - 10, f"{visits[-1][0]} days", anchor="start", colour=FAINT)
    )


def _right_labels(drawing: Drawing, axes: Axes, labels: Sequence[tuple[float, str]]) -> None:
    heights = spread([y for y, _ in labels], 9.5, axes.bottom, axes.top)
    for (_, text), y in zip(labels, heights, strict=True):
        drawing.add(words(axes.right + 10, y - 2.4, text, anchor="start"))


def _halo(drawing: Drawing, x: float, y: float, text: str) -> None:
    width = stringWidth(text, BOLD, TEXT)
    drawing.add(Rect(x - width / 2 - 1, y - 1.8, width + 2, TEXT + 1, fillColor=colors.white, strokeColor=None,
                     fillOpacity=0.75))  # fmt: skip
    drawing.add(words(x, y, text, bold=True, size=TEXT))


def words(
    x: float, y: float, text: str, *, anchor: str = "middle", bold: bool = False, size: float = SMALL,
    colour: colors.Color = INK,
) -> String:  # fmt: skip
    """Return words on a chart."""
    return String(
        x, y, text, textAnchor=anchor, fontName=BOLD if bold else PLAIN, fontSize=size, fillColor=colour
    )


def _percent(value: float) -> str:
    return f"{cut_off(value, 0):+.0f} %".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else ""


__all__ = ["SMALL", "TEXT", "WIDTH", "curve", "grid", "spider", "words"]

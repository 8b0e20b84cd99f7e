"""The charts of a cohort: waterfall and swimmer."""

from __future__ import annotations

from collections.abc import Sequence

from reportlab.graphics.shapes import Drawing, Group, Line, Polygon, Rect
from reportlab.lib import colors
from reportlab.pdfbase.pdfmetrics import stringWidth

from node.report.longitudinal.axes import Axes, ticks
from node.report.longitudinal.charts import SMALL, TEXT, WIDTH, grid, words
from node.report.longitudinal.cohort import Followed
from node.report.longitudinal.marks import hatched
from node.report.pdf import BOLD, FAINT, INK, register_typefaces

MOST_BARS, MOST_LANES = 30, 40
"""Patients on one chart; more of them have several charts."""
LANE = 15.0
MOST_PERCENT = 150.0
LONGEST_NAME = 16


def waterfall(followed: Sequence[Followed], largest: float, height: float = 240.0) -> Drawing:
    """Return a bar for each patient: the best change of the sum to the baseline, in the order given.

    `largest` is the largest growth of the cohort, per cent, so that its charts have one scale.
    """
    register_typefaces()
    drawing = Drawing(WIDTH, height)
    changes = [one.best_percent or 0.0 for one in followed]
    axes = Axes(
        left=40, bottom=52, width=WIDTH - 46, height=height - 52 - 14, first=0.0, last=float(max(len(followed), 6)),
        lowest=-115.0, highest=max(40.0, min(MOST_PERCENT, 1.1 * largest)),
    )  # fmt: skip
    grid(drawing, axes, [t for t in ticks(axes.lowest, axes.highest, 7) if t >= -100], "{:+g} %")
    zero = axes.y(0)
    for number, (one, change) in enumerate(zip(followed, changes, strict=True)):
        left, right = axes.x(number + 0.12), axes.x(number + 0.88)
        end = axes.y(change)
        hatched(drawing, left, min(zero, end), right - left, max(abs(end - zero), 0.8), one.best_overall)
        size = min(SMALL, 0.62 * (right - left))
        beyond = "\N{UPWARDS ARROW}" if change > axes.highest else ""
        drawing.add(words((left + right) / 2, end + 3 if change > 0 else end - size - 1,
                          beyond + short_verdict(one.best_overall), size=size, bold=True))  # fmt: skip
        _slanted_name(
            drawing, (left + right) / 2, axes.bottom - 6, one.patient, min(SMALL, 1.1 * (right - left))
        )
    drawing.add(Line(axes.left, zero, axes.right, zero, strokeColor=INK, strokeWidth=0.7))
    return drawing


def swimmer(followed: Sequence[Followed], last_day: int) -> Drawing:
    """Return a lane for each patient from the baseline to the last visit, with a word for each verdict.

    `last_day` is the right end of the scale, so that charts of one cohort have one scale. An arrow at the end says that
    there was no progression.
    """
    register_typefaces()
    height = LANE * len(followed) + 34
    drawing = Drawing(WIDTH, height)
    axes = Axes(
        left=92, bottom=26, width=WIDTH - 92 - 30, height=LANE * len(followed), first=0.0, last=float(max(last_day, 1)),
        lowest=0.0, highest=1.0,
    )  # fmt: skip
    for day in ticks(0.0, axes.last, 7):
        x = axes.x(day)
        drawing.add(
            Line(x, axes.bottom - 3, x, axes.top, strokeColor=colors.HexColor("#d5dbe2"), strokeWidth=0.4)
        )
        drawing.add(words(x, axes.bottom - 12, f"{day:g}", colour=FAINT))
    drawing.add(words(axes.left + axes.width / 2, axes.bottom - 22, "days since the baseline", colour=FAINT))
    for number, one in enumerate(followed):
        _lane(drawing, axes, axes.top - (number + 0.5) * LANE, one)
    return drawing


def _lane(drawing: Drawing, axes: Axes, y: float, one: Followed) -> None:
    name = one.patient if len(one.patient) <= LONGEST_NAME else one.patient[: LONGEST_NAME - 1] + "…"
    drawing.add(words(axes.left - 6, y - 2.5, name, anchor="end", size=TEXT))
    end = axes.x(one.days)
    bar = LANE * 0.62
    drawing.add(Rect(axes.left, y - bar / 2, max(end - axes.left, 1), bar, fillColor=colors.HexColor("#e4e9ef"),
                     strokeColor=FAINT, strokeWidth=0.5))  # fmt: skip
    edge = axes.left
    for day, verdict in one.verdicts:
        x = axes.x(day)
        drawing.add(Line(x, y - bar / 2, x, y + bar / 2, strokeColor=INK, strokeWidth=0.9))
        text = short_verdict(verdict)
        if x - edge > stringWidth(text, BOLD, 5.8) + 4:
            drawing.add(words(x - 2, y - 2, text, anchor="end", size=5.8, bold=True))
        edge = x
    if not one.progressed:
        drawing.add(
            Polygon([end + 2, y - 3.4, end + 9, y, end + 2, y + 3.4], fillColor=INK, strokeColor=None)
        )


def _slanted_name(drawing: Drawing, x: float, y: float, name: str, size: float) -> None:
    shown = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    group = Group(words(0, 0, shown, anchor="end", size=size))
    group.translate(x + 2, y)
    group.rotate(45)
    drawing.add(group)


def short_verdict(verdict: str) -> str:
    """Return a verdict as bars have room for it."""
    return {"": "none", "NON-CR/NON-PD": "Non", "NON-iCR/NON-iUPD": "Non"}.get(verdict, verdict)


def parts(followed: Sequence[Followed], most: int) -> list[Sequence[Followed]]:
    """Return the patients in groups of nearly equal size, of at most `most`."""
    groups = -(-len(followed) // most)
    size = -(-len(followed) // groups) if groups else 1
    return [followed[at : at + size] for at in range(0, len(followed), size)]


__all__ = ["MOST_BARS", "MOST_LANES", "parts", "short_verdict", "swimmer", "waterfall"]

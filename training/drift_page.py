"""The page on drift: of each analysis its alarms, and each quantity over the weeks in a drawing of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from training.drift import Week
from training.drift_told import Course, alarms, left_out, named, newest, state
from training.evaluate.charts import ACCENT, LINE, MUTED, SECOND
from training.evaluate.report import RESEARCH_USE, pages
from training.evaluate.section import Chart, Section, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "evaluate"


def drift_html(courses: Sequence[Course], weeks: int, made_at: datetime) -> str:
    """Return the page on the newest `weeks` weeks of each analysis; it stands alone, without script."""
    return (
        pages(TEMPLATES)
        .get_template("drift.html")
        .render(
            title="Drift of input and results",
            sections=[_section(course, course.last(weeks)) for course in courses],
            research_use=RESEARCH_USE,
            made_at=made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def _section(course: Course, weeks: Sequence[Week]) -> Section:
    told = newest(alarms(course, weeks))
    rows = tuple((week.week, str(week.studies), state(week)) for week in weeks)
    return Section(
        title=course.plugin,
        text=" ".join(filter(None, (left_out(course), "" if told else "No alarm in these weeks."))),
        points=tuple(f"{alarm.week} {alarm.sentence}" for alarm in told),
        tables=(Table(head=("week", "studies", "what became of it"), rows=rows, words=True),),
        charts=charts(course, weeks),
    )


def charts(course: Course, weeks: Sequence[Week]) -> tuple[Chart, ...]:
    """Return a drawing of every quantity of these weeks: numbers as median and quartiles, the others as their PSI."""
    numbers = sorted({name for week in weeks for name in week.quartiles})
    others = dict.fromkeys(s.what for week in weeks for s in week.shifts if s.statistic == "PSI")
    return tuple(
        [_numbers_over_weeks(course, weeks, name) for name in numbers]
        + [_psi_over_weeks(course, weeks, what) for what in others]
    )


def _numbers_over_weeks(course: Course, weeks: Sequence[Week], name: str) -> Chart:
    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        usual = [week.quartiles[name] for week in course.reference if name in week.quartiles]
        for level, width in zip(zip(*usual, strict=True), (0.8, 1.4, 0.8), strict=True) if usual else ():
            axes.axhline(sum(level) / len(level), color=MUTED, linewidth=width, linestyle=(0, (4, 3)))
        for at, week in enumerate(weeks):
            if name in week.quartiles:
                low, middle, high = week.quartiles[name]
                colour = SECOND if any(s.what == name for s in week.alarms) else ACCENT
                axes.plot([at, at], [low, high], color=colour, linewidth=1.6)
                axes.plot([at], [middle], "D" if colour == SECOND else "o", color=colour, markersize=5)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        _weeks_below(axes, weeks)

    caption = (
        f"{_heading(name)}: median and quartiles of the studies of each week; dashed, those of the reference."
    )
    return Chart(draw=draw, caption=f"{caption}{_said(weeks, name)}", size_inches=(4.6, 2.7))


def _psi_over_weeks(course: Course, weeks: Sequence[Week], what: str) -> Chart:
    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.axhline(course.limits.psi, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        for at, week in enumerate(weeks):
            for shift in (s for s in week.shifts if s.what == what):
                colour = SECOND if shift.is_alarm else ACCENT
                axes.bar([at], [shift.value], width=0.6, color=colour, hatch="//" if shift.is_alarm else None,
                         edgecolor=LINE)  # fmt: skip
        axes.set_ylim(0.0, max(axes.get_ylim()[1], 2 * course.limits.psi))
        axes.set_ylabel("PSI beyond chance")
        _weeks_below(axes, weeks)

    caption = f"{_heading(what)}: how far each week is from the reference; dashed, the limit."
    return Chart(draw=draw, caption=f"{caption}{_said(weeks, what)}", size_inches=(4.6, 2.7))


def _weeks_below(axes: Axes, weeks: Sequence[Week]) -> None:
    """Mark the weeks below a drawing, a grey ground under those of the reference."""
    step = max(1, len(weeks) // 5)
    axes.set_xticks(range(0, len(weeks), step), [week.week[2:] for week in weeks[::step]])
    axes.set_xlim(-0.6, len(weeks) - 0.4)
    for at, week in enumerate(weeks):
        if week.is_reference:
            axes.axvspan(at - 0.5, at + 0.5, color=LINE, alpha=0.5, linewidth=0)


def _heading(what: str) -> str:
    words = named(what).removeprefix("the ")
    return words[0].upper() + words[1:]


def _said(weeks: Sequence[Week], what: str) -> str:
    """Return what the newest alarm of a quantity says changed."""
    for week in reversed(weeks):
        for shift in week.alarms:
            if shift.what == what:
                return f" {week.week}: {shift.change}."
    return ""


__all__ = ["charts", "drift_html"]

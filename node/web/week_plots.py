"""Quantities over weeks as drawings: coordinates for the template, which draws them in the colours of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.drift import Week
    from training.drift_told import Course

WIDTH, HEIGHT = 460.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 8.0, 10.0, 24.0


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One week of a drawing, in the units of its view box."""

    x: float
    """Middle of the week."""
    width: float
    """Room of a week."""
    y: float | None
    """Median, or the PSI; None without a value."""
    low: float | None = None
    """Lower quartile."""
    high: float | None = None
    """Upper quartile."""
    is_alarm: bool
    """Whether this week raised an alarm of the quantity."""
    is_reference: bool
    """Whether the others are compared with it."""
    label: str
    """The week and its value, in words."""
    tick: str
    """What stands below it; empty for most."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One quantity over the weeks."""

    title: str
    """The quantity in words."""
    said: str
    """What the drawing shows, and what changed when something did."""
    marks: tuple[Mark, ...]
    """From the first week to the last."""
    ticks: tuple[tuple[float, str], ...]
    """Height and number of each line of the scale."""
    limit: float | None
    """Height of the limit."""
    has_alarm: bool
    """Whether a week raised an alarm."""


def plots(course: Course, weeks: Sequence[Week]) -> list[Plot]:
    """Return a drawing of every quantity of these weeks, those with an alarm first."""
    numbers = sorted({name for week in weeks for name in week.quartiles})
    others = dict.fromkeys(s.what for week in weeks for s in week.shifts if s.statistic == "PSI")
    made = [
        *(_plot(course, weeks, name, is_psi=False) for name in numbers),
        *(_plot(course, weeks, what, is_psi=True) for what in others),
    ]
    return sorted(made, key=lambda plot: not plot.has_alarm)


def _plot(course: Course, weeks: Sequence[Week], what: str, *, is_psi: bool) -> Plot:
    from training.drift_told import named

    values = [_psi(week, what) if is_psi else week.quartiles.get(what) for week in weeks]
    limit = course.limits.psi if is_psi else None
    top = max([*(v[2] for v in values if v is not None), 2 * (limit or 0.0)], default=1.0) or 1.0
    bottom = min([0.0, *(v[0] for v in values if v is not None)])

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (top - value) / (top - bottom), 1)

    name = named(what).removeprefix("the ")
    changed = next(
        (f" {w.week}: {s.change}." for w in reversed(weeks) for s in w.alarms if s.what == what), ""
    )
    how = (
        "how far each week is from the reference (PSI beyond chance); dashed, the limit"
        if is_psi
        else "median and quartiles of the studies of each week"
    )
    return Plot(
        title=name[0].upper() + name[1:],
        said=f"{how[0].upper()}{how[1:]}.{changed}",
        marks=tuple(_marks(weeks, values, what, y)),
        ticks=tuple((y(v), _short(v)) for v in (bottom, (top + bottom) / 2, top)),
        limit=None if limit is None else y(limit),
        has_alarm=bool(changed),
    )


def _psi(week: Week, what: str) -> tuple[float, float, float] | None:
    found = next((s.value for s in week.shifts if s.what == what), None)
    return None if found is None else (found, found, found)


def _marks(
    weeks: Sequence[Week],
    values: Sequence[tuple[float, float, float] | None],
    what: str,
    y: Callable[[float], float],
) -> Iterator[Mark]:
    room = (WIDTH - LEFT - RIGHT) / max(1, len(weeks))
    step = max(1, -(-len(weeks) // 6))
    for number, (week, value) in enumerate(zip(weeks, values, strict=True)):
        is_alarm = any(shift.what == what for shift in week.alarms)
        said = "no value" if value is None else _short(value[1])
        yield Mark(
            x=round(LEFT + (number + 0.5) * room, 1),
            width=round(room, 1),
            y=None if value is None else y(value[1]),
            low=None if value is None else y(value[0]),
            high=None if value is None else y(value[2]),
            is_alarm=is_alarm,
            is_reference=week.is_reference,
            label=f"{week.week}: {said}{', alarm' if is_alarm else ''}{', reference' if week.is_reference else ''}",
            tick=week.week[2:] if number % step == 0 else "",
        )


def _short(value: float) -> str:
    from training.drift import short

    return short(value).replace("-", "\N{MINUS SIGN}")


__all__ = ["HEIGHT", "WIDTH", "Mark", "Plot", "plots"]

"""Whether the studies of a week are like those that a model began with: of each quantity, with alarms.

A study is one point: the findings of one patient go together, and taken one by one would raise alarms by themselves.
Categories and histograms are compared by their PSI (`training.stability`), numbers by the distance of their
distributions. All p values of an analysis in a week, of either kind, are judged together by Benjamini and Hochberg's
rule, so that without any drift at most `Limits.false_alarms` of the weeks raise an alarm; and an alarm has to matter
besides. A week is looked at alone, and together with the weeks before it, which shows what is small and lasts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np

from store.facts import EDGES, Observed
from training.stability import benjamini_hochberg, category_shift, histogram_shift, ks

BINS_MM: Final[dict[str, tuple[float, ...]]] = {
    "slice_distance": (0.8, 1.1, 1.6, 2.1, 2.6, 3.1, 4.1, 5.1, 7.6),
    "pixel_spacing": (0.55, 0.65, 0.75, 0.85, 0.98, 1.2, 2.0, 3.0, 4.5),
}
"""Edges between the bins of spacings, beside the usual values."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From when on something is an alarm."""

    psi: float = 0.2
    """Least PSI beyond chance."""
    distance: float = 0.1
    """Least distance of two distributions: a smaller one matters to nobody."""
    false_alarms: float = 0.02
    """Share of the weeks without drift that may raise an alarm, for each analysis."""
    studies: int = 20
    """With fewer on either side nothing is judged."""
    reference_weeks: int = 8
    """So many weeks from the beginning on are what the others are compared with."""
    together_weeks: int = 4
    """So many weeks, the last of which is judged, are looked at together as well."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How one quantity differs from the reference."""

    what: str
    """The quantity."""
    statistic: Literal["PSI", "KS"]
    """How it was compared."""
    value: float
    """PSI beyond chance, or the largest distance of both distributions."""
    limit: float
    """What it has to reach for an alarm."""
    p: float
    """How often chance gives as much."""
    change: str
    """From what to what, in words."""
    weeks: int = 1
    """How many weeks, up to this one, were looked at."""
    studies: int = 0
    """How many studies with this quantity they hold."""
    is_alarm: bool = False
    """Whether it is more than chance, and matters."""
    since: str = ""
    """The first of the weeks in a row with this alarm."""


@dataclass(frozen=True, kw_only=True)
class Week:
    """One ISO week of one analysis."""

    week: str
    """2026-W47."""
    studies: int
    """Studies with results."""
    quartiles: Mapping[str, tuple[float, float, float]]
    """Lower quartile, median and upper quartile of each number."""
    is_reference: bool = False
    """Whether the others are compared with it."""
    not_judged: str = ""
    """Why it was not judged, if it was not."""
    shifts: tuple[Shift, ...] = ()
    """Every quantity that could be compared."""

    @property
    def alarms(self) -> tuple[Shift, ...]:
        """Return what is an alarm."""
        return tuple(shift for shift in self.shifts if shift.is_alarm)


def iso_week(at: datetime | date) -> str:
    """Return the ISO week of a day: 2026-W47."""
    year, week, _ = at.isocalendar()
    return f"{year}-W{week:02d}"


def judge(observed: Sequence[Observed], limits: Limits | None = None, seed: int = 0) -> tuple[Week, ...]:
    """Return every week from that of the first study to that of the last, compared with the first of them.

    The reference goes on beyond `reference_weeks` until it holds enough studies. The same studies give the same answer.
    Raises ValueError for limits with which nothing can be judged.
    """
    limits = limits or Limits()
    if min(limits.studies, limits.reference_weeks, limits.together_weeks) < 1:
        raise ValueError("studies, reference_weeks and together_weeks are at least 1")
    of_week: dict[str, list[Observed]] = {}
    for one in sorted(observed, key=lambda o: o.at):
        of_week.setdefault(iso_week(one.at), []).append(one)
    names = _calendar(of_week)
    reference: list[Observed] = []
    count = 0
    while count < len(names) and (count < limits.reference_weeks or len(reference) < limits.studies):
        reference += of_week.get(names[count], [])
        count += 1
    weeks = []
    for number, name in enumerate(names):
        here = of_week.get(name, [])
        week = Week(week=name, studies=len(here), quartiles=_quartiles(here), is_reference=number < count)
        if not week.is_reference and not here:
            week = replace(week, not_judged="no studies")
        elif not week.is_reference:
            last = names[max(count, number + 1 - limits.together_weeks) : number + 1]
            together = [one for at in last for one in of_week.get(at, [])]
            week = _judged(week, {1: here, len(last): together}, reference, limits, seed)
        elif len(reference) < limits.studies:
            week = replace(
                week, not_judged=f"the reference holds {len(reference)} of {limits.studies} studies"
            )
        weeks.append(week)
    return _with_beginnings(weeks)


def _calendar(weeks: Mapping[str, object]) -> list[str]:
    """Return every week from the first to the last, those without a study too."""
    if not weeks:
        return []
    first, last = (date.fromisoformat(f"{week}-1") for week in (min(weeks), max(weeks)))
    return [iso_week(first + timedelta(weeks=n)) for n in range((last - first).days // 7 + 1)]


def _quartiles(observed: Sequence[Observed]) -> dict[str, tuple[float, float, float]]:
    names = sorted({name for one in observed for name in one.numbers})
    return {name: _three([o.numbers[name] for o in observed if name in o.numbers]) for name in names}


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


def _judged(
    week: Week,
    windows: Mapping[int, Sequence[Observed]],
    reference: Sequence[Observed],
    limits: Limits,
    seed: int,
) -> Week:
    """Return the week with its shifts; `windows` are the studies that are looked at, by the number of weeks."""
    used = {weeks: window for weeks, window in windows.items() if len(window) >= limits.studies}
    if not used:
        held = " and ".join(f"{len(window)} in {_weeks(weeks)}" for weeks, window in windows.items())
        return replace(week, not_judged=f"fewer than {limits.studies} studies: {held}")
    found: dict[str, list[Shift]] = {}
    for weeks, window in used.items():
        for shift in _shifts(window, reference, limits, np.random.default_rng(seed)):
            found.setdefault(shift.what, []).append(replace(shift, weeks=weeks))
    # Of several windows the one that says most counts, at the price of having looked so often (Bonferroni).
    best = [
        replace(
            min(several, key=lambda s: (s.p, -s.value)), p=min(1.0, len(several) * min(s.p for s in several))
        )
        for several in found.values()
    ]
    passed = benjamini_hochberg([shift.p for shift in best], limits.false_alarms)
    shifts = (
        replace(shift, is_alarm=is_rare and shift.value >= shift.limit)
        for shift, is_rare in zip(best, passed, strict=True)
    )
    return replace(week, shifts=tuple(shifts))


def _weeks(count: int) -> str:
    return "one week" if count == 1 else f"{count} weeks"


def _with_beginnings(weeks: Sequence[Week]) -> tuple[Week, ...]:
    """Return the weeks, each alarm with the first of the judged weeks in a row that raise it."""
    going_on: dict[str, str] = {}
    told = []
    for week in weeks:
        if week.shifts:
            going_on = {shift.what: going_on.get(shift.what, week.week) for shift in week.alarms}
        shifts = (replace(s, since=going_on.get(s.what, "")) for s in week.shifts)
        told.append(replace(week, shifts=tuple(shifts)))
    return tuple(told)


def _shifts(
    now: Sequence[Observed], before: Sequence[Observed], limits: Limits, random: np.random.Generator
) -> Iterator[Shift]:
    """Yield every quantity that both sides hold often enough."""
    for what, value_of, compared in _quantities([*before, *now]):
        old, new = ([v for o in side if (v := value_of(o)) is not None] for side in (before, now))
        if min(len(old), len(new)) >= limits.studies:
            yield replace(compared(what, old, new, limits, random), studies=len(new))


Values = list[Any]
Compare = Callable[[str, Values, Values, Limits, np.random.Generator], Shift]


def _quantities(
    observed: Sequence[Observed],
) -> Iterator[tuple[str, Callable[[Observed], Any], Compare]]:
    """Yield each quantity: its name, how it is read from a study, and how it is compared."""
    for what in sorted({name for one in observed for name in one.categories}):
        yield what, partial(_category, what), _categories_compared
    for what in BINS_MM:
        yield what, partial(_bin, what), _categories_compared
    for unit in sorted({unit for one in observed for unit in one.histograms}):
        yield f"values in {unit}", partial(_histogram, unit), _histograms_compared
    for what in sorted({name for one in observed for name in one.numbers}):
        yield what, partial(_number, what), _numbers_compared


def _category(what: str, one: Observed) -> str | None:
    return one.categories.get(what)


def _histogram(unit: str, one: Observed) -> tuple[float, ...] | None:
    return one.histograms.get(unit)


def _number(what: str, one: Observed) -> float | None:
    return one.numbers.get(what)


def _bin(what: str, one: Observed) -> str | None:
    """Return the bin of a spacing in words."""
    if (value_mm := one.spacings_mm.get(what)) is None:
        return None
    ends = (0.0, *BINS_MM[what])
    for low, high in pairwise(ends):
        if value_mm < high:
            return f"{low:.2f} to {high:.2f} mm"
    return f"from {ends[-1]:.2f} mm"


def _categories_compared(
    what: str, old: Values, new: Values, limits: Limits, random: np.random.Generator
) -> Shift:
    value, p = category_shift(old, new, limits.psi, random)
    before, now = Counter(old), Counter(new)
    moved = sorted(
        {*before, *now}, key=lambda name: (-abs(now[name] / len(new) - before[name] / len(old)), name)
    )
    words = [f"'{n or 'none'}' {before[n] / len(old):.0%} -> {now[n] / len(new):.0%}" for n in moved[:3]]
    change = f"{', '.join(words)} of the studies"
    return Shift(what=what, statistic="PSI", value=value, limit=limits.psi, p=p, change=change)


def _histograms_compared(
    what: str, old: Values, new: Values, limits: Limits, random: np.random.Generator
) -> Shift:
    value, p = histogram_shift(np.array(old), np.array(new), limits.psi, random)
    before, now = np.mean(old, axis=0), np.mean(new, axis=0)
    edges = EDGES[what.removeprefix("values in ")]
    names = [f"below {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(edges)), f"from {edges[-1]:g}"]
    moved = np.argsort(-np.abs(now - before), kind="stable")[:3]
    words = [f"{names[i]}: {before[i]:.1%} -> {now[i]:.1%}" for i in sorted(moved)]
    change = f"{', '.join(words)} of the voxels"
    return Shift(what=what, statistic="PSI", value=value, limit=limits.psi, p=p, change=change)


def _numbers_compared(
    what: str, old: Values, new: Values, limits: Limits, random: np.random.Generator
) -> Shift:
    distance, p = ks(np.array(old), np.array(new))
    change = f"median {short(float(np.median(old)))} -> {short(float(np.median(new)))}"
    return Shift(what=what, statistic="KS", value=distance, limit=limits.distance, p=p, change=change)


def short(value: float) -> str:
    """Return a number with three digits that say something, never as a power of ten."""
    return np.format_float_positional(value, precision=3, unique=False, fractional=False, trim="-")


__all__ = ["Limits", "Shift", "Week", "iso_week", "judge", "short"]

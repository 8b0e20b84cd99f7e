"""Criteria that add up one number of every target: WHO adds products of diameters, the volumetric ones volumes.

What they share: the sum against the baseline and against the smallest one so far, non-target and new lesions, best
response. What a lesion is, and what target, non-target and new lesions come to, is taken as in `store.response.recist`.
Numbers are whole steps and comparisons cross-multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Protocol

from store.response.best import best_confirmed, best_overall
from store.response.burden import Disease, Looks, disease, look, percent
from store.response.history import History, Seen, Status, Visit, in_order
from store.response.margins import Number, margins
from store.response.recist import Before, doubts_of_all, non_target_response, overall
from store.response.rules import Rules
from store.response.verdict import Response, TimePoint


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A fraction of a sum, as whole numbers."""

    numerator: int
    """Of what the sum is held against."""
    denominator: int
    """Of the sum."""
    words: str
    """As a physicist says it: `50 % below`."""


class Measure(Protocol):
    """What one set of criteria adds up."""

    criteria: str
    """Its name."""
    quantity: str
    """What the sum is, in words."""
    unit: str
    """UCUM unit of the sum."""
    steps_per_unit: int
    """Steps of a whole number in one unit."""
    partial: Threshold
    """A sum that is that fraction of the baseline or less is a partial response."""
    progressive: Threshold
    """A sum that is that fraction of the smallest one or more is progression."""

    def steps(self, seen: Seen) -> int | None:
        """Return what a lesion adds, in steps: 0 when it is absent, None when it was not measured."""

    def numbers(self, seen: Seen) -> tuple[Number, ...]:
        """Return the measurements of a lesion that its steps come from; none when it was not measured."""

    def moved(self, seen: Seen, steps: Sequence[int]) -> Seen:
        """Return the lesion with other measurements, in the order of `numbers`."""

    def is_gone(self, seen: Seen) -> bool:
        """Return whether a lesion that is still drawn is none any more: a node of normal size."""

    def remarks(self, course: Sequence[tuple[date, Seen]], rules: Rules) -> Iterator[str]:
        """Yield what is to be said of a target at the last visit of its course, as sentences of the verdict."""

    def doubts(self, course: Sequence[Visit], known: Disease, verdict: str, rules: Rules) -> Iterator[str]:
        """Yield what a reader should know of the last visit of the course so far."""


@dataclass(frozen=True, kw_only=True)
class _Past:
    """What the visits before one left behind."""

    visits: tuple[Visit, ...]
    known: Disease
    baseline: int | None
    nadir: int | None
    nadir_date: date | None
    complete: bool = False
    """Whether there was a complete response, overall."""
    new: frozenset[str] = frozenset()


def judge_sums(history: History, rules: Rules, measure: Measure) -> Response:
    """Return the verdict of each visit and the best of them. Refuses what `in_order` refuses."""
    visits = in_order(history)
    known = disease(visits, rules, by_length=False)
    size = _total(_by_name(visits[0]), known, measure)
    past = _Past(
        visits=visits[:1],
        known=known,
        baseline=size,
        nadir=size,
        nadir_date=None if size is None else visits[0].date,
    )
    points = [_baseline_point(visits[0], past, measure)]
    for visit in visits[1:]:
        points.append(_point(visit, past, rules, measure))
        past = _after(visit, points[-1], past, measure)
    verdicts = [(point.date, point.overall) for point in points if point.overall is not None]
    start = history.treatment_start or visits[0].date
    return Response(
        patient=history.patient,
        criteria=measure.criteria,
        quantity=measure.quantity,
        unit=measure.unit,
        time_points=tuple(points),
        best_overall=best_overall(verdicts, start, rules),
        best_overall_confirmed=best_confirmed(verdicts, start, rules),
        doubts=tuple(doubts_of_all(history)),
    )


def _by_name(visit: Visit) -> dict[str, Seen]:
    return {seen.lesion: seen for seen in visit.seen}


def _steps(seen: Seen | None, measure: Measure) -> int | None:
    return None if seen is None or seen.status is Status.NOT_EVALUABLE else measure.steps(seen)


def _total(seen: Mapping[str, Seen], known: Disease, measure: Measure) -> int | None:
    """Return the sum over the targets; None without targets or when one was not measured."""
    steps = [_steps(seen.get(name), measure) for name in known.targets]
    whole = [one for one in steps if one is not None]
    return sum(whole) if steps and len(whole) == len(steps) else None


def _after(visit: Visit, point: TimePoint, past: _Past, measure: Measure) -> _Past:
    size = _total(_by_name(visit), past.known, measure)
    lower = size is not None and (past.nadir is None or size < past.nadir)
    return replace(
        past,
        visits=(*past.visits, visit),
        nadir=size if lower else past.nadir,
        nadir_date=visit.date if lower else past.nadir_date,
        complete=past.complete or point.overall == "CR",
        new=past.new | _new(visit, past),
    )


def _new(visit: Visit, past: _Past) -> frozenset[str]:
    return past.known.new(_looks(visit)) | past.known.certain_later[visit.date]


def _looks(visit: Visit) -> Looks:
    return {seen.lesion: look(seen) for seen in visit.seen}


def _baseline_point(visit: Visit, past: _Past, measure: Measure) -> TimePoint:
    known = past.known
    size = "not known" if past.baseline is None else told(past.baseline, measure)
    targets = (
        f"{len(known.targets)} target lesions, {measure.quantity} {size}" if known.targets else "no target"
    )
    return TimePoint(
        date=visit.date,
        sum=None if past.baseline is None else past.baseline / measure.steps_per_unit,
        nadir=None,
        target=None,
        non_target=None,
        new=False,
        overall=None,
        because=f"Baseline: {targets}; {len(known.non_targets)} non-target lesions.",
        doubts=known.doubts[visit.date],
    )


def _point(visit: Visit, past: _Past, rules: Rules, measure: Measure) -> TimePoint:
    seen = _by_name(visit)
    new = past.new | _new(visit, past)
    before = Before(baseline=None, nadir=None, nadir_date=None, complete=past.complete)
    rest = non_target_response(_looks(visit), past.known, before)
    target = _target(seen, past, measure)
    word = overall(target, rest, bool(new))
    measured = [one for one in visit.seen if one.lesion in past.known.targets and measure.numbers(one)]

    def again(values: tuple[int, ...]) -> str:
        left, moved = list(values), dict(seen)
        for one in measured:
            number = len(measure.numbers(one))
            moved[one.lesion], left = measure.moved(one, left[:number]), left[number:]
        return overall(_target(moved, past, measure), rest, bool(new))

    size = _total(seen, past.known, measure)
    return TimePoint(
        date=visit.date,
        sum=None if size is None else size / measure.steps_per_unit,
        nadir=None if past.nadir is None else past.nadir / measure.steps_per_unit,
        target=target,
        non_target=rest,
        new=bool(new),
        overall=word,
        because=" ".join((f"{word}:", *_why(visit, target, rest, new, past, rules, measure))),
        margins=margins([number for one in measured for number in measure.numbers(one)], again),
        doubts=(
            *past.known.doubts[visit.date],
            *measure.doubts((*past.visits, visit), past.known, word, rules),
        ),
    )


def _target(seen: Mapping[str, Seen], past: _Past, measure: Measure) -> str | None:
    """Return PD, CR, NE, PR or SD, decided in this order; None without targets."""
    if not past.known.targets:
        return None
    targets = [seen.get(name) for name in past.known.targets]
    if any(one is not None and one.status is Status.PROGRESSED for one in targets):
        return "PD"
    if past.complete and any(_is_there(one, measure) for one in targets):
        return "PD"
    steps = [_steps(one, measure) for one in targets]
    known: list[int] = [one for one in steps if one is not None]
    whole = len(known) == len(steps)
    if whole and all(
        value == 0 or (one and measure.is_gone(one)) for one, value in zip(targets, steps, strict=True)
    ):
        return "CR"
    up = measure.progressive
    if past.nadir is not None and sum(known) > 0 and up.denominator * sum(known) >= up.numerator * past.nadir:
        return "PD"
    if not whole or past.baseline is None:
        return "NE"
    down = measure.partial
    return "PR" if down.denominator * sum(known) <= down.numerator * past.baseline else "SD"


def _is_there(seen: Seen | None, measure: Measure) -> bool:
    """Whether a target is seen now, and no node of normal size."""
    return (
        seen is not None
        and look(seen).present is True
        and measure.steps(seen) != 0
        and not measure.is_gone(seen)
    )


def told(steps: int, measure: Measure) -> str:
    """Return a sum in words."""
    return f"{steps / measure.steps_per_unit:.1f} {measure.unit}"


def _why(
    visit: Visit,
    target: str | None,
    rest: str | None,
    new: frozenset[str],
    past: _Past,
    rules: Rules,
    measure: Measure,
) -> Iterator[str]:
    if new:
        yield f"New: {', '.join(sorted(new))}."
    if rest is not None:
        yield f"Non-target lesions {rest}."
    if target is None:
        return
    seen = _by_name(visit)
    steps = {name: _steps(seen.get(name), measure) for name in past.known.targets}
    missing = [name for name, value in steps.items() if value is None]
    size = sum(value for value in steps.values() if value is not None)
    yield f"Targets {target}."
    progressed = [name for name in steps if name in seen and seen[name].status is Status.PROGRESSED]
    if progressed:
        yield f"Unequivocal progression of {', '.join(progressed)}."
    back = [name for name in steps if past.complete and _is_there(seen.get(name), measure)]
    if back:
        yield f"There again after a complete response: {', '.join(back)}."
    if missing:
        yield f"Not measured: {', '.join(missing)}; {measure.quantity} of the others {told(size, measure)}."
    else:
        yield f"{measure.quantity.capitalize()} {told(size, measure)}."
        yield from _compared(size, past.baseline, "baseline", measure.partial, "PR", measure)
    if not missing or target == "PD":
        yield from _compared(
            size, past.nadir, f"nadir on {past.nadir_date}", measure.progressive, "PD", measure
        )
    for name in past.known.targets:
        course = [
            (then.date, one) for then in (*past.visits, visit) for one in then.seen if one.lesion == name
        ]
        if name in seen:
            yield from measure.remarks(course, rules)


def _compared(
    size: int, other: int | None, name: str, limit: Threshold, word: str, measure: Measure
) -> Iterator[str]:
    if other is None:
        yield f"The {name.split()[0]} is not known."
        return
    change = (
        f"{percent(abs(size - other), other)} {'below' if size < other else 'above'} " if other else "Above "
    )
    at = told(limit.numerator * other // limit.denominator, measure)
    yield f"{change}the {name} of {told(other, measure)} ({word}: {limit.words}, {at})."


__all__ = ["Measure", "Threshold", "judge_sums", "told"]

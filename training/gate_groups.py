"""What the gate asks of groups of cases: of each kind of case, and of each other way to ask the models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluate.paired import Difference, Pair, difference, holm
from training.evaluate.section import between, number
from training.evaluate.subgroups import groups
from training.margins import Margins
from training.verdict import Check, Outcome

MOST_WORDS = 1000
"""Of scanners and kernels there may be many; what is another for nearly every patient makes no group all the same."""
MOST_OF = (2, 3)
"""More than two of three: so many patients of a group too small to be judged have to become worse for a refusal."""


@dataclass(frozen=True, kw_only=True)
class _Group:
    title: str
    pairs: tuple[Pair, ...]

    @property
    def patients(self) -> list[str]:
        return [pair.champion.patient_id for pair in self.pairs]


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """A figure of a group; it gets worse upwards (`sign` 1) or downwards (-1).

    A fall beyond chance refuses when it `may_not_fall`: what has to rise on the whole may surely fall nowhere.
    """

    name: str
    margin: str
    words: str
    sign: int
    digits: int
    may_not_fall: bool
    of: Callable[[Pair], tuple[float, float]]


def _dice(pair: Pair) -> tuple[float, float]:
    name = "dice" if pair.champion.figures["open_dice"] is None else "open_dice"
    return float(pair.champion.figures[name] or 0.0), float(pair.challenger.figures[name] or 0.0)


def _long_axis(pair: Pair) -> tuple[float, float]:
    was, now = (abs(row.figures["long_axis_error_mm"] or 0.0) for row in (pair.champion, pair.challenger))
    return was, now


def _border_off(pair: Pair) -> tuple[float, float]:
    was, now = (1.0 - (row.figures[WITHIN] or 0.0) for row in (pair.champion, pair.challenger))
    return was, now


WITHIN = "surface_dice_2mm"
FIGURES = (
    _Figure(
        name="group_dice",
        margin="group_dice",
        words="mean Dice",
        sign=-1,
        digits=3,
        may_not_fall=True,
        of=_dice,
    ),
    _Figure(
        name="group_long_axis_mm",
        margin="group_long_axis_mm",
        words="mean absolute error of the long axis, mm",
        sign=1,
        digits=2,
        may_not_fall=False,
        of=_long_axis,
    ),
)


APPROVED_FIGURES = (
    _Figure(
        name="group_approved",
        margin="approved_border",
        words="part of the border more than 2 mm off",
        sign=1,
        digits=3,
        may_not_fall=False,
        of=_border_off,
    ),
)


def group_checks(
    full: Sequence[Pair], other: Sequence[Pair], margins: Margins, seed: int
) -> tuple[Check, ...]:
    """Return the checks of every group of the cases `full`, and of every setting of `other`, sorted as on a report."""
    return _checks([*_kinds(full), *_settings(other)], FIGURES, margins, seed)


def approved_checks(approved: Sequence[Pair], margins: Margins, seed: int) -> tuple[Check, ...]:
    """Return the checks of every group of lesions that people approved as they were drawn."""
    kinds = [_Group(title=f"approved, {one.title}", pairs=one.pairs) for one in _kinds(approved)]
    return _checks(kinds, APPROVED_FIGURES, margins, seed)


def _checks(
    found: Sequence[_Group], figures: Sequence[_Figure], margins: Margins, seed: int
) -> tuple[Check, ...]:
    differences = [
        [_difference(group, figure, margins, seed) for figure in figures]
        if len(set(group.patients)) >= margins.group_patients
        else []
        for group in found
    ]
    falls = [
        one.p_fell
        for of in differences
        for one, figure in zip(of, figures, strict=False)
        if figure.may_not_fall
    ]
    sure = iter(holm(falls, (1 - margins.level) / 2))
    checks = []
    for group, of in zip(found, differences, strict=True):
        if not of:
            checks.append(_small(group, figures[0], margins, seed))
        for one, figure in zip(of, figures, strict=False):
            checks.append(_judged(group, figure, one, margins, figure.may_not_fall and next(sure)))
    return tuple(checks)


def _kinds(full: Sequence[Pair]) -> list[_Group]:
    made: dict[str, list[_Group]] = defaultdict(list)
    for group in groups([pair.champion.known for pair in full], MOST_WORDS):
        made[group.by].append(_Group(title=group.title, pairs=tuple(full[i] for i in group.cases)))
    return [
        group for kind in made.values() if any(len(set(one.patients)) > 1 for one in kind) for group in kind
    ]


def _settings(other: Sequence[Pair]) -> list[_Group]:
    made: dict[str, list[Pair]] = defaultdict(list)
    for pair in other:
        made[pair.champion.setting].append(pair)
    return [_Group(title=f"asked: {setting}", pairs=tuple(of)) for setting, of in made.items()]


def _difference(group: _Group, figure: _Figure, margins: Margins, seed: int) -> Difference:
    both = np.array([figure.of(pair) for pair in group.pairs], dtype=np.float64)
    found = difference(
        both[:, 0], both[:, 1], group.patients, resamples=margins.resamples, level=margins.level, seed=seed
    )
    assert found is not None
    return found


def _judged(group: _Group, figure: _Figure, found: Difference, margins: Margins, sure: bool) -> Check:
    limit = float(getattr(margins, figure.margin))
    beyond = figure.sign * found.interval.value > limit
    allowed = number(limit, figure.digits)
    if beyond:
        said = f"worse beyond the margin of {allowed}" + (" and beyond chance" if sure else "")
    else:
        said = "worse beyond chance" if sure else f"{allowed} for the worse is allowed"
    interval = found.interval
    return Check(
        name=figure.name,
        title=f"{group.title}: {figure.words}",
        outcome=Outcome.FAILED if beyond or sure else Outcome.PASSED,
        sentence=(
            f"{group.title}: {figure.words} {number(found.challenger, figure.digits)}, the champion's is "
            f"{number(found.champion, figure.digits)}; difference {between(interval, figure.digits, signed=True)} on "
            f"{interval.cases} cases of {interval.patients} patients; {said}."
        ),
        difference=interval,
        champion=found.champion,
        challenger=found.challenger,
        limit=limit,
    )


def _small(group: _Group, figure: _Figure, margins: Margins, seed: int) -> Check:
    """Return what is told of a group of too few patients, and the refusal when most of several become worse."""
    found, limit = _difference(group, figure, margins, seed), float(getattr(margins, figure.margin))
    changes: dict[str, list[float]] = defaultdict(list)
    for pair in group.pairs:
        was, now = figure.of(pair)
        changes[pair.champion.patient_id].append(figure.sign * (now - was))
    people = len(changes)
    worse = sum(float(np.mean(of)) > 0 for of in changes.values())
    most = MOST_OF[1] * worse > MOST_OF[0] * people
    refused = most and people >= margins.group_all_worse and figure.sign * found.interval.value > limit
    return Check(
        name="group_all_worse",
        title=group.title,
        outcome=Outcome.FAILED if refused else Outcome.NOT_JUDGED,
        sentence=(
            f"{group.title}: {people} patients are too few to be judged ({margins.group_patients} are needed); "
            f"{figure.words} {number(found.interval.value, figure.digits, signed=True)}, {worse} of the {people} "
            "became worse."
        ),
        difference=found.interval,
        champion=found.champion,
        challenger=found.challenger,
        limit=limit,
    )


__all__ = ["WITHIN", "approved_checks", "group_checks"]

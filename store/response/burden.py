"""What the lesions of a patient are to RECIST, and what a visit knows of each, in whole tenths of a millimetre."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple

from store.response.history import Role, Seen, Status, Visit
from store.response.margins import Number, margins
from store.response.organs import NO_SITE, organ
from store.response.rules import Rules
from store.response.verdict import Margin

TOO_SMALL_TENTHS = 50
NODE_TENTHS = 100
TARGET_TENTHS = 100
TARGET_NODE_TENTHS = 150
LONGEST_TENTHS = 20_000


class Look(NamedTuple):
    """What a visit knows of one lesion."""

    tenths: int | None
    """What it adds to the sum of diameters; None when that is not known."""
    present: bool | None
    """Whether it is there, for a node whether it is 10 mm or more; None when it was not evaluated."""
    progressed: bool = False
    """Whether a reader called it unequivocal progression."""
    node: bool = False
    """Whether its short axis counts."""


NOT_ASSESSED = Look(None, None)
Looks = Mapping[str, Look]


def look(seen: Seen) -> Look:
    """Return what `seen` says: 0 for absent, 5 mm for too small (a node keeps its short axis), else the axis.

    A coalesced lesion adds 0; as a target it is left to the one whose size counts, else it is there.
    """
    axis = seen.short_axis_tenths if seen.node else seen.long_axis_tenths
    if seen.status is Status.NOT_EVALUABLE:
        return Look(None, None, node=seen.node)
    if seen.status is Status.ABSENT:
        return Look(0, False, node=seen.node)
    if seen.status is Status.COALESCED:
        return Look(0, seen.role is not Role.TARGET, node=seen.node)
    if seen.status is Status.TOO_SMALL:
        small = axis if seen.node and axis is not None else TOO_SMALL_TENTHS
        return Look(small, not seen.node or small >= NODE_TENTHS, node=seen.node)
    if seen.status is Status.PROGRESSED:
        return Look(axis, True, progressed=True, node=seen.node)
    if seen.status is Status.MEASURED and axis is not None:
        return sized(axis, seen.node)
    if seen.node and axis is not None:
        return Look(axis, axis >= NODE_TENTHS, node=True)
    return Look(axis, True, node=seen.node)


def sized(tenths: int, node: bool) -> Look:
    """Return what a length of `tenths` says: a node below 10 mm is none, anything else below 0.1 mm is gone."""
    return Look(tenths, tenths >= NODE_TENTHS if node else tenths > 0, node=node)


@dataclass(frozen=True, kw_only=True)
class Disease:
    """The lesions that the baseline knows, and when the others count as new."""

    targets: tuple[str, ...]
    """Names of the targets."""
    non_targets: tuple[str, ...]
    """Names of the others that were there."""
    certain_later: Mapping[date, frozenset[str]]
    """Equivocal new lesions of a date that a later visit is certain of."""
    doubts: Mapping[date, tuple[str, ...]]
    """What a reader should know, by visit."""

    def is_new(self, lesion: str) -> bool:
        """Whether the baseline does not know it."""
        return lesion not in self.targets and lesion not in self.non_targets

    def new(self, looks: Looks) -> frozenset[str]:
        """Return the lesions that are there and that the baseline does not know."""
        return frozenset(name for name, seen in looks.items() if seen.present and self.is_new(name))


def disease(visits: Sequence[Visit], rules: Rules, *, by_length: bool = True) -> Disease:
    """Return what each lesion is, by its role at the baseline, `visits[0]`; one that has grown together is there.

    A normal node is none when it is called new, else it is followed as it is called, and doubted when it grows.
    Without `by_length` nothing else is doubted than what holds whatever the criteria add up.
    """
    targets: list[str] = []
    others: list[str] = []
    for seen in visits[0].seen:
        at = look(seen)
        is_gone = at.tenths == 0 and seen.status is not Status.COALESCED
        if is_gone or (seen.role is Role.NEW and not at.present):
            continue
        (targets if seen.role is Role.TARGET else others).append(seen.lesion)
    found = Disease(targets=tuple(targets), non_targets=tuple(others), certain_later={}, doubts={})
    doubts = {visits[0].date: tuple(_baseline_doubts(visits[0], found, rules, by_length=by_length))}
    roles = {seen.lesion: seen.role for seen in visits[0].seen}
    normal = {
        seen.lesion: size
        for seen in visits[0].seen
        if seen.lesion in others and look(seen).present is False and (size := look(seen).tenths)
    }
    for visit in visits[1:]:
        doubts[visit.date] = (
            *_doubts(visit, found, roles, by_length=by_length),
            *_grown_nodes(visit, normal),
        )
    return replace(found, certain_later=_certain_later(visits, found), doubts=doubts)


def _certain_later(visits: Sequence[Visit], known: Disease) -> dict[date, frozenset[str]]:
    """Return the equivocal lesions that a visit after them, with no other word between, is certain of."""
    certain: set[str] = set()
    found = {}
    for visit in reversed(visits[1:]):
        for seen in visit.seen:
            at = look(seen)
            if at.present and known.is_new(seen.lesion):
                certain.add(seen.lesion)
            elif at.present is False or seen.role is not Role.NEW:
                certain.discard(seen.lesion)
        equivocal = {seen.lesion for seen in visit.seen if look(seen).present is None}
        found[visit.date] = frozenset(equivocal & certain)
    return found


def _baseline_doubts(visit: Visit, known: Disease, rules: Rules, *, by_length: bool) -> Iterator[str]:
    if by_length:
        yield from _too_many(visit, known, rules)
    for seen in visit.seen:
        at = look(seen)
        if seen.role is Role.TARGET and seen.lesion not in known.targets:
            yield f"{seen.lesion} is called a target and was absent at the baseline: it is new when it appears."
        elif seen.role is Role.NEW and not known.is_new(seen.lesion):
            yield f"{seen.lesion} is called new at the baseline: it is taken as non-target."
        elif seen.role is Role.TARGET and at.tenths is None and by_length:
            yield f"{seen.lesion} is a target without a length at the baseline: there is no sum to compare with."
        elif seen.role is Role.TARGET and at.tenths is not None and seen.status is not Status.COALESCED:
            least = TARGET_NODE_TENTHS if seen.node else TARGET_TENTHS
            if at.tenths < least:
                yield f"{seen.lesion} is a target of {mm(at.tenths)}; a measurable one has {mm(least)} at least."


def _too_many(visit: Visit, known: Disease, rules: Rules) -> Iterator[str]:
    if len(known.targets) > rules.most_targets:
        yield f"There are {len(known.targets)} targets; RECIST 1.1 takes {rules.most_targets} at most."
    organs = Counter(
        organ(seen.site, seen.node, rules) for seen in visit.seen if seen.lesion in known.targets
    )
    for name, number in organs.items():
        if number > rules.most_targets_per_organ and name != NO_SITE:
            yield (
                f"There are {number} targets of one organ ({name}); "
                f"RECIST 1.1 takes {rules.most_targets_per_organ} at most."
            )


def _doubts(visit: Visit, known: Disease, roles: dict[str, Role], *, by_length: bool) -> Iterator[str]:
    """Yield the doubts of a visit; `roles` are those that were said first, and learns those of this visit."""
    for seen in visit.seen:
        at = look(seen)
        first = roles.setdefault(seen.lesion, seen.role)
        if first is not seen.role and first is not Role.NEW:
            yield f"{seen.lesion} was called {first} first and is called {seen.role} now: the first counts."
        if known.is_new(seen.lesion):
            if at.present and seen.role is not Role.NEW:
                yield f"{seen.lesion}, called {seen.role}, was not there at the baseline: it is a new lesion."
            if at.present and seen.status is Status.TOO_SMALL:
                yield f"The new lesion {seen.lesion} is too small to measure, and counts as unequivocal."
            if at.present and at.node and at.tenths is not None and at.tenths < TARGET_NODE_TENTHS:
                yield f"The new node {seen.lesion} has {mm(at.tenths)}: below 15 mm it may be no progression."
            if at.present is None and seen.role is Role.NEW:
                yield f"{seen.lesion} is an equivocal new lesion: it counts when a later visit is certain of it."
            if at.present is False and at.node and at.tenths:
                yield f"The node {seen.lesion} of {mm(at.tenths)} is below 10 mm: normal, and not a new lesion."
        elif by_length and seen.lesion in known.targets and at.tenths is None and at.present:
            yield f"{seen.lesion} is {seen.status} and has no length: it was not evaluable as a target."


def _grown_nodes(visit: Visit, normal: Mapping[str, int]) -> Iterator[str]:
    """Yield the non-target nodes that were normal at the baseline, with this short axis, and are not any more."""
    for seen in visit.seen:
        tenths = look(seen).tenths
        if seen.lesion in normal and tenths is not None and tenths >= NODE_TENTHS:
            yield (
                f"The node {seen.lesion} was normal at the baseline, with {mm(normal[seen.lesion])}, and has "
                f"{mm(tenths)} now: it may be a new lesion, which would be progression."
            )


def mm(tenths: int) -> str:
    """Return a length in words: `19.8 mm`."""
    return f"{tenths // 10}.{tenths % 10} mm"


def percent(part: int, whole: int) -> str:
    """Return a share in words, cut off after two digits so that it never seems to reach what it misses."""
    hundredths = 10_000 * part // whole
    return f"{hundredths // 100}.{hundredths % 100:02} %"


def change_percent(value: float, of: float) -> float:
    """Return a change in per cent, cut off after one digit. `of` is not 0."""
    return cut_off(100 * (value - of) / of)


def cut_off(percent: float, digits: int = 1) -> float:
    """Return per cent, cut off after so many digits so that it never seems to reach what it misses.

    What binary fractions leave over, below a hundred-millionth of the whole, is nothing.
    """
    steps = float(10**digits)
    return math.trunc(round(percent * steps, 6)) / steps


def margins_of(visit: Visit, looks: Looks, verdict: Callable[[Looks], str]) -> tuple[Margin, ...]:
    """Return how far each measured length of a visit is from another verdict, the other lengths being as they are."""
    measured = [
        seen
        for seen in visit.seen
        if seen.status is Status.MEASURED and looks[seen.lesion].tenths is not None
    ]
    numbers = [
        Number(
            lesion=seen.lesion,
            quantity="short_axis" if seen.node else "long_axis",
            steps=looks[seen.lesion].tenths or 0,
            steps_per_unit=10,
            unit="mm",
            most=LONGEST_TENTHS,
            standard_deviation=seen.short_axis_sd_mm if seen.node else seen.long_axis_sd_mm,
        )
        for seen in measured
    ]

    def again(tenths: tuple[int, ...]) -> str:
        changed = {seen.lesion: sized(value, seen.node) for seen, value in zip(measured, tenths, strict=True)}
        return verdict({**looks, **changed})

    return margins(numbers, again)


__all__ = [
    "NOT_ASSESSED",
    "Disease",
    "Look",
    "Looks",
    "change_percent",
    "cut_off",
    "disease",
    "look",
    "margins_of",
    "mm",
    "percent",
    "sized",
]

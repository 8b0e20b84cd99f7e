"""iRECIST: progression that has to be confirmed, and may be taken back.

Seymour et al., Lancet Oncol 2017, 18:e143-e152 (tables 2 and 3), with the readings of its authors at
recist.eortc.org. Lesions are judged as in `store.response.recist`; what differs:

- The first progression is iUPD. It is confirmed (iCPD) at a visit 28 days later or more when, since the iUPD, the
  sum of targets that progressed rose by 5 mm, a non-target lesion that progressed grew at all, there are more new
  lesions, new targets rose by 5 mm in sum or another new lesion grew at all, or lesions of another kind progress.
  Increases are counted from the iUPD on, so that small ones add up. iCPD is for good.
- New lesions are measured apart, five at most and two an organ, and never added to the sum.
- Otherwise it stays iUPD while the baseline's lesions progress. When they do not, the verdict is theirs and the next
  progression is a new iUPD. With new lesions still there, that needs a better response of the baseline's lesions
  than at the iUPD; without any change it stays iUPD. A complete response needs the new lesions to be gone.
- After that, new lesions progress anew when there are more than at the iUPD, when those measured rise by 20 % and 5 mm
  above their smallest sum since, or when one is called unequivocal progression.
- More new lesions are those that are there at the visit: one that is gone confirms nothing, nor one that was not
  evaluable, unless a later visit is certain of it.

Where a lesion lacks a length at one of both visits, `unequivocal-progression` said again means that it grew further,
and `present` that it did not. Of targets those are added up, then and now, that had a length at the iUPD; one without
a length now adds 0 mm, so that a sum is never said to be larger than it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

from store.response.best import IRECIST, best_confirmed, best_overall
from store.response.burden import NOT_ASSESSED, Disease, Looks, disease, look, margins_of, mm
from store.response.history import History, Role, Visit, in_order
from store.response.recist import (
    Assessment,
    Before,
    after,
    after_baseline,
    baseline_point,
    doubts_of_all,
    non_target_response,
    overall,
    progressive_from,
    say_non_target,
    say_target,
    target_response,
    total,
)
from store.response.rules import USUAL, Rules
from store.response.selection import Candidate, propose
from store.response.verdict import Response, TimePoint

IMMUNE = {"CR": "iCR", "PR": "iPR", "SD": "iSD", "PD": "iUPD", "NON-CR/NON-PD": "NON-iCR/NON-iUPD"}
RANK = {"PD": 0, "NE": 1, "SD": 1, "NON-CR/NON-PD": 1, "PR": 2, "CR": 3}
FURTHER_TENTHS = 50


@dataclass(frozen=True, kw_only=True)
class Unconfirmed:
    """A progression that waits to be confirmed."""

    since: date
    """Visit of the iUPD."""
    kinds: frozenset[str]
    """What progressed: `targets`, `non-target lesions`, `new lesions`."""
    response: str
    """What the lesions of the baseline did then, by RECIST 1.1."""
    looks: Looks
    """What was seen then."""
    new: frozenset[str]
    """New lesions by then."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What the visits before one left behind."""

    before: Before
    """What RECIST 1.1 keeps."""
    waiting: Unconfirmed | None = None
    """The progression that is not confirmed."""
    confirmed: date | None = None
    """When a progression was confirmed."""
    counted: frozenset[str] = frozenset()
    """New lesions by the last iUPD."""
    new_targets: tuple[str, ...] = ()
    """New lesions that are measured, chosen at the last iUPD."""
    new_nadir: int | None = None
    """Their smallest sum since."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one visit comes to."""

    word: str
    """The verdict."""
    recist: Assessment
    """Responses by RECIST 1.1 of the baseline's lesions, `overall` without new lesions; all new ones by now."""
    kinds: frozenset[str] = frozenset()
    """What progresses for the first time."""
    why: str
    """The rule, in words."""


def judge(history: History, rules: Rules = USUAL) -> Response:
    """Return the verdict of each visit by iRECIST and the best of them up to the confirmed progression.

    Refuses what `in_order` refuses.
    """
    visits = in_order(history)
    known = disease(visits, rules)
    before = after_baseline(visits[0], {seen.lesion: look(seen) for seen in visits[0].seen}, known)
    past = Past(before=before)
    points = [baseline_point(visits[0], before, known)]
    for visit in visits[1:]:
        looks = {seen.lesion: look(seen) for seen in visit.seen}
        found = assess(visit.date, looks, known, past, rules)
        points.append(_point(visit, looks, found, known, past, rules))
        past = _after(visit, looks, found, known, past, rules)
    verdicts = [(point.date, point.overall) for point in points if point.overall is not None]
    start = history.treatment_start or visits[0].date
    return Response(
        patient=history.patient,
        criteria="irecist",
        quantity="sum of diameters",
        unit="mm",
        time_points=tuple(points),
        best_overall=best_overall(verdicts, start, rules, IRECIST),
        best_overall_confirmed=best_confirmed(verdicts, start, rules, IRECIST),
        doubts=tuple(doubts_of_all(history)),
    )


def assess(at: date, looks: Looks, known: Disease, past: Past, rules: Rules) -> Found:
    """Return what a visit comes to."""
    target = target_response(looks, known, past.before, rules)
    non_target = non_target_response(looks, known, past.before)
    there = known.new(looks) | known.certain_later[at]
    new = past.before.new | there
    base = overall(target, non_target, False)
    left = frozenset(name for name in new if looks.get(name, NOT_ASSESSED).present is not False)
    recist = Assessment(
        target=target, non_target=non_target, new=new, overall="PR" if base == "CR" and left else base
    )
    if past.confirmed is not None:
        return Found(word="iCPD", recist=recist, why=f"Progression was confirmed on {past.confirmed}.")
    if past.waiting is not None:
        return _waited(at, looks, recist, there, left, known, past.waiting, past, rules)
    kinds = frozenset(_kinds(looks, recist, there, past))
    if kinds:
        days = rules.progression_confirm_days
        why = f"Progression of {', '.join(sorted(kinds))}, to be confirmed {days} days from here or later."
        return Found(word="iUPD", recist=recist, kinds=kinds, why=why)
    return Found(word=_immune(recist.overall), recist=recist, why=_left(base, left))


def _waited(
    at: date,
    looks: Looks,
    recist: Assessment,
    there: frozenset[str],
    left: frozenset[str],
    known: Disease,
    waiting: Unconfirmed,
    past: Past,
    rules: Rules,
) -> Found:
    """Return what a visit after an unconfirmed progression comes to."""
    days = (at - waiting.since).days
    further = "; ".join(_further(looks, recist, there, known, waiting, past))
    if further and days >= rules.progression_confirm_days:
        why = f"The iUPD of {waiting.since} is confirmed after {days} days: {further}."
        return Found(word="iCPD", recist=recist, why=why)
    if further:
        least = rules.progression_confirm_days
        why = f"{further}: but {days} days after the iUPD of {waiting.since}, and {least} are needed to confirm it."
        return Found(word="iUPD", recist=recist, why=why)
    if recist.overall == "PD":
        return Found(word="iUPD", recist=recist, why=_no_further(looks, known, waiting))
    knows = bool(known.targets or known.non_targets)
    if recist.overall == "NE" and knows:
        return Found(word="NE", recist=recist, why=f"The iUPD of {waiting.since} stays unconfirmed.")
    by_new = "new lesions" in waiting.kinds and left & waiting.new
    if by_new and RANK[recist.overall] <= RANK[waiting.response]:
        why = f"No change for the better since the iUPD of {waiting.since}, and its new lesions are not gone."
        return Found(word="iUPD", recist=recist, why=why)
    why = f"The iUPD of {waiting.since} is taken back: not confirmed, and nothing progresses now."
    return Found(word=_immune(recist.overall), recist=recist, why=why)


def _kinds(looks: Looks, recist: Assessment, there: frozenset[str], past: Past) -> Iterator[str]:
    """Yield what progresses for the first time, or anew after a progression that was taken back."""
    if recist.target == "PD":
        yield "targets"
    if recist.non_target == "PD":
        yield "non-target lesions"
    grown = past.new_nadir is not None and _sum(looks, past.new_targets) >= progressive_from(past.new_nadir)
    worse = any(looks.get(name, NOT_ASSESSED).progressed for name in past.before.new)
    if there - past.counted or grown or worse:
        yield "new lesions"


def _further(
    looks: Looks,
    recist: Assessment,
    there: frozenset[str],
    known: Disease,
    waiting: Unconfirmed,
    past: Past,
) -> Iterator[str]:
    """Yield what confirms the progression that waits; `there` are the new lesions of this visit."""
    if "targets" in waiting.kinds:
        yield from _targets_further(looks, known, waiting, past)
    elif recist.target == "PD":
        yield "the targets progress too"
    if "non-target lesions" in waiting.kinds:
        for name in known.non_targets:
            if _progressed(name, waiting, past) and _grew(name, looks, waiting.looks):
                yield f"{name} grew further"
    elif recist.non_target == "PD":
        yield "non-target lesions progress too"
    more = sorted(there - waiting.new)
    if more:
        yield f"more new lesions, {', '.join(more)}"
    growth = _sum(looks, past.new_targets) - _sum(waiting.looks, past.new_targets)
    if growth >= FURTHER_TENTHS:
        yield f"the sum of the new targets {', '.join(past.new_targets)} is {mm(growth)} larger (5 mm or more)"
    for name in sorted(waiting.new - set(past.new_targets)):
        if _grew(name, looks, waiting.looks):
            yield f"the new lesion {name} grew"


def _targets_further(looks: Looks, known: Disease, waiting: Unconfirmed, past: Past) -> Iterator[str]:
    """Yield how targets progressed further: those that had a length at the iUPD, one without a length now as 0 mm."""
    then = tuple(name for name in known.targets if waiting.looks.get(name, NOT_ASSESSED).tenths is not None)
    growth = _sum(looks, then) - _sum(waiting.looks, then)
    if growth >= FURTHER_TENTHS:
        left = [name for name in known.targets if name not in then]
        what = f" without {', '.join(left)}, not measured at the iUPD," if left else ""
        least = "at least " if any(looks.get(name, NOT_ASSESSED).tenths is None for name in then) else ""
        yield f"the sum of diameters{what} is {least}{mm(growth)} larger (5 mm or more)"
    for name in known.targets:
        now, was = looks.get(name, NOT_ASSESSED), waiting.looks.get(name, NOT_ASSESSED)
        if now.progressed and None in (now.tenths, was.tenths) and _progressed(name, waiting, past):
            yield f"{name} is called unequivocal progression{' again' if was.progressed else ''}"


def _progressed(name: str, waiting: Unconfirmed, past: Past) -> bool:
    """Whether a lesion progressed at the iUPD by a reader's word, or by being there after a complete response."""
    was = waiting.looks.get(name, NOT_ASSESSED)
    return was.progressed or (past.before.complete and was.present is True and not was.node)


def _no_further(looks: Looks, known: Disease, waiting: Unconfirmed) -> str:
    """Return that nothing confirms the progression that waits, and which targets that is not known of."""
    missing = [
        name
        for name in known.targets
        if None in (looks.get(name, NOT_ASSESSED).tenths, waiting.looks.get(name, NOT_ASSESSED).tenths)
    ]
    none = f"No further progression since the iUPD of {waiting.since}"
    if "targets" in waiting.kinds and missing:
        return f"{none} can be shown: {', '.join(missing)} not measured at both visits."
    return f"{none}."


def _grew(name: str, looks: Looks, then: Looks) -> bool:
    """Whether a lesion is larger than then: by its lengths, or by what a reader says where one is missing."""
    now, was = looks.get(name, NOT_ASSESSED), then.get(name, NOT_ASSESSED)
    if now.tenths is not None and was.tenths is not None:
        return now.tenths > was.tenths
    return now.progressed


def _sum(looks: Looks, lesions: tuple[str, ...]) -> int:
    return sum(looks.get(name, NOT_ASSESSED).tenths or 0 for name in lesions)


def _immune(word: str) -> str:
    return IMMUNE.get(word, word)


def _left(base: str, left: frozenset[str]) -> str:
    if base == "CR" and left:
        return f"No complete response while new lesions are there: {', '.join(sorted(left))}."
    return "No progression."


def _after(visit: Visit, looks: Looks, found: Found, known: Disease, past: Past, rules: Rules) -> Past:
    """Return what a visit leaves behind."""
    before = after(visit, looks, found.recist, known, past.before)
    if past.confirmed is not None or found.word == "iCPD":
        return Past(before=before, confirmed=past.confirmed or visit.date)
    if found.kinds:
        waiting = Unconfirmed(
            since=visit.date,
            kinds=found.kinds,
            response=found.recist.overall,
            looks=looks,
            new=found.recist.new,
        )
        chosen = _new_targets(visit, looks, found.recist.new, rules)
        return Past(
            before=before,
            waiting=waiting,
            counted=waiting.new,
            new_targets=chosen,
            new_nadir=_sum(looks, chosen) if chosen else None,
        )
    nadir = past.new_nadir
    if nadir is not None and all(
        looks.get(name, NOT_ASSESSED).tenths is not None for name in past.new_targets
    ):
        nadir = min(nadir, _sum(looks, past.new_targets))
    keeps = found.word in ("iUPD", "NE")
    return replace(past, before=before, waiting=past.waiting if keeps else None, new_nadir=nadir)


def _new_targets(visit: Visit, looks: Looks, new: frozenset[str], rules: Rules) -> tuple[str, ...]:
    """Return the new lesions that are measured from now on, by the rules of a baseline."""
    candidates = [
        Candidate(
            lesion=seen.lesion,
            site=seen.site,
            node=seen.node,
            long_axis_tenths=seen.long_axis_tenths,
            short_axis_tenths=seen.short_axis_tenths,
        )
        for seen in visit.seen
        if seen.lesion in new and looks[seen.lesion].present
    ]
    return tuple(one.lesion for one in propose(candidates, rules) if one.role is Role.TARGET)


def _point(visit: Visit, looks: Looks, found: Found, known: Disease, past: Past, rules: Rules) -> TimePoint:
    def verdict(changed: Looks) -> str:
        return assess(visit.date, changed, known, past, rules).word

    size, nadir, recist = total(looks, known), past.before.nadir, found.recist
    sentences = (
        found.why,
        "By RECIST 1.1:",
        *say_target(looks, recist.target, known, past.before),
        *say_non_target(looks, recist.non_target, known),
        f"New lesions by now: {', '.join(sorted(recist.new))}." if recist.new else "No new lesion.",
    )
    return TimePoint(
        date=visit.date,
        sum=None if size is None else size / 10,
        nadir=None if nadir is None else nadir / 10,
        target=None if recist.target is None else _immune(recist.target),
        non_target=None if recist.non_target is None else _immune(recist.non_target),
        new=bool(recist.new),
        overall=found.word,
        because=" ".join((f"{found.word}:", *sentences)),
        margins=margins_of(visit, looks, verdict),
        doubts=(*known.doubts[visit.date], *_doubts(visit.date, found, past, rules)),
    )


def _doubts(at: date, found: Found, past: Past, rules: Rules) -> Iterator[str]:
    waiting = past.waiting
    if found.word == "iCPD" and waiting is not None:
        days = (at - waiting.since).days
        if days > rules.progression_confirm_latest_days:
            yield f"The confirmation came {days} days after the iUPD; iRECIST asks for 4 to 8 weeks."


__all__ = ["judge"]

"""RECIST 1.1: target, non-target and new lesions of each visit, and what they come to.

Eisenhauer et al., Eur J Cancer 2009, 45:228-247, with the readings of its authors at recist.eortc.org. Lengths are
whole tenths of a millimetre and every comparison is one of whole numbers.

Where the paper leaves room:

- A lesion is what it was called at the baseline. One that is named later only, or was absent at the baseline, is
  a new lesion from the visit on at which it is there, whatever it is called.
- A lesion that a visit does not name was not assessed there. `absent` is 0 mm, `too-small` is 5 mm (a node keeps
  its short axis). A target that is `present` without a length is not evaluable; `unequivocal-progression` of any
  lesion is progression.
- A new lesion counts when it is measured, present or too small, and progression lasts from then on. `NE` is an
  equivocal one; when the next word on it is certain, progression is dated at its first appearance. A node is a
  lesion from a short axis of 10 mm on.
- After a complete response (overall), a lesion that is back is progression; a non-target node only when it
  progressed unequivocally.
- The parts of a lesion that broke are added up, and merged ones are one, before they come here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from store.response.best import best_confirmed, best_overall
from store.response.burden import NOT_ASSESSED, Disease, Looks, disease, look, margins_of, mm, percent
from store.response.history import History, Visit, in_order
from store.response.rules import USUAL, Rules
from store.response.verdict import Response, TimePoint


@dataclass(frozen=True, kw_only=True)
class Before:
    """What the visits before one left behind."""

    baseline: int | None
    """Sum at the baseline, tenths of a millimetre; None when a target was not measured there."""
    nadir: int | None
    """Smallest complete sum so far."""
    nadir_date: date | None
    """When that was."""
    complete: bool = False
    """Whether there was a complete response, overall."""
    responded: bool = False
    """Whether the targets responded, and have not progressed since."""
    new: frozenset[str] = frozenset()
    """New lesions so far."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What one visit comes to."""

    target: str | None
    """Response of the targets; None without any."""
    non_target: str | None
    """Response of the non-target lesions; None without any."""
    new: frozenset[str]
    """New lesions by this visit."""
    overall: str
    """The verdict."""


def judge(history: History, rules: Rules = USUAL) -> Response:
    """Return the verdict of each visit by RECIST 1.1 and the best of them.

    Refuses what `in_order` refuses.
    """
    visits = in_order(history)
    known = disease(visits, rules)
    looks = {seen.lesion: look(seen) for seen in visits[0].seen}
    before = after_baseline(visits[0], looks, known)
    points = [baseline_point(visits[0], before, known)]
    for visit in visits[1:]:
        looks = {seen.lesion: look(seen) for seen in visit.seen}
        found = assess(visit.date, looks, known, before, rules)
        points.append(_point(visit, looks, found, known, before, rules))
        before = after(visit, looks, found, known, before)
    verdicts = [(point.date, point.overall) for point in points if point.overall is not None]
    start = history.treatment_start or visits[0].date
    return Response(
        patient=history.patient,
        criteria="recist1.1",
        quantity="sum of diameters",
        unit="mm",
        time_points=tuple(points),
        best_overall=best_overall(verdicts, start, rules),
        best_overall_confirmed=best_confirmed(verdicts, start, rules),
        doubts=tuple(doubts_of_all(history)),
    )


def assess(at: date, looks: Looks, known: Disease, before: Before, rules: Rules) -> Assessment:
    """Return what a visit comes to."""
    target = target_response(looks, known, before, rules)
    non_target = non_target_response(looks, known, before)
    new = before.new | known.new(looks) | known.certain_later[at]
    return Assessment(
        target=target, non_target=non_target, new=new, overall=overall(target, non_target, bool(new))
    )


def target_response(looks: Looks, known: Disease, before: Before, rules: Rules) -> str | None:
    """Return CR, PD, PR, SD or NE, decided in this order; None without targets (RECIST 1.1, 4.3.1)."""
    if not known.targets:
        return None
    seen = [looks.get(name, NOT_ASSESSED) for name in known.targets]
    if any(at.progressed for at in seen) or (before.complete and any(at.present for at in seen)):
        return "PD"
    lengths = [at.tenths for at in seen if at.tenths is not None]
    is_whole = len(lengths) == len(seen)
    if is_whole and not any(at.present for at in seen):
        return "CR"
    if before.nadir is not None and sum(lengths) >= progressive_from(before.nadir):
        return "PD"
    if not is_whole or before.baseline is None:
        return "NE"
    if 10 * sum(lengths) <= 7 * before.baseline:
        return "PR"
    return "PR" if rules.pr_persistence == "eortc" and before.responded else "SD"


def non_target_response(looks: Looks, known: Disease, before: Before) -> str | None:
    """Return PD, NE, NON-CR/NON-PD or CR; None without non-target lesions (RECIST 1.1, 4.3.3)."""
    if not known.non_targets:
        return None
    seen = [looks.get(name, NOT_ASSESSED) for name in known.non_targets]
    if any(at.progressed or (before.complete and at.present and not at.node) for at in seen):
        return "PD"
    if any(at.present is None for at in seen):
        return "NE"
    return "NON-CR/NON-PD" if any(at.present for at in seen) else "CR"


def overall(target: str | None, non_target: str | None, new: bool) -> str:
    """Return the verdict of a visit (RECIST 1.1, tables 1 and 2); NE when the baseline knew no lesion."""
    if new or "PD" in (target, non_target):
        return "PD"
    if target is None:
        return non_target or "NE"
    if target == "CR" and non_target not in (None, "CR"):
        return "PR"
    return target


def total(looks: Looks, known: Disease) -> int | None:
    """Return the sum of diameters, tenths of a millimetre; None without targets or when one has no length."""
    lengths = [looks.get(name, NOT_ASSESSED).tenths for name in known.targets]
    whole = [length for length in lengths if length is not None]
    return sum(whole) if lengths and len(whole) == len(lengths) else None


def after_baseline(visit: Visit, looks: Looks, known: Disease) -> Before:
    """Return what the baseline leaves behind."""
    size = total(looks, known)
    return Before(baseline=size, nadir=size, nadir_date=None if size is None else visit.date)


def after(visit: Visit, looks: Looks, found: Assessment, known: Disease, before: Before) -> Before:
    """Return what a visit leaves behind."""
    size = total(looks, known)
    lower = size is not None and (before.nadir is None or size < before.nadir)
    return Before(
        baseline=before.baseline,
        nadir=size if lower else before.nadir,
        nadir_date=visit.date if lower else before.nadir_date,
        complete=before.complete or found.overall == "CR",
        responded=found.overall != "PD" and (before.responded or found.target in ("CR", "PR")),
        new=found.new,
    )


def baseline_point(visit: Visit, before: Before, known: Disease) -> TimePoint:
    """Return the baseline, which has no verdict."""
    size = "not known" if before.baseline is None else mm(before.baseline)
    targets = f"Targets: {len(known.targets)}" + (f", sum of diameters {size}" if known.targets else "")
    return TimePoint(
        date=visit.date,
        sum=None if before.baseline is None else before.baseline / 10,
        nadir=None,
        target=None,
        non_target=None,
        new=False,
        overall=None,
        because=f"Baseline. {targets}. Non-target lesions: {len(known.non_targets)}.",
        doubts=known.doubts[visit.date],
    )


def doubts_of_all(history: History) -> Iterator[str]:
    """Yield what a reader should know of all visits."""
    if history.treatment_start is None:
        yield "The start of treatment is not known: stable disease is counted from the baseline."


def _point(
    visit: Visit, looks: Looks, found: Assessment, known: Disease, before: Before, rules: Rules
) -> TimePoint:
    def verdict(changed: Looks) -> str:
        return assess(visit.date, changed, known, before, rules).overall

    size = total(looks, known)
    sentences = (
        *say_target(looks, found.target, known, before),
        *say_non_target(looks, found.non_target, known),
        *say_new(visit.date, looks, found.new, known, before),
    )
    return TimePoint(
        date=visit.date,
        sum=None if size is None else size / 10,
        nadir=None if before.nadir is None else before.nadir / 10,
        target=found.target,
        non_target=found.non_target,
        new=bool(found.new),
        overall=found.overall,
        because=" ".join((f"{found.overall}:", *sentences)),
        margins=margins_of(visit, looks, verdict),
        doubts=known.doubts[visit.date],
    )


def say_target(looks: Looks, word: str | None, known: Disease, before: Before) -> Iterator[str]:
    """Yield why the targets respond as they do."""
    if word is None:
        return
    seen = {name: looks.get(name, NOT_ASSESSED) for name in known.targets}
    missing = [name for name, at in seen.items() if at.tenths is None]
    measured = [at.tenths for at in seen.values() if at.tenths is not None]
    size = sum(measured)
    progressed = [name for name, at in seen.items() if at.progressed]
    back = [name for name, at in seen.items() if at.present]
    yield f"Targets {word}."
    if progressed:
        yield f"Unequivocal progression of {', '.join(progressed)}."
    elif before.complete and back:
        yield f"{', '.join(back)} is there again after a complete response."
    elif word == "CR":
        nodes = ", ".join(f"{name} {mm(at.tenths)}" for name, at in seen.items() if at.tenths)
        yield f"What is left are nodes below 10 mm: {nodes}." if nodes else "Every target is gone."
    else:
        if missing:
            yield f"Not assessed: {', '.join(missing)}."
        if measured:
            yield from _compared(size, bool(missing), before)
        else:
            yield "Progression can neither be shown nor excluded."
        if word == "PR" and before.baseline is not None and 10 * size > 7 * before.baseline:
            yield "The partial response of an earlier visit lasts until progression."


def _compared(size: int, partly: bool, before: Before) -> Iterator[str]:
    """Yield what a sum is to the baseline and to the nadir, with the limits; `partly` when a target is missing."""
    yield f"What was measured adds up to {mm(size)}." if partly else f"Sum of diameters {mm(size)}."
    if before.baseline is None:
        yield "The sum at the baseline is not known."
    elif not partly:
        way = "below" if size <= before.baseline else "above"
        share = percent(abs(before.baseline - size), before.baseline)
        limit = mm(7 * before.baseline // 10)
        yield f"{share} {way} the baseline of {mm(before.baseline)} (PR: 30 % below, {limit} or less)."
    if before.nadir is None:
        yield "There is no complete sum before to progress from."
        return
    nadir, least = f"the nadir of {mm(before.nadir)} on {before.nadir_date}", progressive_from(before.nadir)
    if partly and size < least:
        limit = f"20 % and 5 mm above {nadir} are {mm(least)}"
        yield f"From that progression can neither be shown nor excluded: {limit}."
        return
    apart = abs(size - before.nadir)
    share = f"{percent(apart, before.nadir)}, {mm(apart)}" if before.nadir else mm(apart)
    way = "above" if size >= before.nadir else "below"
    yield f"{share} {way} {nadir} (PD: 20 % and 5 mm above, {mm(least)} or more)."


def say_non_target(looks: Looks, word: str | None, known: Disease) -> Iterator[str]:
    """Yield why the non-target lesions respond as they do."""
    if word is None:
        return
    seen = {name: looks.get(name, NOT_ASSESSED) for name in known.non_targets}
    yield f"Non-target lesions {word}."
    if word == "CR":
        yield "All are gone, nodes below 10 mm."
    elif word == "NE":
        yield f"Not assessed: {', '.join(name for name, at in seen.items() if at.present is None)}."
    elif word == "NON-CR/NON-PD":
        yield f"Still there: {', '.join(name for name, at in seen.items() if at.present)}."
    elif any(at.progressed for at in seen.values()):
        names = ", ".join(name for name, at in seen.items() if at.progressed)
        yield f"Unequivocal progression of {names}."
    else:
        names = ", ".join(name for name, at in seen.items() if at.present and not at.node)
        yield f"{names} is there again after a complete response."


def say_new(at: date, looks: Looks, new: frozenset[str], known: Disease, before: Before) -> Iterator[str]:
    """Yield which new lesions there are."""
    dated = known.certain_later[at] - before.new
    now = new - before.new - dated
    if not new:
        yield "No new lesion."
    if now:
        yield f"New: {', '.join(sorted(now))}."
    if dated:
        names = ", ".join(sorted(dated))
        yield f"New: {names}; equivocal here and certain later, so progression is dated at its first appearance."
    if before.new:
        gone = [name for name in sorted(before.new) if looks.get(name, NOT_ASSESSED).present is False]
        yield f"New since an earlier visit: {', '.join(sorted(before.new))}."
        if gone:
            yield f"Not seen any more: {', '.join(gone)}."


def progressive_from(nadir: int) -> int:
    """Return the smallest sum that is 20 % and 5 mm above the nadir, tenths of a millimetre."""
    return max(-(-12 * nadir // 10), nadir + 50)


__all__ = [
    "Assessment",
    "Before",
    "after",
    "after_baseline",
    "assess",
    "baseline_point",
    "doubts_of_all",
    "judge",
    "non_target_response",
    "overall",
    "progressive_from",
    "say_new",
    "say_non_target",
    "say_target",
    "target_response",
    "total",
]

"""Lugano (Cheson 2014, Barrington 2014): lymphoma by Deauville scores where there are any, else by CT.

The metabolic response is told when a visit has scores, or uptake beside a liver that gives them; `because` says which
is used. Lugano speaks of `reduced` and `increased` uptake without a number: a reader's scores that differ decide, then
the peak by `Rules.deauville_change_percent`, then scores from numbers. Responses are reckoned from the first scores;
what was in complete metabolic response and is above the liver again has progressed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from store.response import lugano_ct
from store.response.best import Words, best_confirmed, best_overall
from store.response.deauville import Score, score
from store.response.history import History, Status, Visit, in_order
from store.response.lugano_ct import Lesions, lesions
from store.response.margins import margins
from store.response.rules import USUAL, Rules
from store.response.uptake import STEPS, change, number, peak
from store.response.verdict import Response, TimePoint

METABOLIC = Words(complete="CMR", partial="PMR", stable="NMR", progressive="PMD")
_THERE = (Status.MEASURED, Status.PRESENT, Status.TOO_SMALL, Status.PROGRESSED)


def judge(history: History, rules: Rules = USUAL) -> Response:
    """Return the verdicts of a patient: CMR, PMR, NMR, PMD by PET, or CR, PR, SD, PD by CT; NE.

    `sum` and `nadir` are the highest Deauville score, or the sum of products of diameters (SPD), mm2. Refuses what
    `in_order` refuses.
    """
    visits = in_order(history)
    metabolic = any(_is_pet(visit) for visit in visits)
    points = _metabolic(visits, rules) if metabolic else _by_ct(visits)
    verdicts = [(point.date, point.overall) for point in points if point.overall is not None]
    start = history.treatment_start or visits[0].date
    words = METABOLIC if metabolic else Words()
    which = (
        "Judged by PET: a visit without Deauville scores or uptake is not evaluable."
        if metabolic
        else "Judged by CT: no visit has Deauville scores, or uptake beside a liver."
    )
    return Response(
        patient=history.patient,
        criteria="lugano",
        quantity="highest Deauville score" if metabolic else "sum of products of diameters",
        unit="1" if metabolic else "mm2",
        time_points=tuple(points),
        best_overall=best_overall(verdicts, start, rules, words),
        best_overall_confirmed=best_confirmed(verdicts, start, rules, words),
        doubts=(which,),
    )


def _by_ct(visits: tuple[Visit, ...]) -> list[TimePoint]:
    return [lugano_ct.baseline(visits[0]), *lugano_ct.points(visits)]


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One visit and what was before it."""

    lesions: Lesions
    first: Visit | None
    """The first visit with scores, before this one."""
    now: Visit
    was_complete: bool
    """Whether an earlier visit was a complete metabolic response."""
    new: tuple[str, ...]
    """New lesions by this visit."""
    rules: Rules


def _is_pet(visit: Visit) -> bool:
    """Whether a visit tells scores: a reader's, or an uptake beside a liver."""
    liver = visit.reference is not None and visit.reference.liver_mean is not None
    return any(seen.deauville is not None or (liver and seen.suv_peak is not None) for seen in visit.seen)


def _scores(visit: Visit, known: Lesions, rules: Rules) -> dict[str, Score]:
    """Return the scores of the lesions that the baseline knows."""
    return {
        seen.lesion: one
        for seen in visit.seen
        if not known.is_new(seen) and (one := score(seen, visit.reference, rules)) is not None
    }


def _metabolic(visits: tuple[Visit, ...], rules: Rules) -> list[TimePoint]:
    known = lesions(visits[0])
    by_ct = {point.date: point for point in lugano_ct.points(visits)}
    start = _scores(visits[0], known, rules)
    points = [_baseline_point(visits[0], start)]
    case = _Case(
        lesions=known,
        first=visits[0] if _is_pet(visits[0]) else None,
        now=visits[0],
        was_complete=False,
        new=(),
        rules=rules,
    )
    nadir = _highest(start)
    for now in visits[1:]:
        new = tuple(dict.fromkeys((*case.new, *_new(now, known, rules))))
        case = replace(case, now=now, new=new)
        point = _point(case, nadir, by_ct[now.date])
        points.append(point)
        scores = _scores(now, known, rules)
        highest = _highest(scores)
        nadir = min((one for one in (nadir, highest) if one is not None), default=None)
        case = replace(
            case,
            first=case.first or (now if _is_pet(now) else None),
            was_complete=case.was_complete or point.overall == "CMR",
        )
    return points


def _highest(scores: dict[str, Score]) -> int | None:
    return max((one.value for one in scores.values()), default=None)


def _baseline_point(visit: Visit, scores: dict[str, Score]) -> TimePoint:
    highest = _highest(scores)
    told = "; ".join(one.words for one in scores.values()) or "no Deauville score"
    return replace(
        lugano_ct.baseline(visit),
        sum=highest,
        because=f"Baseline: By PET. {told}.",
    )


def _point(case: _Case, nadir: int | None, by_ct: TimePoint) -> TimePoint:
    overall, because = _decide(case)
    followed = [
        seen
        for seen in case.now.seen
        if not case.lesions.is_new(seen) and seen.suv_peak is not None and seen.deauville is None
    ]

    def again(steps: tuple[int, ...]) -> str:
        moved = {seen.lesion: value / STEPS for seen, value in zip(followed, steps, strict=True)}
        seen = tuple(
            replace(one, suv_peak=moved[one.lesion]) if one.lesion in moved else one for one in case.now.seen
        )
        return _decide(replace(case, now=replace(case.now, seen=seen)))[0]

    scores = _scores(case.now, case.lesions, case.rules)
    return TimePoint(
        date=case.now.date,
        sum=_highest(scores),
        nadir=nadir,
        target=_followed_response(case, case.lesions.targets)[0],
        non_target=_followed_response(case, case.lesions.non_targets)[0],
        new=bool(case.new),
        overall=overall,
        because=f"{overall}: By PET. {because}",
        margins=margins([number(seen) for seen in followed], again),
        doubts=tuple(_doubts(case, by_ct)),
    )


def _decide(case: _Case) -> tuple[str, str]:
    """Return the verdict and why: new lesions first, then what all followed lesions come to."""
    word, because = _followed_response(case, (*case.lesions.targets, *case.lesions.non_targets))
    if case.new:
        return "PMD", f"New: {', '.join(case.new)}. {because}"
    return word or "NE", because or "The baseline knows no lesion."


def _followed_response(case: _Case, names: tuple[str, ...]) -> tuple[str | None, str]:
    """Return PMD, NE, CMR, PMR or NMR of some lesions, decided in this order, and why; None without any."""
    if not names:
        return None, ""
    now = {seen.lesion: seen for seen in case.now.seen}
    progressed = [name for name in names if name in now and now[name].status is Status.PROGRESSED]
    if progressed:
        return "PMD", f"Unequivocal progression of {', '.join(progressed)}."
    scores = {name: one for name, one in _scores(case.now, case.lesions, case.rules).items() if name in names}
    told = "; ".join(one.words for one in scores.values()) + "."
    hot = [one for one in scores.values() if one.value >= 4]
    for one in hot:
        if case.was_complete:
            return "PMD", f"{one.lesion} is above the liver again after a complete metabolic response. {told}"
        compared = _compared(case, (one.lesion,))
        if compared and compared[0] > 0:
            return "PMD", f"{compared[1]} {told}"
    missing = [name for name in names if name not in scores and _is_asked(case, name)]
    if missing or not scores:
        return "NE", f"No Deauville score of {', '.join(missing or names)}. {told if scores else ''}".strip()
    if not hot:
        return "CMR", f"No score above 3. {told}"
    compared = _compared(case, tuple(scores))
    if compared is None:
        return "NE", f"No earlier PET to compare with. {told}"
    return ("PMR" if compared[0] < 0 else "NMR"), f"{compared[1]} {told}"


def _is_asked(case: _Case, name: str) -> bool:
    """Whether a lesion has to have a score: a target, or one that had a score at first."""
    first = _scores(case.first, case.lesions, case.rules) if case.first else {}
    return name in first or (not first and name in case.lesions.targets)


def _compared(case: _Case, names: tuple[str, ...]) -> tuple[int, str] | None:
    """Return whether the highest uptake of some lesions fell (-1), stayed (0) or rose (1) since the first, and why."""
    if case.first is None:
        return None
    visits = (case.first, case.now)
    scores = [
        [one for name, one in _scores(visit, case.lesions, case.rules).items() if name in names]
        for visit in visits
    ]
    if not scores[0] or not scores[1]:
        return None
    then, now = (max(side, key=lambda one: one.value) for side in scores)
    by_reader = all(one.by_reader for side in scores for one in side)
    if by_reader and then.value != now.value:
        return _way(now.value - then.value), f"Deauville {then.value} at first, {now.value} now."
    peaks = [
        [steps for seen in visit.seen if seen.lesion in names and (steps := peak(seen)) is not None]
        for visit in visits
    ]
    if peaks[0] and peaks[1] and (was := max(peaks[0])):
        steps = max(peaks[1])
        limit = case.rules.deauville_change_percent
        words = f"SULpeak {change(was, steps)} since the first PET (a change from {limit:g} % on)."
        return (_way(steps - was) if 100 * abs(steps - was) >= limit * was else 0), words
    return _way(now.value - then.value), f"Deauville {then.value} at first, {now.value} now."


def _way(difference: int) -> int:
    return (difference > 0) - (difference < 0)


def _new(visit: Visit, known: Lesions, rules: Rules) -> Iterator[str]:
    """Yield new lesions with uptake: those whose score is 4 or 5, or that have none."""
    for seen in visit.seen:
        if known.is_new(seen) and seen.status in _THERE:
            found = score(seen, visit.reference, rules)
            if found is None or found.value >= 4:
                yield seen.lesion


def _doubts(case: _Case, by_ct: TimePoint) -> Iterator[str]:
    for seen in case.now.seen:
        if not case.lesions.is_new(seen) or seen.status not in _THERE:
            continue
        found = score(seen, case.now.reference, case.rules)
        if found is None:
            yield f"The new lesion {seen.lesion} has no Deauville score and counts as one with uptake."
        elif found.value < 4:
            yield f"The new lesion {seen.lesion} has no uptake above the liver and does not count."
    if not _is_pet(case.now) and _scores(case.now, case.lesions, case.rules):
        yield "No score and no uptake at this visit: a lesion that is called absent was taken as one without uptake."
    if by_ct.sum is not None and by_ct.overall:
        yield f"By CT alone it would be {by_ct.because}"


__all__ = ["judge"]

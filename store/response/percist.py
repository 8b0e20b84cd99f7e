"""PERCIST 1.0: response by the uptake of the hottest lesion (Wahl 2009; O, Lodge, Wahl 2016, PMC4976461).

SULpeak of the single hottest lesion of each scan, not necessarily the same lesion; responses and progression are
reckoned from the baseline. The rules were taken from the 2016 paper and from tables that quote the first one; the
first one itself was not at hand. A lesion of the baseline that a reader calls unequivocal progression is PMD whatever
its numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from store.response.best import METABOLIC, best_confirmed, best_overall
from store.response.burden import Disease, disease, look
from store.response.history import History, Role, Seen, Status, Visit, in_order
from store.response.margins import margins
from store.response.rules import USUAL, Rules
from store.response.uptake import (
    STEPS,
    WITHOUT_OWN,
    Background,
    background,
    change,
    doubtful,
    glycolysis,
    hottest,
    incomparable,
    liver_is_diseased,
    number,
    peak,
    quality,
    told,
    without_lengths,
)
from store.response.verdict import Response, TimePoint


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One scan beside the baseline."""

    baseline: Visit
    now: Visit
    known: Disease
    rules: Rules
    before: frozenset[str]
    """Lesions that were there at a visit before the baseline and that it does not call absent."""

    @property
    def tissues(self) -> tuple[Background | None, Background | None]:
        diseased = liver_is_diseased((self.baseline, self.now))
        return (
            background(self.baseline.reference, diseased=diseased),
            background(self.now.reference, diseased=diseased),
        )

    @property
    def followed(self) -> tuple[tuple[Seen, Seen | None], ...]:
        """The lesions of the baseline's PET, each with itself now; one that had no number is followed when seen now."""
        now = {seen.lesion: seen for seen in self.now.seen}
        return tuple(
            (was, now.get(was.lesion))
            for was in self.baseline.seen
            if not self.known.is_new(was.lesion)
            and (peak(was) is not None or peak(now.get(was.lesion)) or was.status is Status.PRESENT)
        )


def judge(history: History, rules: Rules = USUAL) -> Response:
    """Return the metabolic verdicts of a patient; `sum` and `nadir` are the SULpeak of the hottest lesion, g/ml.

    The baseline is the first visit with a SULpeak; where none has one, what follows the first visit is NE. Raises
    Refused as `in_order` does.
    """
    visits = in_order(history)
    first = next((at for at, visit in enumerate(visits) if _has_uptake(visit)), len(visits))
    points = [_unjudged(visit, "No SULpeak at this visit.") for visit in visits[:first]]
    if first == len(visits):
        points[1:] = [replace(p, overall="NE", because="NE: no SULpeak at any visit.") for p in points[1:]]
        first = 0
    else:
        case = _Case(
            baseline=visits[first],
            now=visits[first],
            known=disease([without_lengths(visit) for visit in visits[first:]], rules),
            rules=rules,
            before=_before(visits[:first], visits[first]),
        )
        points.append(_baseline_point(case))
        nadir = _hottest_steps(case)
        new: frozenset[str] = frozenset()
        for now in visits[first + 1 :]:
            case = replace(case, now=now)
            new |= _new(case)
            points.append(_point(case, new, nadir))
            steps = _hottest_steps(case)
            nadir = steps if nadir is None else nadir if steps is None else min(nadir, steps)
    verdicts = [(point.date, point.overall or "NE") for point in points[first + 1 :]]
    start = history.treatment_start or points[first].date
    return Response(
        patient=history.patient,
        criteria="percist",
        quantity="SULpeak of the hottest lesion",
        unit="g/ml",
        time_points=tuple(points),
        best_overall=best_overall(verdicts, start, rules, METABOLIC),
        best_overall_confirmed=best_confirmed(verdicts, start, rules, METABOLIC),
        doubts=() if any(map(_has_uptake, visits)) else ("No visit has a SULpeak: PERCIST cannot be told.",),
        before_baseline=first,
    )


def _has_uptake(visit: Visit) -> bool:
    return any(seen.suv_peak is not None for seen in visit.seen)


def _unjudged(visit: Visit, because: str) -> TimePoint:
    return TimePoint(
        date=visit.date,
        sum=None,
        nadir=None,
        target=None,
        non_target=None,
        new=False,
        overall=None,
        because=because,
    )


def _before(visits: Sequence[Visit], baseline: Visit) -> frozenset[str]:
    there = {seen.lesion for visit in visits for seen in visit.seen if seen.status is not Status.ABSENT}
    return frozenset(there - {seen.lesion for seen in baseline.seen if seen.status is Status.ABSENT})


def _new(case: _Case) -> frozenset[str]:
    """Return the lesions that the baseline does not know; one that was there before it is new by its uptake only."""
    looks = {seen.lesion: look(seen) for seen in without_lengths(case.now).seen}
    new = case.known.new(looks) | case.known.certain_later[case.now.date]
    cold = {seen.lesion for seen in case.now.seen if not peak(seen)}
    return new - (case.before & cold)


def _baseline_point(case: _Case) -> TimePoint:
    visit = case.baseline
    steps = _hottest_steps(case)
    tissue = case.tissues[0]
    doubts = [*quality(visit.reference), *_unmeasured(case)]
    because = "Baseline: the hottest lesion is not known."
    if steps is not None:
        because = f"Baseline: {_counted(case)}; hottest {_name(case)} with SULpeak {told(steps)}"
        if tissue is not None:
            measurable = "measurable" if 10 * steps >= tissue.measurable else "not measurable"
            because += f"; {measurable}, as at least {tissue.words} is asked for"
        because += "."
    return replace(
        _unjudged(visit, because), sum=None if steps is None else steps / STEPS, doubts=tuple(doubts)
    )


def _unmeasured(case: _Case) -> Iterator[str]:
    first, second = case.tissues
    if second is None:
        yield "Neither liver nor blood pool is given: background and comparability were not checked."
        return
    if first is None or first.name != second.name:
        yield f"The {second.name} of the baseline is not given: comparability was not checked."
    if second.sd is None:
        yield f"The standard deviation of the {second.name} is not given and was taken as zero."
    if second.name == "liver" and liver_is_diseased((case.baseline, case.now)):
        yield "A lesion lies in the liver and no blood pool is given: the liver was used as if it were healthy."


def _point(case: _Case, new: frozenset[str], nadir: int | None) -> TimePoint:
    overall, because = _decide(case, new)
    steps = _hottest_steps(case)
    measured = [now for _, now in case.followed if now is not None and now.suv_peak is not None]

    def again(values: tuple[int, ...]) -> str:
        moved = {seen.lesion: value / STEPS for seen, value in zip(measured, values, strict=True)}
        seen = tuple(
            replace(one, suv_peak=moved[one.lesion]) if one.lesion in moved else one for one in case.now.seen
        )
        return _decide(replace(case, now=replace(case.now, seen=seen)), new)[0]

    return TimePoint(
        date=case.now.date,
        sum=None if steps is None else steps / STEPS,
        nadir=None if nadir is None else nadir / STEPS,
        target=_target(case)[0],
        non_target=_non_target(case),
        new=bool(new),
        overall=overall,
        because=f"{overall}: {because}.",
        margins=margins([number(seen) for seen in measured], again),
        doubts=tuple(_doubts(case, nadir)),
    )


def _decide(case: _Case, new: frozenset[str]) -> tuple[str, str]:
    """Return the verdict and the rule and numbers that decided it."""
    word, because = _target(case)
    because = f"{because}; {_counted(case)}" if _is_followed(case) else because
    if new:
        return "PMD", f"new: {', '.join(sorted(new))}; {because}"
    non_target = _non_target(case)
    if non_target == "PMD":
        return "PMD", f"unequivocal progression of a non-target lesion; {because}"
    if word == "CMR" and non_target not in (None, "CMR"):
        return "PMR", f"{because}; not complete, as non-target lesions are {non_target}"
    return word or "NE", because


def _target(case: _Case) -> tuple[str | None, str]:
    """Return what the lesions that are followed by numbers come to: a reader's word on a target, then the numbers."""
    word, because = _by_numbers(case)
    called = _progressed(case, case.known.targets)
    return (
        ("PMD", f"unequivocal progression of {', '.join(called)}; {because}") if called else (word, because)
    )


def _progressed(case: _Case, names: Sequence[str]) -> list[str]:
    return [now.lesion for now in case.now.seen if now.lesion in names and now.status is Status.PROGRESSED]


def _by_numbers(case: _Case) -> tuple[str | None, str]:
    """Return what the numbers of the lesions say, in the order in which they decide."""
    base = _hottest_steps(replace(case, now=case.baseline))
    peaks = [peak(now) for was, now in case.followed if _is_asked(case, was, now)]
    known = [value for value in peaks if value is not None]
    if not _is_followed(case):
        return "NE", "nothing is known of the lesions of the baseline at this visit"
    if base is None or not known:
        return "NE", "no lesion has a SULpeak at both visits" if known else "no SULpeak at this visit"
    now = max(known)
    change_words = (
        f"SULpeak of the hottest lesion {_name(replace(case, now=case.baseline))} {told(base)} at baseline, "
        f"{_name(case)} {told(now)} now ({change(base, now)})"
    )
    missing = [was.lesion for was, seen in case.followed if _is_asked(case, was, seen) and peak(seen) is None]
    bar = list(incomparable(case.baseline.reference, case.now.reference, *case.tissues))
    comparable = not bar or case.rules.incomparable_scans == "doubt"
    if comparable and 10 * now > 13 * base and now - base > 800:
        return "PMD", f"{change_words}: up by more than 30 % and 0.8 g/ml"
    glycolyses = glycolysis(case.followed)
    if comparable and glycolyses and 4 * glycolyses[1] > 7 * glycolyses[0]:
        grown = f"total lesion glycolysis {glycolyses[0] / STEPS:.1f} then {glycolyses[1] / STEPS:.1f} g"
        return "PMD", f"{grown}: up by more than 75 %; {change_words}"
    if not missing and (background_words := _is_background(case)):
        return "CMR", f"{change_words}: {background_words}"
    if missing:
        return "NE", f"{change_words}; not assessed: {', '.join(missing)}"
    if not comparable:
        return "NE", f"{change_words}; the scans are not comparable: {'; '.join(bar)}"
    return _partial_or_stable(case, base, now, change_words)


def _partial_or_stable(case: _Case, base: int, now: int, change_words: str) -> tuple[str, str]:
    tissue = case.tissues[0]
    if tissue and 10 * base < tissue.measurable:
        return "NE", f"{change_words}; not measurable at baseline, as less than {tissue.words}"
    if not (10 * now <= 7 * base and base - now >= 800):
        return "SMD", f"{change_words}: neither down nor up by 30 % and 0.8 g/ml"
    for was, seen in case.followed:
        if seen is None:
            continue
        lengths = (was.long_axis_tenths, seen.long_axis_tenths)
        if lengths[0] and lengths[1] and 10 * lengths[1] > 13 * lengths[0]:
            sizes = f"{lengths[0] / 10:.1f} then {lengths[1] / 10:.1f} mm"
            return (
                "SMD",
                f"{change_words}: no partial response, as {seen.lesion} grew by more than 30 % ({sizes})",
            )
        peaks = (peak(was), peak(seen))
        if peaks[0] and peaks[1] and 10 * peaks[1] > 13 * peaks[0]:
            rise = f"{told(peaks[0])} then {told(peaks[1])}"
            return (
                "SMD",
                f"{change_words}: no partial response, as {seen.lesion} rose by more than 30 % ({rise})",
            )
    return "PMR", f"{change_words}: down by at least 30 % and 0.8 g/ml"


def _is_asked(case: _Case, was: Seen, now: Seen | None) -> bool:
    """Whether a lesion takes part in the hottest: it has a number, or it had one as a target or as the hottest."""
    if peak(now) is not None or peak(was) is None:
        return peak(now) is not None
    return was.lesion in case.known.targets or peak(was) == max(peak(one) or 0 for one, _ in case.followed)


def _is_background(case: _Case, only: Sequence[str] | None = None) -> str | None:
    """Return why no followed lesion (of `only`) is above normal tissue; None when one is or that cannot be told."""
    tissue, pool = case.tissues[1], background(case.now.reference, diseased=True)
    peaks = [
        (now.lesion, peak(now))
        for _, now in case.followed
        if now and peak(now) is not None and (only is None or now.lesion in only)
    ]
    hot = [(lesion, value) for lesion, value in peaks if value]
    if not hot:
        return "no uptake of any lesion above its surroundings"
    if tissue is None or any(value >= tissue.mean for _, value in hot):
        return None
    above = ""
    if pool and pool.name == "blood pool" and pool.sd is not None:
        if any(value > pool.mean + 2 * pool.sd for _, value in hot):
            return None
        above = f" and within the blood pool {told(pool.mean)} + 2 SD"
    return f"every lesion below the {tissue.name} mean {told(tissue.mean)}{above}"


def _non_target(case: _Case) -> str | None:
    """Return the response of the lesions that are not targets by role; None when there are none."""
    if not case.known.non_targets:
        return None
    now = {seen.lesion: seen for seen in case.now.seen}
    seen = [now.get(name) for name in case.known.non_targets]
    if _progressed(case, case.known.non_targets):
        return "PMD"
    if any(
        one is not None and one.status in (Status.PRESENT, Status.TOO_SMALL) and peak(one) is None
        for one in seen
    ):
        return "NON-CMR/NON-PMD"
    if any(peak(one) is None for one in seen):
        return "NE"
    # What has grown together is as hot as the lesion that it is in.
    is_alone = not any(one is not None and one.status is Status.COALESCED for one in seen)
    return "CMR" if _is_background(case, case.known.non_targets if is_alone else None) else "NON-CMR/NON-PMD"


def _hottest_steps(case: _Case) -> int | None:
    """Return the highest SULpeak, None when a lesion that has to have one has none."""
    peaks = [peak(now) for was, now in case.followed if _is_asked(case, was, now)]
    return None if not peaks or None in peaks else max(value for value in peaks if value is not None)


def _is_followed(case: _Case) -> bool:
    """Return whether anything is known now of any lesion of the baseline."""
    return any(now is not None for _, now in case.followed)


def _hot(case: _Case) -> tuple[Seen, ...]:
    return hottest([now for _, now in case.followed if now is not None], case.rules)


def _name(case: _Case) -> str:
    hot = _hot(case)
    return hot[0].lesion if hot else "none"


def _counted(case: _Case) -> str:
    """Return number of lesions and, with several, the exploratory sum of the hottest ones."""
    number = sum(1 for _, now in case.followed if now is not None and now.status not in WITHOUT_OWN)
    words = f"{number} lesion{'' if number == 1 else 's'}"
    then = replace(case, now=case.baseline)
    sums = [sum(peak(seen) or 0 for seen in _hot(one)) for one in (then, case)]
    if len(_hot(then)) < 2 or not sums[0]:
        return words
    if case.now is case.baseline:
        return f"{words} (exploratory sum of the hottest {told(sums[0])})"
    return f"{words} (exploratory sum of the hottest {told(sums[0])} then {told(sums[1])}, {change(*sums)})"


def _doubts(case: _Case, nadir: int | None) -> Iterator[str]:
    gone = any(now is not None and now.status is Status.ABSENT for _, now in case.followed)
    if gone and not _has_uptake(case.now):
        yield (
            "No lesion that counts has a SULpeak at this visit: one that is called absent was taken as one without "
            "uptake."
        )
    yield from quality(case.now.reference)
    yield from _unmeasured(case)
    if case.rules.incomparable_scans == "doubt":
        for reason in incomparable(case.baseline.reference, case.now.reference, *case.tissues):
            yield f"By PERCIST the scans are not comparable: {reason}."
    yield from doubtful(case.baseline.reference, case.now.reference)
    tissue = case.tissues[1]
    for seen in case.now.seen:
        steps = peak(seen)
        if not case.known.is_new(seen.lesion) or not steps:
            continue
        if seen.role is not Role.NEW:
            yield f"{seen.lesion}, called {seen.role}, was not there at the baseline: it is a new lesion."
        if tissue and steps < tissue.mean:
            yield f"The new lesion {seen.lesion} has {told(steps)}, less than the {tissue.name}: is it one?"
    now = _hottest_steps(case)
    if now is not None and nadir is not None and 10 * now > 13 * nadir and now - nadir > 800:
        yield (
            f"From the lowest so far, {told(nadir)}, SULpeak rose by {change(nadir, now)}; progression is reckoned "
            "from the baseline."
        )


__all__ = ["judge"]

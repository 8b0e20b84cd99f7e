"""Lugano by CT: sums of products of diameters, single lesions, the spleen (Cheson 2014, J Clin Oncol 32:3059, table 3).

Lengths are whole tenths of a millimetre. LDi is the longest diameter, SDi the longest across it, PPD their product, SPD
the sum of those of up to six targets, the largest at the baseline. Taken as follows where the table leaves room:

- An increase is that since the visit at which the product was smallest; a lesion is one up to 2 cm, or above, by its
  LDi then. `too-small` is 5 mm x 5 mm and `absent` 0 mm x 0 mm, as the table says.
- A lesion named `spleen` is the organ; its long axis is its vertical length. Above 13 cm is splenomegaly; recurrent
  splenomegaly is a spleen that was normal and has grown by 2 cm since it was smallest, above 13 cm.
- A new lesion without a size is one when it is `present`; a small one only as `unequivocal-progression`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from store.response.burden import LONGEST_TENTHS, TOO_SMALL_TENTHS, mm, percent
from store.response.history import Role, Seen, Status, Visit
from store.response.margins import Number, margins
from store.response.verdict import TimePoint

MOST_TARGETS: Final = 6
#: A node is abnormal above this LDi.
NODE_TENTHS: Final = 150
#: A new extranodal lesion counts above this.
EXTRANODAL_TENTHS: Final = 100
#: A spleen is enlarged above this length.
SPLEEN_TENTHS: Final = 130 * 10
_THERE: Final = (Status.MEASURED, Status.PRESENT, Status.TOO_SMALL, Status.PROGRESSED)


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """What the baseline knows."""

    targets: tuple[str, ...]
    """Up to six, the largest."""
    non_targets: tuple[str, ...]
    """The others, targets beyond six among them."""
    spleen: str | None
    """Name of the entry that is the spleen."""

    def is_new(self, seen: Seen) -> bool:
        """Whether the baseline did not show it."""
        return seen.lesion not in (*self.targets, *self.non_targets) and not _is_spleen(seen)


def lesions(baseline: Visit) -> Lesions:
    """Return what each lesion of the baseline is."""
    there = [seen for seen in baseline.seen if seen.status is not Status.ABSENT]
    spleen = next((seen.lesion for seen in there if _is_spleen(seen)), None)
    lesions = [seen for seen in there if seen.lesion != spleen and seen.role is not Role.NEW]
    targets = sorted(
        (seen for seen in lesions if seen.role is Role.TARGET), key=lambda seen: -(product(seen) or 0)
    )[:MOST_TARGETS]
    names = tuple(seen.lesion for seen in targets)
    return Lesions(
        targets=names,
        non_targets=tuple(seen.lesion for seen in lesions if seen.lesion not in names),
        spleen=spleen,
    )


def _is_spleen(seen: Seen) -> bool:
    return seen.lesion.casefold() == "spleen"


def axes(seen: Seen | None) -> tuple[int, int] | None:
    """Return LDi and SDi; None when they were not measured."""
    if seen is None or seen.status is Status.NOT_EVALUABLE:
        return None
    if seen.status in (Status.ABSENT, Status.COALESCED):
        return 0, 0
    if seen.long_axis_tenths is not None and seen.short_axis_tenths is not None:
        return seen.long_axis_tenths, seen.short_axis_tenths
    return (TOO_SMALL_TENTHS, TOO_SMALL_TENTHS) if seen.status is Status.TOO_SMALL else None


def product(seen: Seen | None) -> int | None:
    """Return the product of both axes, hundredths of a square millimetre; None when they were not measured."""
    both = axes(seen)
    return None if both is None else both[0] * both[1]


@dataclass(frozen=True, kw_only=True)
class Course:
    """The visits so far, the one that is judged last."""

    lesions: Lesions
    earlier: tuple[Visit, ...]
    now: Visit

    def seen(self, name: str | None) -> Seen | None:
        """Return a lesion as it is now."""
        return next((seen for seen in self.now.seen if seen.lesion == name), None)

    def before(self, name: str | None) -> list[Seen]:
        """Return a lesion as it was at each visit that names it, the baseline first."""
        return [seen for visit in self.earlier for seen in visit.seen if seen.lesion == name]

    @property
    def sums(self) -> list[int | None]:
        """SPD of each visit, the one that is judged last; None where a target was not measured."""
        return [_sum(visit, self.lesions) for visit in (*self.earlier, self.now)]


def _sum(visit: Visit, known: Lesions) -> int | None:
    seen = {one.lesion: one for one in visit.seen}
    products = [product(seen.get(name)) for name in known.targets]
    whole = [one for one in products if one is not None]
    return sum(whole) if products and len(whole) == len(products) else None


def baseline(visit: Visit) -> TimePoint:
    """Return the baseline, which has no verdict."""
    known = lesions(visit)
    size = _sum(visit, known)
    told = "not known" if size is None else f"{size / 100:.1f} mm2"
    return TimePoint(
        date=visit.date,
        sum=None if size is None else size / 100,
        nadir=None,
        target=None,
        non_target=None,
        new=False,
        overall=None,
        because=f"Baseline: By CT. {len(known.targets)} targets, SPD {told}; {len(known.non_targets)} other lesions.",
        doubts=tuple(_baseline_doubts(visit, known)),
    )


def _baseline_doubts(visit: Visit, known: Lesions) -> Iterator[str]:
    targets = [seen.lesion for seen in visit.seen if seen.role is Role.TARGET and seen.lesion != known.spleen]
    left = [name for name in targets if name in known.non_targets]
    if left:
        yield f"Lugano takes six targets: {', '.join(left)} are followed as non-target lesions."


def points(visits: tuple[Visit, ...]) -> Iterator[TimePoint]:
    """Yield the verdicts of the visits after the first, which is the baseline."""
    known = lesions(visits[0])
    new: tuple[str, ...] = ()
    for at in range(1, len(visits)):
        course = Course(lesions=known, earlier=visits[:at], now=visits[at])
        new = tuple(dict.fromkeys((*new, *_new(course))))
        yield _point(course, new)


def _point(course: Course, new: tuple[str, ...]) -> TimePoint:
    overall, because = decide(course, new)
    measured = [
        seen
        for seen in course.now.seen
        if seen.lesion in course.lesions.targets and seen.status is Status.MEASURED and axes(seen)
    ]

    def again(steps: tuple[int, ...]) -> str:
        moved = {
            seen.lesion: replace(seen, long_axis_tenths=steps[2 * at], short_axis_tenths=steps[2 * at + 1])
            for at, seen in enumerate(measured)
        }
        seen = tuple(moved.get(one.lesion, one) for one in course.now.seen)
        return decide(replace(course, now=replace(course.now, seen=seen)), new)[0]

    *before, size = course.sums
    complete = [one for one in before if one is not None]
    return TimePoint(
        date=course.now.date,
        sum=None if size is None else size / 100,
        nadir=min(complete) / 100 if complete else None,
        target=target_response(course)[0],
        non_target=non_target_response(course),
        new=bool(new),
        overall=overall,
        because=f"{overall}: By CT. {because}",
        margins=margins([number for seen in measured for number in _numbers(seen)], again),
        doubts=tuple(_doubts(course)),
    )


def _numbers(seen: Seen) -> Iterator[Number]:
    both = axes(seen) or (0, 0)
    sds = (seen.long_axis_sd_mm, seen.short_axis_sd_mm)
    for quantity, steps, sd in zip(("long_axis", "short_axis"), both, sds, strict=True):
        yield Number(
            lesion=seen.lesion,
            quantity=quantity,
            steps=steps,
            steps_per_unit=10,
            unit="mm",
            most=LONGEST_TENTHS,
            standard_deviation=sd,
        )


def decide(course: Course, new: tuple[str, ...]) -> tuple[str, str]:
    """Return the verdict, CR, PR, SD, PD or NE, and why; `new` are the new lesions by this visit."""
    target, why = target_response(course)
    rest, spleen = non_target_response(course), spleen_response(course)
    sentences = [f"New: {', '.join(new)}."] if new else []
    sentences += [f"Targets {target}: {why}"] if target else []
    sentences += [f"Non-target lesions {rest}."] if rest else []
    sentences += [f"Spleen {spleen[0]}: {spleen[1]}"] if spleen else []
    return combine(target, rest, spleen[0] if spleen else None, new=bool(new)), " ".join(sentences)


def combine(target: str | None, rest: str | None, spleen: str | None, *, new: bool) -> str:
    """Return what targets, non-target lesions and spleen come to; CR and PR ask all of them (table 3).

    Where only lesions without a size are followed, what is neither gone nor progressing is SD. A spleen above 13 cm
    that has not shrunk enough holds a partial response back, as one that has grown there does.
    """
    if new or "PD" in (target, rest, spleen):
        return "PD"
    words = [word for word in (target, rest, spleen) if word is not None]
    if not words or target == "NE" or (target is None and "NE" in words):
        return "NE"
    if all(word == "CR" for word in words):
        return "CR"
    if target is None:
        return "PR" if spleen == "PR" and rest in (None, "CR") else "SD"
    return "SD" if "SD" in (target, spleen) else "PR"


def target_response(course: Course) -> tuple[str | None, str]:
    """Return PD, CR, NE, PR or SD of the targets, decided in this order, and why; None without targets."""
    known = course.lesions
    if not known.targets:
        return None, ""
    for name in known.targets:
        grown = _grown(course, name)
        if grown:
            return "PD", grown
    now = [course.seen(name) for name in known.targets]
    if all(_is_normal(seen) for seen in now):
        return "CR", "every node has an LDi of 15.0 mm at most and every other lesion is gone."
    missing = [name for name, seen in zip(known.targets, now, strict=True) if product(seen) is None]
    if missing:
        return "NE", f"not measured by both axes: {', '.join(missing)}."
    baseline, size = course.sums[0], course.sums[-1]
    if baseline is None or size is None:
        return "NE", "the sum of products at the baseline is not known."
    change = (
        f"{percent(abs(baseline - size), baseline)} {'below' if size <= baseline else 'above'}"
        if baseline
        else ""
    )
    why = f"SPD {size / 100:.1f} mm2, {change} the baseline of {baseline / 100:.1f} mm2 (PR: 50 % below)."
    return ("PR" if 2 * size <= baseline else "SD"), why


def _is_normal(seen: Seen | None) -> bool:
    if seen is None or seen.status in (Status.NOT_EVALUABLE, Status.PROGRESSED):
        return False
    if seen.status is Status.ABSENT or (seen.node and seen.status is Status.TOO_SMALL):
        return True
    if seen.status is Status.COALESCED:
        return seen.role is Role.TARGET
    longest = seen.long_axis_tenths
    return longest is not None and (longest <= NODE_TENTHS if seen.node else longest == 0)


def _grown(course: Course, name: str) -> str | None:
    """Return why a target progressed; None when it did not."""
    seen = course.seen(name)
    if seen is not None and seen.status is Status.PROGRESSED:
        return f"unequivocal progression of {name}."
    both = axes(seen)
    alone = [was for was in course.before(name) if was.status is not Status.COALESCED]
    past = [(one, was) for was in alone if (one := axes(was)) is not None]
    resolved = any(was.status is Status.ABSENT for was in alone)
    if seen is not None and both is None and resolved and not seen.node and _counts(seen):
        return f"{name} was gone and is there again."
    if seen is None or both is None or not past:
        return None
    if resolved and not seen.node and both[0] > EXTRANODAL_TENTHS:
        return f"{name} was gone and is there again with {mm(both[0])}."
    least = min((one for one, _ in past), key=lambda one: one[0] * one[1])
    needed = 50 if least[0] <= 200 else 100
    up = max(both[0] - least[0], both[1] - least[1])
    then, now = least[0] * least[1], both[0] * both[1]
    if both[0] <= NODE_TENTHS or 2 * now < 3 * then or up < needed:
        return None
    sizes = f"{mm(least[0])} x {mm(least[1])}, now {mm(both[0])} x {mm(both[1])}"
    share = f"PPD up by {percent(now - then, then)}" if then else "PPD up from nothing"
    return f"{name} had {sizes}: LDi above 15 mm, {share} (50 % asked), a diameter by {mm(up)} ({mm(needed)} asked)."


def non_target_response(course: Course) -> str | None:
    """Return PD, NE, NON-CR/NON-PD or CR; None without non-target lesions."""
    if not course.lesions.non_targets:
        return None
    now = [(name, course.seen(name)) for name in course.lesions.non_targets]
    for name, seen in now:
        resolved = any(was.status is Status.ABSENT for was in course.before(name))
        if seen and (seen.status is Status.PROGRESSED or (resolved and _counts(seen))):
            return "PD"
    if all(_is_normal(seen) for _, seen in now):
        return "CR"
    known = all(seen is not None and seen.status is not Status.NOT_EVALUABLE for _, seen in now)
    return "NON-CR/NON-PD" if known else "NE"


def spleen_response(course: Course) -> tuple[str, str] | None:
    """Return PD, CR, PR, SD or NE of the spleen's length, and why; None when it is not followed."""
    name = course.lesions.spleen
    if name is None:
        return None
    then = course.before(name)[0].long_axis_tenths
    lengths = [seen.long_axis_tenths for seen in course.before(name) if seen.long_axis_tenths is not None]
    seen = course.seen(name)
    now = seen.long_axis_tenths if seen else None
    if seen and seen.status is Status.PROGRESSED:
        return "PD", "unequivocal progression."
    if then is None or now is None:
        return "NE", "its length is not known."
    words = f"{mm(now)}, {mm(then)} at baseline, normal up to {mm(SPLEEN_TENTHS)}."
    if then > SPLEEN_TENTHS and 2 * (now - then) > then - SPLEEN_TENTHS:
        return "PD", f"grown by more than half of what it was too long; {words}"
    if then <= SPLEEN_TENTHS and now - then >= 200:
        return "PD", f"grown by 2 cm or more; {words}"
    if min(lengths) <= SPLEEN_TENTHS < now and now - min(lengths) >= 200:
        return "PD", f"enlarged again; {words}"
    if now <= SPLEEN_TENTHS:
        return "CR", words
    if 2 * (now - SPLEEN_TENTHS) < then - SPLEEN_TENTHS:
        return "PR", f"shrunk by more than half of what it was too long; {words}"
    return "SD", words


def _counts(seen: Seen) -> bool:
    """Whether a lesion that was not there before is progression."""
    longest = max(seen.long_axis_tenths or 0, seen.short_axis_tenths or 0)
    if seen.status is Status.PROGRESSED:
        return True
    if seen.status is Status.PRESENT and not longest:
        return True
    return seen.status in _THERE and longest > (NODE_TENTHS if seen.node else EXTRANODAL_TENTHS)


def _new(course: Course) -> Iterator[str]:
    for seen in course.now.seen:
        if course.lesions.is_new(seen) and _counts(seen):
            yield seen.lesion


def _doubts(course: Course) -> Iterator[str]:
    for seen in course.now.seen:
        if _is_spleen(seen) and course.lesions.spleen is None:
            yield "The spleen was not measured at the baseline: it is not judged."
        if course.lesions.is_new(seen) and seen.status in _THERE:
            if not _counts(seen):
                limit = mm(NODE_TENTHS if seen.node else EXTRANODAL_TENTHS)
                yield f"The new lesion {seen.lesion} is not above {limit}: it counts only when it is unequivocal."
            elif seen.role is not Role.NEW:
                yield f"{seen.lesion}, called {seen.role}, was not there at the baseline: it is a new lesion."


__all__ = ["Lesions", "baseline", "combine", "lesions", "points"]

"""Uptake of a PET as the criteria compare it: whole thousandths of g/ml, normal tissue, whether two scans compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from store.response.burden import change_percent
from store.response.history import Reference, Role, Seen, Status, Visit
from store.response.margins import Number
from store.response.organs import NO_SITE, organ
from store.response.rules import Rules

#: Steps of one g/ml.
STEPS: Final = 1000
#: Largest SULpeak that margins are looked for, thousandths of g/ml.
_MOST: Final = 200 * STEPS
#: Where the mean of a healthy liver is expected, g/ml (Boellaard, EANM, doi 10.1007/s00259-022-05977-5).
_LIVER: Final = (1300, 3000)

#: What a lesion is called that has no uptake of its own.
WITHOUT_OWN: Final = (Status.ABSENT, Status.COALESCED)


def thousandths(value: float) -> int:
    """Return a number of g/ml in whole thousandths, so that 0.8 is 0.8 when numbers are compared."""
    return round(value * STEPS)


def told(steps: int) -> str:
    """Return thousandths of g/ml in words."""
    return f"{steps / STEPS:.3f}".removesuffix("0") + " g/ml"


def change(earlier: int, later: int) -> str:
    """Return a change in per cent, in words, cut off after one digit."""
    return f"{change_percent(later, earlier):+.1f} %" if earlier else f"from nothing to {told(later)}"


def peak(seen: Seen | None) -> int | None:
    """Return the peak of a lesion in thousandths of g/ml, 0 when it is gone or coalesced; None when it is not known."""
    if seen is None or seen.status is Status.NOT_EVALUABLE:
        return None
    if seen.suv_peak is not None:
        return thousandths(seen.suv_peak)
    return 0 if seen.status in WITHOUT_OWN else None


def without_lengths(visit: Visit) -> Visit:
    """Return a visit without lengths, so that a small node with uptake is a lesion too."""
    seen = tuple(
        replace(
            one,
            long_axis_tenths=None,
            short_axis_tenths=None,
            status=Status.PRESENT if one.status is Status.TOO_SMALL else one.status,
        )
        for one in visit.seen
    )
    return replace(visit, seen=seen)


def number(seen: Seen) -> Number:
    """Return the peak of a lesion as a number whose margin is looked for."""
    return Number(
        lesion=seen.lesion,
        quantity="suv_peak",
        steps=peak(seen) or 0,
        steps_per_unit=STEPS,
        unit="g/ml",
        most=_MOST,
        standard_deviation=seen.suv_peak_sd,
    )


@dataclass(frozen=True, kw_only=True)
class Background:
    """The normal tissue that lesions are held against; thousandths of g/ml."""

    name: str
    """`liver` or `blood pool`."""
    mean: int
    """Its mean."""
    sd: int | None
    """Standard deviation inside it."""
    tenths: int
    """How many tenths of its mean a measurable lesion has, before two standard deviations are added."""

    @property
    def measurable(self) -> int:
        """Least peak of a measurable lesion: 1.5 x liver + 2 SD, or 2.0 x blood pool + 2 SD; tenths of thousandths."""
        return self.tenths * self.mean + 20 * (self.sd or 0)

    @property
    def words(self) -> str:
        """How that is reckoned, in words."""
        return (
            f"{self.tenths / 10} x {self.name} mean {told(self.mean)} + 2 x SD {told(self.sd or 0)} = "
            f"{self.measurable / 10 / STEPS:.2f} g/ml"
        )


def liver_is_diseased(visits: Iterable[Visit]) -> bool:
    """Return whether a lesion lies in the liver at one of the visits."""
    return any(
        word in seen.site.casefold()
        for visit in visits
        for seen in visit.seen
        for word in ("liver", "hepat")
        if seen.status is not Status.ABSENT
    )


def background(reference: Reference | None, *, diseased: bool) -> Background | None:
    """Return the liver, or the blood pool where the liver is diseased; the other when only that is given, or None."""
    if reference is None:
        return None
    liver = _tissue("liver", 15, reference.liver_mean, reference.liver_sd)
    pool = _tissue("blood pool", 20, reference.blood_pool_mean, reference.blood_pool_sd)
    return (pool or liver) if diseased else (liver or pool)


def _tissue(name: str, tenths: int, mean: float | None, sd: float | None) -> Background | None:
    if mean is None:
        return None
    return Background(
        name=name, mean=thousandths(mean), sd=None if sd is None else thousandths(sd), tenths=tenths
    )


def quality(reference: Reference | None) -> Iterator[str]:
    """Yield what is out of order in one scan: liver outside 1.3 to 3.0 g/ml, uptake time outside 50 to 70 minutes."""
    if reference is None:
        return
    if reference.liver_mean is not None and not _LIVER[0] <= thousandths(reference.liver_mean) <= _LIVER[1]:
        yield f"Liver mean {reference.liver_mean:.2f} g/ml lies outside 1.3 to 3.0: check dose, weight and calibration."
    minutes = reference.uptake_minutes
    if minutes is not None and not 50 <= minutes <= 70:
        yield f"Uptake time {minutes:g} minutes lies outside 50 to 70."


def incomparable(
    baseline: Reference | None, now: Reference | None, first: Background | None, second: Background | None
) -> Iterator[str]:
    """Yield why two scans do not compare: normal tissue beyond 20 % or 0.3 g/ml, uptake times beyond 15 minutes.

    These are what PERCIST asks of scans to be assessable (Wahl 2009; O, Lodge, Wahl 2016).
    """
    if first and second and first.name == second.name:
        difference = abs(second.mean - first.mean)
        if 5 * difference > first.mean or difference >= 300:
            yield (
                f"{first.name} mean {told(first.mean)} then {told(second.mean)}: not within 20 % and less than 0.3 g/ml"
            )
    times = _both(baseline, now, "uptake_minutes")
    if times and abs(times[1] - times[0]) > 15:
        yield f"uptake times {times[0]:g} and {times[1]:g} minutes differ by more than 15"


def doubtful(baseline: Reference | None, now: Reference | None) -> Iterator[str]:
    """Yield what makes two scans less comparable without forbidding it: dose beyond 20 %, another scanner."""
    doses = _both(baseline, now, "injected_mbq")
    if doses and 5 * abs(thousandths(doses[1]) - thousandths(doses[0])) > thousandths(doses[0]):
        yield f"Injected {doses[0]:g} MBq, then {doses[1]:g} MBq: more than 20 % apart."
    if baseline and now and baseline.scanner and now.scanner and baseline.scanner != now.scanner:
        yield f"Another scanner or reconstruction: {baseline.scanner}, then {now.scanner}."


def _both(one: Reference | None, other: Reference | None, name: str) -> tuple[float, float] | None:
    first, second = getattr(one, name, None), getattr(other, name, None)
    return None if first is None or second is None else (first, second)


def glycolysis(followed: Sequence[tuple[Seen, Seen | None]]) -> tuple[int, int] | None:
    """Return total lesion glycolysis then and now, of the lesions that have it at both visits; None without any."""
    then, now = 0, 0
    for was, seen in followed:
        if was.tlg is None:
            continue
        value = 0.0 if seen and seen.status in WITHOUT_OWN else seen.tlg if seen else None
        if value is None:
            return None
        then, now = then + round(was.tlg * STEPS), now + round(value * STEPS)
    return (then, now) if then else None


def hottest(seen: Sequence[Seen], rules: Rules) -> tuple[Seen, ...]:
    """Return the lesions of highest peak, hottest first: as many in all and of one organ as the rules allow.

    Lesions whose site is not known are organs of their own.
    """
    taken: list[Seen] = []
    organs: Counter[str] = Counter()
    hot = [one for one in seen if one.role is not Role.NEW and peak(one) is not None]
    for one in sorted(hot, key=lambda one: (-(peak(one) or 0), one.lesion)):
        where = organ(one.site, one.node, rules)
        where = f"lesion {one.lesion}" if where == NO_SITE else where
        if organs[where] < rules.most_targets_per_organ and len(taken) < rules.most_targets:
            organs[where] += 1
            taken.append(one)
    return tuple(taken)


__all__ = [
    "STEPS",
    "WITHOUT_OWN",
    "Background",
    "background",
    "change",
    "doubtful",
    "glycolysis",
    "hottest",
    "incomparable",
    "liver_is_diseased",
    "number",
    "peak",
    "quality",
    "thousandths",
    "told",
    "without_lengths",
]

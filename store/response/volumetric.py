"""Response by volume: sums of targets against the sphere equivalents of RECIST, and which changes are real.

0.7 of a diameter is 0.343 of a volume (-65.7 %), 1.2 is 1.728 (+72.8 %). Repeatability of a lesion in CT: coefficient
of variation within a patient 0.141, 0.103 and 0.085 for a longest diameter of 10 to 34, 35 to 49 and 50 to 100 mm (QIBA
CT tumour volume profile; the text of its claim was not at hand); beyond 1.96 sqrt(2) of it a change is real (95 %).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from store.response.burden import NODE_TENTHS, Disease, cut_off
from store.response.growth import Z_95, doubling_time
from store.response.history import History, Seen, Status, Visit
from store.response.margins import Number
from store.response.rules import USUAL, Rules
from store.response.sums import Threshold, judge_sums
from store.response.verdict import Response

#: Steps of a cubic millimetre.
_STEPS: Final = 1000
TOO_SMALL_MM3: Final = 65.45
"""A lesion too small to measure: a sphere of 5 mm."""
_TOO_SMALL: Final = round(TOO_SMALL_MM3 * _STEPS)
#: Largest volume that margins are looked for: 10 litres.
_MOST: Final = 10_000_000 * _STEPS
#: Longest diameter up to which, tenths of a millimetre, and the change that is more than repeatability, per cent.
_REPEATABILITY: Final = ((350, 39.0), (500, 29.0), (1001, 24.0))
_LEAST_TENTHS: Final = 100


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of the volume of one lesion between two visits."""

    percent: float
    """Change over the earlier volume."""
    limit_percent: float
    """A change up to here is within repeatability (95 %)."""
    basis: str
    """Where that limit comes from, in words."""

    @property
    def is_real(self) -> bool:
        """Whether the change is more than repeatability."""
        return abs(self.percent) > self.limit_percent

    @property
    def because(self) -> str:
        """The same in words."""
        beside = "more than" if self.is_real else "within"
        return f"{cut_off(self.percent):+.1f} %, {beside} repeatability ({self.limit_percent:.0f} %, {self.basis})"


def volume_change(then: Seen, now: Seen, rules: Rules = USUAL) -> Change | None:
    """Return the change of a lesion's volume and what of it repeatability explains; None unless both were measured.

    The limit is `rules.volume_change_percent`, else 1.96 standard deviations of the difference when both measurements
    bring theirs, else that of the longest diameter of the earlier one; without one, of the sphere of its volume.
    """
    before, after = _volume(then), _volume(now)
    if not before or after is None:
        return None
    percent = 100 * (after - before) / before
    if rules.volume_change_percent is not None:
        return Change(
            percent=percent, limit_percent=rules.volume_change_percent, basis="as the protocol says"
        )
    if then.volume_sd_mm3 is not None and now.volume_sd_mm3 is not None:
        spread = 100 * Z_95 * math.hypot(then.volume_sd_mm3, now.volume_sd_mm3) / before
        return Change(percent=percent, limit_percent=spread, basis="of the measurements' own uncertainties")
    tenths = then.long_axis_tenths or round(10 * (6 * before / math.pi) ** (1 / 3))
    limit = next((limit for below, limit in _REPEATABILITY if tenths < below), _REPEATABILITY[-1][1])
    basis = f"of a lesion of {tenths / 10:.1f} mm in CT"
    if not _LEAST_TENTHS <= tenths < _REPEATABILITY[-1][0]:
        basis += ", beyond the 10 to 100 mm it was found for"
    return Change(percent=percent, limit_percent=limit, basis=basis)


def _volume(seen: Seen) -> float | None:
    return seen.volume_mm3 if seen.status is Status.MEASURED else None


def _was_gone(seen: Seen) -> bool:
    return seen.status in (Status.ABSENT, Status.TOO_SMALL) or _volume(seen) == 0


class Volumes:
    """Volumes, in thousandths of a cubic millimetre."""

    criteria = "volume"
    quantity = "sum of volumes"
    unit = "mm3"
    steps_per_unit = _STEPS
    partial = Threshold(numerator=343, denominator=1000, words="65.7 % below")
    progressive = Threshold(numerator=1728, denominator=1000, words="72.8 % above")

    def steps(self, seen: Seen) -> int | None:
        """Return the volume; 0 for an absent or coalesced lesion, a sphere of 5 mm for one too small to measure."""
        if seen.status in (Status.ABSENT, Status.COALESCED):
            return 0
        if seen.volume_mm3 is not None:
            return round(seen.volume_mm3 * _STEPS)
        return _TOO_SMALL if seen.status is Status.TOO_SMALL else None

    def numbers(self, seen: Seen) -> tuple[Number, ...]:
        """Return the volume of a measured lesion."""
        volume = _volume(seen)
        if volume is None:
            return ()
        return (
            Number(
                lesion=seen.lesion,
                quantity="volume",
                steps=round(volume * _STEPS),
                steps_per_unit=_STEPS,
                unit="mm3",
                most=_MOST,
                standard_deviation=seen.volume_sd_mm3,
            ),
        )

    def moved(self, seen: Seen, steps: Sequence[int]) -> Seen:
        """Return the lesion with another volume."""
        return replace(seen, volume_mm3=steps[0] / _STEPS)

    def is_gone(self, seen: Seen) -> bool:
        """Return whether it is a node whose short axis is below 10 mm."""
        return seen.node and seen.short_axis_tenths is not None and seen.short_axis_tenths < NODE_TENTHS

    def remarks(self, course: Sequence[tuple[date, Seen]], rules: Rules) -> Iterator[str]:
        """Yield the change since baseline beside its repeatability, and the doubling time since the last volume.

        No rate goes across a visit at which the lesion was absent or too small to measure.
        """
        *past, (today, now) = course
        measured = [(day, seen) for day, seen in past if _volume(seen)]
        if not measured or not _volume(now):
            return
        since, last = measured[-1]
        found = volume_change(measured[0][1], now, rules)
        if found is not None:
            yield f"{now.lesion} since {measured[0][0]}: {found.because}."
        if any(day > since and _was_gone(seen) for day, seen in past):
            return
        doubling = doubling_time(
            _volume(last) or 0,
            _volume(now) or 0,
            (today - since).days,
            earlier_sd_mm3=last.volume_sd_mm3,
            later_sd_mm3=now.volume_sd_mm3,
        )
        yield f"{now.lesion} since {since}: {doubling.because}."

    def doubts(self, course: Sequence[Visit], known: Disease, verdict: str, rules: Rules) -> Iterator[str]:
        """Yield that repeatability alone may have made a partial response or a progression of the targets."""
        *before, now = course
        changes = []
        for seen in now.seen:
            past = [
                one for visit in before for one in visit.seen if one.lesion == seen.lesion and _volume(one)
            ]
            if seen.lesion in known.targets and past:
                least = min(past, key=lambda one: _volume(one) or 0)
                changes.append(volume_change(least if verdict == "PD" else past[0], seen, rules))
        if verdict in ("PR", "PD") and changes and not any(one is None or one.is_real for one in changes):
            yield "No target changed by more than repeatability."


def judge(history: History, rules: Rules = USUAL) -> Response:
    """Return the verdicts of a patient: CR, PR from 65.7 % below the baseline, PD from 72.8 % above the nadir, SD, NE.

    `sum` and `nadir` are sums of volumes, mm3. `because` tells of each target whether its change is more than
    repeatability, and how quickly it doubles or halves. Refuses what `in_order` refuses.
    """
    return judge_sums(history, rules, Volumes())


__all__ = ["Change", "judge", "volume_change"]

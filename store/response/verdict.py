"""What the criteria say of a patient, with the rule and the numbers that decided it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, kw_only=True)
class Margin:
    """How far one number would have to move, alone, for the verdict to be another one."""

    lesion: str
    """The lesion."""
    quantity: str
    """`long_axis`, `short_axis`, `volume`, `suv_peak`."""
    value: float
    """As measured, in `unit`."""
    change: float
    """Smallest change that gives another verdict; negative when it would have to be smaller."""
    unit: str
    """UCUM unit of both."""
    verdict: str
    """The verdict it would give."""
    standard_deviations: float | None = None
    """|change| over the number's own standard deviation; None when that is not known."""


@dataclass(frozen=True, kw_only=True)
class TimePoint:
    """The verdict of one visit."""

    date: date
    """When."""
    sum: float | None
    """What the criteria add up, in the response's unit; None when something of it was not assessed."""
    nadir: float | None
    """The smallest sum of a complete assessment before this visit, the baseline included; None at the baseline."""
    target: str | None
    """Response of the target lesions; None at the baseline and where there are none."""
    non_target: str | None
    """Response of the non-target lesions; None at the baseline and where there are none."""
    new: bool
    """Whether an unequivocal new lesion was seen by this visit."""
    overall: str | None
    """The verdict; None at the baseline."""
    because: str
    """The rule and the numbers that decided it, in words."""
    margins: tuple[Margin, ...] = ()
    """How far each number is from another verdict, nearest first."""
    doubts: tuple[str, ...] = ()
    """What a reader should know: sentences."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """The verdicts of one patient by one set of criteria."""

    patient: str
    """Who."""
    criteria: str
    """`recist1.1`, `irecist`, `percist`, `lugano`, `who` or `volume`."""
    quantity: str
    """What `sum` is, in words (`sum of diameters`)."""
    unit: str
    """UCUM unit of `sum` and `nadir`."""
    time_points: tuple[TimePoint, ...]
    """One a visit, by date."""
    best_overall: str | None
    """Best overall response without confirmation; None without a visit after the baseline."""
    best_overall_confirmed: str | None
    """Best overall response when complete and partial response need confirmation."""
    doubts: tuple[str, ...] = ()
    """What a reader should know of all of it: sentences."""
    before_baseline: int = 0
    """How many visits lie before the baseline and have no verdict: by PERCIST those before the first SULpeak."""

    @property
    def baseline(self) -> TimePoint:
        """Return the visit that the later ones are judged by."""
        return self.time_points[self.before_baseline]

    @property
    def follow_up(self) -> tuple[TimePoint, ...]:
        """Return the visits after the baseline."""
        return self.time_points[self.before_baseline + 1 :]

    def verdict_of(self, point: TimePoint) -> str:
        """Return the verdict of a visit, `baseline` at that one, `none` when the criteria give none."""
        return "baseline" if point is self.baseline else point.overall or "none"


__all__ = ["Margin", "Response", "TimePoint"]

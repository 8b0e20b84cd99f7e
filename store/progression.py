"""How long persons of a cohort go without progression: the estimate of Kaplan and Meier with its band and its table.

An event is a progression; it is dated by the visit that showed it, so that times are late by up to the gap between two
visits. By iRECIST it is the first iUPD of those that an iCPD confirms, or of several that nothing takes back (Seymour
2017). Of whom nothing of the kind was seen, no more is known than up to the last visit: censored there. Deaths are not
known to the node.
lifelines, which the tests hold this against, comes with the extra `learn`, which a node that draws pages need not have.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from store.cohort_rows import Short
from store.response.event import progression_at

Z_95: Final = 1.959963984540054
GRID_DAYS: Final = (7, 14, 28, 56, 84, 168, 364, 728, 1820, 3640)
MOST_COLUMNS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Followed:
    """How long one person was followed."""

    days: int
    """From the baseline to the progression, or to the last visit."""
    progressed: bool
    """False when censored."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The estimate from one day on, until the next step."""

    day: int
    """Days since the baseline."""
    at_risk: int
    """Who was followed up to this day at least."""
    events: int
    """Who progressed on it."""
    censored: int
    """Who was seen for the last time on it."""
    free: float
    """Share without progression, 0 to 1."""
    low: float | None
    """Its 95 % interval; None once nobody is left."""
    high: float | None
    """The same, upwards."""


@dataclass(frozen=True, kw_only=True)
class KaplanMeier:
    """An estimate of the time to progression."""

    persons: int
    """Who counts: those with a visit after the baseline."""
    events: int
    """How many of them progressed."""
    steps: tuple[Step, ...]
    """The estimate, from day 0 on."""
    median_days: int | None
    """First day at which half or fewer are without progression; None when that is not reached."""

    def at(self, day: int) -> Step:
        """Return the estimate at a day."""
        return next(step for step in reversed(self.steps) if step.day <= day)

    @property
    def table(self) -> tuple[tuple[int, int, Step], ...]:
        """Return day, number at risk and estimate at up to eight days that are round."""
        last = self.steps[-1].day
        width = next((days for days in GRID_DAYS if last <= days * (MOST_COLUMNS - 1)), max(last, 1))
        return tuple(
            (day, sum(step.events + step.censored for step in self.steps if step.day >= day), self.at(day))
            for day in range(0, last + 1, width)
        )


def followed(course: Short) -> Followed | None:
    """Return how long a person was followed; None without a visit after the baseline."""
    if not course.verdicts:
        return None
    place = progression_at([verdict for _, verdict in course.verdicts])
    if place is None:
        return Followed(days=course.days, progressed=False)
    return Followed(days=course.verdicts[place][0], progressed=True)


def kaplan_meier(times: Iterable[Followed]) -> KaplanMeier | None:
    """Return the product-limit estimate (Kaplan and Meier 1958); None of nobody.

    The band is Greenwood's variance on the scale log(-log), so that it stays within 0 and 1 (Kalbfleisch and Prentice).
    Who is censored on a day counts as at risk on it.
    """
    known = list(times)
    events = Counter(one.days for one in known if one.progressed)
    censored = Counter(one.days for one in known if not one.progressed)
    at_risk, free, variance = len(known), 1.0, 0.0
    if not known:
        return None
    steps = []
    for day in sorted({0, *events, *censored}):
        if died := events[day]:
            free *= 1 - died / at_risk
            variance = math.inf if died == at_risk else variance + died / (at_risk * (at_risk - died))
        low, high = _band(free, variance)
        steps.append(
            Step(day=day, at_risk=at_risk, events=died, censored=censored[day], free=free, low=low, high=high)
        )
        at_risk -= died + censored[day]
    return KaplanMeier(
        persons=len(known),
        events=events.total(),
        steps=tuple(steps),
        median_days=next((step.day for step in steps if step.free < 0.5 + 1e-9), None),
    )


def _band(free: float, variance: float) -> tuple[float | None, float | None]:
    if free >= 1:
        return 1.0, 1.0
    if math.isinf(variance):
        return None, None
    width = Z_95 * math.sqrt(variance) / math.log(free)
    return free ** math.exp(-width), free ** math.exp(width)


__all__ = ["Followed", "KaplanMeier", "Step", "followed", "kaplan_meier"]

"""Many patients at once: who responded how well, and for how long they were followed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from importlib.metadata import version
from itertools import pairwise

from store.response.event import progression_at
from store.response.verdict import Response


@dataclass(frozen=True, kw_only=True)
class Followed:
    """One patient's course in short."""

    patient: str
    """Who."""
    baseline: date
    """Date of the baseline."""
    best_percent: float | None
    """Change of the smallest sum up to the progression to the baseline; None when sums are not known."""
    best_overall: str
    """Best overall response; empty when there is none yet."""
    best_overall_confirmed: str
    """The same when responses need confirmation."""
    verdicts: tuple[tuple[int, str], ...]
    """Days since the baseline and the verdict, for each visit after it."""
    new_days: tuple[int, ...] = ()
    """Days since the baseline at which an unequivocal new lesion was first told."""

    @property
    def days(self) -> int:
        """Return the days from the baseline to the last visit."""
        return self.verdicts[-1][0] if self.verdicts else 0

    @property
    def progressed(self) -> bool:
        """Return whether there was a progression that counts; by iRECIST one that was not taken back."""
        return progression_at([verdict for _, verdict in self.verdicts]) is not None


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Patients judged by one set of criteria."""

    criteria: str
    """Name of the criteria."""
    quantity: str
    """What the sums are, in words."""
    followed: tuple[Followed, ...]
    """The patients with a visit after the baseline, as they came."""
    left_out: tuple[str, ...]
    """Patients with no visit after the baseline."""
    software: str
    """Nadir and its version."""
    made_at: datetime
    """When, aware."""

    @property
    def by_change(self) -> tuple[Followed, ...]:
        """Return the patients whose change is known, from the largest growth to the largest shrinkage."""
        known = [one for one in self.followed if one.best_percent is not None]
        return tuple(sorted(known, key=lambda one: (-(one.best_percent or 0.0), one.patient)))

    @property
    def largest_percent(self) -> float:
        """Return the largest growth, 0 when nobody's sum grew."""
        return max([0.0, *(one.best_percent or 0.0 for one in self.followed)])

    @property
    def by_time(self) -> tuple[Followed, ...]:
        """Return the patients, those followed longest first."""
        return tuple(sorted(self.followed, key=lambda one: (-one.days, one.patient)))


def cohort_of(
    responses: Iterable[Response], *, criteria: str, made_at: datetime, software: str | None = None
) -> Cohort:
    """Return what charts of a cohort show; the responses are those of one set of criteria, and none is kept."""
    quantity, judged, left_out = None, [], []
    for one in responses:
        quantity = one.quantity if quantity is None else quantity
        if one.follow_up:
            judged.append(followed(one))
        else:
            left_out.append(one.patient)
    return Cohort(
        criteria=criteria,
        quantity=quantity or "",
        followed=tuple(judged),
        left_out=tuple(left_out),
        software=software or f"Nadir {version('nadir')}",
        made_at=made_at,
    )


def followed(response: Response) -> Followed:
    """Return a course with a visit after the baseline in short."""
    first, later = response.baseline, response.follow_up
    judged = [((p.date - first.date).days, p.overall) for p in later if p.overall]
    progression = progression_at([p.overall or "" for p in later])
    ends = len(later) if progression is None else progression + 1
    return Followed(
        patient=response.patient,
        baseline=first.date,
        best_percent=_best(first.sum, (p.sum for p in later[:ends])),
        best_overall=response.best_overall or "",
        best_overall_confirmed=response.best_overall_confirmed or "",
        verdicts=tuple(judged),
        new_days=tuple(
            (point.date - first.date).days
            for before, point in pairwise((first, *later))
            if point.new and not before.new
        ),
    )


def _best(baseline: float | None, sums: Iterable[float | None]) -> float | None:
    known = [total for total in sums if total is not None]
    return 100 * (min(known) - baseline) / baseline if known and baseline else None


__all__ = ["Cohort", "Followed", "cohort_of", "followed"]

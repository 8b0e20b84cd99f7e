"""How sure a figure is: intervals by drawing whole patients with replacement.

Lesions of one patient resemble each other, so patients are drawn, never cases: a patient that is drawn twice brings
each of its cases twice. The interval is the percentile one. Source: Efron and Tibshirani 1993, chapter 13; Field and
Welsh 2007 for clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Index = NDArray[np.intp]
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure, and where it would lie had other patients of the same kind been looked at."""

    value: float
    """The figure on all cases."""
    low: float | None
    """Lower end; None where no interval can be had (one patient, or a figure that most draws leave undefined)."""
    high: float | None
    """Upper end."""
    cases: int
    """Cases that it rests on."""
    patients: int
    """Patients that they belong to."""

    def plain(self) -> dict[str, float | int | None]:
        """Return it as JSON has it."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "cases": self.cases,
            "patients": self.patients,
        }


def interval(
    statistic: Callable[[Index], float],
    patients: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval | None:
    """Return a statistic of cases with its interval; None when there are no cases or it is undefined on them.

    `statistic` is given the indices of cases (with repeats) and returns NaN where it is undefined; `patients` says
    whose each case is. Equal input gives equal intervals. Draws on which the statistic is undefined are left out;
    when those are more than one in twenty no interval is told.
    """
    if not len(patients):
        return None
    codes = np.unique(np.asarray(patients), return_inverse=True)[1]
    people = int(codes.max()) + 1
    order = np.arange(len(codes))
    value = float(statistic(order))
    if not np.isfinite(value):
        return None
    low = high = None
    if people > 1:
        random = np.random.default_rng(seed)
        times = (
            np.bincount(random.integers(people, size=people), minlength=people) for _ in range(resamples)
        )
        found = np.array([statistic(np.repeat(order, drawn[codes])) for drawn in times])
        defined = found[np.isfinite(found)]
        if defined.size >= 0.95 * resamples:
            low, high = (float(q) for q in np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]))
    return Interval(value=value, low=low, high=high, cases=len(codes), patients=people)


def summary(
    values: Sequence[float | None] | Values,
    patients: Sequence[str],
    statistic: Callable[[Values], float] = np.mean,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval | None:
    """Return a statistic (the mean by default) of one value per case; cases without one (None, NaN) are left out."""
    all_values = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    kept = np.isfinite(all_values)
    there = all_values[kept]
    whose = [p for p, k in zip(patients, kept, strict=True) if k]
    return interval(lambda i: float(statistic(there[i])), whose, resamples=resamples, level=level, seed=seed)


__all__ = ["Interval", "interval", "summary"]

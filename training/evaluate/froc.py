"""Free-response ROC: how many lesions are found, against how many false positives a scan costs.

A candidate finds the nearest lesion whose centre it is no further from than that lesion's radius. A lesion counts once,
with its best candidate; further candidates in it, and candidates in what does not count, are neither hits nor false
positives. Source: the rules of LUNA16 (Setio 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import RESAMPLES, Index, Interval, interval
from training.evaluate.judged import SearchedCase

Values = NDArray[np.float64]
RATES = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """The events of one scan."""

    found: Values
    """Best score of each lesion that counts; -inf for a lesion that no candidate lies in."""
    false: Values
    """Score of each false positive."""


def hits(case: SearchedCase) -> Hits:
    """Return which candidates of a scan are hits and which are false."""
    centres = np.array([lesion.centre_mm for lesion in case.lesions], dtype=np.float64).reshape(-1, 3)
    radii = np.array([lesion.radius_mm for lesion in case.lesions], dtype=np.float64)
    found = np.full(len(case.lesions), -np.inf)
    false = []
    for candidate in case.candidates:
        away = np.linalg.norm(centres - np.asarray(candidate.at_mm), axis=1)
        inside = np.where(away <= radii, away, np.inf)
        if inside.size and np.isfinite(inside.min()):
            nearest = int(np.argmin(inside))
            found[nearest] = max(found[nearest], candidate.score)
        else:
            false.append(candidate.score)
    counts = np.array([lesion.counts for lesion in case.lesions], dtype=np.bool_)
    return Hits(found=found[counts], false=np.array(false, dtype=np.float64))


def ceiling(scans: Sequence[Hits]) -> float:
    """Return the part of the lesions in which any candidate lies, however low its score; NaN when no lesion counts."""
    found = np.concatenate([s.found for s in scans])
    return float(np.isfinite(found).mean()) if found.size else float("nan")


def level_at(scans: Sequence[Hits], rate: float) -> float:
    """Return the lowest score from which there are at most `rate` false positives per scan; -inf when all may stay."""
    false = np.sort(np.concatenate([s.false for s in scans]))[::-1]
    allowed = int(rate * len(scans))
    return float(np.nextafter(false[allowed], np.inf)) if allowed < false.size else float("-inf")


def curve(scans: Sequence[Hits]) -> tuple[Values, Values]:
    """Return false positives per scan and sensitivity at every threshold, strictest first, both from (0, 0) on.

    Raises ValueError when no lesion counts.
    """
    found = np.concatenate([s.found for s in scans])
    false = np.sort(np.concatenate([s.false for s in scans]))
    if not found.size:
        raise ValueError("no lesion counts in these scans, so there is no sensitivity")
    reached = np.sort(found[np.isfinite(found)])
    thresholds = np.unique(np.concatenate([reached, false]))[::-1]
    sensitivity = (reached.size - np.searchsorted(reached, thresholds)) / found.size
    rate = (false.size - np.searchsorted(false, thresholds)) / len(scans)
    return np.concatenate([[0.0], rate]), np.concatenate([[0.0], sensitivity])


def sensitivity_at(scans: Sequence[Hits], rate: float) -> float:
    """Return the best sensitivity at no more than `rate` false positives per scan; NaN when no lesion counts."""
    if not any(s.found.size for s in scans):
        return float("nan")
    rates, sensitivity = curve(scans)
    return float(sensitivity[rates <= rate].max())


def operating_points(
    cases: Sequence[SearchedCase],
    rates: Sequence[float] = RATES,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[float, Interval | None]:
    """Return the sensitivity at each rate of false positives per scan, with intervals over patients."""
    scans = [hits(case) for case in cases]
    patients = [case.patient_id for case in cases]

    def at(rate: float) -> Interval | None:
        def statistic(index: Index) -> float:
            return sensitivity_at([scans[i] for i in index], rate)

        return interval(statistic, patients, resamples=resamples, seed=seed)

    return {rate: at(rate) for rate in rates}


__all__ = ["RATES", "Hits", "ceiling", "curve", "hits", "level_at", "operating_points", "sensitivity_at"]

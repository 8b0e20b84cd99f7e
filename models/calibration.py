"""Whether a probability means what it says: temperature, reliability, expected calibration error.

Logits and probabilities of voxels, flat or `(K, R, C)`, one array per case. Everything is judged in the region around
a lesion: over a whole volume the easy background makes any model look calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]

FEWEST_CASES = 30
"""Below this many cases a rank correlation is not reported."""


def lesion_region(mask: BoolArray, spacing_mm: Spacing, margin_mm: float = 5.0) -> BoolArray:
    """Return the mask and all within `margin_mm` of it, boolean `(K, R, C)`: where calibration is judged.

    An empty mask has an empty region.
    """
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.bool_)
    near: BoolArray = ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= margin_mm
    return near


def tempered(logits: FloatArray, temperature: float) -> FloatArray:
    """Return the probabilities `sigmoid(logits / temperature)`, shaped as the logits."""
    p: FloatArray = special.expit(logits / temperature)
    return p


def fit_temperature(logits: Sequence[FloatArray], targets: Sequence[BoolArray]) -> float:
    """Return the temperature with the smallest negative log-likelihood, each case counting alike.

    One array per case, already cut to the lesion region. The likelihood is convex in 1 / temperature, so there is one
    minimum; it is looked for between 0.05 and 20. Source: Guo 2017; in a lesion region Mehrtash 2020.
    Raises ValueError when there is no voxel.
    """
    cases = [(z.ravel(), t.ravel()) for z, t in zip(logits, targets, strict=True) if z.size]
    if not cases:
        raise ValueError("no voxel to fit a temperature on: the lesion regions are empty")
    from scipy import optimize  # here, because whoever only draws would wait a third of a second for it

    def loss(log_temperature: float) -> float:
        return float(np.mean([negative_log_likelihood(z / math.exp(log_temperature), t) for z, t in cases]))

    found = optimize.minimize_scalar(loss, bounds=(math.log(0.05), math.log(20.0)), method="bounded")
    return float(math.exp(found.x))


LEAST_PROBABILITY = 1e-4


def scaled_logit(probability: FloatArray, slope: float, shift: float) -> NDArray[np.float32]:
    """Return the probabilities `sigmoid(slope logit(p) + shift)`, p at least 1e-4 off 0 and 1; shaped as they are."""
    return np.asarray(special.expit(slope * _logit(probability) + shift), dtype=np.float32)


def fit_scale(probabilities: Sequence[FloatArray], targets: Sequence[BoolArray]) -> tuple[float, float]:
    """Return slope and shift for `scaled_logit` with the smallest negative log-likelihood, each case counting alike.

    One array per case, already cut to the lesion region: parts of lesions that nobody can see make a shift necessary
    there, which a temperature alone has not. The likelihood is convex. Source: Platt 1999.
    Raises ValueError when there is no voxel.
    """
    cases = [(_logit(p.ravel()), t.ravel()) for p, t in zip(probabilities, targets, strict=True) if p.size]
    if not cases:
        raise ValueError("no voxel to fit a scale on: the lesion regions are empty")
    from scipy import optimize  # here, because whoever only draws would wait a third of a second for it

    def loss(scale: NDArray[np.float64]) -> float:
        return float(np.mean([negative_log_likelihood(z * scale[0] + scale[1], t) for z, t in cases]))

    slope, shift = optimize.minimize(loss, (1.0, 0.0), bounds=((0.05, 20.0), (-20.0, 20.0))).x
    return float(slope), float(shift)


def _logit(probability: FloatArray) -> FloatArray:
    logits: FloatArray = special.logit(np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
    return logits


def negative_log_likelihood(logits: FloatArray, target: BoolArray) -> float:
    """Return the mean negative log-likelihood of the voxels, nats."""
    signed = np.where(target, logits, -logits)
    return float(np.mean(np.logaddexp(0.0, -signed)))


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How often voxels of like probability were lesion: a reliability diagram, and sums that can be added up."""

    count: NDArray[np.int64]
    """Voxels in each bin; the bins are of equal width from 0 to 1."""
    probability: NDArray[np.float64]
    """Sum of the probabilities in each bin."""
    lesion: NDArray[np.int64]
    """Voxels in each bin that were lesion."""

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            count=self.count + other.count,
            probability=self.probability + other.probability,
            lesion=self.lesion + other.lesion,
        )

    @property
    def points(self) -> NDArray[np.float64]:
        """Mean probability, fraction that was lesion and voxels of each bin that is not empty, `(B, 3)`."""
        some = self.count > 0
        n = self.count[some]
        return np.stack([self.probability[some] / n, self.lesion[some] / n, n], axis=1).astype(np.float64)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1: the mean gap between probability and frequency; NaN without voxels."""
        total = int(self.count.sum())
        return float(np.abs(self.probability - self.lesion).sum() / total) if total else math.nan


def reliability(probability: FloatArray, target: BoolArray, bins: int = 15) -> Reliability:
    """Return the reliability of the voxels of one case, cut to the lesion region; add cases up with `+`.

    Bins go by the probability of lesion, not by that of the likelier class, which would hide a bias toward either.
    Refuses (ValueError) what is no probability.
    """
    p, t = probability.ravel().astype(np.float64), target.ravel()
    if p.size and not (p.min() >= 0.0 and p.max() <= 1.0):
        raise ValueError("probabilities lie between 0 and 1")
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    return Reliability(
        count=np.bincount(place, minlength=bins),
        probability=np.bincount(place, weights=p, minlength=bins).astype(np.float64),
        lesion=np.bincount(place[t], minlength=bins),
    )


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A rank correlation over cases with its bootstrap interval."""

    rho: float
    low: float
    high: float
    cases: int


def uncertainty_error(
    uncertainty: FloatArray,
    dice: FloatArray,
    patients: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Return Spearman's rho of case uncertainty and 1 - Dice; the interval is of resampled patients (percentiles).

    All are `(N,)`; an infinite uncertainty is the largest. NaN when all cases are equally uncertain or equally right.
    Refuses (ValueError) fewer than 30 cases, and NaN among them.
    """
    u, error = np.asarray(uncertainty, np.float64), 1.0 - np.asarray(dice, np.float64)
    if len(u) < FEWEST_CASES:
        raise ValueError(f"{len(u)} cases are too few for a correlation; {FEWEST_CASES} are needed")
    if np.isnan(u).any() or np.isnan(error).any():
        raise ValueError("an uncertainty or a Dice is not a number")
    _, of = np.unique(np.asarray(patients), return_inverse=True)
    count = int(of.max()) + 1
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=resamples)
    drawn = _spearman(u, error, times[:, of])
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if known.size else (math.nan, math.nan)
    rho = float(_spearman(u, error, np.ones((1, len(u)), dtype=np.int64))[0])
    return Correlation(rho=rho, low=float(low), high=float(high), cases=len(u))


def error_auroc(uncertainty: FloatArray, wrong: BoolArray) -> float:
    """Return how often a wrong voxel is more uncertain than a right one, 0 to 1 (ties half); NaN when all are alike.

    Both of one shape, cut to the lesion region. Source: the area under the ROC curve as Mann and Whitney's U.
    """
    from scipy import stats

    w = wrong.ravel()
    n, m = int(w.sum()), int((~w).sum())
    if not n or not m:
        return math.nan
    return float((stats.rankdata(uncertainty.ravel())[w].sum() - n * (n + 1) / 2) / (n * m))


def _spearman(a: FloatArray, b: FloatArray, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the rank correlation `(B,)` when case n is there `times[:, n]` times; NaN when either is all the same."""
    middle = (times.sum(axis=1, keepdims=True) + 1) / 2
    x, y = _ranks(a, times) - middle, _ranks(b, times) - middle
    size = np.sqrt((times * x * x).sum(axis=1) * (times * y * y).sum(axis=1))
    with np.errstate(invalid="ignore"):
        rho: NDArray[np.float64] = (times * x * y).sum(axis=1) / size
    return rho


def _ranks(values: FloatArray, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the rank of each case `(B, N)`, ties the middle of theirs, when cases are there several times."""
    order = np.argsort(values, kind="stable")
    _, first, group = np.unique(values[order], return_index=True, return_inverse=True)
    alike = np.add.reduceat(times[:, order], first, axis=1)
    middle = np.cumsum(alike, axis=1) - alike + (alike + 1) / 2
    ranks = np.empty(times.shape)
    ranks[:, order] = middle[:, group]
    return ranks

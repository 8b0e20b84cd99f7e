"""Intervals that hold as often as they say: split conformal prediction of a lesion's volume and diameters.

Numbers in, numbers out: a prediction and what was measured by a reader, for cases that the model has not learned from.
The promise (coverage of at least 1 - alpha) is for new cases that are exchangeable with those; it is over all cases
of a group, not for each kind of lesion. Source: Vovk 2005; Lei 2018; Mondrian groups: Vovk 2012.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Kind = Literal["log", "absolute"]


def conformal_quantile(scores: ArrayLike, alpha: float) -> float:
    """Return the ceil((n + 1)(1 - alpha))-th smallest score; infinite when n is too small to promise anything."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    rank = math.ceil((len(ordered) + 1) * (1.0 - alpha) - 1e-9)
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


@dataclass(frozen=True, kw_only=True)
class ConformalInterval:
    """How far what a reader measures lies from what the model predicts, by size of the prediction.

    `log`: the score is |log predicted - log measured| / scale, the interval predicted x exp(+-q scale), for volumes.
    `absolute`: |predicted - measured| / scale, the interval predicted +- q scale, for lengths. `scale` is 1 unless a
    caller gives each case its own (its uncertainty, so that doubtful cases get wider intervals).
    """

    kind: Kind
    alpha: float
    edges: tuple[float, ...]
    """Where one group ends and the next begins, in units of the prediction: known before the truth is."""
    quantiles: tuple[float, ...]
    """One per group, `len(edges) + 1`; infinite where there were too few cases."""
    cases: tuple[int, ...]
    """How many cases each quantile is of."""

    def interval(self, predicted: ArrayLike, scale: ArrayLike = 1.0) -> tuple[Array, Array]:
        """Return the lower and upper ends, shaped as `predicted`; lengths do not go below 0.

        A prediction of 0 (nothing was drawn) has the interval from 0 to infinity.
        """
        p, s = np.broadcast_arrays(np.asarray(predicted, np.float64), np.asarray(scale, np.float64))
        reach = np.asarray(self.quantiles)[np.searchsorted(self.edges, p, side="right")] * s
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = (
                (p * np.exp(-reach), p * np.exp(reach)) if self.kind == "log" else (p - reach, p + reach)
            )
        return np.where(p > 0, np.maximum(low, 0.0), 0.0), np.where(p > 0, high, math.inf)

    def coverage(self, predicted: ArrayLike, measured: ArrayLike, scale: ArrayLike = 1.0) -> Coverage:
        """Return how often the measured values, which the quantiles have not seen, lie in their intervals.

        A case in which nothing was drawn counts as missed, as in `fit_interval`.
        """
        low, high = self.interval(predicted, scale)
        truth = np.asarray(measured, np.float64)
        return Coverage.of((low <= truth) & (truth <= high) & (np.asarray(predicted) > 0))

    def as_card(self) -> dict[str, Any]:
        """Return plain JSON for the model's card; an infinite quantile is null."""
        finite = [q if math.isfinite(q) else None for q in self.quantiles]
        groups = {"edges": list(self.edges), "quantiles": finite, "cases": list(self.cases)}
        return {"kind": self.kind, "alpha": self.alpha, **groups}

    @staticmethod
    def of_card(card: Mapping[str, Any]) -> ConformalInterval:
        """Return what `as_card` wrote; raises KeyError, TypeError or ValueError for anything else."""
        edges, quantiles = tuple(map(float, card["edges"])), card["quantiles"]
        if card["kind"] not in ("log", "absolute") or len(quantiles) != len(edges) + 1:
            raise ValueError("a conformal interval has a kind, edges, and one quantile more than edges")
        return ConformalInterval(
            kind=card["kind"],
            alpha=float(card["alpha"]),
            edges=edges,
            quantiles=tuple(math.inf if q is None else float(q) for q in quantiles),
            cases=tuple(map(int, card["cases"])),
        )


def fit_interval(
    predicted: ArrayLike,
    measured: ArrayLike,
    *,
    kind: Kind,
    alpha: float = 0.1,
    edges: Sequence[float] = (),
    scale: ArrayLike = 1.0,
) -> ConformalInterval:
    """Return the interval whose quantiles are those of these cases `(N,)`, each group of predicted size apart.

    A case in which nothing was drawn has an infinite score: it counts as missed, it does not go away.
    Refuses (ValueError) measured values of a `log` interval that are not above 0, and edges that do not rise.
    """
    p, t = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if kind == "log" and not (t > 0).all():
        raise ValueError("a measured volume is not above 0: it has no logarithm")
    if list(edges) != sorted(set(edges)):
        raise ValueError(f"the edges of the size groups do not rise: {list(edges)}")
    with np.errstate(divide="ignore"):
        error = np.abs(np.log(p) - np.log(t)) if kind == "log" else np.abs(p - t)
    scores = np.where(p > 0, error / np.asarray(scale, np.float64), math.inf)
    group = np.searchsorted(np.asarray(edges, np.float64), p, side="right")
    members = [scores[group == g] for g in range(len(edges) + 1)]
    return ConformalInterval(
        kind=kind,
        alpha=alpha,
        edges=tuple(map(float, edges)),
        quantiles=tuple(conformal_quantile(m, alpha) for m in members),
        cases=tuple(len(m) for m in members),
    )


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many intervals held what they promised, with the exact binomial (Clopper-Pearson) 95 % interval."""

    covered: int
    cases: int
    low: float
    high: float

    @property
    def fraction(self) -> float:
        """The covered part, 0 to 1."""
        return self.covered / self.cases

    @staticmethod
    def of(hits: NDArray[np.bool_]) -> Coverage:
        """Return the coverage of `(N,)` cases, N at least 1; cases of one patient are taken as independent."""
        from scipy import stats

        exact = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="exact")
        return Coverage(
            covered=int(hits.sum()), cases=len(hits), low=float(exact.low), high=float(exact.high)
        )

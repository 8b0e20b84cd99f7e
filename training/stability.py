"""Whether two samples are of one kind: population stability index, Kolmogorov and Smirnov, Benjamini and Hochberg.

The population stability index (PSI) of shares p before and q now is the sum of (q - p) ln(q / p). By the rule of thumb
of credit scoring, less than 0.1 is stable and more than 0.25 is not (Siddiqi 2006). In samples of n and m it is not 0
without drift, but about (B - 1)(1/n + 1/m) for B bins, distributed as chi-square of B - 1 degrees of freedom times
(1/n + 1/m) (Yurdakul 2018, Statistical Properties of Population Stability Index): 20 against 20 in ten bins exceed the
rule of thumb by chance. So two things are told: the PSI beyond what chance gives, and how often chance gives as much.
Both are found by dealing the cases anew to the two sides (a permutation test), which holds for rare categories as well,
and for histograms, whose voxels are no sample: there a case is a study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Counts = NDArray[np.int64]
FLOOR: Final = 1e-3
"""Share that every bin of a histogram has on top, so that a rare value does not count without bound."""
DEALT: Final = (19, 199, 4999)
"""How often the cases are dealt anew: at first, and further on as long as it may be an alarm."""
EXCEEDED: Final = 2
"""Reached by chance more often than this, an index is not dealt for any further."""
AT_ONCE: Final = 500


def psi(before: Values, now: Values) -> Values:
    """Return the PSI of shares `(..., B)`, all above 0 and with the sum 1 in the last axis."""
    index: Values = ((now - before) * np.log(now / before)).sum(axis=-1)
    return index


def shares(counts: Counts) -> Values:
    """Return the shares of counts `(..., B)`, half a case added to each (Jeffreys), so that none is 0."""
    return np.asarray((counts + 0.5) / (counts.sum(axis=-1, keepdims=True) + 0.5 * counts.shape[-1]))


def ks(before: Values, now: Values) -> tuple[float, float]:
    """Return the largest distance of two empirical distributions, and its asymptotic p (too large where many tie)."""
    from scipy.stats import ks_2samp

    found = ks_2samp(before, now, method="asymp")
    return float(found.statistic), float(found.pvalue)


def benjamini_hochberg(p: Sequence[float], rate: float) -> tuple[bool, ...]:
    """Return which of these p values pass: of those, at most `rate` are false on average (1995)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    passing = max((n for n, i in enumerate(order, start=1) if p[i] <= rate * n / len(p)), default=0)
    return tuple(i in set(order[:passing]) for i in range(len(p)))


def category_shift(
    before: Sequence[str], now: Sequence[str], limit: float, random: np.random.Generator
) -> tuple[float, float]:
    """Return the PSI of categories beyond chance, and its p."""
    names = sorted({*before, *now})
    number = {name: i for i, name in enumerate(names)}
    first, second = (
        np.bincount([number[v] for v in side], minlength=len(names)).astype(np.int64)
        for side in (before, now)
    )
    total = first + second

    def dealt(times: int) -> Values:
        drawn = random.multivariate_hypergeometric(total, len(now), size=times, method="marginals")
        return psi(shares(total - drawn), shares(drawn))

    return _beyond_chance(float(psi(shares(first), shares(second))), dealt, limit)


def histogram_shift(
    before: Values, now: Values, limit: float, random: np.random.Generator
) -> tuple[float, float]:
    """Return the PSI of mean histograms beyond chance, and its p; both sides `(cases, B)`, the shares of each case."""
    cases = np.concatenate([before, now])
    total = cases.sum(axis=0)

    def index(sums: Values) -> Values:
        sides = (total - sums) / len(before), sums / len(now)
        floored = [(side + FLOOR) / (side + FLOOR).sum(axis=-1, keepdims=True) for side in sides]
        return psi(floored[0], floored[1])

    def dealt(times: int) -> Values:
        out = []
        for start in range(0, times, AT_ONCE):
            ranks = random.random((min(AT_ONCE, times - start), len(cases)))
            chosen = np.argpartition(ranks, len(now) - 1, axis=1)[:, : len(now)]
            is_now = np.zeros(ranks.shape)
            np.put_along_axis(is_now, chosen, 1.0, axis=1)
            out.append(index(is_now @ cases))
        return np.concatenate(out)

    return _beyond_chance(float(index(now.sum(axis=0))), dealt, limit)


def _beyond_chance(found: float, dealt: Callable[[int], Values], limit: float) -> tuple[float, float]:
    """Return how far an index lies above its mean by chance, and its p; a fine one only where it matters."""
    value, p = 0.0, 1.0
    for times in DEALT:
        by_chance = dealt(times)
        reached = int((by_chance >= found - 1e-12).sum())
        value, p = max(0.0, found - float(by_chance.mean())), (1.0 + reached) / (1.0 + times)
        if value < limit or reached > EXCEEDED:
            break
    return value, p


__all__ = ["benjamini_hochberg", "category_shift", "histogram_shift", "ks", "psi", "shares"]

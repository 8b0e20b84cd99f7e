"""Two models on the same cases: the difference of a figure, and how sure it is, by drawing patients with replacement.

A patient is drawn with all of his cases and with what both models said of them, so that what makes a case hard falls
out of the difference. The interval is the percentile one of `bootstrap`, and the draws are the same. Source: Efron
and Tibshirani 1993, chapters 13 and 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from plugins.errors import Refused
from training.evaluate.bootstrap import LEVEL, RESAMPLES, Interval
from training.evaluate.drawn import Row

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Challenger minus champion."""

    interval: Interval
    """The difference and where it lies."""
    champion: float
    """The champion's figure on these cases."""
    challenger: float
    """The challenger's."""
    p_fell: float
    """One-sided p of no fall: small when it surely fell. 1 when it did not fall, or there is one patient."""
    p_rose: float
    """One-sided p of no rise, likewise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """One case in one setting, drawn by both."""

    champion: Row
    """What was measured of the champion."""
    challenger: Row
    """What was measured of the challenger."""

    def change(self, name: str) -> float | None:
        """Return challenger minus champion of a figure; None where one of them has none."""
        was, now = self.champion.figures[name], self.challenger.figures[name]
        return None if was is None or now is None else now - was


def pairs(champion: Sequence[Row], challenger: Sequence[Row]) -> tuple[Pair, ...]:
    """Return the rows side by side, sorted by setting and case.

    Refuses `no-cases`, `unequal-holdout` (not the same cases, of the same patients, in the same settings, each once)
    and `unequal-truth` (a case of the same name has another truth): two models are judged on one frozen hold-out.
    """
    sides = [{(row.setting, row.case_id): row for row in rows} for rows in (champion, challenger)]
    if not champion and not challenger:
        raise Refused("no-cases", "the hold-out has no cases: there is nothing to judge the models on")
    if len(sides[0]) < len(champion) or len(sides[1]) < len(challenger):
        raise Refused("unequal-holdout", "a case of the hold-out was judged twice in one setting")
    if apart := sorted(sides[0].keys() ^ sides[1].keys()):
        setting, case_id = apart[0]
        raise Refused(
            "unequal-holdout",
            f"champion and challenger were not put to the same cases: {len(apart)} belong to one of them only, "
            f"the first is {case_id} ({setting})",
        )
    found = tuple(Pair(champion=sides[0][key], challenger=sides[1][key]) for key in sorted(sides[0]))
    for pair in found:
        was, now = pair.champion, pair.challenger
        if was.patient_id != now.patient_id:
            raise Refused("unequal-holdout", f"case {was.case_id} belongs to two patients")
        if was.figures["truth_ml"] != now.figures["truth_ml"]:
            raise Refused("unequal-truth", f"case {was.case_id} had another truth for each of the two models")
    return found


def difference(
    champion: Values,
    challenger: Values,
    patients: Sequence[str],
    statistic: Callable[[Values], Values] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Difference | None:
    """Return the difference of a statistic of the mean over cases; None when there are no cases.

    `champion` and `challenger` are `(N,)`, or `(N, M)` when the statistic is made of several sums; `statistic` takes
    the means `(B, M)` and gives `(B,)`; without one it is the mean itself. The order of the cases changes nothing.
    """
    if not len(patients):
        return None
    names, codes = np.unique(np.asarray(patients), return_inverse=True)
    people, made = len(names), statistic or (lambda means: means[:, 0])
    both = [np.reshape(one, (len(codes), -1)).astype(np.float64) for one in (champion, challenger)]
    count = np.bincount(codes, minlength=people).astype(np.float64)
    sums = [
        np.stack([np.bincount(codes, weights=column, minlength=people) for column in one.T], axis=1)
        for one in both
    ]
    whole = [float(made(one.sum(axis=0, keepdims=True) / count.sum())[0]) for one in sums]
    value = whole[1] - whole[0]
    low = high = None
    p_fell = p_rose = 1.0
    if people > 1:
        times = _times(people, resamples, seed)
        cases = (times @ count)[:, None]
        found = made(times @ sums[1] / cases) - made(times @ sums[0] / cases)
        low, high = (float(q) for q in np.quantile(found, [(1 - level) / 2, (1 + level) / 2]))
        p_fell, p_rose = (_p(signed, float(found.std()), people) for signed in (value, -value))
    return Difference(
        interval=Interval(value=value, low=low, high=high, cases=len(codes), patients=people),
        champion=whole[0],
        challenger=whole[1],
        p_fell=p_fell,
        p_rose=p_rose,
    )


def _p(value: float, deviation: float, people: int) -> float:
    """Return the one-sided p of a difference that is no less than 0, of Student's t with one degree less than patients.

    The standard error is the deviation of the draws, which is too small by the root of (people - 1) / people.
    """
    if value >= 0:
        return 1.0
    if deviation == 0:
        return 0.0
    t = value / (deviation * math.sqrt(people / (people - 1)))
    return float(special.stdtr(people - 1, t))


def _times(people: int, resamples: int, seed: int) -> Values:
    """Return how often each patient is drawn, `(B, P)`."""
    drawn = np.random.default_rng(seed).integers(people, size=(resamples, people))
    drawn += people * np.arange(resamples)[:, None]
    return (
        np.bincount(drawn.ravel(), minlength=people * resamples).reshape(resamples, people).astype(np.float64)
    )


def holm(p: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Return which hypotheses are rejected when the chance of any false rejection is at most alpha (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    rejected = [False] * len(p)
    for rank, i in enumerate(order):
        if p[i] > alpha / (len(p) - rank):
            break
        rejected[i] = True
    return tuple(rejected)


__all__ = ["Difference", "Pair", "difference", "holm", "pairs"]

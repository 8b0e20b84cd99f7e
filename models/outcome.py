"""Survival whose truth is known: simulated from given hazards, and judged against them.

No outcome exists for the patients that the survival head learns from, so it is trained and judged on these; what it
says of a real patient's survival is therefore nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What a study would have recorded of each patient, `(N,)`."""

    duration: Array
    """Time under observation, in the unit of `scale`."""
    event: NDArray[np.bool_]
    """Whether it ended with the event; False when the patient was censored."""


def simulate(
    log_hazard: ArrayLike,
    *,
    scale: float,
    shape: float = 1.0,
    censoring_scale: float | None = None,
    follow_up: float | None = None,
    seed: int,
) -> Outcomes:
    """Return outcomes of patients whose log hazard relative to the baseline is `(N,)`.

    The baseline is Weibull, its survival exp(-(t / scale) ** shape); `shape` 1 is the exponential. Hazards are
    proportional: T = scale (-log U / exp(log_hazard)) ** (1 / shape), as in Bender 2005. Censoring is independent of
    the hazard: exponential with mean `censoring_scale`, and for everybody who reaches it the end of `follow_up`.
    Refuses (ValueError) scales, shapes and follow-up that are not above 0, and hazards that are not finite.
    """
    eta = np.asarray(log_hazard, dtype=np.float64)
    positive = [scale, shape, *(x for x in (censoring_scale, follow_up) if x is not None)]
    if not all(x > 0 for x in positive) or not np.isfinite(eta).all():
        raise ValueError("scales, shape and follow-up are above 0 and log hazards are finite")
    random = np.random.default_rng(seed)
    death = scale * (random.exponential(size=eta.shape) / np.exp(eta)) ** (1.0 / shape)
    # Drawn whether used or not: the deaths of a seed do not depend on how patients are censored.
    leaving = random.exponential(size=eta.shape) * (math.inf if censoring_scale is None else censoring_scale)
    end = np.minimum(leaving, math.inf if follow_up is None else follow_up)
    return Outcomes(duration=np.minimum(death, end), event=death <= end)


def concordance(log_hazard: ArrayLike, outcomes: Outcomes) -> float:
    """Return Harrell's C: how often of two patients the one with the greater hazard dies first (lifelines' count).

    0.5 is chance. Raises ValueError when no two patients can be compared.
    """
    from lifelines.utils import concordance_index

    risk = np.asarray(log_hazard, dtype=np.float64)
    try:
        return float(concordance_index(outcomes.duration, -risk, outcomes.event))
    except ZeroDivisionError as error:
        raise ValueError("no two patients can be compared: there are too few events") from error

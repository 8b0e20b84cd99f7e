"""The outcomes that the survival head learns from and is judged on: simulated, from hazards that are known.

Nobody knows how these patients fared. The hazard is made of two facts of the image, so that a network can find it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.outcome import Outcomes, simulate
from training.sts import Sarcoma

USUAL_VOLUME_ML, USUAL_SUV = 300.0, 10.0
SPREAD_LOG_VOLUME, SPREAD_LOG_SUV = 1.0, 0.6
SCALE_DAYS, SHAPE = 730.0, 1.2
CENSORING_DAYS, FOLLOW_UP_DAYS = 2000.0, 1825.0


def true_log_hazard(volume_ml: float, suv_max: float) -> float:
    """Return the log hazard of a tumour, 0 for the usual one: one per deviation of log volume and of log SUVmax."""
    volume = math.log(volume_ml / USUAL_VOLUME_ML) / SPREAD_LOG_VOLUME
    return volume + math.log(suv_max / USUAL_SUV) / SPREAD_LOG_SUV


def simulated(log_hazard: Sequence[float] | NDArray[np.float64], seed: int) -> Outcomes:
    """Return one outcome of each tumour, days: Weibull hazards, censored at random and after five years."""
    return simulate(
        log_hazard,
        scale=SCALE_DAYS,
        shape=SHAPE,
        censoring_scale=CENSORING_DAYS,
        follow_up=FOLLOW_UP_DAYS,
        seed=seed,
    )


def hazard_of(case: Sarcoma) -> float:
    """Return the log hazard of a tumour by its true mask."""
    return true_log_hazard(case.volume_ml, case.suv_max)

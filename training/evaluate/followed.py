"""How well a risk orders patients by the time of their event: Harrell's C-index, with censoring, over patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.evaluate.bootstrap import RESAMPLES, Index, Interval, interval
from training.evaluate.judged import FollowedCase


def concordance(
    cases: Sequence[FollowedCase], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """Return `c_index`, and where outcomes were simulated `true_c_index` and `of_true`, their ratio.

    A figure is None when there are not two patients, or no two cases can be compared. The cases of a patient with
    several simulated outcomes are compared with one another, too: their risk is the same, so such a pair counts half.
    """
    from lifelines.utils import concordance_index

    duration = np.array([case.duration_days for case in cases], dtype=np.float64)
    event = np.array([case.event for case in cases], dtype=np.bool_)
    risk = np.array([case.risk for case in cases], dtype=np.float64)
    true = np.array([np.nan if case.true_risk is None else case.true_risk for case in cases])
    patients = [case.patient_id for case in cases]

    several = len(set(patients)) > 1

    def c_index(scores: np.typing.NDArray[np.float64], i: Index) -> float:
        if not several:
            return float("nan")
        try:
            return float(concordance_index(duration[i], -scores[i], event[i]))
        except ZeroDivisionError:
            return float("nan")

    found = {"c_index": interval(lambda i: c_index(risk, i), patients, resamples=resamples, seed=seed)}
    if cases and np.isfinite(true).all():
        found["true_c_index"] = interval(lambda i: c_index(true, i), patients, resamples=resamples, seed=seed)
        found["of_true"] = interval(
            lambda i: c_index(risk, i) / c_index(true, i), patients, resamples=resamples, seed=seed
        )
    return found


__all__ = ["concordance"]

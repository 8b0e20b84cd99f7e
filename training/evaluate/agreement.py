"""How far readers agree with each other, beside how far the model agrees with each of them.

Where readers differ no model can agree with all: its Dice is to be read beside theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from training.evaluate.bootstrap import RESAMPLES, Interval, summary
from training.evaluate.judged import DrawnCase
from training.evaluate.metrics import dice, long_axis_mm


def reader_agreement(
    cases: Sequence[DrawnCase], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None] | None:
    """Return the agreement on cases that two or more readers drew; None when there are none.

    `readers_dice` and `model_dice`: mean over cases of the mean over pairs of readers, and of model with each reader.
    `readers_volume_cv`: mean of standard deviation (n - 1) by mean of the readers' volumes.
    `readers_long_axis_mm` and `model_long_axis_mm`: mean absolute difference, in pairs and of model and reader.
    """
    read = [case for case in cases if len(case.readers) > 1]
    if not read:
        return None
    rows = [_case(case) for case in read]
    patients = [case.patient_id for case in read]
    return {
        name: summary([row[name] for row in rows], patients, resamples=resamples, seed=seed)
        for name in rows[0]
    }


def _case(case: DrawnCase) -> dict[str, float]:
    pairs = list(combinations(case.readers, 2))
    volumes = np.array([np.count_nonzero(reader) for reader in case.readers], dtype=np.float64)
    lengths = np.array([long_axis_mm(reader, case.spacing_mm) for reader in case.readers])
    own = long_axis_mm(case.drawn, case.spacing_mm)
    return {
        "readers_dice": float(np.mean([dice(a, b) for a, b in pairs])),
        "model_dice": float(np.mean([dice(case.drawn, reader) for reader in case.readers])),
        "readers_volume_cv": float(volumes.std(ddof=1) / volumes.mean()) if volumes.any() else float("nan"),
        "readers_long_axis_mm": float(np.mean([abs(a - b) for a, b in combinations(lengths, 2)])),
        "model_long_axis_mm": float(np.mean(np.abs(own - lengths))),
    }


__all__ = ["reader_agreement"]

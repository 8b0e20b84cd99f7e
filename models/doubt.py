"""What a model's card says of its doubt: temperature and intervals, learned from lesions that the network had not seen.

Each fold is judged by what the other folds taught; a new patient gets what all folds taught together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.calibration import Reliability, fit_temperature, reliability, tempered
from models.conformal import ConformalInterval, fit_interval

Array = NDArray[np.floating]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """One lesion with the answer of the network that has not learned from its patient."""

    fold: int
    """The fold of the patient."""
    logits: Array
    """Logits in the lesion region, `(V,)`."""
    lesion: BoolArray
    """Whether each of these voxels is lesion, `(V,)`."""
    volume_mm3: tuple[float, float]
    """Volume as drawn and as it is."""
    long_axis_mm: tuple[float, float]
    """Long axis as drawn and as it is."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """How probabilities are tempered, and how far volume and long axis may be off."""

    temperature: float
    """Logits are divided by it."""
    volume_mm3: ConformalInterval
    """Interval of a volume."""
    long_axis_mm: ConformalInterval
    """Interval of a long axis."""

    def as_card(self) -> dict[str, Any]:
        """Return plain JSON for the model's card."""
        intervals = {"volume_mm3": self.volume_mm3.as_card(), "long_axis_mm": self.long_axis_mm.as_card()}
        return {"temperature": self.temperature, **intervals}

    @staticmethod
    def of_card(card: Mapping[str, Any]) -> Doubt:
        """Return what `as_card` wrote; raises KeyError, TypeError or ValueError for anything else."""
        return Doubt(
            temperature=float(card["temperature"]),
            volume_mm3=ConformalInterval.of_card(card["volume_mm3"]),
            long_axis_mm=ConformalInterval.of_card(card["long_axis_mm"]),
        )


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Where size groups end and how often intervals may miss."""

    volume_edges_mm3: tuple[float, ...] = ()
    long_axis_edges_mm: tuple[float, ...] = ()
    alpha: float = 0.1


def fit_doubt(cases: Sequence[Answered], sizes: Sizes) -> Doubt:
    """Return what these cases teach. Raises ValueError when there are none."""
    volumes, axes = (np.array([getattr(c, n) for c in cases]).T for n in ("volume_mm3", "long_axis_mm"))
    return Doubt(
        temperature=fit_temperature([c.logits for c in cases], [c.lesion for c in cases]),
        volume_mm3=fit_interval(*volumes, kind="log", alpha=sizes.alpha, edges=sizes.volume_edges_mm3),
        long_axis_mm=fit_interval(*axes, kind="absolute", alpha=sizes.alpha, edges=sizes.long_axis_edges_mm),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What every fold was worth by what the others taught."""

    folds: tuple[Doubt, ...]
    """Entry n was fitted on all folds but n."""
    raw: Reliability
    """All voxels before."""
    calibrated: Reliability
    """All voxels after."""
    volume: BoolArray
    """Whether the volume was in its interval, `(N,)`."""
    long_axis: BoolArray
    """Whether the long axis was in its interval, `(N,)`."""


def judge_doubt(cases: Sequence[Answered], sizes: Sizes) -> Judged:
    """Return what each fold is worth by what the others teach; folds are numbered from 0 without gaps."""
    folds = [
        fit_doubt([c for c in cases if c.fold != n], sizes) for n in range(max(c.fold for c in cases) + 1)
    ]
    return Judged(
        folds=tuple(folds),
        raw=_together([reliability(tempered(c.logits, 1.0), c.lesion) for c in cases]),
        calibrated=_together(
            [reliability(tempered(c.logits, folds[c.fold].temperature), c.lesion) for c in cases]
        ),
        volume=_covered([(folds[c.fold].volume_mm3, *c.volume_mm3) for c in cases]),
        long_axis=_covered([(folds[c.fold].long_axis_mm, *c.long_axis_mm) for c in cases]),
    )


def _together(parts: Sequence[Reliability]) -> Reliability:
    return sum(parts[1:], start=parts[0])


def _covered(cases: Sequence[tuple[ConformalInterval, float, float]]) -> BoolArray:
    ends = [interval.interval(drawn) for interval, drawn, _ in cases]
    return np.array([low <= true <= high for (low, high), (_, _, true) in zip(ends, cases, strict=True)])

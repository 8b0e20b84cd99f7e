"""What a model's card says of its doubt: temperature and intervals, learned from lesions that the network had not seen.

Each fold is judged by what the other folds taught; a new patient gets what all folds taught together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.calibration import Reliability, fit_temperature, reliability, tempered
from models.conformal import ConformalInterval, fit_interval

Array = NDArray[np.floating]
BoolArray = NDArray[np.bool_]
FLOOR = 0.2
"""Added to the uncertainty of a lesion, bits: readers differ about lesions that the network is sure of, too."""


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
    uncertainty: float
    """How unsure the network was of this lesion, 0 to 1 (`CaseUncertainty.entropy`)."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """How probabilities are tempered, and by what factor volume and long axis may be off.

    The logarithm of the factor is a quantile times (uncertainty + `FLOOR`): an unsure drawing has a wider interval.
    """

    temperature: float
    """Logits are divided by it."""
    volume_mm3: ConformalInterval
    """Interval of a volume."""
    long_axis_mm: ConformalInterval
    """Interval of a long axis."""

    def volume_interval_mm3(self, volume_mm3: float, uncertainty: float) -> tuple[float, float]:
        """Return where the true volume of a lesion lies whose drawing has this volume and uncertainty."""
        low, high = self.volume_mm3.interval(volume_mm3, uncertainty + FLOOR)
        return float(low), float(high)

    def long_axis_interval_mm(self, long_axis_mm: float, uncertainty: float) -> tuple[float, float]:
        """Return where the true long axis of a lesion lies whose drawing has this long axis and uncertainty."""
        low, high = self.long_axis_mm.interval(long_axis_mm, uncertainty + FLOOR)
        return float(low), float(high)

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
    """Which lesions have quantiles of their own, by what was drawn, and how often intervals may miss."""

    volume_edges_mm3: tuple[float, ...] = ()
    """Where groups of volume end."""
    long_axis_edges_mm: tuple[float, ...] = (10.0,)
    """Where groups of long axis end: of large lesions the tails, which readers follow further, double the error."""
    alpha: float = 0.1
    """The part of all intervals that may miss."""


def fit_doubt(cases: Sequence[Answered], sizes: Sizes) -> Doubt:
    """Return what these cases teach. Raises ValueError when there are none."""
    volumes, axes = (np.array([getattr(c, n) for c in cases]).T for n in ("volume_mm3", "long_axis_mm"))
    scale = np.array([c.uncertainty for c in cases]) + FLOOR

    def interval(sizes_of: Array, edges: Sequence[float]) -> ConformalInterval:
        return fit_interval(*sizes_of, kind="log", alpha=sizes.alpha, edges=edges, scale=scale)

    return Doubt(
        temperature=fit_temperature([c.logits for c in cases], [c.lesion for c in cases]),
        volume_mm3=interval(volumes, sizes.volume_edges_mm3),
        long_axis_mm=interval(axes, sizes.long_axis_edges_mm),
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
        volume=np.array(
            [_holds(folds[c.fold].volume_interval_mm3, c.volume_mm3, c.uncertainty) for c in cases]
        ),
        long_axis=np.array(
            [_holds(folds[c.fold].long_axis_interval_mm, c.long_axis_mm, c.uncertainty) for c in cases]
        ),
    )


def _together(parts: Sequence[Reliability]) -> Reliability:
    return sum(parts[1:], start=parts[0])


def _holds(
    interval: Callable[[float, float], tuple[float, float]], size: tuple[float, float], uncertainty: float
) -> bool:
    """Return whether the interval around the drawn size holds the true one; where nothing was drawn it does not."""
    low, high = interval(size[0], uncertainty)
    return size[0] > 0 and low <= size[1] <= high

"""How well cases are put in one of two classes. The arithmetic is scikit-learn's, the intervals are over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.calibration import calibration_curve

from training.evaluate.bootstrap import RESAMPLES, Index, Interval, interval
from training.evaluate.judged import RatedCase

Values = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassFigures:
    """What is told of a classifier."""

    figures: dict[str, Interval | None]
    """AUC, average precision, precision, recall (sensitivity), specificity, F1, accuracy, Brier score, ECE."""
    confusion: tuple[tuple[int, int], tuple[int, int]]
    """Rows: truly negative, truly positive; columns: called negative, called positive."""
    roc: tuple[Values, Values]
    """False positive rate and sensitivity."""
    reliability: tuple[Values, Values, NDArray[np.intp]]
    """Mean probability, part that is positive, and number of cases in each of ten bins that holds any."""
    threshold: float
    """Positive is called what has at least this probability."""


def class_figures(
    cases: Sequence[RatedCase], threshold: float = 0.5, *, resamples: int = RESAMPLES, seed: int = 0
) -> ClassFigures:
    """Return the figures of a classifier. Raises ValueError when only one class is there."""
    truth = np.array([case.positive for case in cases], dtype=np.bool_)
    probability = np.array([case.probability for case in cases], dtype=np.float64)
    patients = [case.patient_id for case in cases]
    if truth.all() or not truth.any():
        raise ValueError("all cases are of one class: there is nothing to tell apart")
    called = probability >= threshold

    def of(statistic: Callable[[Index], float]) -> Interval | None:
        return interval(statistic, patients, resamples=resamples, seed=seed)

    figures = {
        "auc": auc(cases, resamples=resamples, seed=seed),
        "average_precision": of(
            lambda i: (
                float(metrics.average_precision_score(truth[i], probability[i]))
                if truth[i].any()
                else float("nan")
            )
        ),
        "precision": of(lambda i: _share(truth[i], called[i])),
        "recall": of(lambda i: _share(called[i], truth[i])),
        "specificity": of(lambda i: _share(~called[i], ~truth[i])),
        "f1": of(lambda i: float(metrics.f1_score(truth[i], called[i], zero_division=np.nan))),
        "accuracy": of(lambda i: float((truth[i] == called[i]).mean())),
        "brier": of(lambda i: float(np.mean((probability[i] - truth[i]) ** 2))),
        "ece": of(lambda i: calibration_error(truth[i], probability[i])),
    }
    matrix = metrics.confusion_matrix(truth, called, labels=[False, True])
    false_rate, true_rate, _ = metrics.roc_curve(truth, probability)
    happened, said = calibration_curve(truth, probability, n_bins=BINS)
    sizes = np.bincount(_bin(probability), minlength=BINS)
    return ClassFigures(
        figures=figures,
        confusion=(
            (int(matrix[0, 0]), int(matrix[0, 1])),
            (int(matrix[1, 0]), int(matrix[1, 1])),
        ),
        roc=(false_rate, true_rate),
        reliability=(said, happened, sizes[sizes > 0]),
        threshold=threshold,
    )


def auc(cases: Sequence[RatedCase], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """Return the area under the ROC curve with its interval; None when only one class is there."""
    truth = np.array([case.positive for case in cases], dtype=np.bool_)
    probability = np.array([case.probability for case in cases], dtype=np.float64)

    def area(i: Index) -> float:
        both = truth[i].any() and not truth[i].all()
        return float(metrics.roc_auc_score(truth[i], probability[i])) if both else float("nan")

    return interval(area, [case.patient_id for case in cases], resamples=resamples, seed=seed)


def calibration_error(truth: NDArray[np.bool_], probability: Values) -> float:
    """Return the expected calibration error: |said - happened| over ten even bins, weighted by their cases."""
    where = _bin(probability)
    gaps = np.abs(np.bincount(where, probability, minlength=BINS) - np.bincount(where, truth, minlength=BINS))
    return float(gaps.sum() / truth.size)


def _bin(probability: Values) -> NDArray[np.intp]:
    """Return the bin of each probability, as scikit-learn's calibration_curve has them."""
    return np.searchsorted(np.linspace(0.0, 1.0, BINS + 1)[1:-1], probability)


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return float(part[whole].mean()) if whole.any() else float("nan")


__all__ = ["ClassFigures", "auc", "calibration_error", "class_figures"]

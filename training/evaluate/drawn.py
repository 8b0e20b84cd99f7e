"""The judgement of a segmenter: one row per case, and what is told of the rows.

Every figure is of one case first; only then is it summarised, and its interval draws patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import calibration
from models.calibration import Reliability, lesion_region, reliability
from training.evaluate.bootstrap import RESAMPLES, Index, Interval, interval, summary
from training.evaluate.judged import DrawnCase
from training.evaluate.metrics import TOLERANCES_MM, dice, region_figures

Values = NDArray[np.float64]
UNSURE = "uncertainty: "
MOST_UNSURE = 1e6


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """What was measured of one case in one setting."""

    case_id: str
    """Which case."""
    patient_id: str
    """Whose."""
    fold: int | None
    """Which fold's weights."""
    setting: str
    """How the model was asked."""
    known: Mapping[str, float | str]
    """What groups are made by."""
    figures: Mapping[str, float | None]
    """The figures by name; None where one does not exist."""
    reliability: Reliability | None
    """Said and happened in the region around the lesion, when probabilities were given."""

    def plain(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "case_id": self.case_id,
            "patient_id": self.patient_id,
            "fold": self.fold,
            "setting": self.setting,
            "known": dict(self.known),
            "figures": dict(self.figures),
        }


class Told(NamedTuple):
    """One line of the table of figures."""

    name: str
    """Key in the JSON."""
    words: str
    """For people, with the unit."""
    of: str
    """The figure of a case."""
    statistic: Callable[[Values], float] = np.mean
    """What is made of the cases' values."""
    digits: int = 3
    """Decimals shown."""
    signed: bool = False
    """Whether the sign means something."""
    scale: float = 1.0
    """Factor for people (100 for per cent)."""


def _p90_of_size(values: Values) -> float:
    return float(np.percentile(np.abs(values), 90))


def _median_of_size(values: Values) -> float:
    return float(np.median(np.abs(values)))


_LONG, _VOLUME = "long_axis_error_mm", "volume_error"
TOLD = (
    Told("dice", "Dice, mean", "dice"),
    Told("dice_median", "Dice, median", "dice", np.median),
    Told("open_dice", "Dice, open: all outside the crop is false, mean", "open_dice"),
    Told("iou", "IoU, mean", "iou"),
    *(
        Told(f"surface_dice_{t:g}mm", f"Surface Dice at {t:g} mm, mean", f"surface_dice_{t:g}mm")
        for t in TOLERANCES_MM
    ),
    Told("hd95_mm", "HD95, mean, mm", "hd95_mm", digits=2),
    Told("hd95_median_mm", "HD95, median, mm", "hd95_mm", np.median, 2),
    Told("sensitivity", "Sensitivity of voxels, mean", "sensitivity"),
    Told("specificity", "Specificity of voxels in the crop, mean", "specificity"),
    Told("volume_bias", "Volume, mean error, %", _VOLUME, np.mean, 1, True, 100.0),
    Told(
        "volume_error_median", "Volume, median absolute error, %", _VOLUME, _median_of_size, 1, False, 100.0
    ),
    Told("long_axis_error_median_mm", "Long axis, median absolute error, mm", _LONG, _median_of_size, 2),
    Told(
        "long_axis_error_p90_mm", "Long axis, 90th percentile of absolute error, mm", _LONG, _p90_of_size, 2
    ),
    Told("long_axis_bias_mm", "Long axis, mean error, mm", _LONG, np.mean, 2, True),
)
"""What is told of every setting."""
TOLD_OF_GROUPS = (
    Told("dice", "Dice", "dice"),
    Told("volume_error", "Volume error, %", _VOLUME, np.mean, 1, True, 100.0),
    Told("long_axis_error_mm", "Long axis error, mm", _LONG, np.mean, 2, True),
)
"""Means that are told of every group."""


def judge(case: DrawnCase) -> Row:
    """Return the row of one case."""
    box = case.known_box or (slice(None), slice(None), slice(None))
    drawn, truth = case.drawn[box], case.truth[box]
    found = region_figures(drawn, truth, case.spacing_mm)
    said = None
    if case.probability is not None:
        region = lesion_region(truth, case.spacing_mm)
        said = reliability(case.probability[box][region], truth[region])
    figures: dict[str, float | None] = {
        "dice": found.dice,
        "open_dice": None if case.known_box is None else dice(case.drawn, case.truth),
        "iou": found.iou,
        "hd95_mm": found.hd95_mm,
        **{f"surface_dice_{t:g}mm": s for t, s in zip(TOLERANCES_MM, found.surface_dice, strict=True)},
        "sensitivity": found.sensitivity,
        "specificity": found.specificity,
        "truth_ml": found.truth_ml,
        "drawn_ml": found.drawn_ml,
        "volume_error": found.volume_error,
        "truth_long_axis_mm": found.truth_long_axis_mm,
        "drawn_long_axis_mm": found.drawn_long_axis_mm,
        "long_axis_error_mm": found.long_axis_error_mm,
        "volume_covered": _inside(found.truth_ml, case.volume_interval_ml),
        "diameter_covered": _inside(found.truth_long_axis_mm, case.diameter_interval_mm),
        # a case of which nothing was drawn is infinitely unsure, which JSON has no number for
        **{f"{UNSURE}{name}": min(value, MOST_UNSURE) for name, value in case.uncertainties.items()},
    }
    known = {"size_mm": found.truth_long_axis_mm, "slice_thickness_mm": case.spacing_mm[0], **case.known}
    return Row(
        case_id=case.case_id,
        patient_id=case.patient_id,
        fold=case.fold,
        setting=case.setting,
        known=known,
        figures=figures,
        reliability=said,
    )


def _inside(value: float, ends: tuple[float, float] | None) -> float | None:
    return None if ends is None else float(ends[0] <= value <= ends[1])


def told(rows: Sequence[Row], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval | None]:
    """Return every figure of the rows of one setting, with intervals; None for what no case has."""
    patients = [row.patient_id for row in rows]

    def one(of: str, statistic: Callable[[Values], float]) -> Interval | None:
        return summary([row.figures[of] for row in rows], patients, statistic, resamples=resamples, seed=seed)

    found = {line.name: one(line.of, line.statistic) for line in TOLD}
    for name in ("volume_covered", "diameter_covered"):
        found[name] = one(name, np.mean)
    found["ece"] = calibration_error(rows, resamples=resamples, seed=seed)
    for name in unsure_of(rows):
        found[f"uncertainty_error: {name}"] = uncertainty_error(rows, name, resamples=resamples, seed=seed)
    return found


def unsure_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the names of the measures of uncertainty that any case has."""
    names = dict.fromkeys(name for row in rows for name in row.figures if name.startswith(UNSURE))
    return tuple(name.removeprefix(UNSURE) for name in names)


def calibration_error(rows: Sequence[Row], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """Return the ECE of all voxels within 5 mm of a lesion, in 15 bins; None without probabilities."""
    said = [(row.patient_id, row.reliability) for row in rows if row.reliability is not None]
    if not said:
        return None
    sums = np.array([[one.count, one.probability, one.lesion] for _, one in said], dtype=np.float64)

    def ece(index: Index) -> float:
        count, probability, lesion = np.tensordot(
            np.bincount(index, minlength=len(sums)).astype(np.float64), sums, axes=1
        )
        return float(np.abs(probability - lesion).sum() / count.sum()) if count.sum() else float("nan")

    return interval(ece, [patient for patient, _ in said], resamples=resamples, seed=seed)


def uncertainty_error(
    rows: Sequence[Row], name: str, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Return Spearman's rho of a measure of uncertainty and 1 - Dice; None below 30 cases that have one."""
    there = [row for row in rows if row.figures.get(f"{UNSURE}{name}") is not None]
    if len(there) < calibration.FEWEST_CASES:
        return None
    unsure, dices = (
        np.array([row.figures[of] for row in there], dtype=np.float64) for of in (f"{UNSURE}{name}", "dice")
    )
    patients = [row.patient_id for row in there]
    found = calibration.uncertainty_error(unsure, dices, patients, resamples=resamples, seed=seed)
    if not np.isfinite(found.rho):
        return None
    return Interval(
        value=found.rho, low=found.low, high=found.high, cases=found.cases, patients=len(set(patients))
    )


__all__ = [
    "TOLD",
    "TOLD_OF_GROUPS",
    "UNSURE",
    "Row",
    "Told",
    "calibration_error",
    "judge",
    "told",
    "uncertainty_error",
    "unsure_of",
]

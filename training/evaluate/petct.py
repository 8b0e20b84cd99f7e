"""The family of PET/CT models: each tumour in every setting below, and its patient followed by simulated outcomes.

The crops of the data set end 5 cm from the tumour, so each is asked about as it is and standing in a larger volume.
The fixed thresholds that a physicist tries first are judged in the same settings.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from models.card import ModelCard
from models.petct import LearnedPetct, PetctView, above_percent, above_suv, look_at
from plugins.contract import Array, BoolArray
from plugins.shapes import Spacing
from training.evaluate.data import Data
from training.evaluate.judged import Box, Case, DrawnCase, FollowedCase
from training.evaluate.runs import load_network
from training.evaluate.subject import Subject
from training.manifest import Case as ManifestCase
from training.petct_outcomes import hazard_of, simulated
from training.sts import Sarcoma, load_sarcoma

WINDOW_SUV = (0.0, 8.0)
LEVEL = 0.5
"""Probability from which a voxel of a run counts; a model that is shipped has a level of its own."""
MARGIN_MM = 80.0
BACKGROUND_SUV, NOISE_SUV, BACKGROUND_HU = 0.4, 0.1, -100.0
AS_GIVEN, LARGER, ANYWHERE, HOTTEST = (
    "the crop alone",
    "in a larger background",
    "point anywhere in the tumour",
    "point at the hottest voxel",
)
SETTINGS = (AS_GIVEN, LARGER, ANYWHERE, HOTTEST)
VOLUMES_ML = ((100.0, "below 100 ml"), (500.0, "100 to 500 ml"))
LARGEST, FAINT_SUV = "from 500 ml", 6.0
GROUPED = ("origin", "scanner", "kernel")
"""Tags of a manifest that make groups as well."""
OUTCOMES = 5
"""Simulated outcomes of each patient: one of 41 patients is mostly chance."""
LIMITS = (
    "The truth is one drawing per tumour of one hospital's sarcomas; other tumours and other readers differ.",
    "The model was told a point inside each tumour: whether it would have found the tumour is not judged here.",
    f"Nobody knows how these patients fared: {OUTCOMES} outcomes of each are simulated from a hazard made of volume "
    "and SUVmax of the true mask. Of real survival the figures say nothing.",
)
THRESHOLDS: dict[str, Callable[..., BoolArray]] = {"suv-41-percent": above_percent, "suv-2.5": above_suv}
Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """What a model says when it is asked once."""

    drawn: BoolArray
    """What it drew."""
    probability: Array | None = None
    """Probability of each voxel."""
    log_hazard: float | None = None
    """Log hazard of the patient."""


Asked = Callable[[Array, Array | None, Spacing, Point], Said]


def threshold_card(name: str) -> ModelCard:
    """Return the card of a fixed threshold, one of `THRESHOLDS`."""
    use = "one lesion on PET in SUV from one point inside; what a network is compared with"
    return ModelCard(name=name, version="1.0.0", kind="classical", intended_use=use)


def asked_cases(subject: Subject, data: Data, brief: bool = False) -> Iterator[Case]:
    """Yield every case of the data in every setting, and its patient followed; when brief, in the first one only."""
    opened: dict[tuple[int, ...], Asked] = {}
    sarcomas = {case.case_id: load_sarcoma(case, data.root) for case in data.cases}
    followed = _followed([hazard_of(sarcoma) for sarcoma in sarcomas.values()])
    for number, case in enumerate(data.cases):
        folds, sarcoma = subject.weights_for(case.patient_id), sarcomas[case.case_id]
        ask = opened.setdefault(folds, opened.get(folds) or _opened(subject, folds, data))
        same: dict[str, Any] = {
            "patient_id": case.patient_id,
            "fold": folds[0] if len(folds) == 1 else None,
            "known": _known(case, sarcoma),
            "doubts": {case.case_id: sarcoma.doubts},
        }
        for setting in SETTINGS[:1] if brief else SETTINGS:
            suv, hu, truth, point, box = put(sarcoma, setting)
            said = ask(suv, hu, sarcoma.spacing_mm, point)
            yield DrawnCase(
                case_id=case.case_id,
                drawn=said.drawn,
                truth=truth,
                spacing_mm=sarcoma.spacing_mm,
                setting=setting,
                known_box=box,
                image=suv,
                axes=sarcoma.axes,
                probability=said.probability,
                **same,
            )
            if setting == AS_GIVEN and said.log_hazard is not None:
                for days, event in followed[number]:
                    yield FollowedCase(
                        case_id=case.case_id,
                        risk=said.log_hazard,
                        duration_days=days,
                        event=event,
                        true_risk=hazard_of(sarcoma),
                        **same,
                    )


def put(case: Sarcoma, setting: str) -> tuple[Array, Array | None, BoolArray, Point, Box | None]:
    """Return SUV, HU (None without CT), truth `(K, R, C)`, point (voxel index) and where the crop stands."""
    point = case.middle
    if setting == HOTTEST:
        hottest = np.unravel_index(int(np.where(case.mask, case.suv, -1).argmax()), case.mask.shape)
        point = (float(hottest[0]), float(hottest[1]), float(hottest[2]))
    if setting == ANYWHERE:
        inside = np.argwhere(case.mask)
        any_one = inside[zlib.crc32(case.case_id.encode()) % len(inside)]
        point = (float(any_one[0]), float(any_one[1]), float(any_one[2]))
    if setting != LARGER:
        return case.suv, case.hu, case.mask, point, None
    margin = [int(np.ceil(MARGIN_MM / s)) for s in case.spacing_mm]
    around = [(m, m) for m in margin]
    k, r, c = (slice(m, m + n) for m, n in zip(margin, case.mask.shape, strict=True))
    box: Box = (k, r, c)
    random = np.random.default_rng(zlib.crc32(case.case_id.encode()))
    truth = np.pad(case.mask, around)
    suv = np.maximum(random.normal(BACKGROUND_SUV, NOISE_SUV, truth.shape), 0).astype(np.float32)
    suv[box] = case.suv
    hu = None if case.hu is None else np.pad(case.hu, around, constant_values=BACKGROUND_HU)
    moved = [p + m for p, m in zip(point, margin, strict=True)]
    return suv, hu, truth, (moved[0], moved[1], moved[2]), box


def _followed(hazards: list[float]) -> list[list[tuple[float, bool]]]:
    """Return the simulated outcomes of each patient, days and whether the event was seen."""
    draws = [simulated(hazards, 1000 + n) for n in range(OUTCOMES)]
    return [[(float(d.duration[i]), bool(d.event[i])) for d in draws] for i in range(len(hazards))]


def _known(case: ManifestCase, sarcoma: Sarcoma) -> dict[str, float | str]:
    """Return what groups are made by."""
    tags = {name: value for name in GROUPED if (value := case.tags.get(name)) is not None}
    return tags | {
        "size_mm": case.size_mm,
        "slice_thickness_mm": sarcoma.spacing_mm[0],
        "volume": next((words for limit, words in VOLUMES_ML if sarcoma.volume_ml < limit), LARGEST),
        "uptake": f"SUVmax {'below' if sarcoma.suv_max < FAINT_SUV else 'from'} {FAINT_SUV:g}",
        "ct": "without" if sarcoma.hu is None else "with",
    }


def _opened(subject: Subject, folds: tuple[int, ...], data: Data) -> Asked:
    if subject.name in THRESHOLDS:
        return partial(_threshold, THRESHOLDS[subject.name])
    if subject.model is not None:
        learned = LearnedPetct(model=subject.model, folds=folds)
        return partial(_learned, learned)
    return _of_run(subject, folds, data)


def _threshold(
    rule: Callable[..., BoolArray], suv: Array, hu: Array | None, spacing_mm: Spacing, point: Point
) -> Said:
    return Said(drawn=rule(suv, spacing_mm, point))


def _learned(model: LearnedPetct, suv: Array, hu: Array | None, spacing_mm: Spacing, point: Point) -> Said:
    found = model.answer(suv, spacing_mm, point, hu)
    return Said(drawn=found.mask, probability=found.probability, log_hazard=found.log_hazard)


def _of_run(subject: Subject, folds: tuple[int, ...], data: Data) -> Asked:
    """Return the networks of a run, asked together, with what their experiment says of the view."""
    from training.nodule_task import as_function

    view = PetctView.of(subject.card["task"]["view"])
    networks = [as_function(load_network(subject, fold)) for fold in folds]
    usual = np.mean([usual_log_hazard(subject, fold, data) for fold in folds])

    def ask(suv: Array, hu: Array | None, spacing_mm: Spacing, point: Point) -> Said:
        found = look_at(networks, view, suv, hu, spacing_mm, point)
        return Said(
            drawn=found.drawn(LEVEL, point, spacing_mm),
            probability=found.probability,
            log_hazard=found.log_hazard - float(usual),
        )

    return ask


def usual_log_hazard(subject: Subject, fold: int, data: Data, mirrors: int = 1) -> float:
    """Return the mean log hazard of the tumours that a fold of a run has learned from: its zero.

    It is that of as many mirror images as will be asked: one of them alone has another mean.
    """
    from training.nodule_task import as_function

    view, network = PetctView.of(subject.card["task"]["view"]), as_function(load_network(subject, fold))
    seen = (load_sarcoma(case, data.root) for case in data.manifest.others(fold))
    answers = (look_at([network], view, s.suv, s.hu, s.spacing_mm, s.middle, mirrors) for s in seen)
    return float(np.mean([answer.log_hazard for answer in answers]))


__all__ = ["LIMITS", "THRESHOLDS", "WINDOW_SUV", "asked_cases", "put", "threshold_card", "usual_log_hazard"]

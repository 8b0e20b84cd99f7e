"""How likely readers would rate a drawn nodule malignant, as a measurement that says what it is not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from models.extras import how_to_install
from models.files import BadModel
from models.malignancy import NAME, NOT_PATHOLOGY, MalignancyRater, open_rater
from models.nodule_features import REACH_MM
from models.nodule_segmenter import LearnedNoduleSegmenter, runs_here
from models.place import NOWHERE, Places, open_current
from models.segmenter import LesionSegmenter
from plugins import codes
from plugins.contract import Finding, Flag, Measurement, Patient, Volume
from plugins.errors import Refused
from plugins.flag_codes import MALIGNANCY_INTERVAL

Ratings = Literal["calibrated", "on", "off"]
RATINGS: tuple[Ratings, ...] = ("calibrated", "on", "off")
MEASUREMENT = "malignancy"
NINETY_FIVE = 1.96
"""A 95 % interval of a normal distribution reaches so many standard deviations to either side."""
FACTS = {"age_years": "age", "is_female": "sex"}
"""What a note calls the clinical facts."""
FLAG = Flag(
    code="rating-not-pathology",
    sentence=f"malignancy is the {NOT_PATHOLOGY}; do not take it for a diagnosis",
)


def choose_rater(
    which: Ratings, segmenter: LesionSegmenter, models: Places = NOWHERE
) -> MalignancyRater | None:
    """Return what rates nodules that a segmenter drew; None when they are not rated.

    `calibrated` rates only where the card says that probabilities mean what they say, and only what the learned
    segmenter drew: calibration was judged on its masks. `models` are those made here that count.
    Refuses `no-rater` when `on` is asked for and cannot be.
    """
    if which == "off" or (which == "calibrated" and not isinstance(segmenter, LearnedNoduleSegmenter)):
        return None
    try:
        if not runs_here():
            raise BadModel("not-installed", f"torch or monai is not installed: {how_to_install('learn')}")
        model = open_current(NAME, models)
        if which == "calibrated" and model.card.get("calibrated") is not True:
            return None
        return open_rater(model)
    except BadModel as bad:
        if which == "calibrated" and bad.code in ("not-shipped", "not-installed"):
            return None
        raise Refused("no-rater", f"nodules cannot be rated: {bad.sentence}") from bad


def clinical_facts(patient: Patient) -> dict[str, float]:
    """Return what a study tells of its patient that a model may have learned: `age_years`, `is_female` (0 or 1)."""
    is_female = {"F": 1.0, "M": 0.0}.get(patient.sex or "")
    told = {"age_years": patient.age_years, "is_female": is_female}
    return {name: value for name, value in told.items() if value is not None}


def rated(finding: Finding, volume: Volume, rater: MalignancyRater, patient: Patient) -> Finding:
    """Return a nodule of a CT with the likelihood of a malignant rating, 0 to 1; its interval is told as a note.

    Clinical facts count where the model has learned them and the study tells them; the note names those that did.
    """
    mask = finding.mask
    margin = [1, *(math.ceil(REACH_MM / s) + 2 for s in volume.spacing_mm[1:])]
    window = tuple(
        slice(max(0, box.start - m), min(n, box.stop + m))
        for box, m, n in zip(mask.box, margin, mask.shape, strict=True)
    )
    drawn = np.zeros([side.stop - side.start for side in window], dtype=np.bool_)
    own = (
        slice(o - w.start, o - w.start + n)
        for o, w, n in zip(mask.origin, window, mask.voxels.shape, strict=True)
    )
    drawn[tuple(own)] = mask.voxels
    known = {name: value for name, value in clinical_facts(patient).items() if name in rater.facts}
    said = rater.rate(volume.array[window], drawn, volume.spacing_mm, known)
    words = f"malignancy {said.low:.2f} to {said.high:.2f} had the model learned from other patients"
    if known:
        words += f"; beside the image counted {' and '.join(FACTS[name] for name in known)}"
    interval = Flag(
        code=MALIGNANCY_INTERVAL,
        sentence=f"'{finding.label}': {words}",
        series_instance_uid=volume.series_instance_uid,
    )
    likelihood = Measurement(
        name=MEASUREMENT,
        concept=codes.MALIGNANT_RATING,
        value=said.probability,
        unit=codes.NO_UNITS,
        method=NOT_PATHOLOGY,
        uncertainty=(said.high - said.low) / 2 / NINETY_FIVE,
    )
    return replace(
        finding,
        measurements=(*finding.measurements, likelihood),
        flags=(*finding.flags, interval),
    )


__all__ = ["FLAG", "MEASUREMENT", "RATINGS", "Ratings", "choose_rater", "clinical_facts", "rated"]

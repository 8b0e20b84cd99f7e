"""The family of models that rate nodules: each rated crop, with the readers' mask and with the one drawn by itself.

The mask that a node has is never a reader's: beside the readers' mask each nodule is judged with the one that the
shipped segmenter draws from its centre, by the fold that has not seen the patient, where that model is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from models.files import BadModel
from models.malignancy import RatedView, as_function, asked, open_rater
from models.shipped import open_shipped
from plugins.contract import Array, BoolArray
from plugins.shapes import Spacing
from training.evaluate.data import Data
from training.evaluate.judged import Case, RatedCase
from training.evaluate.runs import load_network
from training.evaluate.subject import Subject
from training.lidc import Nodule, load_nodule
from training.malignancy_task import malignant
from training.manifest import patient_key

READERS, DRAWN = "readers' mask", "segmenter's mask"
LIMITS = (
    "The truth is the rating of readers of images: it is an opinion, not pathology.",
    "Nodules that were rated 3 of 5 (indeterminate) are left out, which makes the others easier to tell apart.",
)
Drawn = Callable[[Nodule], BoolArray]
Rated = Callable[[Array, BoolArray, Spacing], float]


def rated(subject: Subject, data: Data, brief: bool = False) -> Iterator[Case]:
    """Yield every nodule that is rated benign or malignant with each mask; when brief, with the readers' alone."""
    opened: dict[tuple[int, ...], Rated] = {}
    segmenter = None if brief else _segmenter()
    for case in data.cases:
        truth = malignant(case)
        if truth is None:
            continue
        folds = subject.weights_for(case.patient_id)
        rate = opened.setdefault(folds, opened.get(folds) or _opened(subject, folds))
        nodule = load_nodule(case, data.root)
        masks = {READERS: nodule.mask}
        if segmenter is not None:
            masks[DRAWN] = segmenter(nodule)
        for setting, mask in masks.items():
            yield RatedCase(
                case_id=case.case_id,
                patient_id=case.patient_id,
                fold=folds[0] if len(folds) == 1 else None,
                known={
                    "size_mm": case.size_mm,
                    "slice_thickness_mm": nodule.spacing_mm[0],
                    "fold": str(case.fold),
                },
                positive=truth,
                probability=rate(nodule.image, mask, nodule.spacing_mm),
                setting=setting,
            )


def _segmenter() -> Drawn | None:
    """Return what draws a nodule from its centre by weights that have not seen the patient; None when none is there.

    Where nothing is drawn, the voxel at the centre.
    """
    from models.nodule_segmenter import LearnedNoduleSegmenter

    try:
        model = open_shipped("nodule_segmenter")
    except BadModel:
        return None
    opened: dict[tuple[int, ...], LearnedNoduleSegmenter] = {}

    def draw(nodule: Nodule) -> BoolArray:
        fold = model.card["held_out"].get(patient_key(nodule.case.patient_id))
        folds = () if fold is None else (int(fold),)
        segmenter = opened.setdefault(folds, LearnedNoduleSegmenter(model=model, folds=folds))
        found = segmenter.answer(nodule.image, nodule.spacing_mm, nodule.centre)
        mask = np.zeros(nodule.image.shape, dtype=np.bool_)
        mask[found.box] = found.mask
        if not mask.any():
            mask[tuple(round(i) for i in nodule.centre)] = True
        return mask

    return draw


def _opened(subject: Subject, folds: tuple[int, ...]) -> Rated:
    """Return what rates with these folds: a model as a node uses it, or the bare networks of a run."""
    if subject.model is not None:
        rater = open_rater(subject.model, folds)
        return lambda image, mask, spacing_mm: rater.rate(image, mask, spacing_mm).probability
    view = RatedView.of(subject.card["task"]["view"])
    networks = [as_function(load_network(subject, fold).eval()) for fold in folds]

    def rate(image: Array, mask: BoolArray, spacing_mm: Spacing) -> float:
        shown = view.shown(image, mask, spacing_mm)
        return float(1 / (1 + np.exp(-np.mean([asked(network, shown) for network in networks]))))

    return rate


__all__ = ["DRAWN", "LIMITS", "READERS", "rated"]

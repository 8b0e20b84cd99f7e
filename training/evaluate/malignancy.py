"""The family of models that rate nodules: each rated crop, with the readers' mask and with the one drawn by itself.

The mask that a node has is never a reader's: beside the readers' mask each nodule is judged with the one that the
shipped segmenter draws from its centre, by the fold that has not seen the patient, where that model is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from models.explain import grad_cam, saliency
from models.malignancy import RatedView, as_function, asked, network_of, open_rater
from models.shipped import VOUCHED
from plugins.contract import Array, BoolArray
from plugins.errors import Refused
from plugins.shapes import Spacing
from training.evaluate.data import Data
from training.evaluate.judged import Case, Looked, RatedCase
from training.evaluate.nodules import asker
from training.evaluate.runs import load_network
from training.evaluate.subject import Subject
from training.lidc import Nodule, load_nodule
from training.malignancy_task import malignant
from training.manifest import Case as ManifestCase
from training.manifest import DataManifest

SEGMENTER = "nodule_segmenter"
READERS, DRAWN = "readers' mask", "segmenter's mask"
LIMITS = (
    "The truth is the rating of readers of images: it is an opinion, not pathology.",
    "Nodules that were rated 3 of 5 (indeterminate) are left out, which makes the others easier to tell apart.",
)
NEEDS = "nodules with a mean rating of malignancy other than 3 (`malignancy` in nodules.csv, or among a case's tags)"
Drawn = Callable[[Nodule], BoolArray]
Rated = Callable[[Array, BoolArray, Spacing], float]


def rated(subject: Subject, data: Data, brief: bool = False) -> Iterator[Case]:
    """Yield every nodule that is rated benign or malignant with each mask; when brief, with the readers' alone.

    Refuses `one-class`, before anything is asked, when all of them are benign or all malignant.
    """
    _require_both(data)
    opened: dict[tuple[int, ...], Rated] = {}
    draw = None if brief else shipped_drawer(data.manifest)
    for case in data.cases:
        truth = malignant(case)
        if truth is None:
            continue
        folds = subject.weights_for(case.patient_id)
        rate = opened.setdefault(folds, opened.get(folds) or _opened(subject, folds))
        nodule = load_nodule(case, data.root)
        fold = folds[0] if len(folds) == 1 else None
        masks = {READERS: nodule.mask}
        if draw is not None:
            masks[DRAWN] = draw(nodule)
        for setting, mask in masks.items():
            yield RatedCase(
                case_id=case.case_id,
                patient_id=case.patient_id,
                fold=fold,
                known={
                    "size_mm": case.size_mm,
                    "slice_thickness_mm": nodule.spacing_mm[0],
                    "fold": "all" if fold is None else str(fold),
                },
                doubts={case.case_id: nodule.doubts},
                positive=truth,
                probability=rate(nodule.image, mask, nodule.spacing_mm),
                setting=setting,
                explain=partial(_looked, subject, folds[0], case, data.root) if setting == READERS else None,
            )


def _require_both(data: Data) -> None:
    """Refuse nodules of one class: there is nothing to tell apart."""
    truths = [truth for case in data.cases if (truth := malignant(case)) is not None]
    if len(set(truths)) == 1:
        raise Refused(
            "one-class",
            f"all {len(truths)} rated nodules of {data.name} that would be judged are "
            f"{'malignant' if truths[0] else 'benign'}, and the figures tell one class from the other: name data, "
            "folds (--fold) or sides (--side) that hold both",
        )


def drawer(segmenter: Subject) -> Drawn:
    """Return what draws a nodule from its centre by weights that have not seen the patient; that voxel if nothing.

    A model looks once, without mirror images, as the lung analysis of a node does.
    """
    opened: dict[tuple[int, ...], Drawn] = {}

    def draw(nodule: Nodule) -> BoolArray:
        folds = segmenter.weights_for(nodule.case.patient_id)
        mask = opened.setdefault(folds, opened.get(folds) or _drawing(segmenter, folds))(nodule)
        if not mask.any():
            mask = np.zeros(nodule.image.shape, dtype=np.bool_)
            mask[tuple(round(i) for i in nodule.centre)] = True
        return mask

    return draw


def _drawing(segmenter: Subject, folds: tuple[int, ...]) -> Drawn:
    from models.nodule_segmenter import LearnedNoduleSegmenter

    if segmenter.model is None:
        ask = asker(segmenter, folds)
        return lambda nodule: ask(nodule.image, nodule.spacing_mm, nodule.centre).drawn
    learned = LearnedNoduleSegmenter(model=segmenter.model, folds=folds, mirrors=1)

    def draw(nodule: Nodule) -> BoolArray:
        found = learned.answer(nodule.image, nodule.spacing_mm, nodule.centre)
        mask = np.zeros(nodule.image.shape, dtype=np.bool_)
        mask[found.box] = found.mask
        return mask

    return draw


def shipped_drawer(manifest: DataManifest) -> Drawn | None:
    """Return what draws with the shipped segmenter; None where none is shipped."""
    from training.evaluate.families import open_subject

    return drawer(open_subject(SEGMENTER).on(manifest)) if SEGMENTER in VOUCHED else None


def _opened(subject: Subject, folds: tuple[int, ...]) -> Rated:
    """Return what rates with these folds: a model as a node uses it, or the bare networks of a run."""
    if subject.model is not None:
        rater = open_rater(subject.model, folds)
        return lambda image, mask, spacing_mm: rater.rate(image, mask, spacing_mm).probability
    view = RatedView.of(subject.card["task"]["view"])
    networks = [as_function(load_network(subject, fold)) for fold in folds]

    def rate(image: Array, mask: BoolArray, spacing_mm: Spacing) -> float:
        shown = view.shown(image, mask, spacing_mm)
        return float(1 / (1 + np.exp(-np.mean([asked(network, shown) for network in networks]))))

    return rate


def _looked(subject: Subject, fold: int, case: ManifestCase, root: Path) -> Looked:
    """Return what the network of one fold looked at, the readers' mask in it."""
    nodule = load_nodule(case, root)
    if subject.model is not None:
        network = network_of(subject.model.said("architecture"), subject.model.weights(fold))
        view = subject.model.understood("view", RatedView.of)
    else:
        network, view = load_network(subject, fold), RatedView.of(subject.card["task"]["view"])
    shown = view.shown(nodule.image, nodule.mask, nodule.spacing_mm)
    slope = saliency(network, shown).max(axis=0)
    return Looked(patch=shown[0], mask=shown[1], heat=grad_cam(network, shown), slope=slope)


__all__ = ["DRAWN", "LIMITS", "READERS", "drawer", "rated", "shipped_drawer"]

"""The family of nodule detectors: nodules of unseen patients, set into whole scans that were not learned from.

Fold by fold: the nodules of the fold's patients are set into the lungs of the fold's scan, and candidates and networks
of that fold search it. What is found far from them and from the scan's known lesions is a false positive, though the
scans hold lesions that nobody has marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.card import ModelCard
from models.nodule_detector import DetectorView, Search, ensemble, strongest_apart
from plugins.lung_nodule import LungNodule
from plugins.nodule_candidates import candidates
from training.evaluate.data import Data
from training.evaluate.judged import Candidate, Known, Lesion, SearchedCase
from training.evaluate.nodules import TEXTURES
from training.evaluate.runs import load_network
from training.evaluate.subject import Subject
from training.lidc import Nodule, load_nodule
from training.nodules_in_scans import is_crop
from training.pasted_scans import placed_in
from training.scans import SCANS, Scan, load_scan

Array = NDArray[np.float32]
Scored = Callable[[Array, Sequence[Sequence[float]]], NDArray[np.float64]]
SHAPE_SCORE = "nodule_shape_score"
"""The classical detector, which a network is compared with."""
NODULES_A_SCAN = 60
"""So many nodules of a fold, drawn by a seed, are set into its scan."""
SMALLEST_RADIUS_MM = 2.0
MIRRORED = 8
"""In so many mirror images the networks of a run, and of the model that it becomes, are shown what is likely."""
LIMITS = (
    "The nodules are crops of other patients that were set into few scans, not lesions where they grew: how many "
    "nodules a screening population has and how many of them are found is not shown.",
    "The rate of false positives rests on as many patients as there are scans; lesions in them that nobody has "
    "marked count as false.",
    "A nodule that is thinner than the slices of the scan it was set into is fainter there, as it would be.",
)
NEEDS = (
    "whole scans, and crops of nodules in the folds of these (--fold) of patients that the weights for the scan have "
    f"not learned from: a folder that holds lidc_nodules beside two or more of {', '.join(SCANS)}"
)


def shape_card() -> ModelCard:
    """Return the card of the classical detector."""
    use = "nodules among blobs in the lungs, by the shape of what is drawn there; what a network is compared with"
    return ModelCard(name=SHAPE_SCORE, version=LungNodule.version, kind="classical", intended_use=use)


def searched(subject: Subject, data: Data, brief: bool = False) -> Iterator[SearchedCase]:
    """Yield every scan with nodules set in, a dozen at a time; when brief, one dozen for each scan."""
    crops = [case for case in data.cases if is_crop(case)]
    for case in data.cases:
        if is_crop(case):
            continue
        folds = subject.weights_for(case.patient_id)
        same = [crop for crop in crops if crop.fold == case.fold]
        own = [crop for crop in same if set(folds) <= set(subject.weights_for(crop.patient_id))]
        if not own:
            continue
        scan = load_scan(case.case_id, data.root)
        chosen = np.random.default_rng(case.fold).permutation(len(own))[: 12 if brief else NODULES_A_SCAN]
        nodules = [load_nodule(own[i], data.root) for i in chosen]
        fold = folds[0] if len(folds) == 1 else None
        yield from scan_cases(scan, nodules, *_opened(subject, folds, scan), fold=fold, seed=case.fold)


def scan_cases(
    scan: Scan, nodules: Sequence[Nodule], search: Search, scored: Scored, *, fold: int | None, seed: int
) -> Iterator[SearchedCase]:
    """Yield one scan with the nodules set in, again and again, each time searched as a node does."""
    known = tuple(
        Lesion(centre_mm=_mm(one.centre, scan), radius_mm=one.radius_mm, counts=False) for one in scan.known
    )
    for number, (hu, placed) in enumerate(placed_in(scan, nodules, seed=seed)):
        found = candidates(
            hu,
            scan.inside,
            scan.spacing_mm,
            diameters_mm=search.diameters_mm,
            lowest_response_hu=search.lowest_response_hu,
            lowest_roundness=search.lowest_roundness,
            at_most=search.at_most,
        )
        points = [c.index for c in found]
        scores = scored(hu, points)
        kept = strongest_apart(points, [c.diameter_mm for c in found], scores, scan.spacing_mm)
        yield SearchedCase(
            case_id=f"{scan.name} {number + 1}",
            patient_id=scan.name,
            fold=fold,
            known={"slice_thickness_mm": scan.spacing_mm[0]},
            doubts={p.nodule.case.case_id: p.nodule.doubts for p in placed},
            made_of={
                scan.name: scan.name,
                **{p.nodule.case.case_id: p.nodule.case.patient_id for p in placed},
            },
            lesions=(
                *(
                    Lesion(
                        centre_mm=_mm(p.centre, scan),
                        radius_mm=max(SMALLEST_RADIUS_MM, p.nodule.case.size_mm / 2),
                        known=_known(p.nodule, scan),
                    )
                    for p in placed
                ),
                *known,
            ),
            candidates=tuple(Candidate(at_mm=_mm(points[i], scan), score=float(scores[i])) for i in kept),
        )


def _known(nodule: Nodule, scan: Scan) -> Known:
    known: dict[str, float | str] = {"size_mm": nodule.case.size_mm, "scan": scan.name}
    if (texture := nodule.case.number("texture")) is not None:
        known["texture"] = TEXTURES.get(round(texture), f"{texture:g}")
    return known


def _mm(index: Sequence[float], scan: Scan) -> tuple[float, float, float]:
    k, r, c = (float(i * s) for i, s in zip(index, scan.spacing_mm, strict=True))
    return (k, r, c)


def _opened(subject: Subject, folds: tuple[int, ...], scan: Scan) -> tuple[Search, Scored]:
    """Return how a model searches a scan: which candidates, and what its networks give each.

    The shape score is that of `lung_nodule`, but for what lies between the lungs, which is not known of a scan here.
    """
    if subject.name == SHAPE_SCORE:
        plugin = LungNodule()
        regions = scan.inside, np.zeros_like(scan.inside)

        def shaped(hu: Array, points: Sequence[Sequence[float]]) -> NDArray[np.float64]:
            at = [(round(k), round(r), round(c)) for k, r, c in points]
            return np.array([plugin.shape_score(one, hu, regions, scan.spacing_mm) for one in at])

        return plugin.search, shaped
    if subject.model is not None:
        from models.nodule_detector import LearnedNoduleDetector

        detector = LearnedNoduleDetector(model=subject.model, folds=folds)
        return detector.search, lambda hu, points: detector.probabilities(hu, scan.spacing_mm, points)
    from training.nodule_task import as_function

    task = subject.card["task"]
    view, search = DetectorView.of(task["view"]), Search.of(task["search"])
    networks = [as_function(load_network(subject, fold)) for fold in folds]
    return search, lambda hu, points: ensemble(networks, view, hu, scan.spacing_mm, points, MIRRORED)


__all__ = ["LIMITS", "MIRRORED", "SHAPE_SCORE", "scan_cases", "searched", "shape_card"]

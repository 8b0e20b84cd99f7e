"""The family of nodule segmenters: each crop in every setting of `crops`, by weights that have not seen its patient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from models.segmenter import ClassicalNoduleSegmenter
from plugins.contract import Array, BoolArray
from plugins.shapes import Spacing
from training.evaluate.crops import SETTINGS, Point, asked
from training.evaluate.data import Data
from training.evaluate.judged import Case, DrawnCase
from training.evaluate.subject import Subject
from training.lidc import load_nodule

WINDOW_HU = (-1350.0, 150.0)
LIMITS = (
    "The truth is what most of the readers drew on a crop; it is no pathology, and readers differ.",
    "The model was told a point inside each nodule: whether it would have found the nodule is not judged here.",
)
Asked = Callable[[Array, Spacing, Point], BoolArray]


def segmented(subject: Subject, data: Data) -> Iterator[Case]:
    """Yield every case of the data in every setting."""
    for case in data.manifest.cases:
        ask = _opened(subject, subject.weights_for(case.patient_id))
        nodule = load_nodule(case, data.root)
        known = {name: value for name, value in case.tags.items() if value is not None}
        for setting in SETTINGS:
            image, truth, point, box = asked(nodule, setting)
            yield DrawnCase(
                case_id=case.case_id,
                patient_id=case.patient_id,
                fold=case.fold if subject.fold_of else None,
                known={**known, "size_mm": case.size_mm, "slice_thickness_mm": nodule.spacing_mm[0]},
                drawn=ask(image, nodule.spacing_mm, point),
                truth=truth,
                spacing_mm=nodule.spacing_mm,
                setting=setting,
                known_box=box,
                image=image,
            )


def _opened(subject: Subject, folds: tuple[int, ...]) -> Asked:
    segmenter = ClassicalNoduleSegmenter()

    def ask(image: Array, spacing_mm: Spacing, point: Point) -> BoolArray:
        k, r, c = (round(p) for p in point)
        return segmenter.segment(image, spacing_mm, (k, r, c))

    return ask


__all__ = ["LIMITS", "WINDOW_HU", "segmented"]

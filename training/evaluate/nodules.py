"""The family of nodule segmenters: each crop in every setting of `crops`, by weights that have not seen its patient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.segmenter import ClassicalNoduleSegmenter
from models.shipped import Model
from plugins.contract import Array, BoolArray
from plugins.patient_axes import UPRIGHT
from plugins.shapes import Spacing
from training.evaluate.crops import SETTINGS, Point, asked
from training.evaluate.data import Data
from training.evaluate.judged import Box, Case, DrawnCase
from training.evaluate.metrics import MM3_PER_ML, long_axis_mm
from training.evaluate.runs import load_network
from training.evaluate.subject import Subject
from training.lidc import Nodule, load_nodule, load_readers
from training.manifest import Case as ManifestCase

if TYPE_CHECKING:
    from training.evaluate.whole_scans import Places

WINDOW_HU = (-1350.0, 150.0)
LEVEL = 0.5
"""Probability from which a voxel of a run counts; a model that is shipped has a level of its own."""
GROUPED = ("scanner", "kernel", "origin", "subtlety")
"""Tags of a manifest that make groups, beside size, slices and texture."""
TEXTURES = {1: "1 (ground glass)", 2: "2", 3: "3 (part-solid)", 4: "4", 5: "5 (solid)"}
LIMITS = (
    "The truth is what readers drew on a crop; it is no pathology, and readers differ.",
    "The model was told a point inside each nodule: whether it would have found the nodule is not judged here.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What a segmenter says when it is asked once."""

    drawn: BoolArray
    """What it drew."""
    probability: Array | None = None
    """Probability of each voxel."""
    uncertainties: Mapping[str, float] = field(default_factory=dict)
    """How unsure it is, by measure."""
    volume_interval_ml: tuple[float, float] | None = None
    """Where it says the volume lies."""
    long_axis_interval_mm: tuple[float, float] | None = None
    """Where it says the long axis lies."""


Asked = Callable[[Array, Spacing, Point], Answer]


def segmented(subject: Subject, data: Data, brief: bool = False) -> Iterator[Case]:
    """Yield every case of the data in every setting, whole scans among them; when brief, in the first one only."""
    scans = _places(data.scans) if data.scans is not None and not brief else ()
    opened: dict[tuple[int, ...], Asked] = {}
    for case in data.cases:
        folds = subject.weights_for(case.patient_id)
        ask = opened.setdefault(folds, opened.get(folds) or asker(subject, folds))
        nodule = load_nodule(case, data.root)
        for setting in SETTINGS[:1] if brief else SETTINGS:
            image, truth, point, box = asked(nodule, setting)
            answer = ask(image, nodule.spacing_mm, point)
            drawn = _drawn(nodule, folds, setting, image, truth, nodule.spacing_mm, answer, box)
            yield _with_readers(drawn, case, data.root) if setting == SETTINGS[0] else drawn
        for scan in scans:
            image, truth, point = scan.with_nodule(nodule)
            if truth.any():
                answer = ask(image, scan.scan.spacing_mm, point)
                drawn = _drawn(nodule, folds, scan.setting, image, truth, scan.scan.spacing_mm, answer)
                yield replace(drawn, axes=UPRIGHT)


def _places(root: Path) -> tuple[Places, ...]:
    from training.evaluate.whole_scans import places

    return tuple(places(root))


def _with_readers(drawn: DrawnCase, case: ManifestCase, root: Path) -> DrawnCase:
    """Return a case beside what each reader drew of it, where the data tell."""
    readers = load_readers(case, root)
    doubts = [*drawn.doubts[case.case_id], *chain.from_iterable(one.doubts for one in readers)]
    return replace(drawn, readers=tuple(one.voxels for one in readers), doubts={case.case_id: tuple(doubts)})


def _drawn(
    nodule: Nodule,
    folds: tuple[int, ...],
    setting: str,
    image: Array,
    truth: BoolArray,
    spacing_mm: Spacing,
    answer: Answer,
    box: Box | None = None,
) -> DrawnCase:
    return DrawnCase(
        case_id=nodule.case.case_id,
        patient_id=nodule.case.patient_id,
        fold=folds[0] if len(folds) == 1 else None,
        known=_known(nodule),
        doubts={nodule.case.case_id: nodule.doubts},
        drawn=answer.drawn,
        truth=truth,
        spacing_mm=spacing_mm,
        setting=setting,
        known_box=box,
        image=image,
        axes=nodule.axes,
        probability=answer.probability,
        uncertainties=answer.uncertainties,
        volume_interval_ml=answer.volume_interval_ml,
        diameter_interval_mm=answer.long_axis_interval_mm,
    )


def _known(nodule: Nodule) -> dict[str, float | str]:
    """Return what groups are made by."""
    tags = nodule.case.tags
    known: dict[str, float | str] = {
        "size_mm": nodule.case.size_mm,
        "slice_thickness_mm": nodule.spacing_mm[0],
    }
    if (texture := nodule.case.number("texture")) is not None:
        known["texture"] = TEXTURES.get(round(texture), f"{texture:g}")
    return known | {name: value for name in GROUPED if (value := tags.get(name)) is not None}


def asker(subject: Subject, folds: tuple[int, ...]) -> Asked:
    """Return what draws with these folds of a segmenter."""
    if subject.model is not None:
        return _of_model(subject.model, folds)
    return _of_run(subject, folds) if folds else _classical()


def _classical() -> Asked:
    segmenter = ClassicalNoduleSegmenter()

    def ask(image: Array, spacing_mm: Spacing, point: Point) -> Answer:
        k, r, c = (round(p) for p in point)
        return Answer(drawn=segmenter.segment(image, spacing_mm, (k, r, c)))

    return ask


def _of_model(model: Model, folds: tuple[int, ...]) -> Asked:
    """Return the segmenter as a node uses it, with these folds only."""
    from models.nodule_segmenter import LearnedNoduleSegmenter

    segmenter = LearnedNoduleSegmenter(model=model, folds=folds)

    def ask(image: Array, spacing_mm: Spacing, point: Point) -> Answer:
        found = segmenter.answer(image, spacing_mm, point)
        drawn, probability = np.zeros(image.shape, dtype=np.bool_), np.zeros(image.shape, dtype=np.float32)
        drawn[found.box], probability[found.box] = found.mask, found.probability
        said = Answer(drawn=drawn, probability=probability, uncertainties=asdict(found.uncertainty))
        if not drawn.any():
            return said  # a node gives no interval either
        doubt, unsure = segmenter.doubt, found.uncertainty.entropy
        low, high = doubt.volume_interval_mm3(float(drawn.sum() * np.prod(spacing_mm)), unsure)
        return replace(
            said,
            volume_interval_ml=(low / MM3_PER_ML, high / MM3_PER_ML),
            long_axis_interval_mm=doubt.long_axis_interval_mm(long_axis_mm(drawn, spacing_mm), unsure),
        )

    return ask


def _of_run(subject: Subject, folds: tuple[int, ...]) -> Asked:
    """Return the networks of a run, asked together, with what their experiment says of the view."""
    from models.nodule_passes import NoduleView, draw, nearest_piece
    from training.nodule_task import as_function

    view = NoduleView.of(subject.card["task"]["view"])
    networks = [as_function(load_network(subject, fold)) for fold in folds]

    def ask(image: Array, spacing_mm: Spacing, point: Point) -> Answer:
        found = draw(networks, view, image, spacing_mm, point).probabilities(image.shape, spacing_mm)
        return Answer(drawn=nearest_piece(found > LEVEL, point, spacing_mm), probability=found)

    return ask


__all__ = ["LIMITS", "WINDOW_HU", "asker", "segmented"]

"""What the held-out nodules of a run teach the segmenter about its doubt: a part of its card, with what it is worth.

`python -m training.nodule_doubt MODEL DATA --out doubt.json`: each nodule is drawn by the fold that has not
seen its patient; temperature and intervals of a fold are learned from the others, those of a new patient from all.
Intervals go by the entropy of the mean of the mirror images, which are asked anyway. Beside it stand the other
measures, and dropout of that one fold: the folds as an ensemble cannot be judged here, because four of the five have
learned from the nodule.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from models.calibration import FEWEST_CASES, error_auroc, lesion_region, uncertainty_error
from models.conformal import ConformalInterval, Coverage
from models.doubt import Answered, Doubt, Judged, Sizes, fit_doubt, judge_doubt
from models.files import BadModel
from models.nodule_passes import MIRRORS, draw
from models.nodule_segmenter import NAME, LearnedNoduleSegmenter
from models.shipped import Model, open_model
from models.uncertainty import PASSES, CaseUncertainty, dropout_passes, summarised
from plugins.errors import NadirError
from training.evaluate.crops import AS_GIVEN, asked
from training.evaluate.data import Data, open_learnable
from training.evaluate.families import open_subject
from training.evaluate.metrics import dice, long_axis_mm
from training.evaluate.runs import load_network
from training.evaluate.subject import Subject
from training.lidc import Nodule, load_nodule
from training.nodule_task import as_function
from training.ship import About, ship

if TYPE_CHECKING:
    import torch

CERTAIN = 1e-6
"""A probability nearer to 0 or 1 counts as this: beyond the patch it is 0, which has no logit."""
SIZES_MM = (0.0, 6.0, 10.0, 20.0, math.inf)
"""Ends of the groups of true long axis that coverage is told for, mm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """One nodule as the network that has not seen its patient answers it."""

    case_id: str
    """Which nodule."""
    patient_id: str
    """Whose."""
    answered: Answered
    """What temperature and intervals are learned from."""
    dice: float
    """How right the drawing was, within the crop."""
    uncertainties: Mapping[str, CaseUncertainty]
    """How unsure it was, by where the answers came from."""
    error_auroc: float
    """How well the entropy of voxels around the nodule tells wrong ones from right ones."""


def held_out(
    subject: Subject,
    data: Data,
    *,
    levels: Sequence[float],
    mirrors: int,
    passes: int = PASSES,
    only: Collection[str] | None = None,
) -> Iterator[Held]:
    """Yield every nodule of the data whose fold is finished, drawn as a node would draw it.

    `levels` are the probabilities from which a lesion is seen at all, for each voxel size or for all of them.
    Without `passes` there is no dropout. `only` are the names of the cases that are asked for; None for all.
    """
    with TemporaryDirectory() as folder:
        model = _untaught(subject, data, {"levels": list(levels), "mirrors": mirrors}, Path(folder))
        segmenters = {fold: LearnedNoduleSegmenter(model=model, folds=(fold,)) for fold in subject.folds}
        networks = {fold: load_network(subject, fold) for fold in subject.folds} if passes else {}
        for case in data.manifest.cases:
            if case.fold in segmenters and (only is None or case.case_id in only):
                (fold,) = subject.weights_for(case.patient_id)
                yield _held(load_nodule(case, data.root), segmenters[fold], networks.get(fold), passes)


def _untaught(subject: Subject, data: Data, decided: Mapping[str, Any], folder: Path) -> Model:
    """Return a run or a model as one that says what its networks say, with no temperature and no intervals.

    `decided` is what its card says besides. A run becomes a model in `folder`.
    """
    nothing = ConformalInterval(kind="log", alpha=0.1, edges=(), quantiles=(math.inf,), cases=(0,))
    doubt = Doubt(temperature=1.0, volume_mm3=nothing, long_axis_mm=nothing).as_card()
    decided = {**decided, "doubt": {"all": doubt}}
    if subject.model is not None:
        return replace(subject.model, card={**subject.model.card, **decided})
    assert subject.folder is not None
    about = About(
        name=subject.name,
        version=subject.version,
        licence="not for use",
        training_data=data.manifest.name,
        input="HU",
        intended_use="to be taught what to doubt",
    )
    trusted = ship(subject.folder, data.manifest, folder, about, decided, {})
    return open_model(folder, {trusted}, date.min)


def _held(
    nodule: Nodule, segmenter: LearnedNoduleSegmenter, network: torch.nn.Module | None, passes: int
) -> Held:
    image, truth, point, _ = asked(nodule, AS_GIVEN)
    spacing = nodule.spacing_mm
    answer = segmenter.answer(image, spacing, point)
    mask, p = np.zeros(image.shape, dtype=np.bool_), np.zeros(image.shape)
    mask[answer.box], p[answer.box] = answer.mask, answer.probability
    region = lesion_region(truth, spacing)
    said = np.clip(p[region], CERTAIN, 1 - CERTAIN)
    unsure = {"mirrors": answer.uncertainty}
    if network is not None:
        shown = draw([as_function(network)], segmenter.view, image, spacing, point)
        level = segmenter.levels[segmenter.view.voxels_mm.index(shown.grid.spacing_mm[0])]
        answers = summarised(_dropout(network, shown.inputs, passes), threshold=level)
        unsure["dropout"] = answers.case(shown.grid.spacing_mm)
    voxel_mm3 = math.prod(spacing)
    return Held(
        case_id=nodule.case.case_id,
        patient_id=nodule.case.patient_id,
        answered=Answered(
            fold=nodule.case.fold,
            logits=logit(said),
            lesion=truth[region],
            volume_mm3=(mask.sum() * voxel_mm3, truth.sum() * voxel_mm3),
            long_axis_mm=(long_axis_mm(mask, spacing), long_axis_mm(truth, spacing)),
            uncertainty=answer.uncertainty.entropy,
        ),
        dice=dice(mask, truth),
        uncertainties=unsure,
        error_auroc=error_auroc(-np.abs(said - 0.5), (mask != truth)[region]),
    )


def _dropout(network: torch.nn.Module, inputs: NDArray[np.float32], passes: int) -> NDArray[np.float32]:
    """Return the answers under dropout `(T, K, R, C)`, in bf16 as at inference."""
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        return dropout_passes(network, inputs, passes=passes).logits[:, 0]


def card_part(held: Sequence[Held], sizes: Sizes) -> dict[str, Any]:
    """Return what a card says of doubt: `all` for new patients, `folds` for those of each fold, and `figures`."""
    cases = [one.answered for one in held]
    judged = judge_doubt(cases, sizes)
    return {
        "all": fit_doubt(cases, sizes).as_card(),
        "folds": [one.as_card() for one in judged.folds],
        "figures": figures(held, judged),
    }


def figures(held: Sequence[Held], judged: Judged) -> dict[str, Any]:
    """Return what the doubt of each fold was worth by what the others taught, plain."""
    patients, dices = [one.patient_id for one in held], np.array([one.dice for one in held])
    by_size = {
        f"{low:g} to {high:g} mm": _of_size(held, judged, low, high)
        for low, high in itertools.pairwise(SIZES_MM)
    }
    correlations = {}
    for source in held[0].uncertainties:
        for name in (field.name for field in fields(CaseUncertainty)):
            said = np.array([getattr(one.uncertainties[source], name) for one in held])
            found = uncertainty_error(said, dices, patients)
            if math.isfinite(found.rho):
                correlations[f"{name} of {source}"] = asdict(found)
    return {
        "cases": len(held),
        "ece_raw": judged.raw.ece,
        "ece": judged.calibrated.ece,
        "volume_coverage": asdict(Coverage.of(judged.volume)),
        "long_axis_coverage": asdict(Coverage.of(judged.long_axis)),
        "coverage_by_size": by_size,
        "uncertainty_error": correlations,
        "error_auroc": float(np.nanmean([one.error_auroc for one in held])),
    }


def _of_size(held: Sequence[Held], judged: Judged, low: float, high: float) -> dict[str, Any]:
    """Return the coverage of nodules whose true long axis lies in a range, mm."""
    there = np.array([low <= one.answered.long_axis_mm[1] < high for one in held])
    if not there.any():
        return {"cases": 0}
    parts = {"volume": judged.volume[there], "long_axis": judged.long_axis[there]}
    return {"cases": int(there.sum()), **{name: float(hits.mean()) for name, hits in parts.items()}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what a run or a model teaches about doubt as JSON; return 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m training.nodule_doubt", description=__doc__)
    parser.add_argument("model", help="a shipped model, or a run of nadir train with fold0, fold1 ... in it")
    parser.add_argument("data", type=Path, help="the nodule crops that it learned from")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file that is written")
    parser.add_argument(
        "--levels",
        type=float,
        nargs="+",
        help="from which probability on a lesion is seen at all, for each voxel size; what the card says, 0.5 of a run",
    )
    parser.add_argument(
        "--mirrors", type=int, help="how many mirror images are asked; what the card says, 8 of a run"
    )
    parser.add_argument("--passes", type=int, default=PASSES, help="passes of dropout; 0 for none")
    parser.add_argument(
        "--volume-edges",
        type=float,
        nargs="*",
        default=Sizes.volume_edges_mm3,
        help="ends of size groups, mm3",
    )
    parser.add_argument(
        "--long-axis-edges",
        type=float,
        nargs="*",
        default=Sizes.long_axis_edges_mm,
        help="ends of size groups, mm",
    )
    given = parser.parse_args(arguments)
    try:
        data = open_learnable(given.data)
        subject = open_subject(given.model).on(data.manifest)
        if subject.family != NAME or not subject.folds:
            parser.error(f"{subject.name} has no networks that draw nodules")
        of_run: Mapping[str, Any] = {"levels": [0.5], "mirrors": len(MIRRORS)}
        card = of_run if subject.model is None else subject.model.card
        levels, mirrors = given.levels or card["levels"], given.mirrors or int(card["mirrors"])
        held = list(held_out(subject, data, levels=levels, mirrors=mirrors, passes=given.passes))
    except (NadirError, BadModel, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if len(held) < FEWEST_CASES:
        parser.error(f"{len(held)} nodules of finished folds are too few; {FEWEST_CASES} are needed")
    sizes = Sizes(volume_edges_mm3=tuple(given.volume_edges), long_axis_edges_mm=tuple(given.long_axis_edges))
    given.out.write_text(json.dumps(card_part(held, sizes), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

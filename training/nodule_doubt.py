"""What the held-out nodules of a run teach the segmenter about its doubt: a part of its card, with what it is worth.

`python -m training.nodule_doubt RUN DATA --levels 0.4 --out doubt.json`: each nodule is drawn by the fold that has not
seen its patient; temperature and intervals of a fold are learned from the other folds, those of a new patient from all.
Intervals go by the entropy of the mirror images' mean, which are asked anyway. Beside it stand the other measures, and
dropout of that one fold: the folds as an ensemble cannot be judged here, because four of the five have learned from
the nodule.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from models.calibration import FEWEST_CASES, error_auroc, lesion_region, uncertainty_error
from models.conformal import Coverage
from models.doubt import Answered, Judged, Sizes, fit_doubt, judge_doubt
from models.nodule_passes import MIRRORS, NoduleView, draw, nearest_piece
from models.patches import put_back
from models.uncertainty import PASSES, CaseUncertainty, dropout_passes, flips, summarised
from training.evaluate.crops import AS_GIVEN, asked
from training.evaluate.data import Data, open_data
from training.evaluate.metrics import dice, long_axis_mm
from training.evaluate.runs import load_network, open_run
from training.evaluate.subject import Subject
from training.lidc import Nodule, load_nodule
from training.nodule_task import as_function

if TYPE_CHECKING:
    import torch

CERTAIN = 1e-6
"""A probability nearer to 0 or 1 than this counts as this: beyond the patch it is 0, which has no logit."""
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
    error_auroc: Mapping[str, float]
    """How well the entropy of voxels tells wrong ones from right ones, by where the answers came from."""


def held_out(
    subject: Subject, data: Data, *, levels: Sequence[float], mirrors: int, passes: int = PASSES
) -> Iterator[Held]:
    """Yield every nodule of the data whose fold is finished.

    `levels` are the probabilities from which a voxel is drawn, one for each voxel size of the view, or one for all.
    """
    networks = {fold: load_network(subject, fold) for fold in subject.folds}
    view = NoduleView.of(subject.card["task"]["view"])
    for case in data.manifest.cases:
        if case.fold in networks:
            (fold,) = subject.weights_for(case.patient_id)
            yield _held(load_nodule(case, data.root), networks[fold], view, levels, mirrors, passes)


def _held(
    nodule: Nodule,
    network: torch.nn.Module,
    view: NoduleView,
    levels: Sequence[float],
    mirrors: int,
    passes: int,
) -> Held:
    image, truth, point, _ = asked(nodule, AS_GIVEN)
    run, spacing = as_function(network), nodule.spacing_mm
    drawn = draw([run], view, image, spacing, point, mirrors=mirrors)
    level = levels[0] if len(levels) == 1 else levels[view.voxels_mm.index(drawn.grid.spacing_mm[0])]
    p = np.clip(drawn.probabilities(image.shape, spacing), CERTAIN, 1 - CERTAIN)
    mask, region = nearest_piece(p > level, point, spacing), lesion_region(truth, spacing)
    voxel_mm3, wrong = math.prod(spacing), ((p > level) != truth)[region]
    answers = {"mirrors": np.stack(list(flips(run, drawn.inputs)))[:, 0]}
    if passes:
        answers["dropout"] = _dropout(network, drawn.inputs, passes)
        answers["both"] = np.concatenate([answers["mirrors"], answers["dropout"]])
    said = {name: summarised(logits, threshold=level) for name, logits in answers.items()}
    unsure = {name: one.case(drawn.grid.spacing_mm) for name, one in said.items()}
    return Held(
        case_id=nodule.case.case_id,
        patient_id=nodule.case.patient_id,
        answered=Answered(
            fold=nodule.case.fold,
            logits=logit(p[region]),
            lesion=truth[region],
            volume_mm3=(mask.sum() * voxel_mm3, truth.sum() * voxel_mm3),
            long_axis_mm=(long_axis_mm(mask, spacing), long_axis_mm(truth, spacing)),
            uncertainty=unsure["mirrors"].entropy,
        ),
        dice=dice(mask, truth),
        uncertainties=unsure,
        error_auroc={
            name: error_auroc(
                put_back(one.entropy, image.shape, spacing, drawn.point, drawn.grid)[region], wrong
            )
            for name, one in said.items()
        },
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
        "error_auroc": {
            source: float(np.nanmean([one.error_auroc[source] for one in held]))
            for source in held[0].error_auroc
        },
    }


def _of_size(held: Sequence[Held], judged: Judged, low: float, high: float) -> dict[str, Any]:
    """Return the coverage of nodules whose true long axis lies in a range, mm."""
    there = np.array([low <= one.answered.long_axis_mm[1] < high for one in held])
    if not there.any():
        return {"cases": 0}
    parts = {"volume": judged.volume[there], "long_axis": judged.long_axis[there]}
    return {"cases": int(there.sum()), **{name: float(hits.mean()) for name, hits in parts.items()}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what a run teaches about doubt as JSON."""
    parser = argparse.ArgumentParser(prog="python -m training.nodule_doubt", description=__doc__)
    parser.add_argument("run", type=Path, help="a run of nadir train, with fold0, fold1 ... in it")
    parser.add_argument("data", type=Path, help="the nodule crops that it learned from")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file that is written")
    parser.add_argument(
        "--levels",
        type=float,
        nargs="+",
        default=[0.5],
        help="from which probability on a voxel is drawn, for each voxel size",
    )
    parser.add_argument("--mirrors", type=int, default=len(MIRRORS), help="how many mirror images are asked")
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
    data = open_data(given.data)
    subject = open_run(given.run).on(data.manifest)
    held = list(held_out(subject, data, levels=given.levels, mirrors=given.mirrors))
    if len(held) < FEWEST_CASES:
        parser.error(f"{len(held)} nodules of finished folds are too few; {FEWEST_CASES} are needed")
    sizes = Sizes(volume_edges_mm3=tuple(given.volume_edges), long_axis_edges_mm=tuple(given.long_axis_edges))
    given.out.write_text(json.dumps(card_part(held, sizes), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

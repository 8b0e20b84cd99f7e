"""How steadily the nodule segmenter draws nodules that it has not learned from, and places where no nodule is.

`python -m training.steadiness MODEL DATA SCANS` prints, for several limits, the share of drawings that are less steady:
of the nodules in DATA, each drawn by the fold that has not seen its patient, and of what all folds together draw at
points in plain lung and in vessels of the scans in the folder SCANS. `plugins.nodule_drawing.STEADY` comes from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.files import BadModel
from models.nodule_segmenter import NAME, LearnedNoduleSegmenter
from models.shipped import Model
from plugins.errors import NadirError
from training.evaluate.crops import AS_GIVEN, asked
from training.evaluate.data import Data, open_learnable
from training.evaluate.families import open_subject
from training.evaluate.subject import Subject
from training.evaluate.whole_scans import APART_MM, HALF_MM
from training.lidc import load_nodule
from training.pasting import window_of
from training.scans import Scan, load_scan, present

DEPTH_MM, POINTS = 2.0, 60
"""How deep in the lung points are taken at least, and how many of each kind in a scan."""
AIR_BELOW_HU, VESSEL_ABOVE_HU = -600.0, -200.0
LIMITS = (0.04, 0.05, 0.06, 0.07, 0.08, 0.1)
"""The unsteadiness from which on shares are told."""


def of_nodules(subject: Subject, model: Model, data: Data) -> Iterator[float]:
    """Yield the unsteadiness of each nodule that is drawn, by the fold of the model that has not seen its patient."""
    segmenters = {fold: LearnedNoduleSegmenter(model=model, folds=(fold,)) for fold in subject.folds}
    for case in data.manifest.cases:
        (fold,) = subject.weights_for(case.patient_id)
        nodule = load_nodule(case, data.root)
        image, _, point, _ = asked(nodule, AS_GIVEN)
        answer = segmenters[fold].answer(image, nodule.spacing_mm, point)
        if answer.mask.any():
            yield answer.unsteadiness


def of_points(segmenter: LearnedNoduleSegmenter, scan: Scan, points: NDArray[np.int64]) -> Iterator[float]:
    """Yield the unsteadiness of what is drawn at points of a scan, voxels (k, r, c), `(N, 3)`, where anything is."""
    for point in points:
        image, at = window_of(scan, point.astype(np.float64), HALF_MM)
        answer = segmenter.answer(image, scan.spacing_mm, list(at))
        if answer.mask.any():
            yield answer.unsteadiness


def points_without_nodule(scan: Scan, count: int = POINTS) -> Mapping[str, NDArray[np.int64]]:
    """Return voxels in plain lung and in vessels, far from known lesions, `(N, 3)` each; always the same.

    What is dense in the lungs is nearly always a vessel; a nodule that nobody told of would count as one.
    """
    depth = ndimage.distance_transform_edt(scan.inside, sampling=scan.spacing_mm) >= DEPTH_MM
    kinds = {"plain lung": scan.hu < AIR_BELOW_HU, "vessels": scan.hu > VESSEL_ABOVE_HU}
    chosen = {}
    for kind, like in kinds.items():
        there = np.argwhere(depth & like)
        mixed = there[np.random.default_rng(0).permutation(len(there))[: 20 * count]]
        free = [scan.away_mm(point.astype(np.float64)) >= APART_MM for point in mixed]
        chosen[kind] = mixed[free][:count]
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m training.steadiness", description=__doc__)
    parser.add_argument("model", help="a shipped model, or the folder of one")
    parser.add_argument("data", type=Path, help="the nodule crops that it learned from")
    parser.add_argument("scans", type=Path, help="folder of data sets with whole scans")
    given = parser.parse_args(arguments)
    try:
        data = open_learnable(given.data)
        subject = open_subject(given.model).on(data.manifest)
        if subject.family != NAME or subject.model is None:
            parser.error(f"{subject.name} is no packed model that draws nodules")
        found: dict[str, list[float]] = {"nodules": list(of_nodules(subject, subject.model, data))}
        together = LearnedNoduleSegmenter(model=subject.model)
        for name in present(given.scans):
            scan = load_scan(name, given.scans)
            for kind, points in points_without_nodule(scan).items():
                found.setdefault(kind, []).extend(of_points(together, scan, points))
    except (NadirError, BadModel, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"less steady than {'  '.join(f'{limit:5.2f}' for limit in LIMITS)}\n")
    for kind, values in found.items():
        shares = [float(np.mean(np.array(values) > limit)) if values else float("nan") for limit in LIMITS]
        sys.stdout.write(f"{kind:16} {'  '.join(f'{share:5.2f}' for share in shares)}  of {len(values)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["of_nodules", "of_points", "points_without_nodule"]

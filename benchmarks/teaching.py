"""Whether the ranking of `nadir studies --by teaching` finds the nodules that the model draws badly.

`OMP_NUM_THREADS=1 python -m benchmarks.teaching DATA [--cases 200]`: nodules of the data set that the shipped segmenter
was made with, each drawn by the fold that has not seen its patient. Told is which share of the worst fifth by Dice lies
in the first fifth by the score, and the mean Dice there; in random order it is a fifth, and the mean of all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from models.nodule_segmenter import NAME, LearnedNoduleSegmenter
from models.shipped import open_shipped
from store.candidates import Candidate, Candidates
from training.evaluate.crops import AS_GIVEN, asked
from training.evaluate.metrics import dice
from training.lidc import lidc_manifest, load_nodule
from training.manifest import patient_key
from training.teaching import scored


def drawn(root: Path, cases: int) -> Iterator[tuple[Candidate, float]]:
    """Yield so many nodules, in random order, as findings that nobody looked at, each with its Dice."""
    model = open_shipped(NAME)
    folds = model.card["held_out"]
    assert isinstance(folds, dict)
    every = lidc_manifest(root).cases
    for number in np.random.default_rng(0).permutation(len(every))[:cases]:
        case = every[int(number)]
        segmenter = LearnedNoduleSegmenter(
            model=model, folds=(folds[patient_key(case.patient_id)],), fastest=True
        )
        nodule = load_nodule(case, root)
        image, truth, point, _ = asked(nodule, AS_GIVEN)
        answer = segmenter.answer(image, nodule.spacing_mm, point)
        mask = np.zeros(image.shape, dtype=np.bool_)
        mask[answer.box] = answer.mask
        candidate = Candidate(
            patient_id=case.patient_id,
            person=case.patient_id,
            study_instance_uid=case.patient_id,
            plugin="lung_nodule",
            model_sha256="shipped",
            label=case.case_id,
            uncertainties=asdict(answer.uncertainty),
        )
        yield candidate, dice(mask, truth)


def found(order: Sequence[int], right: Sequence[float]) -> tuple[float, float]:
    """Return which share of the worst fifth lies in the first fifth of an order, and the mean Dice there."""
    fifth = len(right) // 5
    worst, first = set(np.argsort(right, kind="stable")[:fifth].tolist()), list(order[:fifth])
    return len(worst.intersection(first)) / fifth, float(np.mean([right[i] for i in first]))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", type=int, default=10_000)
    asked_for = parser.parse_args()
    candidates, right = zip(*drawn(asked_for.data, asked_for.cases), strict=True)
    parts = scored(candidates, Candidates(found=candidates, labelled=()))
    for name, values in (
        ("score", [one.score for one in parts]),
        ("uncertainty alone", [one.uncertainty or 0.0 for one in parts]),
        ("disagreement alone", [one.disagreement or 0.0 for one in parts]),
        ("random order", np.random.default_rng(1).random(len(parts)).tolist()),
    ):
        share, mean = found(np.argsort(-np.array(values), kind="stable").tolist(), right)
        print(f"{name:20} {share:.0%} of the worst fifth in the first fifth, where Dice is {mean:.3f}")
    print(f"{len(right)} nodules, Dice of all {np.mean(right):.3f}")


if __name__ == "__main__":
    main()

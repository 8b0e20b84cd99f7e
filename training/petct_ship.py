"""A finished run of the PET/CT model becomes a model that can be used: `python -m training.petct_ship RUN DATA OUT`.

The probability from which a voxel is drawn is chosen on held-out tumours. A fold alone gets what the tumours of the
other folds say, so that no figure on the card is of tumours that chose its level; a new patient gets what all say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.petct import PetctView, look_at
from training.evaluate.card_figures import card_figures
from training.evaluate.data import Data, open_learnable
from training.evaluate.families import open_subject
from training.evaluate.judging import judge_model
from training.evaluate.metrics import dice
from training.evaluate.petct import AS_GIVEN, LARGER, put, usual_log_hazard
from training.evaluate.runs import load_network, open_run
from training.evaluate.subject import Subject
from training.ship import About, ship
from training.sts import load_sarcoma

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)
MIRRORS = 8
ABOUT = About(
    name="petct_multitask",
    version="1.0.0",
    licence="Apache-2.0",
    training_data="41 soft-tissue sarcomas on PET, 16 with CT (Soft-tissue-Sarcoma, The Cancer Imaging Archive, "
    "doi:10.7937/K9/TCIA.2015.7GO2GSKS, CC BY 3.0), and made lesions; the outcomes are simulated.",
    input="PET in SUVbw, CT in HU on the same grid or none, and one point inside the lesion; patches of 6 mm voxels.",
    intended_use="Draws one lesion on PET from one point inside it; for research use only.",
    limits=(
        "The log hazard was learned from outcomes that were simulated from volume and SUVmax: of survival it tells "
        "nothing, and no report shows it.",
        "It has seen sarcomas of trunk and limbs only, the smallest of 28 ml; normal uptake it does not recognise.",
        "Only 16 patients had a CT.",
        "It needs a point inside the lesion; what it draws elsewhere means nothing.",
    ),
)


def dices_by_level(subject: Subject, data: Data) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the Dice of each tumour at each of `LEVELS` `(N, L)`, by the fold that has not seen it, and its fold.

    Each is the mean over the crop alone and the crop in a larger background.
    """
    from training.nodule_task import as_function

    view = PetctView.of(subject.card["task"]["view"])
    networks = {fold: as_function(load_network(subject, fold)) for fold in subject.folds}
    rows, folds = [], []
    for case in data.cases:
        (fold,) = subject.weights_for(case.patient_id)
        sarcoma, found = load_sarcoma(case, data.root), []
        for setting in (AS_GIVEN, LARGER):
            suv, hu, truth, point, _ = put(sarcoma, setting)
            answer = look_at([networks[fold]], view, suv, hu, sarcoma.spacing_mm, point, MIRRORS)
            found.append([dice(answer.drawn(level, point, sarcoma.spacing_mm), truth) for level in LEVELS])
        rows.append(np.mean(found, axis=0))
        folds.append(fold)
    return np.array(rows), np.array(folds)


def best_levels(dices: NDArray[np.float64], folds: NDArray[np.int64]) -> dict[str, Any]:
    """Return the level with the highest mean Dice over all tumours, and for each fold that over those of the others."""

    def best(rows: NDArray[np.bool_]) -> float:
        return LEVELS[int(dices[rows].mean(axis=0).argmax())]

    return {
        "all": best(np.ones(len(folds), dtype=np.bool_)),
        "folds": {str(fold): best(folds != fold) for fold in np.unique(folds).tolist()},
    }


def pack(run: Path, data: Data, out: Path) -> tuple[str, Mapping[str, Any]]:
    """Write the model of a run with its figures into a folder; return the hash of its manifest and the figures."""
    subject = open_run(run).on(data.manifest)
    decided = {
        "level": best_levels(*dices_by_level(subject, data)),
        "mirrors": MIRRORS,
        "usual_log_hazard": {str(fold): usual_log_hazard(subject, fold, data) for fold in subject.folds},
        "reported": False,
    }
    ship(run, data.manifest, out, ABOUT, decided, {})
    judged = judge_model(open_subject(str(out)), data, made_at=datetime.now(UTC))
    figures = card_figures(judged.plain(cases=False))
    return ship(run, data.manifest, out, ABOUT, decided, figures), figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack a run."""
    parser = argparse.ArgumentParser(prog="python -m training.petct_ship", description=__doc__)
    parser.add_argument("run", type=Path, help="a run of nadir train, with fold0, fold1 ... in it")
    parser.add_argument("data", type=Path, help="the sarcomas that it learned from")
    parser.add_argument("out", type=Path, help="the folder of the model")
    given = parser.parse_args(arguments)
    sha256, _ = pack(given.run, open_learnable(given.data), given.out)
    sys.stdout.write(f"{sha256}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

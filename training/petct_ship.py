"""A finished run of the PET/CT model becomes a model that can be used: `python -m training.petct_ship RUN DATA OUT`.

The trees that outline a lesion are taught on held-out tumours (`training.uptake_trees`). A fold alone gets those that
the other folds taught, so that no figure on the card is of tumours that taught them; a new patient gets the mean of
all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.petct import TREES, PetctView
from models.uptake_outline import FEATURES
from training.evaluate.card_figures import card_figures
from training.evaluate.data import Data, open_learnable
from training.evaluate.families import open_subject
from training.evaluate.judging import judge_model
from training.evaluate.petct import usual_log_hazard
from training.evaluate.runs import load_network, open_run
from training.nodule_task import as_function
from training.ship import About, ship
from training.sts import load_sarcoma
from training.uptake_trees import BOOSTING, asked_of, calibrations, taught

MIRRORS = 8
ABOUT = About(
    name="petct_multitask",
    version="1.3.0",
    licence="Apache-2.0",
    training_data="41 soft-tissue sarcomas on PET, 16 with CT (Soft-tissue-Sarcoma, The Cancer Imaging Archive, "
    "doi:10.7937/K9/TCIA.2015.7GO2GSKS, CC BY 3.0), and made lesions; the outcomes are simulated.",
    input="PET in SUVbw, CT in HU on the same grid or none, and one point inside the lesion; patches of 6 mm voxels.",
    intended_use="Draws one lesion on PET from one point inside it; for research use only.",
    limits=(
        "The log hazard was learned from outcomes that were simulated from volume and SUVmax, twenty of each tumour: "
        "of survival it tells nothing, and no report shows it.",
        "It has seen sarcomas of trunk and limbs only, the smallest of 28 ml; normal uptake it does not recognise.",
        "Only 16 patients had a CT.",
        "It needs a point inside the lesion, best near its middle; what it draws elsewhere means nothing.",
        "Its probabilities are calibrated in the lesion and within 5 mm of it; further away they are too high.",
    ),
)


def pack(run: Path, data: Data, out: Path) -> tuple[str, Mapping[str, Any]]:
    """Write the model of a run with its figures into a folder; return the hash of its manifest and the figures."""
    subject = open_run(run).on(data.manifest)
    view = PetctView.of(subject.card["task"]["view"])
    networks = {fold: as_function(load_network(subject, fold)) for fold in subject.folds}
    cases = {
        case.case_id: (subject.weights_for(case.patient_id)[0], load_sarcoma(case, data.root))
        for case in data.cases
    }
    usual = {fold: usual_log_hazard(subject, fold, data, MIRRORS) for fold in subject.folds}
    answers = list(asked_of(networks, view, cases, MIRRORS))
    trees = taught(answers, subject.folds)
    decided = {
        "mirrors": MIRRORS,
        "usual_log_hazard": {str(fold): value for fold, value in usual.items()},
        "calibration": calibrations(answers, trees),
        "trees": {"boosting": dict(BOOSTING), "features": list(FEATURES)},
        "reported": False,
    }
    beside = {TREES.format(fold): asdict(one) for fold, one in trees.items()}
    ship(run, data.manifest, out, ABOUT, decided, {}, beside=beside)
    judged = judge_model(open_subject(str(out)), data, made_at=datetime.now(UTC))
    figures = card_figures(judged.plain(cases=False))
    return ship(run, data.manifest, out, ABOUT, decided, figures, beside=beside), figures


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

"""From the networks of a run to a model that rates nodules: regressions on features, both put together, calibrated.

    nadir train training/experiments/nodule_malignancy.yaml --data FOLDER --out runs
    python -m training.malignancy runs/nodule_malignancy --data FOLDER --out models/weights/nodule_malignancy
    nadir evaluate models/weights/nodule_malignancy --data FOLDER --out report
    python -m training.malignancy report --out models/weights/nodule_malignancy      puts its figures on the card

With `--facts FILE` the model also learns what clinical facts tell beside the image: a CSV with `patient_id` and a
column for each fact, in numbers, empty where it is not known. A node knows `age_years` and `is_female` (0 or 1) of a
study. The figures on the card stay those of the image alone.

Every number that a fold is judged with was learned from patients of other folds: its network and regressions, and how
both are put together, which the other folds' held-out answers teach. Regressions and combination learn from every
nodule twice, with the readers' mask and with the one that the segmenter draws (`--segmenter`, the shipped one unless
told otherwise), since that is the mask that a node has.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from models.covariates import Covariate, Covariates
from models.files import BadModel
from models.malignancy import NETWORK, VOTES, Combination, LinearVotes, RatedView, as_function, asked
from models.nodule_features import FEATURES, features
from models.shipped import CARD
from plugins.errors import NadirError, Refused
from training.evaluate.bootstrap import interval
from training.evaluate.card_figures import card_figures
from training.evaluate.families import open_subject
from training.evaluate.malignancy import DRAWN, READERS, Drawn, drawer, shipped_drawer
from training.evaluate.runs import load_network, open_run, run_weights
from training.lidc import lidc_manifest, load_nodule
from training.malignancy_task import malignant
from training.manifest import DataManifest
from training.ship import About, ship, write_manifest
from training.table import number_in, read_rows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Facts = Mapping[str, Sequence[float | None]]
NOTHING_KNOWN: Mapping[str, Mapping[str, float]] = {}
DRAWS = 40
"""Regressions of a fold, each on another draw of its patients."""
STIFFNESS = 0.1
"""Inverse weight of the penalty on coefficients of standardised features (scikit-learn's C)."""
LARGEST_ECE = 0.10
"""With a larger expected calibration error nodules are not rated unless somebody asks for it."""
ABOUT = About(
    name="nodule_malignancy",
    version="1.0.0",
    licence="CC BY 3.0 (learned from LIDC-IDRI, doi:10.7937/K9/TCIA.2015.LO9QL9SX)",
    training_data="Nodules of LIDC-IDRI that readers rated below or above 3 of 5; each mask is what any of them drew.",
    input="CT in HU with the mask of one nodule; nothing beyond its slices and 2.5 mm in plane is looked at.",
    intended_use="How likely readers of images rate a lung nodule malignant; research use only.",
    limits=(
        "Ratings are opinions of readers about images, not pathology: this is no probability of cancer.",
        "Nodules that readers rated 3 (indeterminate) were left out: of those the likelihood says little.",
        "Larger nodules were rated malignant more often, and size alone tells most of what the model tells.",
        "The interval is of other draws of patients; it does not hold a wrong mask or another kind of scanner.",
        "A node rates what its segmenter draws: the figures with that mask are what it does, not the readers'.",
        "It was judged on nodules that readers had found and decided on, not on what a node finds by itself.",
    ),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RatedNodules:
    """What is known of the nodules that a model learns to rate, once for each mask; all arrays begin with `(N,)`."""

    values: Floats
    """Features `(N, F)`."""
    malignant: Bools
    """What their readers say."""
    fold: NDArray[np.int64]
    """The fold in which they are judged."""
    patients: tuple[str, ...]
    """Whose they are."""
    network: Floats
    """Logit of the network that has not seen the patient."""
    drawn: Bools
    """Whether the mask is the segmenter's, not the readers'."""
    facts: Facts = field(default_factory=dict)
    """Clinical facts by name, `(N,)` each; None where one is not known."""


def fit_votes(
    values: Floats, truth: Bools, patients: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> LinearVotes:
    """Return regressions on features `(N, F)`, each on patients drawn with replacement."""
    mean, spread = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    codes = np.unique(np.asarray(patients), return_inverse=True)[1]
    people = int(codes.max()) + 1
    random = np.random.default_rng(seed)
    weights: list[Floats] = []
    intercepts: list[float] = []
    while len(weights) < draws:
        times = np.bincount(random.integers(people, size=people), minlength=people)[codes]
        if not (truth[times > 0].any() and not truth[times > 0].all()):
            continue
        fitted = LogisticRegression(C=STIFFNESS, max_iter=1000)
        fitted.fit((values - mean) / spread, truth, sample_weight=times)
        weights.append(fitted.coef_[0] / spread)
        intercepts.append(float(fitted.intercept_[0] - weights[-1] @ mean))
    return LinearVotes(
        low=values.min(axis=0),
        high=values.max(axis=0),
        weights=np.array(weights),
        intercepts=np.array(intercepts),
    )


def fit_combination(linear: Floats, network: Floats, truth: Bools) -> Combination:
    """Return how logits of features and network `(N,)` are put together so that their sum is calibrated."""
    fitted = LogisticRegression(C=10.0).fit(np.stack([linear, network], axis=1), truth)
    own, other = fitted.coef_[0].tolist()
    return Combination(intercept=float(fitted.intercept_[0]), linear=own, network=other)


def fit_covariates(image: Floats, facts: Facts, truth: Bools, *, stiffness: float = 1.0) -> Covariates:
    """Return what clinical facts tell beside an image's logit `(N,)`; one that is not known (None) counts as the mean.

    Refuses `bad-facts`: a fact that is known of fewer than two nodules, or is the same for all.
    """
    columns, found = [image], []
    for name, values in facts.items():
        column = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        known = column[np.isfinite(column)]
        if known.size < 2 or known.std() == 0:
            raise Refused(
                "bad-facts",
                f"'{name}' is known of too few, or the same for all: nothing can be learned of it",
            )
        found.append((name, float(known.mean()), float(known.std())))
        columns.append(np.where(np.isfinite(column), (column - known.mean()) / known.std(), 0.0))
    fitted = LogisticRegression(C=stiffness).fit(np.stack(columns, axis=1), truth)
    own, *weights = fitted.coef_[0].tolist()
    return Covariates(
        image=own,
        intercept=float(fitted.intercept_[0]),
        facts=tuple(
            Covariate(name=name, mean=mean, spread=spread, weight=weight)
            for (name, mean, spread), weight in zip(found, weights, strict=True)
        ),
    )


def read_facts(file: Path) -> dict[str, dict[str, float]]:
    """Return the clinical facts of a CSV, by name and `patient_id`; what is empty is not known.

    Refuses `bad-facts`: what `training.table` refuses, no column beside `patient_id`, a line without a patient, a
    patient named twice, what is no finite number.
    """
    patients: set[str] = set()
    found: dict[str, dict[str, float]] = {}
    for line, row in read_rows(file, ("patient_id",), "bad-facts"):
        patient = row.pop("patient_id")
        if not patient:
            raise Refused("bad-facts", f"line {line} of {file} names no patient")
        if patient in patients:
            raise Refused("bad-facts", f"line {line} of {file} tells of a patient once more")
        patients.add(patient)
        for name, text in row.items():
            known = found.setdefault(name, {})
            if text.strip():
                known[patient] = number_in(row, name, line, file, "bad-facts")
    if not found:
        raise Refused(
            "bad-facts", f"{file} needs a column for each fact beside patient_id, and a line a patient"
        )
    return found


def rated_nodules(
    run: Path,
    manifest: DataManifest,
    root: Path,
    draw: Drawn | None = None,
    facts: Mapping[str, Mapping[str, float]] = NOTHING_KNOWN,
) -> RatedNodules:
    """Return every rated nodule of the finished folds of a run with the answer of the network that has not seen it.

    Each is there with the readers' mask, then, where something draws, with the mask that it draws. `facts` are what
    `read_facts` returns.
    """
    subject = open_run(run).on(manifest)
    view = RatedView.of(subject.card["task"]["view"])
    networks = {fold: as_function(load_network(subject, fold)) for fold in subject.folds}
    cases = [case for case in manifest.cases if malignant(case) is not None and case.fold in networks]
    rows = []
    for case in cases:
        nodule = load_nodule(case, root)
        for drawn, mask in enumerate([nodule.mask] if draw is None else [nodule.mask, draw(nodule)]):
            values = features(nodule.image, mask, nodule.spacing_mm)
            logit = asked(networks[case.fold], view.shown(nodule.image, mask, nodule.spacing_mm))
            rows.append((values, malignant(case), case.fold, case.patient_id, logit, bool(drawn)))
    columns = list(zip(*rows, strict=True))
    return RatedNodules(
        values=np.array(columns[0]),
        malignant=np.array(columns[1], dtype=np.bool_),
        fold=np.array(columns[2]),
        patients=columns[3],
        network=np.array(columns[4]),
        drawn=np.array(columns[5]),
        facts={name: [known.get(patient) for patient in columns[3]] for name, known in facts.items()},
    )


def learned(nodules: RatedNodules) -> tuple[dict[int, LinearVotes], dict[str, Any]]:
    """Return the regressions of each fold, and what the card says of how they were put together and of size alone."""
    folds = sorted(set(nodules.fold.tolist()))
    votes = {}
    linear, size = np.zeros(len(nodules.fold)), np.zeros(len(nodules.fold))
    volume = FEATURES.index("log2 volume")
    for fold in folds:
        own = nodules.fold == fold
        patients = [p for p, held in zip(nodules.patients, own, strict=True) if not held]
        votes[fold] = fit_votes(nodules.values[~own], nodules.malignant[~own], patients, seed=fold)
        linear[own] = votes[fold].logits(nodules.values[own]).mean(axis=1)
        alone = LogisticRegression().fit(nodules.values[~own][:, [volume]], nodules.malignant[~own])
        size[own] = alone.decision_function(nodules.values[own][:, [volume]])
    combined = {}
    for fold in folds:
        other = nodules.fold != fold
        combined[str(fold)] = asdict(
            fit_combination(linear[other], nodules.network[other], nodules.malignant[other])
        )
    everything = fit_combination(linear, nodules.network, nodules.malignant)
    image = everything.logits(linear, nodules.network)
    taught = fit_covariates(image, nodules.facts, nodules.malignant) if nodules.facts else None
    told = {
        "combination": {"all": asdict(everything), "folds": combined},
        "features": list(FEATURES),
        "draws": DRAWS,
        "covariates": asdict(taught) if taught else None,
        "beside": {
            words: {
                name: _auc(scores[own], nodules.malignant[own], np.asarray(nodules.patients)[own])
                for name, scores in (
                    ("AUC of volume alone", size),
                    ("AUC of the features", linear),
                    ("AUC of the network", nodules.network),
                )
            }
            for words, own in ((READERS, ~nodules.drawn), (DRAWN, nodules.drawn))
            if own.any()
        },
    }
    return votes, told


def _auc(scores: Floats, truth: Bools, patients: NDArray[np.str_]) -> dict[str, float | int | None]:
    def statistic(i: NDArray[np.intp]) -> float:
        both = truth[i].any() and not truth[i].all()
        return float(roc_auc_score(truth[i], scores[i])) if both else float("nan")

    found = interval(statistic, patients.tolist())
    assert found is not None
    return found.plain()


def pack(run: Path, root: Path, folder: Path, segmenter: str | None = None, facts: Path | None = None) -> str:
    """Write a run as a model into a folder, its figures yet unknown; return the sha256 of its manifest.

    `segmenter` is a folder of a model or a run; the shipped one when None. `facts` is a CSV of clinical facts. Refuses
    what `training.ship`, `open_subject`, `read_facts` and `fit_covariates` refuse.
    """
    from safetensors.numpy import load_file, save_file

    manifest = lidc_manifest(root)
    draw = shipped_drawer(manifest) if segmenter is None else drawer(open_subject(segmenter).on(manifest))
    known = NOTHING_KNOWN if facts is None else read_facts(facts)
    votes, told = learned(rated_nodules(run, manifest, root, draw, known))
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place)
        for fold, own in votes.items():
            (whole / f"fold{fold}").mkdir()
            shutil.copy(run / f"fold{fold}" / "run.json", whole / f"fold{fold}")
            numbers = {f"{NETWORK}{name}": value for name, value in load_file(run_weights(run, fold)).items()}
            numbers |= {f"{VOTES}{name}": np.asarray(value, np.float32) for name, value in vars(own).items()}
            save_file(numbers, run_weights(whole, fold))
        return ship(whole, manifest, folder, ABOUT, {**told, "calibrated": False}, {})


def put_figures(report: Path, folder: Path, *, when_asked: bool = False) -> str:
    """Put the figures of a judgement on the card of a packed model; return the sha256 of its manifest.

    The card says that the model is calibrated when with both masks the expected calibration error was found below
    `LARGEST_ECE`; never with `when_asked`, so that a node rates only when it is asked to.
    """
    card = json.loads((folder / CARD).read_text())
    card["figures"] = card_figures(json.loads((report / "report.json").read_text()))
    card["calibrated"] = not when_asked and is_calibrated(card["figures"])
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n")
    return write_manifest(folder, ABOUT, [f"fold{fold}.safetensors" for fold in card["folds"]])


def is_calibrated(figures: Mapping[str, Any]) -> bool:
    """Return whether figures tell an expected calibration error below `LARGEST_ECE` with each of the two masks."""
    settings = figures.get("classification", {}).get("settings", {})
    found = [settings.get(words, {}).get("ece") for words in (READERS, DRAWN)]
    return all(ece is not None and ece["value"] < LARGEST_ECE for ece in found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack a run as a model, or put the figures of its report on its card; print the sha256 of the manifest.

    Returns 2 for input that cannot be used.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of a run, or of a report")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--data", type=Path, help="folder of the crops, for a run")
    parser.add_argument("--segmenter", help="model or run that draws masks; the shipped one by default")
    parser.add_argument("--facts", type=Path, help="CSV of clinical facts of the patients, for a run")
    parser.add_argument(
        "--when-asked", action="store_true", help="a node rates by it only when it is asked to"
    )
    given = parser.parse_args(arguments)
    try:
        if given.data is None:
            told = put_figures(given.source, given.out, when_asked=given.when_asked)
        else:
            told = pack(given.source, given.data, given.out, given.segmenter, given.facts)
    except (NadirError, BadModel, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(told + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = [
    "RatedNodules",
    "fit_combination",
    "fit_covariates",
    "fit_votes",
    "is_calibrated",
    "learned",
    "pack",
    "put_figures",
    "rated_nodules",
    "read_facts",
]

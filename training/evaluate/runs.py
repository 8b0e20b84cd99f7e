"""Models as `nadir train` leaves them: a folder with one folder for each fold, each with its record and its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.export import Learned
from plugins.errors import Refused
from training.evaluate.data import Data
from training.evaluate.subject import Subject
from training.manifest import FOLDS, part_of

if TYPE_CHECKING:
    import torch

RECORD = "run.json"


def is_run(folder: Path) -> bool:
    """Return whether a folder is one of `nadir train`."""
    return any(folder.glob(f"fold*/{RECORD}"))


def open_run(folder: Path) -> Subject:
    """Return the model of a run; folds that are still being learned are left out.

    Refuses `no-weights` (no fold is finished), `bad-run` (a record cannot be read) and `mixed-runs` (folds of different
    settings or data).
    """
    records = {number: _record(path) for number, path in _finished(folder).items()}
    if not records:
        raise Refused("no-weights", f"no fold in {folder} is finished: there are no weights to be judged")
    kinds = {(record["experiment_sha256"], record["data_sha256"]) for record in records.values()}
    if len(kinds) > 1:
        raise Refused(
            "mixed-runs", f"the folds in {folder} were learned with different settings or from different data"
        )
    first = next(iter(records.values()))
    experiment = first["experiment"]
    return Subject(
        name=experiment["name"],
        version=f"run {first['experiment_sha256'][:12]}",
        family=experiment["model"],
        sha256=first["experiment_sha256"],
        folder=folder,
        card=experiment,
        folds=tuple(sorted(records)),
        held_out=first.get("held_out", {}),
        learned_from=first["data_sha256"],
    )


def learned_cases(subject: Subject, data: Data) -> int:
    """Return from how many cases a fold of a run, or of a model made of one, has learned: the mean over its folds.

    Refuses `nothing-learned` for what has no folds, and `other-data` when it has not learned from these.
    """
    if not subject.folds:
        raise Refused(
            "nothing-learned", f"{subject.name} has learned from no cases: it has no learning curve"
        )
    if subject.learned_from not in (None, data.manifest.sha256):
        raise Refused("other-data", f"{subject.folder} has not learned from {data.name}")
    experiment = subject.card.get("experiment", subject.card)
    share, inner = float(experiment["task"].get("share", 1.0)), bool(experiment.get("inner"))
    counts = []
    for fold in subject.folds:
        others = data.to_learn((fold, (fold + 1) % FOLDS) if inner else (fold,))
        counts.append(len(part_of(others, share, int(experiment["seed"]))))
    return round(sum(counts) / len(counts))


def run_weights(folder: Path, fold: int) -> Path:
    """Return where the weights of a fold lie."""
    return folder / f"fold{fold}" / f"fold{fold}.safetensors"


def learned_of(subject: Subject, fold: int) -> Learned:
    """Return the network of a fold with what it has learned, of a model or of a run."""
    if subject.model is not None:
        return Learned.of(subject.model, fold)
    from safetensors.numpy import load_file

    from training.tasks import view_of

    assert subject.folder is not None
    view = view_of(subject.card)
    return Learned(
        architecture={"in_channels": view.channels, **subject.card["architecture"]},
        patch=(view.channels, *view.shape),
        weights=load_file(run_weights(subject.folder, fold)),
    )


def load_network(subject: Subject, fold: int) -> torch.nn.Module:
    """Return the network of a fold, of a model or of a run, in fp32 and set to evaluate."""
    return learned_of(subject, fold).network()


def _finished(folder: Path) -> dict[int, Path]:
    found = {}
    for path in folder.glob(f"fold*/{RECORD}"):
        number = path.parent.name.removeprefix("fold")
        if number.isdecimal() and run_weights(folder, int(number)).is_file():
            found[int(number)] = path
    return found


def _record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        needed = (record["experiment"]["model"], record["data_sha256"], record["experiment_sha256"])
        if not all(isinstance(value, str) for value in needed):
            raise ValueError("model and hashes are texts")
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused("bad-run", f"{path} is no record of a run ({error!r})") from error


__all__ = ["is_run", "learned_cases", "learned_of", "load_network", "open_run", "run_weights"]

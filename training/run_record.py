"""The record of a run, `run.json`: what one fold learned from what, with which settings, code and packages."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from plugins.errors import Refused
from store.file_hash import sha256_of
from training.commit import commit
from training.experiment import Experiment
from training.manifest import DataManifest
from training.predecessor import Predecessor, weights_in

RECORD = "run.json"
BEGUN_WITH = "init_from_sha256"
PACKAGES = ("torch", "monai", "numpy", "scipy")


def require_same_run(folder: Path, experiment: Experiment, fold: int, data: DataManifest) -> None:
    """Refuse a folder whose record cannot be read (`bad-run`), or of another run (`another-run`).

    It is another one with other settings or data, or when the weights of `init_from` are not those it began with,
    wherever they lie; a record of before that was written down, and weights that are no longer there, tell no
    difference.
    """
    path = folder / RECORD
    now = weights_in(Path(experiment.init_from), fold) if experiment.init_from else None
    sha256 = sha256_of(now) if now else None
    try:
        said = json.loads(path.read_text())
        begun_with = said.get(BEGUN_WITH)
        if now and sha256 == begun_with:  # their folder may have moved since
            before = said.get("experiment", {}).get("init_from", experiment.init_from)
            experiment = replace(experiment, init_from=before)
        is_same = all(said.get(key) == value for key, value in _same(experiment, fold, data).items())
    except (OSError, ValueError, AttributeError) as error:
        raise Refused(
            "bad-run",
            f"{path} cannot be read as the record of a run ({error}), so nobody knows what lies beside it: "
            f"delete {folder}, or give another --out",
        ) from error
    if not is_same:
        raise Refused("another-run", f"{folder} holds a run with other settings or data; give another --out")
    if begun_with and now and sha256 != begun_with:
        raise Refused(
            "another-run",
            f"{folder} holds a run that began with other weights than {now} (init_from), which were learned anew "
            "since: delete it, or give another --out",
        )


def write_record(
    folder: Path, experiment: Experiment, fold: int, data: DataManifest, predecessor: Predecessor | None
) -> None:
    """Write the record of a fold, whole or not at all; `predecessor` is what it begins with."""
    about = {
        **_same(experiment, fold, data),
        "held_out": {**(predecessor.held_out if predecessor else {}), **data.held_out},
        BEGUN_WITH: sha256_of(predecessor.weights) if predecessor else None,
        "experiment": asdict(experiment),
        "seed": experiment.seed,
        "commit": commit(),
        "environment": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            **{name: version(name) for name in PACKAGES},
        },
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    half = folder / f"{RECORD}.half"
    half.write_text(json.dumps(about, indent=1) + "\n")
    os.replace(half, folder / RECORD)


def _same(experiment: Experiment, fold: int, data: DataManifest) -> dict[str, object]:
    """Return what is the same in a run that goes on."""
    return {"experiment_sha256": experiment.sha256, "data_sha256": data.sha256, "fold": fold}


__all__ = ["require_same_run", "write_record"]

"""The record of a run, `run.json`: what one fold learned from what, with which settings, code and packages."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from plugins.errors import Refused
from training.commit import commit
from training.experiment import Experiment
from training.manifest import DataManifest

RECORD = "run.json"
PACKAGES = ("torch", "monai", "numpy", "scipy")


def require_same_run(folder: Path, experiment: Experiment, fold: int, data: DataManifest) -> None:
    """Refuse a folder of other settings or other data (`another-run`), or whose record cannot be read (`bad-run`)."""
    path = folder / RECORD
    try:
        said = json.loads(path.read_text())
        is_same = all(said.get(key) == value for key, value in _same(experiment, fold, data).items())
    except (OSError, ValueError, AttributeError) as error:
        raise Refused(
            "bad-run",
            f"{path} cannot be read as the record of a run ({error}), so nobody knows what lies beside it: "
            f"delete {folder}, or give another --out",
        ) from error
    if not is_same:
        raise Refused("another-run", f"{folder} holds a run with other settings or data; give another --out")


def write_record(
    folder: Path, experiment: Experiment, fold: int, data: DataManifest, earlier: Mapping[str, int]
) -> None:
    """Write the record of a fold, whole or not at all.

    `earlier` is the fold of each patient that the weights it begins with have learned from.
    """
    about = {
        **_same(experiment, fold, data),
        "held_out": {**earlier, **data.held_out},
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

"""From a run of `nadir train` to a folder that a node can use: weights, card and manifest for `models.files`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.files import MANIFEST
from plugins.errors import Refused
from training.manifest import DataManifest
from training.tasks import view_of


@dataclass(frozen=True, kw_only=True)
class About:
    """What people are told of a model."""

    name: str
    """Name of the model."""
    version: str
    """Its version."""
    licence: str
    """Under what terms it may be used."""
    training_data: str
    """One sentence: what it learned from."""
    input: str
    """One sentence: what it is given, with spacing and units."""
    intended_use: str
    """One sentence: for what."""
    limits: Sequence[str] = field(default_factory=tuple)
    """What it cannot do, in sentences."""


def ship(
    run: Path,
    data: DataManifest,
    folder: Path,
    about: About,
    decided: Mapping[str, Any],
    figures: Mapping[str, Any],
    held_out: Mapping[str, int] | None = None,
    beside: Mapping[str, Mapping[str, NDArray[np.generic]]] | None = None,
) -> str:
    """Write the finished folds of a run into a folder as a model; return the sha256 of its manifest.

    `decided` is what was chosen on patients that the deciding network had not seen, `figures` what was measured on
    them. `models.nodule_segmenter` reads of it `levels` (probability from which a lesion is seen at all: one, or one
    for each voxel size), `mirrors` (1 to 8) and `doubt` (as `training.nodule_doubt` writes it).
    `held_out` is the fold of each patient that weights before these had learned from, beside those of `data` and of the
    run's own record.
    `beside` are arrays in files of their own, by the name of the file.
    Refuses `no-weights` and `other-data`.
    """
    from safetensors.numpy import save

    records = _records(run)
    first = next(iter(records.values()))
    if any(record["data_sha256"] != data.sha256 for record in records.values()):
        raise Refused("other-data", f"{run} learned from other data than {data.name}")
    folder.mkdir(parents=True, exist_ok=True)
    for number in records:
        shutil.copyfile(
            run / f"fold{number}" / f"fold{number}.safetensors", folder / f"fold{number}.safetensors"
        )
    experiment = {**first["experiment"]}
    if experiment.get("init_from"):
        experiment["init_from"] = Path(
            experiment["init_from"]
        ).name  # the rest is a place on somebody's machine
    view = view_of(experiment)
    card = {
        **asdict(about),
        "kind": "learned",
        "architecture": {"in_channels": view.channels, **experiment["architecture"]},
        "view": asdict(view),
        **decided,
        "folds": sorted(records),
        "held_out": {**first.get("held_out", {}), **(held_out or {}), **data.held_out},
        "data_sha256": data.sha256,
        "experiment": experiment,
        "trained": {
            str(n): {key: r[key] for key in ("commit", "environment", "begun", "seed")}
            for n, r in sorted(records.items())
        },
        "figures": figures,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    for name, arrays in (beside or {}).items():
        (folder / name).write_bytes(save({key: np.ascontiguousarray(one) for key, one in arrays.items()}))
    return write_manifest(
        folder, about, [*(f"fold{n}.safetensors" for n in sorted(records)), *(beside or ())]
    )


def _records(run: Path) -> dict[int, dict[str, Any]]:
    """Return the record of each finished fold of a run."""
    found = {}
    for path in run.glob("fold*/run.json"):
        record = json.loads(path.read_text())
        if (path.parent / f"fold{record['fold']}.safetensors").is_file():
            found[int(record["fold"])] = record
    if not found:
        raise Refused("no-weights", f"no fold in {run} is finished")
    return found


def write_manifest(folder: Path, about: About, weights: Sequence[str]) -> str:
    """Write the manifest of the card and weights that lie in a folder; return its sha256."""
    files = {
        name: {
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            "size_bytes": (folder / name).stat().st_size,
        }
        for name in ("card.json", *weights)
    }
    said = {key: getattr(about, key) for key in ("name", "version", "licence", "training_data", "input")}
    text = json.dumps({**said, "files": files}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


__all__ = ["About", "ship", "write_manifest"]

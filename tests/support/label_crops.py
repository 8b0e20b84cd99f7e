"""A node with a small champion and labels of people, as a run of retraining meets them; also as a program to kill."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from ball_nodules import ball_nodule
from tiny_champion import tiny_champion

from models.shipped import Model
from store import registry
from store.database import Database
from store.file_hash import sha256_of
from store.model_folders import stage
from store.patient_key import patient_key
from training.frozen import Gathered
from training.manifest import Case, DataManifest
from training.margins import Margins
from training.recipe import Recipe
from training.retrain import Ended, Retraining

FAMILY = "nodule_segmenter"
LEARNERS = ("L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7")
JUDGES = ("J0", "J1", "J2", "J3", "J4", "J5")
RECIPE = Recipe(
    family=FAMILY,
    fewest_new_labels=4,
    steps=50,
    batch=4,
    learning_rate=0.01,
    margins=Margins(
        fewest_patients=5,
        fewest_cases=5,
        resamples=200,
        latency_ratio=5.0,
        ece=1.0,
        coverage=1.0,
        hd95_mm=9.0,
    ),
)
"""Short, and with a gate that looks at outlines only: the doubt of the small champion means nothing."""


def database_of(home: Path) -> Database:
    return Database(f"sqlite:///{home / 'nadir.sqlite'}", sync=False)


def make_node(home: Path, steps: int) -> str:
    """Make a node whose champion learned for so many steps, and return the champion's hash."""
    home.mkdir(parents=True)
    sha256 = tiny_champion(home / "champion", steps)
    database = database_of(home)
    database.upgrade()
    staged = stage(home, FAMILY, home / "champion" / "model")
    with database.transaction() as session:
        now = database.now()
        judged = registry.Judged(
            champion_sha256=registry.counts_now(session, FAMILY), is_proposed=True, because="-",
            data_sha256="-", judged_sha256="-", figures={},
        )  # fmt: skip
        version = registry.register(session, staged, judged, now=now)
        registry.approve(session, home, FAMILY, version.number, author="test", now=now)
    database.dispose()
    return sha256


def write_labels(folder: Path, name: str, patients: tuple[str, ...], first: int = 0) -> DataManifest | None:
    """Write one ball of each patient, as `training.collect` would; None without patients."""
    cases = [_case(folder, patient, number + first) for number, patient in enumerate(patients)]
    return DataManifest(name=name, cases=tuple(cases)) if cases else None


def _case(folder: Path, patient: str, number: int) -> Case:
    key = patient_key(patient)
    nodule = ball_nodule(8.0 + number % 8, (1.25, 0.7, 0.7), seed=100 + number, patient=key)
    files = {role: f"{role}s/{key}.nii.gz" for role in ("image", "mask")}
    for role, voxels in (("image", nodule.image), ("mask", nodule.mask)):
        (folder / files[role]).parent.mkdir(parents=True, exist_ok=True)
        written = nibabel.Nifti1Image(
            voxels.transpose(2, 1, 0).astype(np.int16), np.diag([-0.7, -0.7, 1.25, 1.0])
        )
        nibabel.save(written, folder / files[role])
    sha256 = {role: sha256_of(folder / path) for role, path in files.items()}
    return replace(nodule.case, case_id=key, files=files, sha256=sha256)


def gather(learners: tuple[str, ...] = LEARNERS, judges: tuple[str, ...] = JUDGES) -> Any:
    """Return what writes these persons' labels."""

    def write(folder: Path, _: Model) -> Gathered:
        return Gathered(
            learn=write_labels(folder / "learn", "labels", learners),
            judge=write_labels(folder / "judge", "hold-out", judges, 20),
        )

    return write


def retrain(home: Path, database: Database, gathers: Any = None, **changed: Any) -> Ended:
    """Run a retraining to its end."""
    how = {"owner": "test:1", "lease_seconds": 60.0, "recipe": RECIPE, **changed}
    return Retraining(database=database, home=home, gather=gathers or gather(), **how).run()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    ended = retrain(place, database_of(place), owner=f"test:{sys.argv[2]}", lease_seconds=float(sys.argv[3]))
    sys.stdout.write(ended.state)

"""A nodule segmenter that learned too little, packed as a model folder: what retraining begins with in tests."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ball_nodules import TINY, write_crops
from empty_database import empty_database
from tiny_segmenter import FACTOR

from models.nodule_segmenter import NAME
from models.shipped import VOUCHED
from store.model_folders import stage
from store.registry import Judged, approve, register
from training.experiment import read_experiments
from training.fit import fit
from training.lidc import lidc_manifest
from training.nodule_task import nodule_task
from training.ship import About, ship

DOUBT: dict[str, Any] = {"temperature": 1.0, "volume_mm3": FACTOR, "long_axis_mm": FACTOR}
ABOUT = About(
    name=NAME,
    version="tiny",
    licence="Apache-2.0",
    training_data="Ten balls in noise.",
    input="HU.",
    intended_use="Tests.",
)


def install(home: Path, folder: Path, steps: int) -> str:
    """Train a champion, let it count in the database of a new home folder, and return its sha256."""
    sha256, now = tiny_champion(folder, steps), datetime.now(UTC)
    database = empty_database(home)
    staged = stage(home, NAME, folder / "model")
    judged = Judged(
        champion_sha256=VOUCHED[NAME],
        is_proposed=True,
        because="It was chosen by hand.",
        data_sha256="",
        judged_sha256="",
        figures={},
    )
    with database.transaction() as session:
        number = register(session, staged, judged, now=now).number
        approve(session, home, NAME, number, author="Dr. First", now=now)
    database.dispose()
    return sha256


def tiny_champion(folder: Path, steps: int) -> str:
    """Train one small network on ten balls for so many steps, pack it into `folder / model`; return its sha256."""
    crops, run = write_crops(folder / "crops"), folder / "run"
    config = folder / "tiny.yaml"
    config.write_text(TINY.replace("STEPS", str(steps)))
    (experiment,) = read_experiments(config)
    fit(experiment, 0, nodule_task(experiment, 0, crops), run / "fold0")
    decided = {"levels": [0.5], "mirrors": 1, "doubt": {"all": DOUBT, "folds": [DOUBT]}}
    return ship(run, lidc_manifest(crops), folder / "model", ABOUT, decided, {})


__all__ = ["ABOUT", "DOUBT", "install", "tiny_champion"]

"""A nodule segmenter that learned too little, packed as a model folder: what retraining begins with in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ball_nodules import TINY, write_crops
from tiny_segmenter import FACTOR

from models.nodule_segmenter import NAME
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


def tiny_champion(folder: Path, steps: int) -> str:
    """Train one small network on ten balls for so many steps, pack it into `folder / model`; return its sha256."""
    crops, run = write_crops(folder / "crops"), folder / "run"
    config = folder / "tiny.yaml"
    config.write_text(TINY.replace("STEPS", str(steps)))
    (experiment,) = read_experiments(config)
    fit(experiment, 0, nodule_task(experiment, 0, crops), run / "fold0")
    decided = {"levels": [0.5], "mirrors": 1, "doubt": {"all": DOUBT, "folds": [DOUBT]}}
    return ship(run, lidc_manifest(crops), folder / "model", ABOUT, decided, {})


__all__ = ["ABOUT", "DOUBT", "tiny_champion"]

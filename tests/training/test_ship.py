from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from ball_nodules import TINY, write_crops

from models.files import load_weights, verify
from models.networks import build
from models.nodule_passes import NoduleView
from models.shipped import WEIGHTS
from plugins.errors import Refused
from training.experiment import read_experiments
from training.fit import fit
from training.lidc import lidc_manifest
from training.nodule_task import nodule_task
from training.ship import About, ship

ABOUT = About(
    name="tiny",
    version="1",
    licence="Apache-2.0",
    training_data="Balls.",
    input="HU.",
    intended_use="Tests.",
)


def test_a_run_becomes_a_folder_that_the_door_of_models_lets_in(tmp_path: Path) -> None:
    crops, run, out = write_crops(tmp_path / "crops"), tmp_path / "run", tmp_path / "model"
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.replace("STEPS", "1"))
    (experiment,) = read_experiments(config)
    fit(experiment, 0, nodule_task(experiment, 0, crops), run / "fold0")
    record = json.loads((run / "fold0" / "run.json").read_text())
    record["experiment"]["init_from"] = str(tmp_path / "first_stage")
    record["held_out"]["whom its predecessor knew"] = 7
    (run / "fold0" / "run.json").write_text(json.dumps(record))
    trusted = ship(run, lidc_manifest(crops), out, ABOUT, {"levels": [0.4]}, {"dice": 0.5})

    assert verify(out, [trusted], date(2026, 1, 1)).files.keys() == {"card.json", "fold0.safetensors"}
    card = json.loads((out / "card.json").read_text())
    assert card["folds"] == [0]
    assert card["experiment"]["init_from"] == "first_stage"
    assert str(tmp_path) not in (out / "card.json").read_text()
    assert card["held_out"].pop("whom its predecessor knew") == 7
    assert sorted(card["held_out"].values()) == sorted([0, 1, 2, 3, 4] * 2)
    assert not any("P1" in key for key in card["held_out"])
    assert NoduleView.of(card["view"]).shape == (16, 16, 16)
    weights = load_weights(out, "fold0.safetensors", [trusted], date(2026, 1, 1))
    shapes = {name: tuple(value.shape) for name, value in build(card["architecture"]).state_dict().items()}
    assert {name: np.shape(value) for name, value in weights.items()} == shapes


def test_a_run_without_weights_is_not_shipped(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", patients=5)
    with pytest.raises(Refused, match="no-weights"):
        ship(tmp_path / "nothing", lidc_manifest(crops), tmp_path / "model", ABOUT, {}, {})


def test_no_shipped_card_names_a_place_on_a_machine() -> None:
    cards = [json.loads(path.read_text()) for path in WEIGHTS.glob("*/card.json")]
    began = [card["experiment"]["init_from"] for card in cards if card.get("experiment", {}).get("init_from")]
    assert cards and not any(Path(place).is_absolute() for place in began)

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_nodules import write_crops
from numpy.typing import NDArray
from safetensors.torch import save_file

from models import nodule_segmenter
from models.doubt import Doubt, Sizes, judge_doubt
from models.networks import build
from models.nodule_passes import Network
from models.shipped import Model
from training import nodule_doubt
from training.evaluate.data import Data, open_data
from training.evaluate.runs import open_run

ARCHITECTURE = {
    "kind": "unet",
    "out_channels": 1,
    "channels": [4, 8],
    "strides": [2],
    "num_res_units": 0,
    "dropout": 0.3,
}
VIEW = {
    "shape": [16, 16, 16],
    "voxels_mm": [1.25],
    "fits_mm": [],
    "first": 0,
    "windows_hu": [[-1000, 400]],
    "point_sigma_mm": 3.0,
    "passes": 1,
}


def write_run(folder: Path, data: Data) -> Path:
    """Write a run of five networks that have learned nothing."""
    experiment = {"name": "tiny", "model": "nodule_segmenter", "seed": 0, "architecture": ARCHITECTURE}
    for fold in range(5):
        (folder / f"fold{fold}").mkdir(parents=True)
        torch.manual_seed(fold)
        weights = build({"in_channels": 2, **ARCHITECTURE}).state_dict()
        save_file(weights, folder / f"fold{fold}" / f"fold{fold}.safetensors")
        record = {
            "experiment_sha256": "e" * 64,
            "data_sha256": data.manifest.sha256,
            "experiment": {**experiment, "task": {"view": VIEW}},
            "fold": fold,
            "commit": "",
            "environment": {},
            "begun": "",
            "seed": 0,
        }
        (folder / f"fold{fold}" / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return open_data(write_crops(tmp_path_factory.mktemp("crops"), patients=30))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, crops: Data) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), crops)


def test_a_run_teaches_its_card_what_to_doubt(run: Path, crops: Data, tmp_path: Path) -> None:
    out = tmp_path / "doubt.json"
    assert nodule_doubt.main([str(run), str(crops.root), "--out", str(out), "--levels", "0.3"]) == 0
    said = json.loads(out.read_text())
    everybody = Doubt.of_card(said["all"])
    assert sum(everybody.volume_mm3.cases) == 30
    folds = [Doubt.of_card(part) for part in said["folds"]]
    assert [sum(one.volume_mm3.cases) for one in folds] == [24] * 5
    told = said["figures"]
    assert told["cases"] == 30 and 0 < told["ece"] < 1
    assert told["volume_coverage"]["cases"] == 30
    assert sum(part["cases"] for part in told["coverage_by_size"].values()) == 30
    assert {"mutual_information of dropout", "dice_deficit of mirrors", "entropy of dropout"} < set(
        told["uncertainty_error"]
    )


def test_each_nodule_is_answered_by_the_network_that_has_not_seen_its_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = open_data(write_crops(tmp_path / "crops", patients=10))
    run = write_run(tmp_path / "run", crops)
    asked: list[int] = []
    real = nodule_segmenter.torch_network

    def told(model: Model, fold: int) -> Network:
        network = real(model, fold)

        def run(patches: NDArray[np.float32]) -> NDArray[np.float32]:
            asked.append(fold)
            return network(patches)

        return run

    monkeypatch.setattr(nodule_segmenter, "torch_network", told)
    subject = open_run(run).on(crops.manifest)
    held = []
    for one in nodule_doubt.held_out(subject, crops, levels=[0.3], mirrors=1, passes=0):
        assert set(asked) == {one.answered.fold}
        asked.clear()
        held.append(one)
    assert {one.patient_id: one.answered.fold for one in held} == {
        c.patient_id: c.fold for c in crops.manifest.cases
    }
    assert all(np.isfinite(one.answered.logits).all() for one in held)
    assert len(judge_doubt([one.answered for one in held], Sizes()).folds) == 5


def test_a_run_with_too_few_nodules_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = open_data(write_crops(tmp_path / "crops", patients=5))
    run = write_run(tmp_path / "run", few)
    with pytest.raises(SystemExit):
        nodule_doubt.main([str(run), str(few.root), "--out", str(tmp_path / "doubt.json")])
    assert "too few" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "said"), [("/nowhere", "no folder of a model"), ("suv-2.5", "draw nodules")]
)
def test_what_draws_no_nodules_is_refused_in_a_sentence(
    model: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops = write_crops(tmp_path / "crops", patients=5)
    try:
        code = nodule_doubt.main([model, str(crops), "--out", str(tmp_path / "doubt.json")])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_model_is_asked_with_the_levels_and_mirrors_of_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_with: list[object] = []

    def held_out(subject: object, data: object, **how: object) -> Iterator[nodule_doubt.Held]:
        asked_with.append(how)
        return iter(())

    monkeypatch.setattr(nodule_doubt, "held_out", held_out)
    with pytest.raises(SystemExit):
        nodule_doubt.main(
            [
                "nodule_segmenter",
                str(write_crops(tmp_path / "crops", patients=5)),
                "--out",
                "doubt.json",
                "--passes",
                "0",
            ]
        )
    assert asked_with == [{"levels": [0.4, 0.45, 0.4], "mirrors": 8, "passes": 0}]

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from thorax import ct_volume, study_of

from models.tree import tree_sha256
from plugins import codes
from plugins.contract import Finding, Plugin
from plugins.errors import Refused
from plugins.registry import load_plugins

AXIAL = np.array([[0.0, 0.0, 1.0, -20.0], [0.0, 1.0, 0.0, -16.0], [2.0, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
WEIGHTS = "Dataset291_TotalSegmentator_part1"


class Network:
    """Stands in for the predictor of nnU-Net, which the package calls."""

    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        return data


class Stand:
    """Stands in for the package: wants weights, looks at its settings, and calls what is dense `liver`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings: dict[str, Any] = {}
        modules = {
            name: ModuleType(f"totalsegmentator{name}")
            for name in ("", ".python_api", ".libs", ".map_to_binary")
        }
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, f"totalsegmentator{name}", module)
            if name:
                setattr(modules[""], name[1:], module)
        for name in ("nnunetv2", "nnunetv2.inference", "nnunetv2.inference.predict_from_raw_data"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["nnunetv2.inference.predict_from_raw_data"].nnUNetPredictor = Network  # type: ignore[attr-defined]
        self.api = modules[".python_api"]
        self.api.totalsegmentator = self.draw  # type: ignore[attr-defined]
        self.api.download_pretrained_weights = self.call_home  # type: ignore[attr-defined]
        modules[".libs"].TASK_ID_WEIGHTS_CONFIGS = {291: {"foldername": WEIGHTS}}  # type: ignore[attr-defined]
        modules[".map_to_binary"].class_map = {"total": {5: "liver", 1: "spleen"}}  # type: ignore[attr-defined]
        monkeypatch.setattr("plugins.total_segmentator.version", lambda name: "2.18.0")
        for name in ("TOTALSEG_HOME_DIR", "TOTALSEG_WEIGHTS_PATH"):
            monkeypatch.setenv(name, "/nowhere")

    def call_home(self, task_id: int) -> None:
        raise AssertionError("something was downloaded")

    def draw(self, image: Any, output: None, **options: object) -> Any:
        self.settings = json.loads((Path(os.environ["TOTALSEG_HOME_DIR"]) / "config.json").read_text())
        self.api.download_pretrained_weights(291)
        logits = Network().predict_logits_from_preprocessed_data(
            torch.tensor(np.asarray(image.dataobj))[None]
        )
        labels = np.where(logits[0].numpy() > 0, 5, 0).astype(np.uint8)
        return nib.Nifti1Image(labels, image.affine)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Stand:
    return Stand(monkeypatch)


def as_plugin(folder: Path, with_weights: bool = True) -> Plugin:
    (folder / (WEIGHTS if with_weights else "other")).mkdir(parents=True)
    (folder / "readme.txt").write_text("weights")
    values = {"adapter": "total_segmentator", "folder": str(folder), "trusted": tree_sha256(folder)}
    return load_plugins({"organs": values}, ["organs"])[0]


def test_organs_are_findings_on_the_series_and_nobody_is_told(tmp_path: Path, package: Stand) -> None:
    hu = np.full((12, 20, 24), -800.0, dtype=np.float32)
    hu[3:9, 5:15, 4:12] = 60.0
    (liver,) = as_plugin(tmp_path / "weights").run(study_of(ct_volume(hu, AXIAL)))
    assert isinstance(liver, Finding)
    assert (liver.label, liver.type, liver.category) == ("liver", codes.LIVER, codes.ANATOMICAL_STRUCTURE)
    assert np.array_equal(liver.mask.full(), hu > 0)
    assert {one.name for one in liver.measurements} & {"long_axis", "short_axis"} == set()
    assert liver.measurement("volume").value == pytest.approx(480 * 2.0 / 1000)
    assert package.settings["send_usage_stats"] is False


def test_weights_that_are_missing_are_named_and_not_downloaded(tmp_path: Path, package: Stand) -> None:
    plugin = as_plugin(tmp_path / "weights", with_weights=False)
    with pytest.raises(Refused, match=f"weights-missing: '{WEIGHTS}'"):
        plugin.run(study_of(ct_volume(np.zeros((4, 8, 8), dtype=np.float32), AXIAL)))


def test_organs_of_a_network_whose_answer_is_nan_are_refused(
    tmp_path: Path, package: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Network, "predict_logits_from_preprocessed_data", lambda _, data: torch.full_like(data, float("nan"))
    )
    plugin = as_plugin(tmp_path / "weights")
    with pytest.raises(
        Refused, match="model-failed: the network gave NaN or infinity for 256 of 256 numbers"
    ):
        plugin.run(study_of(ct_volume(np.zeros((4, 8, 8), dtype=np.float32), AXIAL)))

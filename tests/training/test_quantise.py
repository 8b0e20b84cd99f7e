"""Ranges come from patients that a fold has learned from, and what eight bits lose is counted rightly."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from ball_nodules import ball_nodule
from nodule_crops import write_crops
from numpy.typing import NDArray

from models.nodule_passes import NoduleView
from models.shipped import open_model
from training import quantise
from training.evaluate.data import open_data
from training.evaluate.subject import Subject
from training.quantise import Lost, lost, put_on_card, ranged

Array = NDArray[np.float32]
VIEW = {
    "shape": [16, 16, 16],
    "voxels_mm": [1.0, 1.6],
    "fits_mm": [12.0],
    "first": 1,
    "windows_hu": [[-1000, 400]],
    "point_sigma_mm": 3.0,
}


def bright(level_hu: float) -> object:
    """Return a network that draws what is brighter than a level."""
    level = (level_hu + 1000) / 700 - 1

    def run(shown: Array) -> Array:
        return (shown[:, :1] - np.float32(level)) * 20

    return run


def test_what_is_lost_is_counted_against_the_plain_kind() -> None:
    nodules = [ball_nodule(10.0, (1.0, 0.75, 0.75), seed, f"P{seed}", 0) for seed in range(3)]
    view = NoduleView.of(VIEW)
    same, other = bright(-400.0), bright(-100.0)
    score, found = lost({"torch-fp32": same, "same": same, "other": other}, view, nodules)
    assert score > 0.85
    assert found["same"] == Lost(nodules=3, dice=0.0, volume_bias=0.0, total_volume_bias=0.0)
    assert found["other"].volume_bias < -0.05
    assert set(found) == {"same", "other"}


@pytest.mark.parametrize(
    ("dice", "volume", "allowed"),
    [(0.01, 0.02, True), (0.011, 0.0, False), (0.0, 0.021, False), (0.0, -0.021, False), (-0.1, 0.0, True)],
)
def test_more_than_a_hundredth_of_dice_or_two_of_volume_is_not_allowed(
    dice: float, volume: float, allowed: bool
) -> None:
    assert Lost(nodules=1, dice=dice, volume_bias=volume, total_volume_bias=0.0).allowed is allowed
    assert Lost(nodules=1, dice=dice, volume_bias=0.0, total_volume_bias=volume).allowed is allowed


def test_no_patient_of_the_fold_is_looked_at_for_its_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    import torch
    from safetensors.torch import save_file

    from models.networks import build

    network = {"kind": "unet", "out_channels": 1, "channels": [4, 8], "strides": [2], "num_res_units": 1}
    torch.manual_seed(0)
    weights = build({"in_channels": 2, **network}).state_dict()
    (tmp_path / "fold1").mkdir()
    save_file(
        {n: v.half() if v.dtype == torch.float32 else v for n, v in weights.items()},
        tmp_path / "fold1" / "fold1.safetensors",
    )
    data = open_data(write_crops(tmp_path))
    card = {"architecture": network, "task": {"view": VIEW}}
    subject = Subject(
        name="m", version="1", family="nodule_segmenter", sha256="0", folder=tmp_path, card=card, folds=(1,)
    )
    looked, real = [], quantise.load_nodule

    def told(case: object, root: Path) -> object:
        looked.append(case.fold)
        return real(case, root)

    monkeypatch.setattr(quantise, "load_nodule", told)
    ranges = ranged(subject, data, 1).ranges
    assert looked and 1 not in looked
    assert -1.0 <= ranges["patches"][0] < -0.7
    assert ranges["logits"][0] < ranges["logits"][1]


def test_ranges_on_a_card_make_another_manifest_that_holds(tmp_path: Path) -> None:
    card, manifest = (
        {"folds": [0], "view": {}},
        {"name": "m", "version": "1", "licence": "l", "training_data": "t"},
    )
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "manifest.json").write_text(
        json.dumps({**manifest, "input": "i", "files": {"card.json": {}}})
    )
    sha256 = put_on_card(tmp_path, {"0": {"patches": (-1.0, 1.0)}})
    model = open_model(tmp_path, {sha256}, date.min)
    assert model.card["int8"] == {"0": {"patches": [-1.0, 1.0]}}

"""Ranges come from patients that a fold has learned from, and what eight bits lose is counted rightly."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from ball_nodules import ball_nodule
from nodule_crops import write_crops
from numpy.typing import NDArray
from tiny_segmenter import bright_segmenter

from models.runtime import Runner
from models.shipped import open_model
from training import quantise
from training.evaluate.bootstrap import Interval
from training.evaluate.crops import AS_GIVEN, asked
from training.evaluate.data import open_data
from training.evaluate.subject import Subject
from training.quantise import Drawn, Lost, drawer, drawn, lost, put_on_card, ranged

Array = NDArray[np.float32]
VIEW = {
    "shape": [16, 16, 16],
    "voxels_mm": [1.0, 1.6],
    "fits_mm": [12.0],
    "first": 1,
    "windows_hu": [[-1000, 400]],
    "point_sigma_mm": 3.0,
}


def bright(level_hu: float) -> Runner:
    """Return a network that draws what is brighter than a level."""
    level = (level_hu + 1000) / 700 - 1

    def run(shown: Array) -> Array:
        return (shown[:, :1] - np.float32(level)) * 20

    return run


def test_what_is_lost_is_counted_against_the_plain_kind() -> None:
    nodules = [ball_nodule(10.0, (1.0, 0.75, 0.75), seed, f"P{seed}", 0) for seed in range(3)]
    run = Subject(
        name="m",
        version="1",
        family="nodule_segmenter",
        sha256="0",
        card={"task": {"view": VIEW}},
        folds=(0,),
    )
    networks = {"torch-fp32": bright(-400.0), "same": bright(-400.0), "other": bright(-100.0)}
    rows = drawn({kind: drawer(run, 0, network, 1) for kind, network in networks.items()}, nodules)
    plain, found = lost(rows)
    assert plain.value > 0.85 and plain.patients == 3
    assert found["same"].dice == Interval(value=0.0, low=0.0, high=0.0, cases=3, patients=3)
    assert found["same"].volume_bias.value == found["same"].total_volume_bias == 0.0
    other = found["other"].volume_bias
    assert other.low is not None and other.low <= other.value < -0.05 and set(found) == {"same", "other"}


def test_the_bias_is_of_what_torch_drew_and_in_all_of_cubic_millimetres() -> None:
    rows = [
        Drawn(
            patient_id="a", dice={"torch-fp32": 0.9, "k": 0.8}, volume_mm3={"torch-fp32": 100.0, "k": 110.0}
        ),
        Drawn(
            patient_id="b", dice={"torch-fp32": 0.7, "k": 0.7}, volume_mm3={"torch-fp32": 300.0, "k": 270.0}
        ),
        Drawn(patient_id="b", dice={"torch-fp32": 0.0, "k": 0.3}, volume_mm3={"torch-fp32": 0.0, "k": 40.0}),
    ]
    plain, found = lost(rows)
    assert plain.value == pytest.approx(1.6 / 3)
    assert found["k"].dice.value == pytest.approx((0.1 + 0 - 0.3) / 3)
    assert found["k"].volume_bias.value == pytest.approx(0.0) and found["k"].volume_bias.cases == 2
    assert found["k"].total_volume_bias == pytest.approx(20 / 400)
    with pytest.raises(ValueError, match="drew no nodule"):
        lost(rows[2:])


def test_a_model_draws_as_a_node_does() -> None:
    nodule = ball_nodule(12.0, (1.0, 0.75, 0.75), 1)
    image, _, point, _ = asked(nodule, AS_GIVEN)
    model = bright_segmenter(folds=[0]).model
    subject = Subject(name="m", version="1", family="nodule_segmenter", sha256="0", model=model, folds=(0,))
    found = drawer(subject, 0, bright(-400.0), 1)(nodule, image, point)
    expected = replace(bright_segmenter(folds=[0]), given=(bright(-400.0),), mirrors=1)
    k, r, c = (round(p) for p in point)
    assert found.any()
    assert (found == expected.segment(image, nodule.spacing_mm, (k, r, c))).all()


def told(value: float) -> Interval:
    return Interval(value=value, low=None, high=None, cases=1, patients=1)


@pytest.mark.parametrize(
    ("dice", "volume", "allowed"),
    [(0.01, 0.02, True), (0.011, 0.0, False), (0.0, 0.021, False), (0.0, -0.021, False), (-0.1, 0.0, True)],
)
def test_more_than_a_hundredth_of_dice_or_two_of_volume_is_not_allowed(
    dice: float, volume: float, allowed: bool
) -> None:
    assert Lost(dice=told(dice), volume_bias=told(volume), total_volume_bias=0.0).allowed is allowed
    assert Lost(dice=told(dice), volume_bias=told(0.0), total_volume_bias=volume).allowed is allowed


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
    card = {"model": "nodule_segmenter", "architecture": network, "task": {"view": VIEW}}
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
    sha256 = put_on_card(tmp_path, {"0": {"patches": (-1.0, 1.0)}}, {"times_smaller": 3.8})
    model = open_model(tmp_path, {sha256}, date.min)
    assert model.card["int8"] == {"0": {"patches": [-1.0, 1.0]}}
    assert model.card["int8_judged"] == {"times_smaller": 3.8}

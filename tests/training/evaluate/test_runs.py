from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nodule_crops import write_crops

from models.conformal import ConformalInterval
from models.doubt import Doubt
from plugins.errors import Refused
from training.evaluate import cards
from training.evaluate.bootstrap import Interval
from training.evaluate.card_figures import card_figures, differences
from training.evaluate.crops import AS_GIVEN
from training.evaluate.data import Data, open_data
from training.evaluate.families import open_subject
from training.evaluate.judging import judge_model
from training.evaluate.kept import kept
from training.evaluate.report import report_html
from training.evaluate.runs import learned_cases
from training.ship import About, ship

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
VIEW = {
    "shape": [16, 16, 16],
    "voxels_mm": [1.0],
    "fits_mm": [],
    "first": 0,
    "windows_hu": [[-1000, 400]],
    "point_sigma_mm": 3.0,
    "passes": 1,
}
ARCHITECTURE = {"kind": "unet", "out_channels": 1, "channels": [4, 8], "strides": [2], "num_res_units": 0}


def write_run(folder: Path, data: Data, share: float = 1.0, folds: int = 3) -> Path:
    """Write a run of networks that have learned nothing, as `nadir train` leaves one."""
    import torch
    from safetensors.torch import save_file

    from models.networks import build

    experiment = {
        "name": "tiny", "model": "nodule_segmenter", "seed": 0, "architecture": ARCHITECTURE,
        "task": {"view": VIEW, "share": share},
    }  # fmt: skip
    for fold in range(folds):
        place = folder / f"fold{fold}"
        place.mkdir(parents=True)
        torch.manual_seed(fold)
        save_file(build({"in_channels": 2, **ARCHITECTURE}).state_dict(), place / f"fold{fold}.safetensors")
        record = {
            "experiment_sha256": "e" * 64, "data_sha256": data.manifest.sha256, "experiment": experiment, "fold": fold,
            **dict.fromkeys(("commit", "environment", "begun", "seed")),
        }  # fmt: skip
        (place / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def crops(tmp_path: Path) -> Data:
    (tmp_path / "crops").mkdir()
    return open_data(write_crops(tmp_path / "crops", patients=3))


def test_each_fold_of_a_run_is_judged_on_its_own_patients_and_a_learning_curve_told(
    crops: Data, tmp_path: Path
) -> None:
    subject = open_subject(str(write_run(tmp_path / "whole", crops)))
    fewer = open_subject(str(write_run(tmp_path / "part", crops, share=0.5)))
    found = judge_model(subject, crops, made_at=NOON, resamples=100, beside=[fewer])
    fold_of = {case.case_id: case.fold for case in crops.manifest.cases}
    assert {row["case_id"]: row["fold"] for row in found.figures["segmentation"]["cases"]} == fold_of
    assert found.figures["segmentation"]["settings"][AS_GIVEN]["ece"]["value"] > 0
    assert found.made["judged_by"] == "3 patients by the weights of the fold that had not seen them"
    # four cases of three patients, the first has two: two other patients a fold, or one of them
    assert learned_cases(subject, crops) == 3
    assert [point["learned"] for point in found.figures["learning_curve"]] == [2, 3]


def write_model(folder: Path, run: Path, data: Data, figures: Mapping[str, Any] | None = None) -> str:
    """Make a model of a run, with doubt that everything is certain within a factor; return its folder's name."""
    factor = ConformalInterval(kind="log", alpha=0.1, edges=(), quantiles=(7.0,), cases=(9,))
    doubts = [Doubt(temperature=1.0 + n, volume_mm3=factor, long_axis_mm=factor).as_card() for n in range(4)]
    decided = {"levels": [0.5], "mirrors": 1, "doubt": {"all": doubts[0], "folds": doubts[1:]}}
    texts = dict.fromkeys(("version", "licence", "training_data", "input", "intended_use"), "x")
    about = About(name="tiny", **texts, limits=("It has learned nothing.",))
    curve = [
        {
            "learned": n,
            "score": "Mean Dice",
            **Interval(value=0.1, low=0.0, high=0.2, cases=4, patients=3).plain(),
        }
        for n in (2, 3)
    ]
    ship(run, data.manifest, folder, about, decided, figures or {"learning_curve": curve})
    return str(folder)


def test_a_model_judges_its_own_patients_by_one_fold_and_new_ones_by_all(crops: Data, tmp_path: Path) -> None:
    subject = open_subject(write_model(tmp_path / "model", write_run(tmp_path / "run", crops), crops))
    assert (subject.family, subject.folds, subject.held_out) == (
        "nodule_segmenter",
        (0, 1, 2),
        crops.manifest.held_out,
    )
    (tmp_path / "mixed").mkdir()
    new = open_data(write_crops(tmp_path / "mixed", patients=4, folds=2))
    found = judge_model(subject, new, made_at=NOON, resamples=100)
    rows = found.figures["segmentation"]["cases"]
    assert {row["patient_id"]: row["fold"] for row in rows} == {"P00": 0, "P01": 1, "P02": 2, "P03": None}
    assert found.made["judged_by"].startswith("3 patients by the weights of the fold")
    assert "It has learned nothing." in found.limits
    assert found.card_limits == ("It has learned nothing.",)
    assert "It has learned nothing." not in found.own_limits
    page = report_html(found)
    assert page.index("What is not known") < page.index("What the card of the model says of its limits")
    assert page.index("not of those judged here") < page.index("It has learned nothing.")
    assert page.count("It has learned nothing.") == 1 and kept(found)["card_limits"] == list(
        found.card_limits
    )
    assert [point["learned"] for point in found.figures["learning_curve"]] == [2, 3]
    told = found.figures["segmentation"]["settings"][AS_GIVEN]
    assert told["volume_covered"]["cases"] == 5 and told["ece"]["value"] > 0
    assert rows[0]["figures"]["uncertainty: entropy"] > 0


@pytest.mark.long
def test_every_shipped_card_is_judged_again_and_what_differs_is_named(
    crops: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", crops)
    first = write_model(tmp_path / "first", run, crops)
    figures = card_figures(judge_model(open_subject(first), crops, made_at=NOON).plain())
    dice = figures["segmentation"]["settings"][AS_GIVEN]["dice"]
    weights = tmp_path / "weights"
    write_model(weights / "a", run, crops, figures)
    dice["value"] += 0.5
    write_model(weights / "b", run, crops, figures)
    monkeypatch.setattr(cards, "SHIPPED", weights)
    monkeypatch.setattr("sys.argv", ["cards", str(crops.root)])
    assert cards.main() == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["a: reproduced", "b: 1 figures differ"]
    assert said[2].startswith(
        f"  segmentation / settings / {AS_GIVEN} / dice: {dice['value']:.6g} on the card, "
    )


def test_a_fixed_procedure_has_no_learning_curve(crops: Data, tmp_path: Path) -> None:
    run = open_subject(str(write_run(tmp_path / "run", crops)))
    with pytest.raises(Refused, match="nothing-learned"):
        judge_model(open_subject("classical-nodule-segmenter"), crops, made_at=NOON, beside=[run])


def test_a_changed_model_is_not_judged(crops: Data, tmp_path: Path) -> None:
    model = Path(write_model(tmp_path / "model", write_run(tmp_path / "run", crops), crops))
    (model / "card.json").write_text((model / "card.json").read_text().replace("It has", "It had"))
    with pytest.raises(Refused, match="changed-file"):
        open_subject(str(model))


def test_a_run_without_the_weights_of_a_fold_does_not_judge_its_patients(crops: Data, tmp_path: Path) -> None:
    subject = open_subject(str(write_run(tmp_path / "run", crops, folds=2)))
    with pytest.raises(Refused, match="training-patient"):
        judge_model(subject, crops, made_at=NOON, resamples=100)
    finished = open_data(crops.root / "manifest.json", folds=[1])
    found = judge_model(subject, finished, made_at=NOON, resamples=100)
    assert {row["case_id"] for row in found.figures["segmentation"]["cases"]} == {"P01_nodule02"}
    with pytest.raises(Refused, match="no-cases"):
        open_data(crops.root / "manifest.json", folds=[7])


def test_runs_that_are_not_finished_or_were_mixed_are_refused(crops: Data, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", crops)
    record = run / "fold1" / "run.json"
    record.write_text(record.read_text().replace("e" * 64, "f" * 64))
    with pytest.raises(Refused, match="mixed-runs"):
        open_subject(str(run))
    record.write_text("{}")
    with pytest.raises(Refused, match="bad-run"):
        open_subject(str(run))
    for fold in range(3):
        (run / f"fold{fold}" / f"fold{fold}.safetensors").unlink()
    with pytest.raises(Refused, match="no-weights"):
        open_subject(str(run))


def test_a_card_is_reproduced_by_the_same_judgement_and_a_changed_figure_is_named(crops: Data) -> None:
    found = judge_model(open_subject("classical-nodule-segmenter"), crops, made_at=NOON, resamples=100)
    card = json.loads(json.dumps(card_figures(found.plain())))
    assert list(differences(card, card_figures(found.plain()))) == []
    card["segmentation"]["settings"][AS_GIVEN]["dice"]["value"] -= 0.02
    assert [line.split(":")[0] for line in differences(card, card_figures(found.plain()))] == [
        f"segmentation / settings / {AS_GIVEN} / dice"
    ]
    assert "cases" not in card["segmentation"]
    elsewhere = replace(found, figures={})
    assert len(list(differences(card, card_figures(elsewhere.plain())))) > 30

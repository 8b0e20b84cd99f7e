from __future__ import annotations

import errno
import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ball_nodules import TINY, write_crops
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

import training.fit
from models.networks import build
from node.cli import app
from plugins.errors import Refused, Unavailable
from training.experiment import read_experiments
from training.fit import Progress, fit, settle
from training.manifest import Case, DataManifest, patient_key
from training.nodule_task import nodule_task
from training.predecessor import Predecessor
from training.tasks import task_of


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    return write_crops(tmp_path / "crops")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def written(tmp_path: Path, steps: int, more: str = "") -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("STEPS", str(steps)) + more)
    return path


def test_the_command_learns_balls_shows_where_it_stands_and_draws_the_curves(
    tmp_path: Path, crops: Path
) -> None:
    config, out = written(tmp_path, 60), tmp_path / "runs"
    said = CliRunner().invoke(
        app, ["train", str(config), "--data", str(crops), "--out", str(out), "--threads", "1", "--json"]
    )
    assert said.exit_code == 0, said.output
    assert "step 60 of 60" in said.stderr
    (row,) = json.loads(said.stdout)
    assert row["dice within"] > 0.75
    assert row["dice open"] > 0.7
    folder = out / "tiny" / "fold0"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    run = json.loads((folder / "run.json").read_text())
    assert len(run["data_sha256"]) == 64
    assert run["seed"] == 1
    assert {"python", "torch", "monai"} <= run["environment"].keys()
    kept = load_file(folder / "fold0.safetensors")
    assert kept["down.weight"].dtype == torch.float16
    assert {v.dtype for name, v in kept.items() if "running_" in name} == {torch.float32}


def test_a_folder_in_which_another_command_learns_is_refused(
    tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.SETTLING_BATCHES", 1)
    out = tmp_path / "runs"
    asked = ["--data", str(crops), "--out", str(out), "--json"]
    first = written(tmp_path, 2)
    (other := tmp_path / "other.yaml").write_text(first.read_text().replace("seed: 1", "seed: 2"))
    take_step = training.fit._step
    refused: list[BaseException | None] = []

    def step(*of: Any) -> float:
        if not refused:
            refused.append(None)
            refused[0] = CliRunner().invoke(app, ["train", str(other), *asked]).exception
        return take_step(*of)

    monkeypatch.setattr("training.fit._step", step)
    said = CliRunner().invoke(app, ["train", str(first), *asked])
    assert said.exit_code == 0, said.output
    assert isinstance(refused[0], Refused) and refused[0].code == "folder-in-use"
    assert json.loads((out / "tiny" / "fold0" / "run.json").read_text())["seed"] == 1
    assert CliRunner().invoke(app, ["train", str(first), *asked]).exit_code == 0


def test_a_run_that_was_stopped_learns_the_very_same_as_one_that_was_not(tmp_path: Path, crops: Path) -> None:
    (experiment,) = read_experiments(written(tmp_path, 6))
    task = nodule_task(experiment, 0, crops)
    told: list[Progress] = []
    whole = fit(experiment, 0, task, tmp_path / "whole", tell=told.append)
    assert fit(experiment, 0, task, tmp_path / "parts", stop_at=4).name == "checkpoint.pt"
    resumed = fit(experiment, 0, task, tmp_path / "parts")
    a, b = load_file(whole), load_file(resumed)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert whole.read_bytes() == resumed.read_bytes()
    with safe_open(whole, "np") as file:
        said = json.loads(file.metadata()["about"])
    assert said == {"experiment": "tiny", "fold": 0, "data_sha256": task.manifest.sha256}
    assert [p.step for p in told] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "parts" / "checkpoint.pt").exists()
    assert sys.float_info.min / 2 > 0, "numbers below the smallest normal one are taken for 0"


def test_statistics_of_averaged_weights_are_those_of_what_they_see(tmp_path: Path, crops: Path) -> None:
    (experiment,) = read_experiments(written(tmp_path, 1))
    task = nodule_task(experiment, 0, crops)
    network = build({"in_channels": 2, **experiment.architecture})
    norm = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d))
    norm.running_var.fill_(float("inf"))
    settle(network, experiment, 0, task)
    seen = [norm.running_mean.clone(), norm.running_var.clone()]
    settle(network, experiment, 0, task)
    assert all(torch.equal(a, b) for a, b in zip(seen, (norm.running_mean, norm.running_var), strict=True))
    assert 0 < norm.running_var.min() <= norm.running_var.max() < 100
    assert not network.training


def test_a_folder_of_another_run_is_refused(tmp_path: Path, crops: Path) -> None:
    (experiment,) = read_experiments(written(tmp_path, 1))
    task = nodule_task(experiment, 0, crops)
    fit(experiment, 0, task, tmp_path / "run")
    with pytest.raises(Refused, match="another-run"):
        fit(replace(experiment, seed=2), 0, task, tmp_path / "run")


def test_earlier_weights_are_where_a_transfer_begins(tmp_path: Path, crops: Path) -> None:
    (experiment,) = read_experiments(written(tmp_path, 2))
    task = nodule_task(experiment, 0, crops)
    earlier = fit(experiment, 0, task, tmp_path / "earlier")
    still = replace(experiment.schedule, steps=1, learning_rate=0.0)
    on = replace(experiment, schedule=still, init_from=str(earlier.parent))
    a, b = load_file(earlier), load_file(fit(on, 0, task, tmp_path / "on"))
    assert torch.equal(a["down.weight"], b["down.weight"])
    with pytest.raises(Refused, match="no-weights"):
        fit(replace(on, init_from=str(tmp_path)), 0, task, tmp_path / "nothing")
    wider = replace(on, architecture={**on.architecture, "channels": [16, 16]})
    with pytest.raises(Refused, match="other-architecture"):
        fit(wider, 0, task, tmp_path / "wider")


@pytest.mark.parametrize("stop_at", [None, 1])
def test_a_stage_whose_first_one_was_learned_anew_is_another_run(
    tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int | None
) -> None:
    monkeypatch.setattr("training.fit.SETTLING_BATCHES", 1)
    (experiment,) = read_experiments(written(tmp_path, 2))
    task = nodule_task(experiment, 0, crops)
    first = fit(experiment, 0, task, tmp_path / "first" / "fold0")
    on = replace(experiment, init_from=str(tmp_path / "first"))
    second = tmp_path / "second"
    done = fit(on, 0, task, second, stop_at=stop_at)
    record = json.loads((second / "run.json").read_text())
    assert record["init_from_sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    assert json.loads((first.parent / "run.json").read_text())["init_from_sha256"] is None
    assert fit(on, 0, task, second, stop_at=stop_at) == done
    shutil.copytree(tmp_path / "first", tmp_path / "moved" / "first")
    moved = replace(on, init_from=str(tmp_path / "moved" / "first"))
    assert fit(moved, 0, task, second, stop_at=stop_at) == done, "the same weights elsewhere"
    first.unlink()
    if stop_at is None:
        assert fit(on, 0, task, second) == done, "who tidied the first stage up keeps the second"
    (first.parent / "run.json").unlink()
    assert fit(replace(experiment, seed=5), 0, task, first.parent) == first
    with pytest.raises(
        Refused, match=r"another-run: .*second holds a run that began with other weights than .*first"
    ):
        fit(on, 0, task, second)
    del record["init_from_sha256"]
    (second / "run.json").write_text(json.dumps(record))
    assert fit(on, 0, task, second).is_file(), "a record of before says nothing of it"


def test_weights_that_a_node_learned_know_a_patient_by_his_id_too() -> None:
    case = Case(case_id="a", patient_id="P1", files={}, sha256={}, fold=0, size_mm=9.0)
    data = DataManifest(name="data", cases=(case,))
    for name in (patient_key("P1"), patient_key(patient_key("P1"))):
        Predecessor(weights=Path("fold0"), fold=0, held_out={name: 0}).require_unseen(data)
        with pytest.raises(
            Refused, match=r"training-patient: .* patient P1, .* in fold 0 and init_from in fold 3"
        ):
            Predecessor(weights=Path("fold0"), fold=0, held_out={name: 3}).require_unseen(data)


def test_nobody_who_is_held_out_was_learned_from_by_the_weights_it_begins_with(
    tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.SETTLING_BATCHES", 1)
    (experiment,) = read_experiments(written(tmp_path, 1))
    task = nodule_task(experiment, 0, crops)
    earlier = fit(experiment, 0, task, tmp_path / "earlier" / "fold0").parent
    on = replace(experiment, init_from=str(earlier.parent))
    record = json.loads((earlier / "run.json").read_text())
    (one, *others) = [key for key, number in task.manifest.held_out.items() if number == 0]

    def begun_with(name: str, **said: object) -> Path:
        """Begin in an empty folder after the earlier run said something else of itself."""
        (earlier / "run.json").write_text(json.dumps({**record, **said}))
        return fit(on, 0, task, tmp_path / name)

    with pytest.raises(
        Refused, match=r"training-patient: .* has learned from patient P.* init_from in fold 2"
    ):
        begun_with("moved", held_out={**task.manifest.held_out, one: 2})
    known = {"stranger": 3, **dict.fromkeys(others, 0)}
    own = json.loads((begun_with("strangers", held_out=known).parent / "run.json").read_text())
    assert own["held_out"] == {"stranger": 3, **task.manifest.held_out}
    assert begun_with("old record, same data", held_out={}).is_file()
    with pytest.raises(Refused, match=r"training-patient: nothing in .* says from whom"):
        begun_with("old record, other data", held_out={}, data_sha256="0" * 64)
    with pytest.raises(Refused, match=r"bad-run: .*run\.json"):
        begun_with("no table", held_out=[1])
    (earlier / "run.json").unlink()
    with pytest.raises(Refused, match=r"training-patient: nothing in .* says from whom"):
        fit(on, 0, task, tmp_path / "silent")
    (earlier / "card.json").write_text(json.dumps({"held_out": {one: 4}}))
    with pytest.raises(Refused, match=r"training-patient: .* in fold 4: "):
        fit(replace(on, init_from=str(earlier)), 0, task, tmp_path / "model")
    assert fit(on, 0, task, tmp_path / "divided alike", keeps_folds=True).is_file()


def test_what_diverges_is_refused_and_leaves_nothing_to_go_on_from(
    tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.SETTLING_BATCHES", 1)
    (experiment,) = read_experiments(written(tmp_path, 4))
    task = nodule_task(experiment, 0, crops)
    fast = replace(experiment.schedule, learning_rate=1e30, warm_up=1, save_every=1)
    with pytest.raises(Refused, match=r"diverged: at step 4 of fold 0 .* lower schedule\.learning_rate"):
        fit(replace(experiment, schedule=fast), 0, task, tmp_path / "fast")
    beyond_half = replace(fast, learning_rate=1e9)
    with pytest.raises(Refused, match="diverged: at step 4 of fold 0"):
        fit(replace(experiment, schedule=beyond_half), 0, task, tmp_path / "beyond")
    for folder in (tmp_path / "fast", tmp_path / "beyond"):
        assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_loss_that_is_no_number_for_long_ends_a_training(
    tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (experiment,) = read_experiments(written(tmp_path, 40))
    task = nodule_task(experiment, 0, crops)
    losses = iter([float("nan")] * 19 + [1.0] + [float("inf"), float("nan")] * 10)
    monkeypatch.setattr("training.fit._step", lambda *_: next(losses))
    with pytest.raises(Refused, match="diverged: at step 40 of fold 0"):
        fit(experiment, 0, task, tmp_path / "run")


def test_a_run_that_failed_before_its_first_step_leaves_its_folder_to_corrected_settings(
    tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.SETTLING_BATCHES", 1)
    (experiment,) = read_experiments(written(tmp_path, 1))
    task = nodule_task(experiment, 0, crops)
    folder = tmp_path / "run"
    for wrong in ({"kind": "untied"}, {"colour": "red"}, {"out_channels": -1}):
        other = replace(experiment, architecture={**experiment.architecture, **wrong})
        with pytest.raises(Refused, match="bad-experiment: architecture of tiny cannot be built"):
            fit(other, 0, task, folder)
        assert list(folder.iterdir()) == []
    (folder / "run.json").write_text('{"experiment_sha256": "')
    fit(experiment, 0, task, folder)
    assert json.loads((folder / "run.json").read_text())["experiment_sha256"] == experiment.sha256
    assert not list(folder.glob("*.half"))


@pytest.mark.parametrize(("name", "stop_at"), [("checkpoint", 1), ("fold0", None)])
def test_a_full_disk_is_told_with_the_file_and_leaves_no_half_of_it(
    tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch, name: str, stop_at: int | None
) -> None:
    (experiment,) = read_experiments(written(tmp_path, 2))
    task = nodule_task(experiment, 0, crops)
    folder = tmp_path / "run"
    whole = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.stem != name:
            return whole(path, content)
        whole(path, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        Unavailable, match=rf"run/{name}\.\w+ cannot be written: No space left .*run it again"
    ):
        fit(experiment, 0, task, folder, stop_at=stop_at)
    assert not list(folder.glob("*.half"))
    monkeypatch.undo()
    assert fit(experiment, 0, task, folder).name == "fold0.safetensors"


def test_a_record_or_a_checkpoint_that_cannot_be_read_is_refused_by_its_name(
    tmp_path: Path, crops: Path
) -> None:
    (experiment,) = read_experiments(written(tmp_path, 2))
    task = nodule_task(experiment, 0, crops)
    folder = tmp_path / "run"
    checkpoint = fit(experiment, 0, task, folder, stop_at=1)
    whole, record = checkpoint.read_bytes(), (folder / "run.json").read_text()
    for wrong in (b"", b"garbage" * 100, whole[: len(whole) // 2]):
        checkpoint.write_bytes(wrong)
        with pytest.raises(Refused, match=r"bad-checkpoint: .*run/checkpoint\.pt cannot be read .*delete it"):
            fit(experiment, 0, task, folder)
    checkpoint.write_bytes(whole)
    for said in ("", "[]", record[:30]):
        (folder / "run.json").write_text(said)
        with pytest.raises(Refused, match=r"bad-run: .*run/run\.json cannot be read .*delete "):
            fit(experiment, 0, task, folder)
    with pytest.raises(Refused, match="another-run"):
        (folder / "run.json").write_text(record)
        fit(replace(experiment, seed=7), 0, task, folder)


def test_a_search_is_every_combination_each_with_its_own_name(tmp_path: Path) -> None:
    more = "search: {schedule.learning_rate: [0.1, 0.2], seed: [1, 2, 3]}\n"
    found = read_experiments(written(tmp_path, 3, more))
    assert [(e.name, e.schedule.learning_rate, e.seed) for e in found[:4]] == [
        ("tiny-1", 0.1, 1),
        ("tiny-2", 0.1, 2),
        ("tiny-3", 0.1, 3),
        ("tiny-4", 0.2, 1),
    ]
    assert len({e.sha256 for e in found}) == 6


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("- a", "holds no settings"),
        ("a: [", "no-experiment"),
        (TINY.replace("STEPS", "5") + "colour: red", "'colour'"),
        (TINY.replace("STEPS", "5") + "search: {schedule.wrong.deep: [1]}", "lies nowhere"),
        (TINY.replace("STEPS", "0"), "at least 1"),
    ],
)
def test_a_wrong_experiment_is_refused_with_what_is_wrong(tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(Refused, match=code):
        read_experiments(path)


@pytest.mark.parametrize(
    ("said", "instead", "sentence"),
    [
        (
            "learning_rate: 0.01",
            "learning_rate: 1e-3",
            r"schedule\.learning_rate in .*wrong\.yaml is '1e-3', a text; write 0\.001 without quotes",
        ),
        ("learning_rate: 0.01", "learning_rate: 0", r"is 0, a whole number; write a number above 0$"),
        ("learning_rate: 0.01", "learning_rate: .nan", r"is nan, a number with a point; write a number above 0$"),
        ("learning_rate: 0.01", "learning_rate: .inf", r"is inf, "),
        ("average: 0.9", "average: 1.0", r"schedule\.average in .* that is at least 0 and below 1$"),
        ("steps: 5", "steps: '5'", r"schedule\.steps in .* is '5', a text; write 5 without"),
        ("steps: 5", "steps: 5.0", r"is 5\.0, a number with a point; write a whole number that is at least 1$"),
        ("batch: 4", "batch: true", r"schedule\.batch in .* is True, a truth value"),
        ("judge_every: 1000", "judge_every: 0", r"schedule\.judge_every in "),
        ("seed: 1", "seed: -1", r"seed in .* is -1, .* at least 0"),
        ("seed: 1", "seed: 1000000000000000000000", r"at most 1000000000000000"),
        ("seed: 1", "seed:", r"seed in .* is empty; write a whole number"),
        ("folds: [0]", "folds: 3", r"folds in .* is 3, a whole number; write a list of one or more different"),
        ("folds: [0]", "folds: [0, 0]", r"folds in .* is \[0, 0\], a list"),
        ("folds: [0]", "folds: []", r"folds in "),
        ("folds: [0]", "folds: ['0']", r"folds in "),
        ("folds: [0]", "folds: [true]", r"folds in "),
        ("name: tiny", "name: ../tiny", r"name in .* is '\.\./tiny', a text; write letters"),
        ("name: tiny", "name: .tiny", r"name in "),
        ("name: tiny", "name: 5", r"name in .* is 5, "),
        ("name: tiny", "name: 2024-01-01", r"wrong\.yaml holds more than texts, .*; put a date between quotes"),
        ("seed: 1", "seed: 1\ninner: maybe", r"inner in .* is 'maybe', a text; write true or false"),
        ("seed: 1", "seed: 1\ninit_from: 5", r"init_from in .* is 5, "),
        ("seed: 1", "seed: 1\nsearch: {architecture: [3]}", r"architecture in .* is 3, a whole number; write a table"),
        ("seed: 1", "seed: 1\nsearch: {1: [3]}", r"says '1'; known here are"),
        ("name: tiny", "search: {seed: [3]}", r"'name'"),
        ("seed: 1", "seed: 1\nseed: 2", r"wrong\.yaml says 'seed' again in line 5; say it once$"),
        ("batch: 4", "batch: 4, batch: 8", r"says 'batch' again in line "),
        ("folds: [0]", "folds: [0]\nsearch: {task: [{share: 1, share: 2}]}", r"says 'share' again in line "),
        ("out_channels: 1", "out_channels: 3", r"architecture\.out_channels in .* is 3, .* write 1, because every"),
        ("strides: [1]", "strides: [1, 2, 2]", r"architecture\.strides in .* are 3 and its channels 2; .* next, 1$"),
        ("[16, 16, 16]", "[4096, 4096, 4096]", r"task\.view\.shape in .*\[K, R, C\], at most 16777216 voxels"),
        ("[16, 16, 16]", "[16, 31, 7]", r"task\.view\.shape in .*wrong\.yaml is \[16, 31, 7\], and the strides and the"
         r" stem of its architecture need multiples of \[2, 2, 2\]; write \[16, 32, 8\], say"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_file_and_what_to_write(
    tmp_path: Path, said: str, instead: str, sentence: str
) -> None:
    text = TINY.replace("STEPS", "5")
    assert said in text
    (path := tmp_path / "wrong.yaml").write_text(text.replace(said, instead))
    with pytest.raises(Refused, match=sentence) as refused:
        read_experiments(path)
    assert refused.value.code == "bad-experiment"


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("learning_rate: 0.01", "learning_rate: 1"),
        ("warm_up: 5", "warm_up: 0"),
        ("warm_up: 5", "weight_decay: 0.0"),
        ("seed: 1", "seed: 0\ninit_from: null"),
        ("[16, 16, 16]", "[256, 256, 256]"),
    ],
)
def test_what_stands_at_the_border_can_be_read(tmp_path: Path, said: str, instead: str) -> None:
    (path := tmp_path / "border.yaml").write_text(TINY.replace("STEPS", "1").replace(said, instead))
    assert len(read_experiments(path)) == 1


def test_channels_that_are_not_those_of_the_view_are_refused_before_data_are_read(tmp_path: Path) -> None:
    (experiment,) = read_experiments(written(tmp_path, 1))
    five = replace(experiment, architecture={**experiment.architecture, "in_channels": 5})
    with pytest.raises(
        Refused, match=r"bad-experiment: .*in_channels of tiny is 5, .* has 2 channels; write 2, or"
    ):
        task_of(five, 0, tmp_path / "no data")
    two = replace(five, architecture={**five.architecture, "in_channels": 2})
    assert task_of(two, 0, write_crops(tmp_path / "crops")).in_channels == 2


def test_every_experiment_that_comes_with_nadir_can_be_read() -> None:
    paths = sorted((Path(__file__).parents[2] / "training/experiments").glob("*.yaml"))
    assert [read_experiments(path)[0].name for path in paths] == [path.stem for path in paths]


def test_the_experiment_that_made_the_shipped_weights_can_be_read() -> None:
    (experiment,) = read_experiments(Path(__file__).parents[2] / "training/experiments/nodule_segmenter.yaml")
    assert experiment.folds == (0, 1, 2, 3, 4)


def test_an_inner_fold_is_left_out_beside_the_fold_itself(tmp_path: Path, crops: Path) -> None:
    (experiment,) = read_experiments(written(tmp_path, 1, "inner: true\n"))
    task = nodule_task(experiment, 4, crops)
    folds = {s.nodule.case.fold for s in task.learned}
    assert folds == {1, 2, 3}
    assert {n.case.fold for n in task.judged} == {0}
    shown, truth = task.batch(3, np.random.default_rng(0))
    assert shown.shape == (3, 2, 16, 16, 16)
    assert truth.shape == (3, 1, 16, 16, 16)

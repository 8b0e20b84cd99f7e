from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from empty_database import empty_database
from made_models import register_model, write_model
from nodule_crops import write_crops
from sqlmodel import col, select
from tiny_segmenter import CARD
from typer.testing import CliRunner

from node.cli import app, main
from plugins.errors import Refused
from store import evaluations
from store.audit_tables import AuditRecord
from store.file_hash import sha256_of


def test_a_model_is_judged_by_one_command_that_writes_one_report(tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    manifest = write_crops(tmp_path / "crops", patients=2)
    judge = ["evaluate", "classical-nodule-segmenter", "--data", str(manifest), "--resamples", "100"]
    said = CliRunner().invoke(app, [*judge, "--out", str(tmp_path / "out"), "--json"])
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert [Path(file).name for file in told["files"]] == [
        "report.json",
        "report.html",
        "report.pdf",
        "evaluation.json",
    ]
    assert told["segmentation"]["settings"]["the crop alone"]["dice"]["value"] > 0.9
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(written["segmentation"]["cases"]) == 3 * 4
    assert (tmp_path / "out" / "manifest.json").read_bytes() == manifest.read_bytes()
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    said = CliRunner().invoke(
        app, ["evaluate", "no-such", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    assert said.exit_code == 1
    assert isinstance(said.exception, Refused) and said.exception.code == "no-model"


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        (["--out", "{crops}/manifest.json"], "bad-folder", "it is no folder"),
        (["--out", "{crops}/manifest.json/deeper"], "bad-folder", "manifest.json/deeper"),
        (["--out", "/proc/nadir"], "bad-folder", "name another --out"),
        (["--out", "{crops}/out", "--scans", "{crops}/nowhere"], "no-scans", "crops/nowhere"),
        (["--out", "{crops}/out", "--scans", "{crops}"], "no-scans", "ct_r01_001"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_anything_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], code: str, says: str
) -> None:
    def judged(*_: object, **__: object) -> None:
        raise AssertionError("it was judged")

    monkeypatch.setattr("training.evaluate.judging.judge_model", judged)
    (crops := tmp_path / "crops").mkdir()
    judge = ["evaluate", "classical-nodule-segmenter", "--data", str(write_crops(crops, patients=1))]
    said = CliRunner().invoke(app, [*judge, *(word.format(crops=crops) for word in asked)])
    assert isinstance(said.exception, Refused), said.output
    assert said.exception.code == code and says in said.exception.sentence
    assert not (crops / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        "evaluate nodule_segmenter --data {crops} --out {crops}/out",
        "evaluate classical-nodule-segmenter --data {crops} --out {crops}/out",
        "train {crops}/experiment.yaml --data {crops} --out {crops}/out",
        "models retrain nodule_segmenter --home {crops}/home",
    ],
)
def test_without_what_networks_are_computed_with_a_command_says_how_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    write_crops(tmp_path, patients=1)
    before = sorted(tmp_path.iterdir())
    said = CliRunner().invoke(app, [word.format(crops=tmp_path) for word in command.split()])
    assert isinstance(said.exception, Refused), said.output
    assert said.exception.code == "not-installed"
    assert said.exception.sentence == (
        "learned models need torch, not installed here: pip install -c constraints.txt '.[learn]' in Nadir's folder"
    )
    assert sorted(tmp_path.iterdir()) == before


def test_a_seed_below_nought_is_a_wrong_command_line(tmp_path: Path) -> None:
    asked = ["evaluate", "classical-nodule-segmenter", "--data", str(tmp_path), "--out", str(tmp_path / "o")]
    said = CliRunner().invoke(app, [*asked, "--seed", "-1"])
    assert said.exit_code == 2 and "--seed" in said.output


@pytest.mark.parametrize(
    ("data", "out", "named"),
    [
        ("set/manifest.json", "set", "set"),
        ("set", "set/../set", "set"),
        ("crops/manifest.json", "other", "manifest.json"),
        ("crops/manifest.json", "divided", "split.json"),
        ("crops/manifest.json", "table", "nodules.csv"),
        ("report/manifest.json", "report", "report"),
        ("crops/manifest.json", "report", ""),
    ],
)
def test_a_report_is_put_into_no_folder_of_data_but_over_an_earlier_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, out: str, named: str
) -> None:
    def judged(*_: object, **__: object) -> None:
        raise Refused("judged", "this far it comes")

    monkeypatch.setattr("training.evaluate.judging.judge_model", judged)
    (crops := tmp_path / "crops").mkdir()
    manifest = write_crops(crops, patients=1).read_bytes()
    for name in ("set", "other", "divided", "table", "report"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_bytes(manifest)
    (tmp_path / "report" / "report.json").write_text("{}")
    (tmp_path / "divided" / "report.json").write_text("{}")
    (tmp_path / "divided" / "split.json").write_text("{}")
    (tmp_path / "table" / "manifest.json").rename(tmp_path / "table" / "nodules.csv")
    asked = ["--data", str(tmp_path / data), "--root", str(crops), "--out", str(tmp_path / out)]
    said = CliRunner().invoke(app, ["evaluate", "classical-nodule-segmenter", *asked])
    assert isinstance(said.exception, Refused), said.output
    assert said.exception.code == ("out-is-data" if named else "judged")
    assert named in said.exception.sentence
    assert (tmp_path / "set" / "manifest.json").read_bytes() == manifest


def pickled(folder: Path) -> None:
    """Put a pickle in the place of the weights of a model, and vouch for it."""
    weights, said = folder / "fold0.safetensors", json.loads((folder / "manifest.json").read_text())
    weights.write_bytes(pickle.dumps({"w": 1}))
    said["files"][weights.name] = {"sha256": sha256_of(weights), "size_bytes": weights.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("card", "change", "code"),
    [
        ({}, None, "other-architecture"),
        ({}, pickled, "unreadable-weights"),
        ({"architecture": None}, None, "bad-card"),
        ({"view": {}}, None, "bad-card"),
        ({"runs": True, "mirrors": "all"}, None, "bad-card"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_one_line_and_is_no_fault(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    card: dict[str, Any],
    change: Callable[[Path], None] | None,
    code: str,
) -> None:
    (crops := tmp_path / "crops").mkdir()
    data, model = write_crops(crops, patients=1), tmp_path / "model"
    write_model(model, 1, held_out={}, **card)
    if change is not None:
        change(model)
    asked = ["evaluate", model, "--data", data, "--out", tmp_path / "out", "--resamples", "100"]
    monkeypatch.setattr(sys, "argv", ["nadir", *map(str, asked)])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err.splitlines()[-1]
    assert left.value.code == 1 and said.startswith("nadir: ") and said.endswith(f"({code})"), said


@pytest.mark.long
def test_a_report_is_kept_with_the_node_for_its_own_models_and_no_others(tmp_path: Path) -> None:
    home, out = tmp_path / "node", str(tmp_path / "out")
    home.mkdir()
    database = empty_database(home)
    doubt = {"all": CARD["doubt"]["all"], "folds": [CARD["doubt"]["all"]]}
    model = register_model(database, home, 1, runs=True, levels=[0.0], held_out={}, doubt=doubt, mirrors=1)
    (tmp_path / "crops").mkdir()
    manifest = str(write_crops(tmp_path / "crops", patients=1))
    judge = ["--data", manifest, "--resamples", "100", "--keep", "--home", str(home), "--out", out]
    other = CliRunner().invoke(app, ["evaluate", "classical-nodule-segmenter", *judge])
    assert isinstance(other.exception, Refused) and other.exception.code == "not-of-this-node"
    assert not Path(out).exists()  # before anything is judged
    said = CliRunner().invoke(app, ["evaluate", "nodule_segmenter/1", *judge])
    assert said.exit_code == 0, said.output
    assert "kept as evaluation 1" in said.output
    with database.reading() as session:
        (row,) = evaluations.of_model(session, model.manifest_sha256)
        told = session.exec(select(AuditRecord).order_by(col(AuditRecord.id).desc())).first()
    assert (row.family, row.data_name, row.cases, row.patients) == ("nodule_segmenter", "round nodules", 2, 1)
    assert row.author.endswith("at the command line")
    assert told is not None and "models/nodule_segmenter/1" in told.message
    kept = {path.name for path in (home / row.folder).iterdir()}
    assert kept == {"report.html", "report.pdf", "report.json", "evaluation.json", "manifest.json"}
    database.dispose()

from __future__ import annotations

import json
from pathlib import Path

import pytest
from empty_database import empty_database
from made_models import register_model
from nodule_crops import write_crops
from sqlmodel import col, select
from tiny_segmenter import CARD
from typer.testing import CliRunner

from node.cli import app
from plugins.errors import Refused
from store import evaluations
from store.audit_tables import AuditRecord


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

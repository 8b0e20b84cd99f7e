from __future__ import annotations

import json
from pathlib import Path

from nodule_crops import write_crops
from typer.testing import CliRunner

from node.cli import app
from plugins.errors import Refused


def test_a_model_is_judged_by_one_command_that_writes_one_report(tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    manifest = write_crops(tmp_path / "crops", patients=2)
    judge = ["evaluate", "classical-nodule-segmenter", "--data", str(manifest), "--resamples", "100"]
    said = CliRunner().invoke(app, [*judge, "--out", str(tmp_path / "out"), "--json"])
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert [Path(file).name for file in told["files"]] == ["report.json", "report.html", "report.pdf"]
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

from __future__ import annotations

import json
from pathlib import Path

import pytest
from outbox_rows import waiting_results
from small_node import SmallNode
from typer.testing import CliRunner

from node.cli import app

RUN = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    small = SmallNode.make(tmp_path / "home")
    waiting_results(small.database, small.objects, tmp_path, ["P@h:104"], count=2)
    small.database.dispose()
    return tmp_path / "home"


def test_a_node_is_copied_listed_restored_and_clean(home: Path, tmp_path: Path) -> None:
    folder, again = str(tmp_path / "backups"), str(tmp_path / "again")
    made = RUN.invoke(app, ["backup", folder, "--home", str(home), "--keep", "2", "--json"])
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["objects"] == 3 and told["missing"] == []
    assert told["name"] in RUN.invoke(app, ["backup", folder, "--list"]).output
    restored = RUN.invoke(app, ["restore", folder, "--home", again])
    assert restored.exit_code == 0 and f"nadir serve --home {again}" in restored.output
    before = RUN.invoke(app, ["findings", "--home", str(home), "--json"]).stdout
    assert RUN.invoke(app, ["findings", "--home", again, "--json"]).stdout == before


def test_what_was_missing_is_told_by_the_exit_status(home: Path, tmp_path: Path) -> None:
    next((home / "store" / "objects").rglob("*.dcm")).unlink()
    done = RUN.invoke(app, ["backup", str(tmp_path / "backups"), "--home", str(home)])
    assert done.exit_code == 1 and "1 objects are missing" in done.output


def test_a_restoration_names_its_folder(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["restore", str(tmp_path)])
    assert done.exit_code == 1

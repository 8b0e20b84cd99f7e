"""Tables on a screen of 80 columns: what is short stands there whole, what is long is broken, nothing is cut off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from empty_database import empty_database
from made_models import register_model
from typer.testing import CliRunner

from node import cli_labels, printing
from node.cli import app
from store import runs
from store.registry import approve

FAMILY = "nodule_segmenter"
NOW = datetime(2026, 11, 20, 12, 30, 44, 123456, tzinfo=UTC)
AUTHOR = "Dr. Hildegard Brandenburger-Sonnenschein"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a node with a model that a person with a long name approved, and one that was refused."""
    monkeypatch.setattr(printing, "WIDE", 80)
    database = empty_database(tmp_path)
    register_model(database, tmp_path, 1)
    register_model(database, tmp_path, 2, proposed=False)
    with database.transaction() as session:
        approve(session, tmp_path, FAMILY, 1, author=AUTHOR, now=NOW, note="better on thin slices")
        for number in range(2):
            at = NOW + timedelta(hours=number)
            run = runs.begin(session, FAMILY, "here:1", at, 60)
            runs.end(session, run, "here:1", runs.State.TOO_FEW, "3 masks are new and 20 are asked for", at)
    database.dispose()
    return tmp_path


def test_models_and_runs_fit_the_screen(home: Path) -> None:
    whole = {
        "list": ("shipped", "replaced", "refused", "2026-11-20", "1.2.0", "Hildegard"),
        "runs": ("too-few", FAMILY, "2026-11-20 12:30", "2026-11-20 13:30"),
    }
    for command, asked in whole.items():
        printed = CliRunner().invoke(app, ["models", command, "--home", str(home)]).stdout
        assert max(map(len, printed.splitlines())) <= 80
        assert [word for word in asked if word not in printed] == []


def test_masks_of_people_fit_the_screen(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(printing, "WIDE", 80)
    uid = "1.2.826.0.1.3680043.8.498." + "7" * 38
    row = {
        "patient_id": "LIDC-IDRI-0001",
        "tracking_uid": uid,
        "origin": "corrected",
        "author": AUTHOR,
        "at": "2026-11-20",
        "side": "none yet",
    }
    cli_labels.print_labels([row])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert all(word in printed for word in ("corrected", "2026-11-20", "none yet"))
    assert printed.count("7") >= 38


def test_no_name_or_tag_commands_the_terminal(capsys: Any) -> None:
    hostile = "\x1b]0;title\x07 \x9b2J clear\r"
    printing.say(hostile)
    printing.complain(hostile)
    printing.print_table([{"name": hostile}], {"name": "name"})
    printed = "".join(capsys.readouterr())
    assert printed.count("clear") == 3
    assert set(printed).isdisjoint("\x1b\x07\x9b\r")


def test_a_number_of_a_run_that_no_row_can_have_is_a_wrong_command_line(home: Path, tmp_path: Path) -> None:
    asked = ["models", "plan", FAMILY, "--run", "9" * 30, "--out", str(tmp_path / "plan")]
    assert CliRunner().invoke(app, [*asked, "--home", str(home)]).exit_code == 2

"""The commands of retraining: what they say, how they end, and what stops them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from empty_database import empty_database
from typer.testing import CliRunner

from node import cli_retrain
from node.cli import app
from plugins.errors import Refused
from store import runs
from store.database import Database
from store.model_tables import ScheduledJob

FAMILY = "nodule_segmenter"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    database = empty_database(tmp_path)
    with database.transaction() as session:
        session.add(ScheduledJob(id=f"retrain {FAMILY}", next_run_time=1_800_000_000.0, job_state=b"{}"))
    database.dispose()
    monkeypatch.setattr(os, "nice", lambda _: 0)
    return tmp_path


def said(home: Path, *arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["models", *arguments, "--home", str(home), "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_a_node_without_labels_says_so_and_trains_nothing(home: Path) -> None:
    ended = said(home, "retrain", FAMILY)
    assert (ended["number"], ended["state"], ended["model"]) == (1, "too-few", None)
    assert "0 masks to learn from are new since the last run, and 20 are asked for" in str(ended["said"])
    told = said(home, "runs")
    assert [(run["id"], run["state"], run["said"]) for run in told["runs"]] == [(1, "too-few", ended["said"])]  # type: ignore[attr-defined]
    assert told["next"] == [{"job": f"retrain {FAMILY}", "at": "2027-01-15T08:00:00+00:00"}]
    plain = CliRunner().invoke(app, ["models", "runs", "--home", str(home)])
    assert "too-few" in plain.stdout and f"next: retrain {FAMILY} at 2027-01-15" in plain.stdout


def test_a_run_that_goes_on_elsewhere_and_a_family_that_nobody_knows_are_refused(home: Path) -> None:
    database = Database(f"sqlite:///{home / 'nadir.sqlite'}", sync=False)
    with database.transaction() as session:
        runs.begin(session, FAMILY, "elsewhere:7", database.now(), 60)
    database.dispose()
    busy = CliRunner().invoke(app, ["models", "retrain", FAMILY, "--home", str(home)])
    assert isinstance(busy.exception, Refused)
    assert busy.exception.code == "already-running" and "elsewhere:7" in busy.exception.sentence
    unknown = CliRunner().invoke(app, ["models", "retrain", "liver", "--home", str(home)])
    assert isinstance(unknown.exception, Refused) and "nobody knows how to retrain 'liver'" in str(
        unknown.exception
    )


def test_a_run_is_ended_by_what_ends_a_service() -> None:
    with pytest.raises(KeyboardInterrupt), cli_retrain._stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

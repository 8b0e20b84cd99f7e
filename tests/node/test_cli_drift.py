"""Weeks of use in a database, judged by the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from empty_database import empty_database, place_database
from typer.testing import CliRunner, Result
from weeks_of_use import MONDAY, insert, week_of

from node import metrics
from node.cli import app
from plugins.errors import Refused
from store.database import Database
from store.model_tables import Promotion
from training.drift_page import charts
from training.evaluate.section import Chart


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a node that was used for ten weeks, with another kernel in the last one."""
    folder = tmp_path_factory.mktemp("home")
    random = np.random.default_rng(0)
    database = empty_database(folder)
    with database.transaction() as session:
        number = 1
        for week in range(10):
            kernels = ("sharp",) if week == 9 else ("soft", "lung")
            number = insert(session, list(week_of(week, random, kernels=kernels)), first=number)
    database.dispose()
    return folder


def said(home: Path, *flags: str) -> Result:
    return CliRunner().invoke(app, ["models", "drift", *flags, "--home", str(home)])


def judged(home: Path, *flags: str) -> Any:
    answer = said(home, *flags, "--json")
    assert answer.exit_code == 0, (answer.output, answer.exception)
    return json.loads(answer.stdout)["analyses"]


def test_the_table_tells_each_week_and_the_alarm_what_when_and_what_to_do(home: Path) -> None:
    answer = said(home, "--weeks", "3")
    assert answer.exit_code == 0
    lines = [line.strip() for line in answer.stdout.splitlines()]
    weeks = ["2026-W09", "2026-W10", "2026-W11"]
    assert [line.split()[0] for line in lines if line.startswith("2026-W")] == [*weeks, "2026-W11"]
    assert "the reconstruction kernel changed: 'sharp' 0% -> 100%" in answer.stdout
    assert "since 2026-W11. Ask what changed at the scanner" in answer.stdout
    assert "Doe" not in answer.stdout


def test_an_analysis_is_named_by_itself_or_by_a_family_that_it_uses(home: Path) -> None:
    for name in ("lung_nodule", "nodule_segmenter"):
        (analysis,) = judged(home, name)
        assert analysis["plugin"] == "lung_nodule"
        assert [week["is_reference"] for week in analysis["weeks"]] == [True] * 8 + [False] * 2
    with pytest.raises(Refused, match="nothing is known of 'kidney' yet; there are: lung_nodule"):
        raise said(home, "kidney").exception or AssertionError


def test_alarms_are_kept_once_and_counted(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert judged(home, "--record")[0]["recorded"] == 1
    assert (
        "action=drift plugin=lung_nodule week=2026-W11 what=convolution_kernel statistic=PSI" in caplog.text
    )
    assert judged(home, "--record")[0]["recorded"] == 0
    database = Database(f"sqlite:///{home / 'nadir.sqlite'}")
    assert b'nadir_drift_alarms{plugin="lung_nodule"} 1.0' in metrics.text(metrics.registry(database))
    database.dispose()


def test_what_was_before_a_model_was_approved_is_not_compared_with(home: Path, tmp_path: Path) -> None:
    shutil.copyfile(home / "nadir.sqlite", tmp_path / "nadir.sqlite")
    database = Database(f"sqlite:///{tmp_path / 'nadir.sqlite'}")
    with database.transaction() as session:
        at = MONDAY + timedelta(weeks=5)
        made = {
            "family": "nodule_segmenter",
            "number": 1,
            "kind": "approve",
            "manifest_sha256": "m",
            "author": "A",
        }
        session.add(Promotion(**made, at=at - timedelta(days=2)))
    database.dispose()
    (analysis,) = judged(tmp_path)
    assert [week["week"] for week in analysis["weeks"]] == [f"2026-W{n:02}" for n in range(7, 12)]
    assert all(week["is_reference"] for week in analysis["weeks"])


def test_a_study_and_an_approval_that_are_dated_ahead_silence_no_alarm(home: Path, tmp_path: Path) -> None:
    shutil.copyfile(home / "nadir.sqlite", tmp_path / "nadir.sqlite")
    database = Database(f"sqlite:///{tmp_path / 'nadir.sqlite'}")
    ahead = database.now() + timedelta(days=400)
    with database.transaction() as session:
        late = replace(next(week_of(9, np.random.default_rng(1), studies=1)), at=ahead)
        insert(session, [late], first=10_000)
        by = {
            "family": "nodule_segmenter",
            "number": 1,
            "kind": "approve",
            "manifest_sha256": "m",
            "author": "A",
        }
        session.add(Promotion(**by, at=ahead))
    database.dispose()
    (analysis,) = judged(tmp_path)
    assert [week["week"] for week in analysis["weeks"]] == [f"2026-W{n:02}" for n in range(2, 12)]
    assert analysis["dated_ahead"] == 1
    assert [alarm["what"] for alarm in analysis["alarms"]] == ["convolution_kernel"]
    told = " ".join(said(tmp_path).stdout.split())
    assert "lung_nodule: The results of 1 study bear a date that has not come yet and are left out" in told
    assert "2026-W11 lung_nodule: the reconstruction kernel changed" in told
    assert judged(home)[0]["dated_ahead"] == 0


def test_the_page_stands_alone_and_shows_every_quantity(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def some(*of: Any) -> tuple[Chart, ...]:
        made.extend(charts(*of))
        return (made[0], made[6])  # a number and a category: drawing is slow

    monkeypatch.setattr("training.drift_page.charts", some)
    judged(home, "--out", str(tmp_path / "page"))
    page = (tmp_path / "page" / "drift.html").read_text()
    assert len(made) == 13
    assert page.count("<svg") == 2
    assert "Reconstruction kernel: how far each week is from the reference" in page
    assert "<script" not in page


def test_nothing_analysed_is_said(tmp_path: Path) -> None:
    place_database(tmp_path)
    assert said(tmp_path).stdout == "nothing was analysed yet\n"

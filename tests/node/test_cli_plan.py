"""The plan as an administrator asks for it, of a node with and without a run."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from empty_database import empty_database
from judged_rows import plus, rows_of
from typer.testing import CliRunner

from models.shipped import VOUCHED
from node.cli import app
from node.retraining import RetrainSettings
from plugins.errors import Refused
from store import runs
from store.runs import State
from training.challenge import Challenge
from training.gate import Margins, Seconds, judge
from training.plan.run import JUDGED

NOW = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)


def told(out: Path, home: Path | None, *flags: str) -> str:
    of = () if home is None else ("--home", str(home))
    said = CliRunner().invoke(app, ["models", "plan", "nodule_segmenter", "--out", str(out), *of, *flags])
    if said.exception is not None and not isinstance(said.exception, SystemExit):
        raise said.exception
    assert said.exit_code == 0, said.output
    return said.stdout


def test_the_plan_of_a_model_is_nine_files_that_tell_every_setting_of_retraining(tmp_path: Path) -> None:
    config = tmp_path / "nadir.toml"
    config.write_text(
        f'home = "{tmp_path / "none"}"\n[retrain]\ncron = "7 4 * * 3"\n[retrain.margins]\ngroup_dice = 0.031\n'
    )
    lines = told(tmp_path / "out", None, "--config", str(config)).split()
    assert len(lines) == 9 and all(Path(line).is_file() for line in lines)
    plain = json.loads((tmp_path / "out" / "protocol.json").read_text())
    rows = [row for section in plain["sections"] for table in section["tables"] for row in table["rows"]]
    values = {name: value for name, value, _ in rows}
    renamed = {"data": "replay", "margins": "group_dice"}
    for name in RetrainSettings.model_fields:
        assert renamed.get(name, name) in values, f"the protocol does not tell retrain.{name}"
    assert (values["cron"], values["group_dice"]) == ("7 4 * * 3", "0.031")
    assert json.loads((tmp_path / "out" / "impact.json").read_text())["run"] is None


def test_a_folder_that_is_named_and_has_no_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no node in"):
        told(tmp_path / "out", tmp_path / "none")
    assert not (tmp_path / "out").exists()


def judged_into(folder: Path) -> None:
    """Write what a run that judged leaves in its folder."""
    margins = Margins(resamples=150, group_dice=0.033)
    rows = rows_of(patients=25)
    now = [plus(row, 0.04) for row in rows]
    Challenge(
        champion=tuple(rows),
        challenger=tuple(now),
        seconds=Seconds(champion=(1.0,), challenger=(1.0,)),
        verdict=judge(rows, now, margins),
        shown=(),
    ).write(folder / JUDGED)


def test_a_run_is_told_with_the_limits_that_it_was_judged_by(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", "training/nodule_segmenter/1"
    judged_into(home / folder)
    database = empty_database(home)
    with database.transaction() as session:
        run = runs.begin(session, "nodule_segmenter", "host:1", NOW, 60)
        runs.note(session, run, "host:1", folder=folder, champion_sha256=VOUCHED["nodule_segmenter"])
        runs.move(session, run, "host:1", State.FITTING, labels=12, new_labels=7)
        runs.move(session, run, "host:1", State.JUDGING)
        runs.end(session, run, "host:1", State.PROPOSED, "Better.", NOW)
    database.dispose()
    told(tmp_path / "out", home, "--run", str(run))
    impact = json.loads((tmp_path / "out" / "impact.json").read_text())
    assert impact["run"]["verdict"]["is_proposed"] is True
    assert (impact["run"]["labels"], impact["run"]["earlier"]) == (12, 0)
    assert json.loads((tmp_path / "out" / "protocol.json").read_text())["margins"]["group_dice"] == 0.033
    with pytest.raises(Refused, match="There is no run 9"):
        told(tmp_path / "out", home, "--run", "9")


def test_a_killed_run_is_not_told_with_what_the_run_that_went_on_in_its_folder_found(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", "training/nodule_segmenter/1"
    judged_into(home / folder)
    database = empty_database(home)
    for owner in ("host:1", "host:2"):
        with database.transaction() as session:
            run = runs.begin(session, "nodule_segmenter", owner, NOW + timedelta(minutes=int(owner[-1])), 60)
            runs.move(session, run, owner, State.FITTING, folder=folder, labels=12)
    with database.transaction() as session:
        runs.move(session, run, "host:2", State.JUDGING)
    for told_of, state in ((run - 1, "abandoned"), (run, "judging")):
        told(tmp_path / state, home, "--run", str(told_of))
        plain = json.loads((tmp_path / state / "impact.json").read_text())["run"]
        assert (plain["state"], plain["verdict"], plain["labels"]) == (state, None, 12)
        assert "proposed" not in (tmp_path / state / "impact.html").read_text().partition("Benefits")[0]
    with database.transaction() as session:
        runs.end(session, run, "host:2", State.PROPOSED, "Better.", NOW)
    database.dispose()
    told(tmp_path / "last", home, "--run", str(run))
    last = json.loads((tmp_path / "last" / "impact.json").read_text())["run"]
    assert last["verdict"]["is_proposed"] is True


def test_a_family_that_nobody_retrains_is_refused(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["models", "plan", "liver", "--out", str(tmp_path / "out")])
    assert isinstance(said.exception, Refused) and "known: nodule_segmenter" in str(said.exception)

"""What was given up is listed where an administrator looks, and fetched again when one says so."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from pulling_home import NOW, Home
from typer.testing import CliRunner, Result

from node.cli import app
from plugins.errors import Refused
from store.tables import Pull


def asked(home: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["pulls", *words, "--home", str(home)])


def test_a_study_that_was_given_up_is_listed_with_its_reason_and_put_back_on_the_list(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number, state in enumerate(("pulled", "parked", "waiting")):
        home.request(f"1.{number}", NOW + timedelta(hours=number), everything=True)
        with home.database.transaction() as session:
            row = session.get_one(Pull, f"1.{number}")
            row.state, row.attempt = state, 3
            row.error_text = "gave 1 of the 2 instances that it lists" if state == "parked" else None
    rows = json.loads(asked(tmp_path, "list", "--json").stdout)
    assert [(row["study_instance_uid"], row["state"]) for row in rows] == [
        ("1.0", "pulled"), ("1.1", "parked"), ("1.2", "waiting"),
    ]  # fmt: skip
    assert json.loads(asked(tmp_path, "list", "--state", "parked", "--json").stdout) == rows[1:2]
    table = asked(tmp_path, "list", "--at-most", "2")
    assert "gave 1 of the 2 instances" in table.stdout and "1.0" not in table.stdout
    assert table.stderr == "nadir: 1 further studies are not listed; --at-most lists more\n"
    assert asked(tmp_path, "retry").stdout == "1 asked for again\n"
    again = home.wish("1.1")
    assert (again.state, again.attempt, again.everything) == ("waiting", 0, True)
    assert home.wish("1.0").state == "pulled"
    assert asked(tmp_path, "retry", "--json").stdout.split() == ["{", '"asked_again":', "0", "}"]
    home.close()


def test_a_state_that_there_is_not_is_refused(tmp_path: Path) -> None:
    Home(tmp_path).close()
    refused = asked(tmp_path, "list", "--state", "lost").exception
    assert isinstance(refused, Refused) and refused.code == "no-such-state"

"""Commands in a home whose rows are in a database that nobody named: nothing is made, and nothing saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from empty_database import empty_database
from rows_elsewhere import home_with_rows_elsewhere
from typer.testing import CliRunner

from node.cli import app
from plugins.errors import Refused

RUN = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the home of a node with objects whose rows are in another folder's database."""
    return home_with_rows_elsewhere(tmp_path)


@pytest.mark.parametrize(
    "asked",
    [
        ("users", "add", "anna", "--role", "physicist"),
        ("tokens", "add", "t", "--scope", "hook"),
        ("jobs", "list"),
    ],
)
@pytest.mark.parametrize("kept", ["objects", "key"])
def test_no_command_makes_a_node_where_another_database_has_the_rows(
    home: Path, tmp_path: Path, asked: tuple[str, ...], kept: str
) -> None:
    if kept == "key":
        home = tmp_path / "young"
        home.mkdir()
        (home / "audit.key").write_text("0" * 64)
    done = RUN.invoke(app, [*asked, "--home", str(home)], input="seven tall green tables\n")
    assert isinstance(done.exception, Refused), done.output
    assert done.exception.code == "no-database"
    for word in (str(home), "database_url", "NADIR_DATABASE_URL_FILE", "--config"):
        assert word in done.exception.sentence
    assert not (home / "nadir.sqlite").exists()


def test_with_its_database_named_a_person_is_added_and_no_second_one_made(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "database_url"
    named.write_text(f"sqlite:///{tmp_path / 'elsewhere' / 'nadir.sqlite'}\n")
    named.chmod(0o600)
    monkeypatch.setenv("NADIR_DATABASE_URL_FILE", str(named))
    add = ["users", "add", "anna", "--role", "physicist", "--home", str(home)]
    done = RUN.invoke(app, add, input="seven tall green tables\n")
    assert (done.exit_code, done.stdout) == (0, "anna may sign in as physicist\n")
    assert not (home / "nadir.sqlite").exists()
    saved = RUN.invoke(app, ["backup", str(tmp_path / "backups"), "--home", str(home)])
    assert saved.exit_code == 0 and "3 objects" in saved.stdout


def test_a_database_that_names_none_of_the_objects_is_not_saved_as_theirs(home: Path, tmp_path: Path) -> None:
    empty_database(home).dispose()
    folder = tmp_path / "backups"
    done = RUN.invoke(app, ["backup", str(folder), "--home", str(home), "--keep", "14"])
    assert isinstance(done.exception, Refused) and done.exception.code == "other-database"
    assert f"names none of the objects in {home / 'store'}" in done.exception.sentence
    assert RUN.invoke(app, ["backup", str(folder), "--list"]).stdout == "no backups\n"

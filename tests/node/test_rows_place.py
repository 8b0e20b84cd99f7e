"""A node whose rows are in one database begins no second one beside the same objects without being told to."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from empty_database import place_database
from rows_elsewhere import home_with_rows_elsewhere
from typer.testing import CliRunner

from node import serve as serving
from node.cli import app
from node.doctor import examine
from node.opened import opened
from node.rows_place import REMEMBERED, remember, remembered
from node.settings import Settings
from plugins.errors import Refused
from store.database import Database, place_of

RUN = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with objects whose rows are in another folder's database, which it does not remember."""
    return home_with_rows_elsewhere(tmp_path)


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'nadir.sqlite'}"


def _open(home: Path, url: str = "") -> None:
    opened(Settings(home=home, database_url=url))[0].dispose()


def _has_tables(folder: Path) -> bool:
    """Return whether the database of a folder has tables."""
    database = Database(_url(folder))
    try:
        return not database.is_empty()
    finally:
        database.dispose()


def test_a_node_remembers_where_its_rows_are_and_not_who_signs_in(tmp_path: Path) -> None:
    _open(tmp_path / "home")
    assert remembered(tmp_path / "home") == "nadir.sqlite"
    _open(tmp_path / "home", _url(tmp_path))
    assert remembered(tmp_path / "home") == str(tmp_path / "nadir.sqlite")
    assert place_of("postgres://anna:secret@db:5432/ledger") == "'ledger' on db:5432"
    assert (tmp_path / "home" / REMEMBERED).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("is_remembered", [True, False])
def test_no_node_starts_with_the_file_of_its_home_when_its_rows_are_elsewhere(
    home: Path, tmp_path: Path, is_remembered: bool
) -> None:
    if is_remembered:
        _open(home, _url(tmp_path / "elsewhere"))
    with pytest.raises(Refused) as caught:
        _open(home)
    assert caught.value.code == "no-database"
    known = str(tmp_path / "elsewhere" / "nadir.sqlite") if is_remembered else "another database"
    for word in (str(home), f"its rows in {known}", "NADIR_DATABASE_URL_FILE", "nadir serve --rebuild"):
        assert word in caught.value.sentence
    assert not (home / "nadir.sqlite").exists()


@pytest.mark.parametrize("is_remembered", [True, False])
def test_neither_does_one_nor_runs_a_command_with_an_empty_database_of_another_name(
    home: Path, tmp_path: Path, is_remembered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_remembered:
        _open(home, _url(tmp_path / "elsewhere"))
    (tmp_path / "other").mkdir()
    with pytest.raises(Refused) as caught:
        _open(home, _url(tmp_path / "other"))
    assert caught.value.code == "other-database"
    known = str(tmp_path / "elsewhere" / "nadir.sqlite") if is_remembered else "another database"
    assert f"its rows in {known}" in caught.value.sentence
    assert f"{tmp_path / 'other' / 'nadir.sqlite'} holds no tables" in caught.value.sentence
    (tmp_path / "other" / "nadir.sqlite").touch()
    monkeypatch.setenv("NADIR_DATABASE_URL", _url(tmp_path / "other"))
    done = RUN.invoke(app, ["jobs", "list", "--home", str(home)])
    assert isinstance(done.exception, Refused) and done.exception.code == "other-database"
    assert not _has_tables(tmp_path / "other")


def test_a_database_that_is_lost_where_it_was_is_made_anew_with_a_warning(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = _url(tmp_path / "elsewhere")
    _open(home, url)
    for file in (tmp_path / "elsewhere").iterdir():
        file.unlink()
    with caplog.at_level(logging.WARNING):
        _open(home, url)
    (said,) = [r for r in caplog.records if "rows-made-anew" in r.getMessage()]
    assert said.levelname == "WARNING"
    assert "accounts" in said.getMessage() and "backup" in said.getMessage()
    caplog.clear()
    _open(home, url)
    assert "rows-made-anew" not in caplog.text


def test_a_home_that_moved_with_its_database_remembers_that_it_lies_within(
    home: Path, tmp_path: Path
) -> None:
    place_database(home)
    _open(home)
    home = home.rename(tmp_path / "moved")
    for file in home.glob("nadir.sqlite*"):
        file.unlink()
    done = RUN.invoke(app, ["jobs", "list", "--home", str(home)])
    assert isinstance(done.exception, Refused) and done.exception.code == "no-database"
    assert f"were in {home / 'nadir.sqlite'}, which is gone" in done.exception.sentence
    _open(home)
    assert _has_tables(home)


def test_a_database_that_was_copied_elsewhere_is_that_of_the_node_from_then_on(
    home: Path, tmp_path: Path
) -> None:
    _open(home, _url(tmp_path / "elsewhere"))
    moved = (tmp_path / "elsewhere").rename(tmp_path / "new")
    _open(home, _url(moved))
    assert remembered(home) == str(moved / "nadir.sqlite")


def test_whoever_asks_for_it_begins_anew(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _open(home, _url(tmp_path / "elsewhere"))
    monkeypatch.setattr(serving, "serve", lambda settings, roles: opened(settings)[0].dispose())
    done = RUN.invoke(app, ["serve", "--home", str(home)])
    assert isinstance(done.exception, Refused) and done.exception.code == "no-database"
    done = RUN.invoke(app, ["serve", "--home", str(home), "--rebuild"])
    assert done.exit_code == 0, done.output
    assert remembered(home) == "nadir.sqlite" and _has_tables(home)


def test_the_doctor_tells_that_the_rows_are_elsewhere_and_makes_nothing(home: Path) -> None:
    (line,) = [line for line in examine(Settings(home=home)) if line.what == "database"]
    assert not line.ok and "its rows in another database" in line.says
    assert not (home / "nadir.sqlite").exists()


def test_a_disk_that_takes_no_more_stops_no_node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remember(tmp_path / "nowhere", "'nadir' on db:5432")
    assert "database-not-remembered" in caplog.text

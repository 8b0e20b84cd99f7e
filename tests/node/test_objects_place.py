"""A node whose rows name objects that are not there keeps nothing in their place without being told to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from outbox_rows import waiting_results
from small_node import SmallNode
from typer.testing import CliRunner

from node import serve as serving
from node.cli import app
from node.doctor import examine
from node.objects_place import WITHOUT
from node.opened import opened
from node.settings import Settings
from plugins.errors import Refused

RUN = CliRunner()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return those of a node with objects, whose rows lie outside its home."""
    small = SmallNode.make(tmp_path / "home")
    waiting_results(small.database, small.objects, tmp_path, ["P@h:104"], count=2)
    small.database.dispose()
    for file in small.home.glob("nadir.sqlite*"):
        file.rename(tmp_path / file.name)
    settings = Settings(home=small.home, database_url=f"sqlite:///{tmp_path / 'nadir.sqlite'}")
    begin(settings)
    return settings


def begin(settings: Settings) -> None:
    opened(settings)[0].dispose()


def told_by_doctor(settings: Settings) -> list[str]:
    return [line.says for line in examine(settings) if line.what == "object store" and not line.ok]


def no_store(home: Path) -> None:
    (home / "store").rename(home.parent / "disk")


def no_mount(home: Path) -> None:
    no_store(home)
    (home / "store").mkdir(mode=0o700)


def no_home(home: Path) -> None:
    home.rename(home.parent / "disk")


def bare_home(home: Path) -> None:
    no_home(home)
    home.mkdir(mode=0o700)


@pytest.mark.parametrize("taken", [no_store, no_mount, no_home, bare_home])
def test_no_node_starts_where_none_of_the_objects_is_that_its_rows_name(
    settings: Settings, taken: Callable[[Path], None]
) -> None:
    taken(settings.home)
    (says,) = told_by_doctor(settings)
    with pytest.raises(Refused) as caught:
        begin(settings)
    assert caught.value.code == "no-objects" and caught.value.sentence == says
    place = f"{settings.home / 'store' / 'objects'} holds none"
    for word in (place, "mount its disk", "nadir restore", "nadir serve --rebuild"):
        assert word in says
    assert not (settings.home / "store" / "objects").exists()


def test_a_node_whose_disk_is_mounted_again_starts(settings: Settings) -> None:
    home = settings.home
    no_mount(home)
    with pytest.raises(Refused):
        begin(settings)
    (home / "store").rmdir()
    (home.parent / "disk").rename(home / "store")
    begin(settings)
    assert told_by_doctor(settings) == []


def test_a_node_that_never_had_an_object_starts(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    for _ in range(2):
        begin(settings)
    shutil.rmtree(settings.home / "store")
    begin(settings)
    assert told_by_doctor(settings) == []


@pytest.mark.parametrize("taken", [no_store, no_home])
def test_a_node_that_is_told_to_goes_on_without_its_objects_until_it_has_others(
    settings: Settings, taken: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(settings.home)
    monkeypatch.setattr(serving, "serve", lambda settings, roles: begin(settings))
    monkeypatch.setenv("NADIR_DATABASE_URL", settings.database_url)
    done = RUN.invoke(app, ["serve", "--home", str(settings.home)])
    assert isinstance(done.exception, Refused) and done.exception.code == "no-objects"
    done = RUN.invoke(app, ["serve", "--home", str(settings.home), "--rebuild"])
    assert done.exit_code == 0, done.output
    begin(settings)
    assert told_by_doctor(settings) == []
    assert taken is no_store or settings.home.stat().st_mode & 0o777 == 0o700
    database, objects = opened(settings)
    objects.put(b"another")
    database.dispose()
    begin(settings)
    assert not (settings.home / WITHOUT).exists()
    shutil.rmtree(settings.home / "store")
    with pytest.raises(Refused):
        begin(settings)


def test_who_has_its_objects_is_not_marked_as_one_without(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "serve", lambda settings, roles: None)
    done = RUN.invoke(app, ["serve", "--home", str(settings.home), "--rebuild"])
    assert done.exit_code == 0, done.output
    assert not (settings.home / WITHOUT).exists()


def test_a_store_that_may_not_be_read_is_not_called_empty(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_mount(settings.home)
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "store" and may(path, mode))
    begin(settings)

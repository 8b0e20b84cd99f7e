"""Backups of a node: what is in them, what is copied again, which of them go, and what is no backup."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from backed_up_home import NOON, files_below, made_home, make
from outbox_rows import waiting_results
from sqlalchemy import inspect, text

from plugins.errors import Refused, Unavailable
from store import backup as store_backup
from store.backup import back_up, backups, prune, unreadable
from store.database import Database
from store.objects import ObjectStore
from store.restored import Restored, restore
from store.schema import METADATA


@pytest.fixture
def home(tmp_path: Path, database: Database) -> Path:
    return made_home(tmp_path, database)


def test_every_table_of_the_database_is_copied(database: Database) -> None:
    there = set(inspect(database.engine).get_table_names()) - {"alembic_version"}
    assert there == set(METADATA.tables)


def test_a_second_backup_copies_only_what_is_new_and_both_can_be_restored(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    first = make(database, home, folder)
    times = {path: path.stat().st_mtime_ns for path in (folder / "objects").rglob("*.dcm")}
    waiting_results(
        database, ObjectStore(home / "store"), tmp_path / "more", ["P@h:104"], count=2, patient_id="B"
    )
    second = make(database, home, folder, hours=1)
    assert second.objects > first.objects
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert backups(folder) == (first, second)
    for made in (first, second):
        again = tmp_path / made.name
        restored = restore(folder, again, f"sqlite:///{again / 'nadir.sqlite'}", name=made.name)
        assert restored == Restored(backup=made, damaged=())
        assert len(files_below(again / "store" / "objects")) == made.objects


def test_what_was_damaged_in_the_backup_folder_is_copied_again(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder, objects = tmp_path / "backups", ObjectStore(home / "store")
    make(database, home, folder)
    short, rotten, *_ = sorted((folder / "objects").rglob("*.dcm"))
    whole = files_below(folder / "objects")
    short.write_bytes(short.read_bytes()[:-1])
    rotten.write_bytes(rotten.read_bytes()[:-1] + b"?")
    second = make(database, home, folder, hours=1)
    assert (second.mended, second.missing) == ((short.stem,), ())
    third = back_up(
        database, objects, home, folder, now=NOON + timedelta(hours=2), version="0.1.0", verify=True
    )
    assert third.mended == (rotten.stem,)
    assert files_below(folder / "objects") == whole
    assert backups(folder)[1:] == (second, third)
    short.write_bytes(b"")
    objects.path(short.stem).write_bytes(b"?")
    assert make(database, home, folder, hours=3).missing == (short.stem,)


@pytest.mark.parametrize("sha256", ["../../../etc/passwd", "/etc/\x1bpasswd"])
def test_what_a_damaged_row_says_is_its_hash_counts_as_missing_and_all_else_is_copied_and_comes_back(
    database: Database, home: Path, tmp_path: Path, sha256: str
) -> None:
    with database.transaction() as session:
        session.execute(text("UPDATE result SET sha256 = :sha256 WHERE id = 1"), {"sha256": sha256})
    folder, again = tmp_path / "backups", tmp_path / "again"
    made = make(database, home, folder)
    assert made.missing == (sha256,)
    assert len(list((folder / "objects").rglob("*.dcm"))) == made.objects - 1
    restored = restore(folder, again, f"sqlite:///{again / 'nadir.sqlite'}")
    shown = sha256.replace("\x1b", r"\x1b")
    assert restored.damaged == (f"objects/{shown}.dcm",)
    assert len(files_below(again / "store" / "objects")) == made.objects - 1
    assert prune(folder, 1) == 0


def test_what_arrives_while_a_backup_is_made_is_in_it_whole_or_not_at_all(
    database: Database, home: Path, tmp_path: Path
) -> None:
    objects, is_over = ObjectStore(home / "store"), threading.Event()

    def arrive() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            folder = tmp_path / f"arriving-{number}"
            waiting_results(database, objects, folder, ["P@h:104"], count=1, patient_id=f"W{number}")

    writer = threading.Thread(target=arrive)
    writer.start()
    try:
        for hours in range(3):
            assert make(database, home, tmp_path / "backups", hours).missing == ()
    finally:
        is_over.set()
        writer.join()
    again = tmp_path / "again"
    made = restore(tmp_path / "backups", again, f"sqlite:///{again / 'nadir.sqlite'}").backup
    assert len(files_below(again / "store" / "objects")) == made.objects


def test_old_backups_go_with_the_objects_that_only_they_named(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    for hours in range(3):
        newest = make(database, home, folder, hours)
    stray = folder / "objects" / "aa" / f"{'a' * 64}.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"of an older one")
    assert prune(folder, 1) == 2
    assert backups(folder) == (newest,) and not stray.exists()
    assert len(list((folder / "objects").rglob("*.dcm"))) == newest.objects


@pytest.mark.parametrize("is_readable", [True, False])
def test_while_a_backup_of_the_future_is_there_none_is_made_and_none_goes(
    database: Database, home: Path, tmp_path: Path, is_readable: bool
) -> None:
    folder = tmp_path / "backups"
    future = make(database, home, folder, hours=24)
    if not is_readable:
        (folder / future.name / "backup.json").write_text("{")
    before = files_below(folder)
    with pytest.raises(Refused, match=r"20260302T120000Z, and it is 20260301T120000Z now") as caught:
        make(database, home, folder)
    assert caught.value.code == "future-backup"
    assert files_below(folder) == before and not (folder / "20260301T120000Z").exists()
    shutil.rmtree(folder / future.name)
    made = make(database, home, folder)
    assert prune(folder, 1) == 0 and backups(folder) == (made,)


def test_a_second_backup_of_one_second_is_refused_and_the_first_stays(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    first = make(database, home, folder)
    with pytest.raises(Refused, match=r"a backup of this second is in .* already; try again") as caught:
        make(database, home, folder)
    assert caught.value.code == "backup-there"
    assert backups(folder) == (first,)


LISTINGS = ["{", "{}", "[]", '{"name": "20260301T120000Z"}', '{"files": 1}', "\0"]


@pytest.mark.parametrize("content", LISTINGS)
def test_a_backup_that_cannot_be_read_is_named_and_all_others_are_there(
    database: Database, home: Path, tmp_path: Path, content: str
) -> None:
    folder, again = tmp_path / "backups", tmp_path / "again"
    url = f"sqlite:///{again / 'nadir.sqlite'}"
    bad, good = make(database, home, folder), make(database, home, folder, hours=1)
    (folder / bad.name / "backup.json").write_text(content)
    assert (backups(folder), unreadable(folder)) == ((good,), (bad.name,))
    with pytest.raises(
        Refused, match=rf"{bad.name}/backup\.json cannot be read.* --name \({good.name}\)"
    ) as caught:
        restore(folder, again, url, name=bad.name)
    assert caught.value.code == "damaged-backup"
    assert restore(folder, again, url) == Restored(backup=good, damaged=())


def test_a_listing_of_another_backup_is_none_and_the_newest_is_not_passed_over_in_silence(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder, again = tmp_path / "backups", tmp_path / "again"
    older, newest = make(database, home, folder), make(database, home, folder, hours=1)
    told = (folder / older.name / "backup.json").read_bytes()
    (folder / newest.name / "backup.json").write_bytes(told)
    assert (backups(folder), unreadable(folder)) == ((older,), (newest.name,))
    with pytest.raises(Refused, match=rf"{newest.name}/backup\.json cannot be read.*{older.name}"):
        restore(folder, again, f"sqlite:///{again / 'nadir.sqlite'}")
    assert not again.exists()


def test_no_object_goes_while_a_backup_is_there_that_cannot_be_read(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    bad, old, newest = (make(database, home, folder, hours) for hours in range(3))
    (folder / bad.name / "backup.json").write_text("{")
    stray = folder / "objects" / "aa" / f"{'a' * 64}.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"of the one that cannot be read")
    assert prune(folder, 1) == 1
    assert (backups(folder), unreadable(folder), stray.exists()) == ((newest,), (bad.name,), True)
    assert (folder / bad.name / "nadir.sqlite").is_file() and not (folder / old.name).exists()
    shutil.rmtree(folder / bad.name)
    assert prune(folder, 1) == 0
    assert not stray.exists() and len(files_below(folder / "objects")) == newest.objects


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_nothing_goes_when_it_is_not_known_what_a_backup_to_keep_needs(
    database: Database, home: Path, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "backups"
    made = tuple(make(database, home, folder, hours) for hours in range(3))
    rows = folder / made[1].name / "nadir.sqlite"
    rows.unlink()
    if how == "damaged":
        rows.write_bytes(b"no database" * 100)
    before = files_below(folder)
    with pytest.raises(Refused, match=rf"{rows} cannot be read") as caught:
        prune(folder, 2)
    assert caught.value.code == "damaged-backup"
    assert files_below(folder) == before


def test_what_is_damaged_in_the_node_is_told_and_the_rest_is_copied(
    database: Database, home: Path, tmp_path: Path
) -> None:
    one, two, *_ = sorted((home / "store" / "objects").rglob("*.dcm"))
    one.unlink()
    two.chmod(0o600)
    two.write_bytes(b"rotten")
    made = make(database, home, tmp_path / "backups")
    assert set(made.missing) == {one.stem, two.stem}
    again = tmp_path / "again"
    restored = restore(tmp_path / "backups", again, f"sqlite:///{again / 'nadir.sqlite'}")
    assert restored.damaged == tuple(f"objects/{path.stem[:2]}/{path.name}" for path in (one, two))
    assert len(files_below(again / "store" / "objects")) == made.objects - 2


def test_a_file_of_the_home_that_goes_while_it_is_copied_costs_nothing_else(
    database: Database, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = store_backup.copy_file

    def goes(source: Path, target: Path, wanted: str = "") -> str:
        if source.name == "p.html":
            source.unlink()
        return copy(source, target, wanted)

    monkeypatch.setattr(store_backup, "copy_file", goes)
    made = make(database, home, tmp_path / "backups")
    assert "home/reports/p.html" not in made.files and "home/audit.key" in made.files


def test_a_backup_without_the_files_of_a_folder_that_cannot_be_read_is_none(
    database: Database, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "reports" and access(path, mode))
    with pytest.raises(Refused, match=rf"closed-folder: {home / 'reports'} cannot be read"):
        make(database, home, tmp_path / "backups")
    assert backups(tmp_path / "backups") == ()


def test_a_backup_that_was_killed_does_not_count_and_the_next_one_removes_it(
    database: Database, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backups"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("store.backup.write_whole", killed)
        make(database, home, folder)
    assert backups(folder) == ()
    with pytest.raises(Refused) as caught:
        restore(folder, tmp_path / "again", f"sqlite:///{tmp_path / 'again' / 'nadir.sqlite'}")
    assert caught.value.code == "no-backup"
    made = make(database, home, folder, hours=1)
    assert [path.name for path in sorted(folder.glob("2*"))] == [made.name]


def test_a_copy_of_the_rows_that_a_killed_backup_left_in_the_home_goes_with_the_next_one(
    database: Database, home: Path, tmp_path: Path
) -> None:
    left = home / ".backup-killed"
    left.mkdir(mode=0o700)
    (left / "nadir.sqlite").write_bytes(b"rows of patients")
    make(database, home, tmp_path / "backups")
    assert list(home.glob(".backup-*")) == []


def test_a_backup_leaves_the_copy_of_one_that_is_made_into_another_folder_at_the_same_time(
    database: Database, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, beside = store_backup.copy_file, []

    def meanwhile(source: Path, target: Path) -> str:
        if not beside and source.parent.parent == home:
            beside.append(source)
            beside.append(make(database, home, tmp_path / "other"))
        return copy(source, target)

    monkeypatch.setattr(store_backup, "copy_file", meanwhile)
    made = make(database, home, tmp_path / "backups")
    assert backups(tmp_path / "backups") == (made,)
    assert backups(tmp_path / "other") == (beside[1],)
    assert list(home.glob(".backup-*")) == []


def test_a_node_whose_disk_has_no_room_for_a_copy_of_the_rows_is_told_so_and_leaves_no_folder(
    database: Database, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not database.is_sqlite:
        pytest.skip("rows from PostgreSQL are copied by SQLAlchemy, whose errors the database tells")

    def small(path: Path) -> sqlite3.Connection:
        opened = connect(path)
        opened.execute("PRAGMA max_page_count=4")
        return opened

    folder, connect = tmp_path / "backups", sqlite3.connect
    before = files_below(home)
    monkeypatch.setattr("store.backup.sqlite3.connect", small)
    with pytest.raises(Unavailable, match="database or disk is full") as caught:
        make(database, home, folder)
    monkeypatch.undo()
    (home / ".backup.lock").unlink()
    assert str(caught.value).startswith(f"the rows cannot be copied within {home}, ")
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []
    assert files_below(home) == before
    made = make(database, home, folder)
    assert backups(folder) == (made,)


def test_places_that_do_not_fit_are_refused(database: Database, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    make(database, home, folder)
    url = f"sqlite:///{home / 'nadir.sqlite'}"
    for attempt, code in (
        (lambda: make(database, home, home / "backups"), "backup-inside-home"),
        (lambda: restore(folder, home, url), "home-not-empty"),
        (lambda: restore(folder, tmp_path / "again", url, name="20200101T000000Z"), "no-backup"),
        (lambda: restore(tmp_path / "absent", tmp_path / "again", url), "no-backup"),
    ):
        with pytest.raises(Refused) as caught:
            attempt()
        assert caught.value.code == code
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused) as caught:
            make(database, home, folder, hours=1)
        assert caught.value.code == "folder-in-use"


def test_a_backup_holds_no_name_that_only_the_node_should_read(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    make(database, home, folder)
    for name in ("nadir.sqlite", "backup.json", "home/audit.key"):
        assert (folder / "20260301T120000Z" / name).stat().st_mode & 0o077 == 0, name
    assert folder.stat().st_mode & 0o077 == 0
    told = json.loads((folder / "20260301T120000Z" / "backup.json").read_text())
    assert set(told["files"]) == {
        "nadir.sqlite",
        "home/audit.key",
        "home/models/f/1-abc/card.json",
        "home/reports/p.html",
    }
    with sqlite3.connect(folder / "20260301T120000Z" / "nadir.sqlite") as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)

"""A node made of a backup: all of it, what is whole of a damaged one, and what a restore that ends early leaves."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from backed_up_home import NOON, files_below, made_home, make, rows_of
from postgres_server import PostgresServer

from node.settings import Settings
from plugins.errors import Refused, Unavailable
from store import backup as store_backup
from store.checked_copy import RESTORING, copy_checked
from store.database import Database
from store.file_hash import has_hash, sha256_of
from store.fsck.check import check
from store.objects import ObjectStore
from store.restored import Restored, restore
from store.tables import Event, Patient


@pytest.fixture
def home(tmp_path: Path, database: Database) -> Path:
    return made_home(tmp_path, database)


def test_a_node_made_of_a_backup_has_every_row_and_every_byte(
    database: Database, home: Path, tmp_path: Path, empty_url: str
) -> None:
    made = make(database, home, tmp_path / "backups")
    assert made.name == "20260301T120000Z" and made.missing == () and made.objects == 4
    again = tmp_path / "again"
    url = empty_url if empty_url.startswith("postgresql") else f"sqlite:///{again / 'nadir.sqlite'}"
    assert restore(tmp_path / "backups", again, url) == Restored(backup=made, damaged=())
    restored = Database(url)
    assert rows_of(restored) == rows_of(database)
    assert files_below(again / "store" / "objects") == files_below(home / "store" / "objects")
    assert (again / "models/f/1-abc/card.json").read_text() == "models/f/1-abc/card.json"
    assert (again / "audit.key").stat().st_mode & 0o777 == 0o600
    assert not (again / "scratch").exists()
    before = [fault.code for fault in check(database, ObjectStore(home / "store"), now=NOON)]
    after = [fault.code for fault in check(restored, ObjectStore(again / "store"), now=NOON)]
    assert after == before
    with restored.transaction() as session:  # new rows are numbered after the copied ones
        session.add(Patient(patient_id="NEW"))
    restored.dispose()


def test_an_object_comes_back_with_the_time_at_which_it_came(
    database: Database, home: Path, tmp_path: Path
) -> None:
    paths = sorted((home / "store" / "objects").rglob("*.dcm"))
    for number, path in enumerate(paths):
        os.utime(path, (1000.0 + number, 1000.0 + number))
    make(database, home, tmp_path / "backups")
    restore(tmp_path / "backups", tmp_path / "again", f"sqlite:///{tmp_path / 'again' / 'nadir.sqlite'}")
    objects = ObjectStore(tmp_path / "again" / "store")
    came = [objects.came_at(path.stem) for path in paths]
    assert [at.timestamp() for at in came if at] == [1000.0 + number for number in range(len(paths))]


def damage(victim: Path, how: str) -> None:
    content = victim.read_bytes()
    victim.unlink()
    if how != "gone":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("how", ["changed", "gone", "unreadable"])
def test_of_a_damaged_backup_all_that_is_whole_comes_back_and_the_rest_is_named(
    database: Database, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder, again = tmp_path / "backups", tmp_path / "again"
    made = make(database, home, folder)
    copy = copy_checked

    def of_bad_sectors(source: Path, target: Path, sha256: str) -> None:
        if how == "unreadable" and source.suffix == ".dcm" and not has_hash(source, sha256):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        copy(source, target, sha256)

    monkeypatch.setattr(store_backup, "copy_checked", of_bad_sectors)
    one, *others, two = sorted((folder / "objects").rglob("*.dcm"))
    for victim in (one, two, folder / made.name / "home" / "audit.key"):
        damage(victim, how)
    restored = restore(folder, again, f"sqlite:///{again / 'nadir.sqlite'}")
    named = (f"{made.name}/home/audit.key", *(f"objects/{path.stem[:2]}/{path.name}" for path in (one, two)))
    assert restored == Restored(backup=made, damaged=named)
    assert {path.stem for path in (again / "store").rglob("*.*")} == {path.stem for path in others}
    assert (again / "models/f/1-abc/card.json").is_file() and not (again / "audit.key").exists()
    rows = Database(f"sqlite:///{again / 'nadir.sqlite'}")
    found = check(rows, ObjectStore(again / "store"), now=NOON)
    assert {fault.subject for fault in found if fault.code == "object-missing"} == {one.stem, two.stem}
    rows.dispose()


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_backup_with_damaged_rows_is_refused_and_nothing_of_it_passes_for_a_node(
    database: Database, home: Path, tmp_path: Path, how: str
) -> None:
    folder, again = tmp_path / "backups", tmp_path / "again"
    url = f"sqlite:///{again / 'nadir.sqlite'}"
    older, newer = make(database, home, folder), make(database, home, folder, hours=1)
    damage(folder / newer.name / "nadir.sqlite", how)
    with pytest.raises(Refused, match=r"nadir\.sqlite") as caught:
        restore(folder, again, url)
    assert caught.value.code == "damaged-backup" and list(again.iterdir()) == []
    assert restore(folder, again, url, name=older.name).damaged == ()


def test_a_backup_of_a_newer_version_is_named_with_the_version_that_restores_it(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder, again = tmp_path / "backups", tmp_path / "again"
    older, newer = make(database, home, folder), make(database, home, folder, hours=1)
    rows, told = folder / newer.name / "nadir.sqlite", folder / newer.name / "backup.json"
    with closing(sqlite3.connect(rows)) as file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
        file.commit()
    said = json.loads(told.read_text())
    said["version"], said["files"]["nadir.sqlite"] = "9.0.0", sha256_of(rows)
    told.write_text(json.dumps(said))
    with pytest.raises(Refused) as caught:
        restore(folder, again, "")
    assert str(caught.value) == (
        f"newer-backup: the backup {newer.name} in {folder} was made by nadir 9.0.0, which is newer; "
        "restore it with that version, or name another with --name"
    )
    assert list(again.iterdir()) == []
    assert restore(folder, again, "", name=older.name).damaged == ()


def test_a_new_disk_that_fails_is_told_and_the_home_is_empty_for_another_try(
    database: Database, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, again = tmp_path / "backups", tmp_path / "again"
    made = make(database, home, folder)
    copy = copy_checked

    def full(source: Path, target: Path, sha256: str) -> None:
        if source.suffix == ".dcm":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        copy(source, target, sha256)

    url = f"sqlite:///{again / 'nadir.sqlite'}"
    with monkeypatch.context() as patch, pytest.raises(Unavailable, match="No space left"):
        patch.setattr(store_backup, "copy_checked", full)
        restore(folder, again, url)
    assert list(again.iterdir()) == []
    assert restore(folder, again, url) == Restored(backup=made, damaged=())


def test_a_home_of_a_killed_restore_is_no_node_until_another_one_has_ended(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder, again = tmp_path / "backups", tmp_path / "again"
    make(database, home, folder)
    program = (
        "import os, sys; from pathlib import Path; from store import restored\n"
        "restored._bring_rows = lambda *_: os._exit(9)\n"
        "restored.restore(Path(sys.argv[1]), Path(sys.argv[2]), '')"
    )
    killed = subprocess.run([sys.executable, "-c", program, folder, again], check=False)
    assert killed.returncode == 9 and (again / "nadir.sqlite").is_file()
    with pytest.raises(Refused, match="run nadir restore again") as caught:
        _ = Settings(home=again).sql_url
    assert caught.value.code == "half-restored"
    (again / "of-another-backup").touch()
    assert restore(folder, again, "").damaged == ()
    assert not (again / "of-another-backup").exists() and not (again / RESTORING).exists()
    rows = Database(Settings(home=again).sql_url)
    assert rows_of(rows) == rows_of(database)
    rows.dispose()


def test_of_two_restores_into_one_home_the_second_is_refused_and_the_first_ends(
    database: Database, home: Path, tmp_path: Path
) -> None:
    folder, again, refusals = tmp_path / "backups", tmp_path / "again", []
    made = make(database, home, folder)

    def another(done: int, total: int) -> None:
        with pytest.raises(Refused, match="another restore") as caught:
            restore(folder, again, "")
        refusals.append(caught.value.code)

    assert restore(folder, again, "", progress=another) == Restored(backup=made, damaged=())
    assert set(refusals) == {"folder-in-use"}


def test_the_rows_come_to_the_file_that_the_settings_name(
    database: Database, home: Path, tmp_path: Path
) -> None:
    make(database, home, tmp_path / "backups")
    url = f"sqlite:///{tmp_path / 'rows' / 'node.sqlite'}"
    restore(tmp_path / "backups", tmp_path / "again", url)
    rows = Database(url)
    assert rows_of(rows) == rows_of(database)
    rows.dispose()
    assert not (tmp_path / "again" / "nadir.sqlite").exists()


@pytest.mark.postgres
def test_rows_are_never_put_among_others(
    database: Database, home: Path, tmp_path: Path, postgres: PostgresServer
) -> None:
    make(database, home, tmp_path / "backups")
    url = postgres.url(postgres.create())
    target = Database(url)
    target.upgrade()
    with target.transaction() as session:
        session.add(Event(at=NOON, kind="x"))
    with pytest.raises(Refused) as caught:
        restore(tmp_path / "backups", tmp_path / "again", url)
    assert caught.value.code == "database-not-empty"
    target.dispose()


@pytest.mark.parametrize(
    "name",
    [
        "home/../../evil",
        "/evil",
        "../objects/evil",
        "home",
        "home/",
        "home/.",
        "evil",
        "homes/evil",
        "home/\0",
        "home/led",
    ],
)
def test_a_backup_that_names_a_file_elsewhere_is_refused_and_nothing_of_it_is_written(
    database: Database, home: Path, tmp_path: Path, name: str
) -> None:
    folder, again = tmp_path / "backups", tmp_path / "a" / "b"
    made = make(database, home, folder)
    place = folder / made.name
    (folder / "evil").write_text("evil")
    (place / "home" / "led").symlink_to(folder / "evil")
    said = json.loads((place / "backup.json").read_text())
    said["files"][name] = sha256_of(folder / "evil")
    (place / "backup.json").write_text(json.dumps(said))
    before = files_below(tmp_path)
    with pytest.raises(Refused, match="which is no file of that backup: somebody changed it") as caught:
        restore(folder, again, "")
    assert caught.value.code == "damaged-backup"
    assert files_below(tmp_path) == before and not again.exists()


def test_a_folder_of_backups_behind_a_link_is_restored(
    database: Database, home: Path, tmp_path: Path
) -> None:
    made = make(database, home, tmp_path / "backups")
    (tmp_path / "led").symlink_to(tmp_path / "backups")
    assert restore(tmp_path / "led", tmp_path / "again", "") == Restored(backup=made, damaged=())

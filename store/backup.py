"""A copy of a whole node that can be made while it runs, and a node made of it again.

A backup folder holds `objects/ab/<sha256>.dcm`, which all backups in it share, and for each of them
`<time>/nadir.sqlite` (the rows, also of a node on PostgreSQL), `<time>/home/` (models, what runs of training left,
keys) and `<time>/backup.json`, which is written last: without it a backup is not whole and does not count.

The rows are copied first, in one snapshot. Objects never change and lie on disk before their row is committed, so that
every object that the snapshot names is there to be copied. Each is held against its hash as it is copied. Of those that
an earlier backup brought the length is asked each time, and the bytes are read again when somebody asks for that.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from plugins.errors import Refused, Unavailable
from store.database import Database, aware_utc
from store.file_hash import has_hash
from store.objects import ObjectStore
from store.row_copy import copy_rows, has_rows
from store.walk import all_files_under

ROWS, FILES, TOLD = "nadir.sqlite", "home", "backup.json"
NAME = re.compile(r"\d{8}T\d{6}Z")
BLOCK_BYTES = 1 << 20
LEFT_OUT = re.compile(r"nadir\.sqlite.*|store|scratch|cache|pictures|\..*")
"""Of the home folder: rows and objects, which have their own way, and what is made again when it is missing."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Backup:
    """One backup, as its `backup.json` tells."""

    name: str
    """Time it was made, UTC, as `20261120T201500Z`."""
    version: str
    """Of Nadir that made it."""
    objects: int
    """How many objects its rows name."""
    object_bytes: int
    """Their length."""
    files: Mapping[str, str]
    """sha256 of every other file, by its path in the backup."""
    missing: tuple[str, ...] = ()
    """Objects that were named and not whole in the node: `nadir fsck` there says more."""
    mended: tuple[str, ...] = ()
    """Objects that lay in the folder and were not whole there any more; they were copied again."""

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            **vars(self),
            "files": dict(self.files),
            "missing": list(self.missing),
            "mended": list(self.mended),
        }


def back_up(
    database: Database,
    objects: ObjectStore,
    home: Path,
    folder: Path,
    *,
    now: datetime,
    version: str,
    progress: Progress = lambda done, total: None,
    verify: bool = False,
) -> Backup:
    """Return the backup that was made of a node in a folder; objects that are there already are not copied again.

    Of those the length is held against that of the row, and with `verify` every byte against the hash; what is not
    whole is copied again.

    Refuses `backup-inside-home` and `folder-in-use` (another backup is made there). Raises Unavailable for a disk.
    """
    if folder.resolve().is_relative_to(home.resolve()):
        raise Refused(
            "backup-inside-home", f"{folder} lies inside the node's folder {home}; name another one"
        )
    name = f"{aware_utc(now):%Y%m%dT%H%M%SZ}"
    with _disk(folder), _held(folder):
        _forget_halves(folder)
        place = folder / name
        place.mkdir(mode=0o700)
        rows = _copy_database(database, home, place / ROWS)
        named = _named(place / ROWS)
        missing, mended = _copy_objects(objects, named, folder, progress, verify)
        files = {ROWS: rows, **_copy_home(home, place)}
        made = Backup(
            name=name,
            version=version,
            objects=len(named),
            object_bytes=sum(named.values()),
            files=files,
            missing=missing,
            mended=mended,
        )
        _write(place / TOLD, json.dumps(made.plain(), indent=1).encode())
        _sync_folders(folder)
    return made


def backups(folder: Path) -> tuple[Backup, ...]:
    """Return the whole backups in a folder, oldest first. Refuses `damaged-backup`."""
    with _disk(folder):
        told = sorted(path / TOLD for path in folder.iterdir() if NAME.fullmatch(path.name))
        return tuple(_read(path) for path in told if path.is_file())


def prune(folder: Path, keep: int) -> int:
    """Return how many backups were removed: all but the newest `keep`, and the objects that only those had named."""
    with _disk(folder), _held(folder):
        whole = backups(folder)
        for old in whole[:-keep]:
            (folder / old.name / TOLD).unlink()  # from here on it does not count
            shutil.rmtree(folder / old.name)
        wanted = {sha256 for kept in whole[-keep:] for sha256 in _named(folder / kept.name / ROWS)}
        for path in (folder / "objects").rglob("*.dcm"):
            if path.stem not in wanted:
                path.unlink()
    return len(whole[:-keep])


def restore(
    folder: Path,
    home: Path,
    database_url: str,
    *,
    name: str | None = None,
    progress: Progress = lambda d, t: None,
) -> Backup:
    """Return the backup, the newest or the one of that name, of which a node was made in an empty home and database.

    Every byte is held against its hash as it is copied, and the tables are brought to this release at the end. Refuses
    `no-backup`, `home-not-empty`, `database-not-empty` and `damaged-backup`, which names the file; raises Unavailable.
    """
    chosen = _chosen(folder, name)
    if home.exists() and any(home.iterdir()):
        raise Refused("home-not-empty", f"{home} holds something already; name a new folder with --home")
    place = folder / chosen.name
    with _disk(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy_checked(place / ROWS, home / ROWS, chosen.files[ROWS])
        for path, sha256 in chosen.files.items():
            if path != ROWS:
                _copy_checked(place / path, home / Path(path).relative_to(FILES), sha256)
        objects = ObjectStore(home / "store")
        for sha256 in _told(sorted(_named(place / ROWS)), progress):
            if sha256 not in chosen.missing:
                _copy_checked(_place(folder, sha256), objects.path(sha256), sha256)
        _sync_folders(home)
    copied = Database(f"sqlite:///{home / ROWS}")
    try:
        copied.upgrade()
        if not database_url.startswith("sqlite"):
            _into(copied, database_url)
    finally:
        copied.dispose()
    if not database_url.startswith("sqlite"):
        for left in home.glob(f"{ROWS}*"):
            left.unlink()
    return chosen


def _chosen(folder: Path, name: str | None) -> Backup:
    found = {made.name: made for made in (backups(folder) if folder.is_dir() else ())}
    if not found:
        raise Refused(
            "no-backup",
            f"there is no whole backup in {folder}; name the folder that was given to nadir backup",
        )
    if name is not None and name not in found:
        raise Refused("no-backup", f"there is no backup {name} in {folder}; there are {', '.join(found)}")
    return found[name or max(found)]


def _into(source: Database, url: str) -> None:
    target = Database(url)
    try:
        target.upgrade()
        with source.reading() as rows, target.transaction() as session:
            if has_rows(session):
                sentence = "the database has rows already; make an empty one and name it in database_url"
                raise Refused("database-not-empty", sentence)
            copy_rows(rows, session)
    finally:
        target.dispose()


def _copy_database(database: Database, home: Path, target: Path) -> str:
    """Copy all rows of one snapshot into a SQLite file that is whole by itself; returns its hash.

    It is made beside the node and copied from there: SQLite does not lock on the network disks that backups go to.
    """
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=home) as scratch:
        path = Path(scratch) / ROWS
        if database.is_sqlite:
            with database.reading() as session, closing(sqlite3.connect(path)) as file:
                raw: Any = session.connection().connection.dbapi_connection
                raw.backup(file)
        else:
            copy = Database(f"sqlite:///{path}")
            try:
                copy.upgrade()
                with database.reading() as session, copy.transaction() as rows:
                    copy_rows(session, rows)
            finally:
                copy.dispose()
        with closing(sqlite3.connect(path)) as file:
            file.execute("PRAGMA journal_mode=DELETE")
        path.chmod(0o600)
        return _copy(path, target)


def _named(path: Path) -> dict[str, int]:
    """Return hash and length of every object that the rows of a backup name; the file stays as it is."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as file:
        rows = file.execute(
            "SELECT sha256, size_bytes FROM instance UNION SELECT sha256, size_bytes FROM result"
        )
        return dict(rows.fetchall())


def _place(folder: Path, sha256: str) -> Path:
    return folder / "objects" / sha256[:2] / f"{sha256}.dcm"


def _copy_objects(
    objects: ObjectStore, named: Mapping[str, int], folder: Path, progress: Progress, verify: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the hashes of objects that could not be copied, and of those whose earlier copy was not whole."""
    missing, mended = [], []
    for sha256 in _told(sorted(named), progress):
        target = _place(folder, sha256)
        is_there = target.is_file()
        if is_there and _is_whole(target, sha256, named[sha256], verify):
            continue
        if not _copy_object(objects.path(sha256), target, sha256):
            missing.append(sha256)
        elif is_there:
            mended.append(sha256)
    return tuple(missing), tuple(mended)


def _is_whole(path: Path, sha256: str, size_bytes: int, verify: bool) -> bool:
    return path.stat().st_size == size_bytes and (not verify or has_hash(path, sha256))


def _copy_object(source: Path, target: Path, sha256: str) -> bool:
    """Copy an object; returns False when it is missing or not what its name says."""
    try:
        _copy_checked(source, target, sha256)
    except Refused:
        return False
    return True


def _copy_home(home: Path, place: Path) -> dict[str, str]:
    """Copy what else a node cannot do without; returns the hash of each file by its path in the backup.

    Refuses `closed-folder`.
    """
    made = {}
    for top in sorted(home.iterdir()):
        if LEFT_OUT.fullmatch(top.name) or top.is_symlink():
            continue
        for source in all_files_under(top) if top.is_dir() else [top]:
            if source.is_file() and not source.is_symlink():
                path = f"{FILES}/{source.relative_to(home)}"
                with suppress(FileNotFoundError):  # a running node may be done with it meanwhile
                    made[path] = _copy(source, place / path)
    return made


def _copy_checked(source: Path, target: Path, sha256: str) -> None:
    """Copy a file that must have this hash. Refuses `damaged-backup`, and then nothing took the target's place."""
    if not source.is_file():
        raise Refused("damaged-backup", f"{source} is missing")
    _copy(source, target, sha256)


def _copy(source: Path, target: Path, wanted: str = "") -> str:
    """Return the hash of a file after a copy is on disk under its name. Refuses (`damaged-backup`) an unwanted hash."""
    digest = hashlib.sha256()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}.half")
    with source.open("rb") as read, half.open("wb") as write:
        os.fchmod(write.fileno(), stat.S_IMODE(source.stat().st_mode))
        while block := read.read(BLOCK_BYTES):
            digest.update(block)
            write.write(block)
        write.flush()
        os.fsync(write.fileno())
    if wanted and digest.hexdigest() != wanted:
        half.unlink()
        raise Refused("damaged-backup", f"{source} is not what was written: its sha256 differs")
    half.rename(target)
    return digest.hexdigest()


def _read(path: Path) -> Backup:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(told.get(name, ())) for name in ("missing", "mended")}
        return Backup(**{**told, **lists})
    except (ValueError, TypeError, KeyError) as error:
        raise Refused("damaged-backup", f"{path} cannot be read") from error


def _write(path: Path, content: bytes) -> None:
    half = path.with_name(f".{path.name}.half")
    half.write_bytes(content)
    half.chmod(0o600)
    _sync(half)
    half.rename(path)


def _forget_halves(folder: Path) -> None:
    """Remove what a backup left that was killed."""
    for path in folder.iterdir():
        if NAME.fullmatch(path.name) and not (path / TOLD).exists():
            shutil.rmtree(path)


def _told(items: list[str], progress: Progress) -> Iterator[str]:
    for number, item in enumerate(items):
        progress(number, len(items))
        yield item
    progress(len(items), len(items))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folders(root: Path) -> None:
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        _sync(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused("folder-in-use", f"another backup is being made in {folder}") from error
        yield


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise Unavailable(f"{folder} cannot be used: {error.strerror or error}") from error


__all__ = ["Backup", "back_up", "backups", "prune", "restore"]

"""A copy of a whole node that can be made while it runs; `store.restored` makes a node of it again.

A backup folder holds `objects/ab/<sha256>.dcm`, which all backups in it share, and for each of them
`<time>/nadir.sqlite` (the rows, also of a node on PostgreSQL), `<time>/home/` (models, what runs of training left,
evaluations, uploads, reports, keys; `store.home_files`) and `<time>/backup.json`, which is written last: without it a
backup is not whole and does not count.

The rows are copied first, in one snapshot. Objects never change and lie on disk before their row is committed, so that
every object that the snapshot names is there to be copied. Each is held against its hash as it is copied. Of those that
an earlier backup brought the length is asked each time, and the bytes are read again when somebody asks for that.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import select

from plugins.errors import Refused, Unavailable
from store.checked_copy import copy_checked, copy_file, sync_folders, write_whole
from store.database import Database, aware_utc
from store.file_hash import has_hash, is_hash
from store.home_files import followed_links, home_files
from store.objects import ObjectStore
from store.row_copy import copy_rows
from store.tables import Instance, Result

ROWS, FILES, TOLD = "nadir.sqlite", "home", "backup.json"
NAME = re.compile(r"\d{8}T\d{6}Z")
COPY = ".backup-"
"""How the folder in the home begins that holds a copy of the rows while a backup is made."""
Progress = Callable[[int, int], None]
Item = TypeVar("Item")


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
    """What rows name as an object and was not whole in the node: `nadir fsck` there says more."""
    mended: tuple[str, ...] = ()
    """Objects that lay in the folder and were not whole there any more; they were copied again."""
    links: tuple[str, ...] = ()
    """Paths in the home of links that were not followed: what they lead to is not in the backup."""

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            **vars(self),
            "files": dict(self.files),
            "missing": list(self.missing),
            "mended": list(self.mended),
            "links": list(self.links),
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

    Refuses `backup-inside-home`, `folder-in-use` (another backup is made there), `backup-there` (one of this second),
    `future-backup`: it would not be the newest, and `other-database`: the rows are not those of these objects. Raises
    Unavailable for a disk.
    """
    _require_outside(folder, home)
    name = f"{aware_utc(now):%Y%m%dT%H%M%SZ}"
    with on_disk(folder), _alone(folder):
        _require_newest(folder, name)
        _require_rows(database, objects)
        _forget_halves(folder)
        place = folder / name
        with _snapshot(database, home) as copied:
            place.mkdir(mode=0o700)
            rows = copy_file(copied, place / ROWS)
        named = objects_named(place / ROWS)
        missing, mended = _copy_objects(objects, named, folder, progress, verify)
        own, links = home_files(home)
        files = {ROWS: rows, **_copy_files(own, home, place)}
        made = Backup(
            name=name,
            version=version,
            objects=len(named),
            object_bytes=sum(named.values()),
            files=files,
            missing=missing,
            mended=mended,
            links=links,
        )
        write_whole(place / TOLD, json.dumps(made.plain(), indent=1).encode())
        sync_folders(folder)
    return made


def _require_outside(folder: Path, home: Path) -> None:
    """Refuse (`backup-inside-home`) a folder that a backup of the home would hold itself."""
    for place in (home, *(followed_links(home) if home.is_dir() else ())):
        if folder.resolve().is_relative_to(place.resolve()):
            raise Refused(
                "backup-inside-home", f"{folder} lies inside the node's folder {place}; name another one"
            )


def _require_rows(database: Database, objects: ObjectStore) -> None:
    """Refuse (`other-database`) a database that names no object where there are some: its copy would save nothing."""
    with database.reading() as session:
        is_named = any(session.exec(select(table.id).limit(1)).first() for table in (Instance, Result))
    if not is_named and any(True for _ in objects.names()):
        sentence = (
            f"the database names none of the objects in {objects.root}: it is not that of this node; name the node's "
            "own in database_url, NADIR_DATABASE_URL_FILE or the settings file of --config"
        )
        raise Refused("other-database", sentence)


def _require_newest(folder: Path, name: str) -> None:
    """Return when a name comes after those of all backups in a folder: the newest is what stays and is restored."""
    newest = max(listed(folder), default="")
    if newest == name:
        raise Refused("backup-there", f"a backup of this second is in {folder} already; try again")
    if newest > name:
        sentence = (
            f"a backup of the future lies there, {folder / newest}, and it is {name} now: look at this machine's "
            "clock; when that is right, remove that backup's folder or move it elsewhere"
        )
        raise Refused("future-backup", sentence)


def backups(folder: Path) -> tuple[Backup, ...]:
    """Return the whole backups in a folder, oldest first, but for those that are `unreadable`."""
    return tuple(made for made in listed(folder).values() if made is not None)


def unreadable(folder: Path) -> tuple[str, ...]:
    """Return the names of the backups in a folder whose `backup.json` cannot be read, oldest first."""
    return tuple(name for name, made in listed(folder).items() if made is None)


def listed(folder: Path) -> dict[str, Backup | None]:
    """Return the backups in a folder by name, oldest first: None for one that is `unreadable`.

    Refuses `no-backup` when there is no such folder.
    """
    if not folder.is_dir():
        sentence = f"{folder} is no folder; name the one that was given to nadir backup"
        raise Refused("no-backup", sentence)
    with on_disk(folder):
        told = sorted(path / TOLD for path in folder.iterdir() if NAME.fullmatch(path.name))
        return {path.parent.name: _read(path) for path in told if path.is_file()}


def prune(folder: Path, keep: int) -> int:
    """Return how many backups were removed: all but the newest `keep`, and the objects that only those had named.

    One that is `unreadable` stays and does not count, and while it is there every object stays: it may need them.
    Refuses `damaged-backup` when the rows of one to keep cannot be read; then nothing was removed.
    """
    with on_disk(folder), _alone(folder):
        whole = backups(folder)
        wanted = {sha256 for kept in whole[-keep:] for sha256 in objects_named(folder / kept.name / ROWS)}
        for old in whole[:-keep]:
            (folder / old.name / TOLD).unlink()  # from here on it does not count
            shutil.rmtree(folder / old.name)
        if not unreadable(folder):
            for path in (folder / "objects").rglob("*.dcm"):
                if path.stem not in wanted:
                    path.unlink()
    return len(whole[:-keep])


@contextmanager
def _snapshot(database: Database, home: Path) -> Iterator[Path]:
    """Give a SQLite file that is whole by itself, with all rows of one snapshot; it goes at the end.

    It is made beside the node and copied from there: SQLite does not lock on the network disks that backups go to.
    Raises Unavailable when the disk of the node cannot take it.
    """
    with ExitStack() as at_the_end:
        try:
            at_the_end.enter_context(_only_living_copies(home))
            scratch = tempfile.TemporaryDirectory(prefix=COPY, dir=home)
            path = Path(at_the_end.enter_context(scratch)) / ROWS
            _copy_rows(database, path)
        except (sqlite3.OperationalError, OSError) as error:
            sentence = (
                f"the rows cannot be copied within {home}, where each backup begins ({error}): mend its disk, or free "
                "as much there as the database takes"
            )
            raise Unavailable(sentence) from error
        yield path


@contextmanager
def _only_living_copies(home: Path) -> Iterator[None]:
    """Remove the copies of rows that killed backups left; while one is made into another folder, all stay."""
    with (home / ".backup.lock").open("a+") as file:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in home.glob(f"{COPY}*"):
                shutil.rmtree(left)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _copy_rows(database: Database, path: Path) -> None:
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


def objects_named(path: Path) -> dict[str, int]:
    """Return hash and length of every object that the rows of a backup name; the file stays as it is.

    What a damaged row says is its hash may be none.

    Refuses `damaged-backup`.
    """
    statement = "SELECT sha256, size_bytes FROM instance UNION SELECT sha256, size_bytes FROM result"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1&mode=ro", uri=True)) as file:
            return dict(file.execute(statement).fetchall())
    except sqlite3.DatabaseError as error:
        raise Refused("damaged-backup", f"{path} cannot be read; remove that backup's folder") from error


def object_path(folder: Path, sha256: str) -> Path:
    """Return where an object lies in a backup folder."""
    return folder / "objects" / sha256[:2] / f"{sha256}.dcm"


def _copy_objects(
    objects: ObjectStore, named: Mapping[str, int], folder: Path, progress: Progress, verify: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the hashes of objects that could not be copied, and of those whose earlier copy was not whole."""
    missing, mended = [], []
    for sha256 in counted(sorted(named), progress):
        if not is_hash(sha256):
            missing.append(sha256)
            continue
        target = object_path(folder, sha256)
        is_there = target.is_file()
        if is_there and _is_whole(target, sha256, named[sha256], verify):
            continue
        if not copy_object(objects.path(sha256), target, sha256):
            missing.append(sha256)
        elif is_there:
            mended.append(sha256)
    return tuple(missing), tuple(mended)


def _is_whole(path: Path, sha256: str, size_bytes: int, verify: bool) -> bool:
    return path.stat().st_size == size_bytes and (not verify or has_hash(path, sha256))


def copy_object(source: Path, target: Path, sha256: str) -> bool:
    """Copy an object, with the time at which it came; returns False when it is missing or not what its name says."""
    try:
        copy_checked(source, target, sha256)
    except Refused:
        return False
    with suppress(OSError):  # a disk that keeps no times
        os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    return True


def _copy_files(files: list[Path], home: Path, place: Path) -> dict[str, str]:
    """Copy what else a node cannot do without; returns the hash of each file by its path in the backup."""
    made = {}
    for source in files:
        path = f"{FILES}/{source.relative_to(home)}"
        with suppress(FileNotFoundError):  # a running node may be done with it meanwhile
            made[path] = copy_file(source, place / path)
    return made


def _read(path: Path) -> Backup | None:
    """Return what a `backup.json` tells; None when it cannot be read or is not that of its folder."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(told.get(name, ())) for name in ("missing", "mended", "links")}
        made = Backup(**{**told, **lists})
        return made if made.name == path.parent.name and made.files[ROWS] else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _forget_halves(folder: Path) -> None:
    """Remove what a backup left that was killed."""
    for path in folder.iterdir():
        if NAME.fullmatch(path.name) and not (path / TOLD).exists():
            shutil.rmtree(path)


def counted(items: list[Item], progress: Progress) -> Iterator[Item]:
    """Yield items and tell how many are done."""
    for number, item in enumerate(items):
        progress(number, len(items))
        yield item
    progress(len(items), len(items))


def _alone(folder: Path) -> AbstractContextManager[None]:
    return held(folder / ".lock", f"another backup is being made in {folder}")


@contextmanager
def held(lock: Path, sentence: str) -> Iterator[None]:
    """Hold a file that only one process holds at a time. Refuses `folder-in-use`, with this sentence."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused("folder-in-use", sentence) from error
        yield


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Make a folder, and tell as Unavailable what its disk cannot do."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise Unavailable(f"{folder} cannot be used: {error.strerror or error}") from error


__all__ = [
    "FILES",
    "ROWS",
    "TOLD",
    "Backup",
    "Progress",
    "back_up",
    "backups",
    "copy_object",
    "counted",
    "held",
    "listed",
    "object_path",
    "objects_named",
    "on_disk",
    "prune",
    "unreadable",
]

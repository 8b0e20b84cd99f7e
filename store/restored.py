"""A node made of a backup again.

While it is being made `.restoring` lies in its home: what a restore left that was killed is no node, and is refused as
one, until a restore into it has ended.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugins.errors import Refused
from store.backup import (
    FILES,
    ROWS,
    TOLD,
    Backup,
    Progress,
    copy_object,
    counted,
    held,
    listed,
    object_path,
    objects_named,
    on_disk,
)
from store.checked_copy import RESTORING, copy_checked, empty_unless_made, sync_folders
from store.database import Database
from store.file_hash import has_hash, is_hash
from store.fsck.fault import shown
from store.objects import ObjectStore
from store.row_copy import copy_rows, has_rows
from store.walk import is_inside


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What came back of a backup."""

    backup: Backup
    """It."""
    damaged: tuple[str, ...]
    """Paths in the folder of what is missing or damaged there and did not come back."""

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**self.backup.plain(), "damaged": list(self.damaged)}


def restore(
    folder: Path,
    home: Path,
    database_url: str,
    *,
    name: str | None = None,
    progress: Progress = lambda d, t: None,
) -> Restored:
    """Return what came back of a backup, the newest or the one of that name, in an empty home and database.

    `database_url` is that of the node, empty for SQLite in the home. A home that a killed restore left is emptied
    first. Every byte is held against its hash as it is copied, and the tables are brought to this release at the end.
    An object or a file that is damaged or missing is named and left out; without its rows a backup is refused, and so
    is one that names files elsewhere than in its folder.
    Refuses `no-backup`, `home-not-empty`, `folder-in-use`, `newer-backup`, `database-not-empty` and `damaged-backup`;
    raises Unavailable. Then the home is left empty.
    """
    chosen = _chosen(folder, name)
    _require_inside(folder / chosen.name, chosen)
    being_made = home / RESTORING
    if home.exists() and any(home.iterdir()) and not being_made.exists():
        raise Refused("home-not-empty", f"{home} holds something already; name a new folder with --home")
    alone = held(being_made, f"another restore is made in {home}")
    with on_disk(home), alone, empty_unless_made(home, being_made):
        copy_checked(folder / chosen.name / ROWS, home / ROWS, chosen.files[ROWS])
        _require_known(folder, chosen, home)
        damaged = _bring_files(folder, chosen, home, progress)
        sync_folders(home)
        _bring_rows(home, database_url)
        being_made.unlink()
        sync_folders(home)
    return Restored(backup=chosen, damaged=damaged)


def _require_inside(place: Path, chosen: Backup) -> None:
    """Refuse (`damaged-backup`) one that names a file elsewhere than in its folder, by its path or by a link there."""
    inside = os.path.realpath(place)
    for name in chosen.files:
        is_own = name == ROWS or (is_inside(name) and FILES in map(str, Path(name).parents))
        if not is_own or not Path(os.path.realpath(place / name)).is_relative_to(inside):
            sentence = (
                f"{place / TOLD} names {shown(name)}, which is no file of that backup: somebody changed it; name "
                "another backup with --name"
            )
            raise Refused("damaged-backup", sentence)


def _bring_files(folder: Path, chosen: Backup, home: Path, progress: Progress) -> tuple[str, ...]:
    """Copy all but the rows into a home; returns the paths in the folder of what is not whole there."""
    place, objects = folder / chosen.name, ObjectStore(home / "store")
    wanted = [
        (place / path, home / Path(path).relative_to(FILES), sha256)
        for path, sha256 in chosen.files.items()
        if path != ROWS
    ]
    named = sorted(objects_named(place / ROWS))
    wanted += [(object_path(folder, one), objects.path(one), one) for one in named if is_hash(one)]
    nameless = tuple(f"objects/{shown(one)}.dcm" for one in named if not is_hash(one))
    return nameless + tuple(
        str(source.relative_to(folder))
        for source, target, sha256 in counted(wanted, progress)
        if not _is_brought(source, target, sha256)
    )


def _is_brought(source: Path, target: Path, sha256: str) -> bool:
    """Copy a file of a backup; returns False when it is missing or damaged, also where its disk cannot read it."""
    try:
        return copy_object(source, target, sha256)
    except OSError:
        if has_hash(source, sha256):
            raise  # it is the new disk that fails
        return False


def _require_known(folder: Path, chosen: Backup, home: Path) -> None:
    """Refuse (`newer-backup`) rows that lie in a home and are of a later version than this one."""
    copied = Database(f"sqlite:///{home / ROWS}")
    try:
        copied.is_current()
    except Refused as refused:
        sentence = (
            f"the backup {chosen.name} in {folder} was made by nadir {chosen.version}, which is newer; "
            "restore it with that version, or name another with --name"
        )
        raise Refused("newer-backup", sentence) from refused
    finally:
        copied.dispose()


def _bring_rows(home: Path, database_url: str) -> None:
    """Bring the rows that lie in a home to this release, and into the database of the node."""
    copied = Database(f"sqlite:///{home / ROWS}")
    elsewhere = not _is_own(home, database_url)
    try:
        copied.upgrade()
        if elsewhere:
            _into(copied, database_url)
    finally:
        copied.dispose()
    if elsewhere:
        for left in home.glob(f"{ROWS}*"):
            left.unlink()


def _is_own(home: Path, database_url: str) -> bool:
    """Return True when a node's rows lie in its home."""
    file = Path(database_url.removeprefix("sqlite:///")).resolve()
    return not database_url or file == (home / ROWS).resolve()


def _chosen(folder: Path, name: str | None) -> Backup:
    """Give the backup of that name, or the newest. Refuses `no-backup`, or `damaged-backup` when it is unreadable."""
    found = listed(folder)
    if not found:
        sentence = f"there is no whole backup in {folder}; name the folder that was given to nadir backup"
        raise Refused("no-backup", sentence)
    if name is not None and name not in found:
        raise Refused("no-backup", f"there is no backup {name} in {folder}; there are {', '.join(found)}")
    asked = name or max(found)
    chosen = found[asked]
    if chosen is None:
        others = ", ".join(other for other, made in found.items() if made) or "there is no other"
        sentence = f"{folder / asked / TOLD} cannot be read; name another backup with --name ({others})"
        raise Refused("damaged-backup", sentence)
    return chosen


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


__all__ = ["Restored", "restore"]

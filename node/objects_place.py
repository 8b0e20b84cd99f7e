"""Whether the objects that the rows name are in the home: a disk that is not mounted looks like a store without any."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sqlmodel import Session, select

from node.own_folder import make_home
from node.rows_place import has_objects
from plugins.errors import Refused, Unavailable
from store.checked_copy import write_whole
from store.database import Database
from store.tables import Instance, Result

WITHOUT = ".without-objects"
"""Lies in a home whose node was told to go on without the objects that its rows name, until it has others."""


def require_objects(database: Database, home: Path) -> None:
    """Refuse (`no-objects`) a home that holds none of the objects that the rows name, unless it is to go on so."""
    with database.reading() as session:
        if are_gone(session, home):
            raise Refused("no-objects", none_in(home))
    with suppress(OSError):  # the next start asks again
        if has_objects(home):
            (home / WITHOUT).unlink(missing_ok=True)


def are_gone(session: Session, home: Path) -> bool:
    """Return True when rows name objects and a home that may be read holds none; False when it is to go on so."""
    if _is_closed(home) or has_objects(home) or (home / WITHOUT).exists():
        return False
    return any(session.exec(select(table.id).limit(1)).first() is not None for table in (Instance, Result))


def none_in(home: Path) -> str:
    """Return what is said of a home whose objects are gone, and what to do."""
    return (
        f"the rows of this node name images and results, and {home / 'store' / 'objects'} holds none: mount its disk, "
        "or make a node of a backup (nadir restore); if they are lost for good, nadir serve --rebuild goes on without "
        "them"
    )


def go_on_without(home: Path) -> None:
    """Let a node go on without the objects that its rows name, until it has others. Raises Unavailable."""
    try:
        make_home(home)
        if not has_objects(home):
            write_whole(home / WITHOUT, b"")
    except OSError as error:
        raise Unavailable(f"the home folder {home} cannot be written or read ({error.strerror})") from error


def _is_closed(home: Path) -> bool:
    """Return True when a folder may not be read: the object store itself tells of that."""
    folders = (home, home / "store", home / "store" / "objects")
    return any(os.path.lexists(one) and not os.access(one, os.R_OK | os.X_OK) for one in folders)


__all__ = ["are_gone", "go_on_without", "none_in", "require_objects"]

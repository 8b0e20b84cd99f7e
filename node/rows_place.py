"""Which database the rows of a home are in: the node remembers it there, so that no second, empty one is begun."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from node import logs
from plugins.errors import Refused
from store.checked_copy import write_whole

if TYPE_CHECKING:
    from node.settings import Settings

REMEMBERED = ".database"
"""Lies in a home and names the place of its rows; never who signs in there, nor with what."""
NAME_IT = (
    "name that as the node is told it, in NADIR_DATABASE_URL_FILE (a file that holds database_url) or in the settings "
    "file of --config"
)
LOST = (
    "if it is lost, make a node of a backup (nadir restore); without one, nadir serve --rebuild makes rows of the "
    "objects alone: no choices, accounts, approved models nor audit trail"
)

log = logging.getLogger(__name__)


def remembered(home: Path) -> str:
    """Return where the rows of a home were last; empty when that was not kept."""
    try:
        return (home / REMEMBERED).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def remember(home: Path, where: str) -> None:
    """Keep where the rows of a home are; a disk that cannot take it is logged and stops nothing."""
    place = _from(home, where)
    if remembered(home) == place:
        return
    try:
        write_whole(home / REMEMBERED, f"{place}\n".encode())
    except OSError as error:
        if remembered(home) != place:  # another process of the node may have been quicker
            log.warning(logs.line("database-not-remembered", error=error.strerror or type(error).__name__))


def has_objects(home: Path) -> bool:
    """Return True when images or results lie in a home."""
    return next((home / "store" / "objects").glob("*/*.dcm"), None) is not None


def require_no_node(home: Path) -> None:
    """Refuse (`no-database`) a home in which a node has been and in which its database is not."""
    known = remembered(home)
    if not (known or (home / "audit.key").exists() or has_objects(home)):
        return
    if known == _from(home, str(home / "nadir.sqlite")):
        sentence = (
            f"the rows of the node in {home} were in {home / known}, which is gone: make a node of a backup "
            "(nadir restore); without one, nadir serve makes rows of the objects alone"
        )
    else:
        sentence = (
            f"a node keeps its objects in {home} and its rows in {_told(home, known)}: {NAME_IT}; {LOST}"
        )
    raise Refused("no-database", sentence)


def require_own_place(settings: Settings, where: str) -> None:
    """Return when the database `where`, which has no tables yet, may become that of this home.

    Refuses `no-database` for that of a home when nobody named another, else `other-database`: the rows are elsewhere.
    """
    home, known = settings.home, remembered(settings.home)
    if known == _from(home, where):
        return
    if not settings.database_url:
        require_no_node(home)
    elif has_objects(home):
        sentence = (
            f"{where} holds no tables, and a node keeps its objects in {home} and its rows in {_told(home, known)}: "
            f"{NAME_IT}; {LOST}"
        )
        raise Refused("other-database", sentence)


def _from(home: Path, where: str) -> str:
    """Return a place as it is remembered: a file within the home by its name alone, so that the home may move."""
    return where.removeprefix(f"{home}/")


def _told(home: Path, known: str) -> str:
    if not known:
        return "another database"
    return known if known.startswith(("/", "'")) else str(home / known)


__all__ = ["has_objects", "remember", "remembered", "require_no_node", "require_own_place"]

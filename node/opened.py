"""The database and the object store of a node, opened for a process that is to change them."""

from __future__ import annotations

import logging

from node import logs
from node.settings import Settings
from plugins.errors import Unavailable
from store.database import Database
from store.objects import ObjectStore

log = logging.getLogger(__name__)


def opened(settings: Settings) -> tuple[Database, ObjectStore]:
    """Return the database, migrated, and the object store. Raises `Unavailable` when a folder cannot be written."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Unavailable(f"the home folder {settings.home} cannot be made ({error.strerror})") from error
    if not settings.sync:
        log.warning(logs.line("not-durable", text="sync is off: a power cut loses what was accepted"))
    database = Database(settings.sql_url, sync=settings.sync)
    database.upgrade()
    return database, ObjectStore(
        settings.home / "store", sync=settings.sync, quarantine_bytes=settings.quarantine_bytes
    )


__all__ = ["opened"]

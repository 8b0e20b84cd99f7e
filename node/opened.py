"""The database and the object store of a node, opened for a process that is to change them."""

from __future__ import annotations

import logging

from node import logs
from node.objects_place import require_objects
from node.own_folder import make_home, open_mode
from node.rows_place import has_objects, remember, require_own_place
from node.settings import Settings
from plugins.errors import Unavailable
from store.database import Database
from store.objects import ObjectStore

LOST_ROWS = (
    "the database was gone: objects are taken in again, but choices, accounts, approved models and the audit trail are "
    "gone with it; where there is a backup, stop the node and restore that instead"
)
log = logging.getLogger(__name__)


def opened(settings: Settings) -> tuple[Database, ObjectStore]:
    """Return the database, migrated, and the object store.

    Refuses `no-database` and `other-database`: the rows of these objects are in another one; and `no-objects`: those
    of these rows are. Raises `Unavailable` when a folder cannot be written.
    """
    try:
        make_home(settings.home)
    except OSError as error:
        raise Unavailable(f"the home folder {settings.home} cannot be made ({error.strerror})") from error
    if mode := open_mode(settings.home):
        how = f"everybody on this machine may enter {settings.home} (mode {mode}): chmod 700"
        log.warning(logs.line("home-open", text=how))
    if not settings.sync:
        log.warning(logs.line("not-durable", text="sync is off: a power cut loses what was accepted"))
    database = Database(settings.sql_url, sync=settings.sync)
    is_new = database.is_empty()
    if is_new:
        require_own_place(settings, database.where)
    database.upgrade()
    if is_new and has_objects(settings.home):
        log.warning(logs.line("rows-made-anew", text=LOST_ROWS))
    require_objects(database, settings.home)
    remember(settings.home, database.where)
    return database, ObjectStore(
        settings.home / "store", sync=settings.sync, quarantine_bytes=settings.quarantine_bytes
    )


__all__ = ["opened"]

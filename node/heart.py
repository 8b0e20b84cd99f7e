"""Says in SQL that this process of the node is alive, and takes the row away when it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version

from plugins.errors import Unavailable
from store import processes
from store.database import Database

BEAT_SECONDS = 15.0


class Heart:
    """The sign of life of one process.

    Parameters
    ----------
    database
        Where it is kept.
    roles
        What this process does.

    """

    def __init__(self, database: Database, roles: Sequence[str]) -> None:
        self._database = database
        self._roles = tuple(roles)
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def tick(self, now: datetime) -> bool:
        """Give a sign of life."""
        with self._database.transaction() as session:
            processes.beat(session, self._name, self._roles, version("nadir"), now)
        return False

    def close(self) -> None:
        """Let nobody wait for another one; a database that is away finds out by the silence."""
        with suppress(Unavailable), self._database.transaction() as session:
            processes.ended(session, self._name)


__all__ = ["BEAT_SECONDS", "Heart"]

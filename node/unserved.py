"""Tell of results that wait for a destination that this sender does not have: nobody sends them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from node.logs import line
from store import outbox
from store.database import Database
from store.tables import Event

log = logging.getLogger(__name__)

KIND = "destination-not-set"
LOOK_SECONDS = 60.0
TEXT = (
    "results wait for it, and the settings of the sender do not name it: look at its destinations, and at "
    "NADIR_DESTINATIONS_FILE, which wins over the settings file; or abandon it"
)


class Unserved:
    """Looks at the outbox beside the senders.

    Parameters
    ----------
    database
        Where the outbox is.
    destinations
        Those that this process sends to, as the outbox names them.

    """

    def __init__(self, database: Database, destinations: Iterable[str]) -> None:
        self._database = database
        self._destinations = tuple(destinations)
        self._told: frozenset[str] = frozenset()

    def tick(self, now: datetime) -> bool:
        """Write a line and an event for each destination that was not told of since something waits; returns False."""
        with self._database.reading() as session:
            waiting = outbox.unserved(session, self._destinations)
        new = sorted(waiting.keys() - self._told)
        if new:
            with self._database.transaction() as session:
                session.add_all(Event(at=now, kind=KIND, subject=one, text=TEXT) for one in new)
        for destination in new:
            log.warning(line(KIND, destination=destination, waiting=waiting[destination], text=TEXT))
        self._told = frozenset(waiting)
        return False


__all__ = ["LOOK_SECONDS", "Unserved"]

"""What comes of a worklist that was reached and gives nothing: how long it is left alone, and who hears of it."""

from __future__ import annotations

from datetime import datetime, timedelta

from plugins.errors import NadirError, Refused
from store.database import Database
from store.tables import Event

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 10.0, 900.0
NOT_SERVED = "worklist-fault"
"""The worklist was reached and does not serve a workitem: asked again for as long as a delivery is tried."""
DENIED = frozenset({"pacs-denied", "pacs-moved"})
"""Refusals that are mended in the settings or at the PACS, and say nothing of what was asked for."""


def pause_after(failures: int) -> timedelta:
    """Return how long to wait after so many failures in a row, ever longer."""
    return timedelta(seconds=min(FIRST_DELAY_SECONDS * 2 ** min(failures - 1, 20), LAST_DELAY_SECONDS))


class Denials:
    """To what a worklist denies access: told by one event, until it gives all of it again.

    Parameters
    ----------
    database
        Where the event is written.
    worklist
        The worklist, as rows name it.

    """

    def __init__(self, database: Database, worklist: str) -> None:
        self._database = database
        self._worklist = worklist
        self._denied: set[int | None] = set()

    def note(self, workitem_pk: int | None, error: NadirError, now: datetime) -> bool:
        """Return whether an error denies access to a workitem, or to the search (None); and tell of the first."""
        if not isinstance(error, Refused) or error.code not in DENIED:
            return False
        if not self._denied:
            event = Event(at=now, kind="worklist-denied", subject=self._worklist, text=error.sentence[:500])
            with self._database.transaction() as session:
                session.add(event)
        self._denied.add(workitem_pk)
        return True

    def over(self, workitem_pk: int | None) -> None:
        """Take in that a workitem, or the search (None), is served or no longer asked for."""
        self._denied.discard(workitem_pk)


__all__ = ["NOT_SERVED", "Denials", "pause_after"]

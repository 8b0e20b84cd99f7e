"""The heartbeat of a run: a thread that keeps its lease while the run computes, and tells when the lease is lost."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from plugins.errors import NadirError
from store import runs
from store.database import Database

BEATS = 4
"""Beats in the time of a lease."""

log = logging.getLogger(__name__)


class Pulse:
    """Keeps the lease of a run from entering to leaving."""

    def __init__(self, database: Database, pk: int, owner: str, lease_seconds: float) -> None:
        self._database, self._pk, self._owner = database, pk, owner
        self._lease_seconds = lease_seconds
        self._lost, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"run {pk}", daemon=True)

    def require(self) -> None:
        """Return while the run is ours. Raises `store.runs.Overtaken`."""
        if self._lost.is_set():
            raise runs.Overtaken

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._lease_seconds / BEATS):
            try:
                with self._database.transaction() as session:
                    held = runs.keep(
                        session, self._pk, self._owner, self._database.now(), self._lease_seconds
                    )
            except NadirError as error:  # the database may be back before the lease ends
                log.warning("the lease of run %d could not be kept: %s", self._pk, error)
                continue
            if not held:
                self._lost.set()
                return


__all__ = ["Pulse"]

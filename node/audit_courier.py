"""Who hands the audit trail on from SQL to one sink, in a thread of its own."""

from __future__ import annotations

import logging
import threading

from node.audit_sinks import Sink
from node.logs import line
from node.outage import Outage
from store import audit
from store.database import Database

log = logging.getLogger(__name__)

BATCH = 500
LEASE_SECONDS = 60.0
LOOK_SECONDS = 15.0


class Courier:
    """Hands records on in their order; a sink that is silent keeps nothing from SQL, nor from another sink.

    Parameters
    ----------
    database
        Where the trail is kept.
    sink
        Where it goes.
    owner
        Name of this process: of several that share a database one at a time hands on.

    """

    def __init__(self, database: Database, sink: Sink, owner: str) -> None:
        self._database = database
        self._sink = sink
        self._owner = owner
        self._is_failing = False
        self._outage = Outage(log, "audit-not-handed-on", "audit-handed-on", sink=sink.name)
        self._fresh = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-courier", daemon=True)

    def start(self) -> None:
        """Begin, with what is left of earlier."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is more."""
        self._fresh.set()

    def finish(self) -> None:
        """Hand on what there is once more, unless the sink has just failed, and end."""
        self._stopping.set()
        self._fresh.set()

    def stop(self, timeout_seconds: float) -> None:
        """Wait until it has ended, so long at most, and let go of the sink."""
        self.finish()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        self._sink.close()

    def _run(self) -> None:
        while True:
            self._fresh.clear()
            is_last = self._stopping.is_set()
            try:
                is_sent = self._hand_on()
            except Exception as error:  # the border of this thread: the next turn tries again
                self._outage.failed(error)
                is_sent = False
            else:
                self._outage.over()
            if is_last or (not is_sent and self._stopping.wait(LOOK_SECONDS)):
                return
            if is_sent:
                self._fresh.wait(LOOK_SECONDS)

    def _hand_on(self) -> bool:
        """Hand on all that there is; returns False when the sink does not take it."""
        try:
            while self._hand_on_batch():
                pass
        except OSError as error:
            with self._database.transaction() as session:
                audit.release_sink(session, self._sink.name, self._owner)
            if not self._is_failing:
                why = error.strerror or type(error).__name__
                log.warning(line("audit-sink-down", sink=self._sink.name, why=why))
            self._is_failing = True
            return False
        if self._is_failing:
            log.info(line("audit-sink-back", sink=self._sink.name))
        self._is_failing = False
        return True

    def _hand_on_batch(self) -> bool:
        """Hand on some records; returns whether there may be more."""
        with self._database.transaction() as session:
            now = self._database.now()
            sent_pk = audit.claim_sink(session, self._sink.name, self._owner, now, LEASE_SECONDS)
            if sent_pk is None:
                return False
            rows = list(audit.records(session, after_pk=sent_pk, limit=BATCH))
            if not rows:
                audit.release_sink(session, self._sink.name, self._owner)
                return False
        self._sink.send(rows)
        with self._database.transaction() as session:
            audit.handed_on(session, self._sink.name, self._owner, rows[-1].id or sent_pk)
            if len(rows) < BATCH:
                audit.release_sink(session, self._sink.name, self._owner)
        return len(rows) == BATCH


__all__ = ["Courier"]

"""What a listener writes away from the threads that answer: kept in order until the database has taken it.

What it has not taken when the listener has drained is told, one line each.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlmodel import Session

from node.logs import line
from node.outage import Outage
from plugins.errors import Unavailable
from store.database import Database

log = logging.getLogger(__name__)

BEAT_SECONDS = 15.0
GATHER_SECONDS = 0.05
RETRY_SECONDS = 1.0
LAST_SECONDS = 10.0
BATCH = 500
MOST_WAITING = 20_000
MOST_TOLD = 100


@dataclass(frozen=True, kw_only=True)
class Chore:
    """One thing to write."""

    otherwise: str
    """What is told when it is lost."""
    about: Mapping[str, object]
    """What that line says of it."""
    write: Callable[[Session, datetime], Callable[[], None] | None]
    """Writes it as of a time, aware UTC, and returns what is to be done once that is committed.

    It is called again after a commit that failed, or whose answer was lost.
    """
    left_at: float = field(default_factory=time.monotonic)
    """When it happened, by the monotonic clock of this process: the database's may not answer then."""


class Housekeeper:
    """Writes chores, oldest first, and gives signs of life.

    Parameters
    ----------
    database
        Where to.
    clock
        Gives the present time, aware UTC; may raise Unavailable.
    beat
        Writes a sign of life.

    """

    def __init__(
        self, database: Database, clock: Callable[[], datetime], beat: Callable[[Session, datetime], None]
    ) -> None:
        self._database = database
        self._clock = clock
        self._beat = beat
        self._waiting: queue.Queue[Chore] = queue.Queue(MOST_WAITING)
        self._kept: list[Chore] = []
        self._outage = Outage(log, "house-keeping-failed", "house-keeping-works")
        self._stopping = threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener-house", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def later(self, chore: Chore) -> None:
        """Leave a chore; returns at once, and tells when too many wait."""
        try:
            self._waiting.put_nowait(chore)
        except queue.Full:
            _tell_lost(chore)

    def stop(self) -> None:
        """Write what waits, for 10 s at most, and tell what could not be written."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(LAST_SECONDS)
        self._given_up.set()
        lost = list(self._kept)
        with suppress(queue.Empty):
            while True:
                lost.append(self._waiting.get_nowait())
        if lost:
            log.error(line("house-keeping-lost", count=len(lost)))
        for chore in lost[:MOST_TOLD]:
            _tell_lost(chore)

    def _run(self) -> None:
        beaten = time.monotonic()
        while not self._is_over():
            self._gather()
            if self._kept and not self._write(self._kept):
                self._given_up.wait(RETRY_SECONDS)
            if time.monotonic() - beaten >= BEAT_SECONDS:
                beaten = time.monotonic()
                self._give_sign_of_life()

    def _is_over(self) -> bool:
        is_done = self._stopping.is_set() and not self._kept and self._waiting.empty()
        return is_done or self._given_up.is_set()

    def _gather(self) -> None:
        with suppress(queue.Empty):
            if not self._kept:
                self._kept.append(self._waiting.get(timeout=0.2))
                # What ends at one time is written at one time: a transaction takes its turn from those who send.
                self._stopping.wait(GATHER_SECONDS)
            while len(self._kept) < BATCH:
                self._kept.append(self._waiting.get_nowait())

    def _write(self, chores: list[Chore]) -> bool:
        """Write the first of those that are kept; False when the database does not answer: they are kept then."""
        afterwards: list[Callable[[], None] | None] = []
        try:
            afterwards = self._commit(chores)
        except Unavailable as error:
            self._outage.failed(error)
            return False
        except Exception:  # the border of this thread: a fault in one chore may not keep the others back
            if len(chores) > 1:
                return all(self._write([one]) for one in chores)
            log.exception(line(chores[0].otherwise, **chores[0].about))
        else:
            self._outage.over()
        self._kept = self._kept[len(chores) :]
        for then in afterwards:
            if then is not None:
                then()
        return True

    def _commit(self, chores: list[Chore]) -> list[Callable[[], None] | None]:
        now, passed = self._clock(), time.monotonic()
        with self._database.transaction() as session:
            return [c.write(session, now - timedelta(seconds=max(0.0, passed - c.left_at))) for c in chores]

    def _give_sign_of_life(self) -> None:
        try:
            now = self._clock()
            with self._database.transaction() as session:
                self._beat(session, now)
        except Exception as error:  # the border of this thread: the next turn tries again
            self._outage.failed(error)
        else:
            self._outage.over()


def _tell_lost(chore: Chore) -> None:
    log.error(line(chore.otherwise, **chore.about))


__all__ = ["Chore", "Housekeeper"]

"""A thread that does one thing again and again until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime

from node.logs import line
from node.outage import Outage
from plugins.errors import NadirError

log = logging.getLogger(__name__)


class Loop:
    """Calls `tick(now)` at once while it returns True, else every `idle_seconds` or when woken.

    Parameters
    ----------
    name
        Name of the thread and of what it does in the log.
    tick
        One round; returns whether there may be more to do at once.
    clock
        Gives the time that a round is told.
    idle_seconds
        Pause when there is nothing to do, and after an error.

    """

    def __init__(
        self, name: str, tick: Callable[[datetime], bool], clock: Callable[[], datetime], idle_seconds: float
    ) -> None:
        self.name = name
        self._tick = tick
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._outage = Outage(log, "round-failed", "rounds-work", loop=name)
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self.began_at = 0.0
        """When the last round began, POSIX seconds; 0 before the first."""
        self.failed_rounds = 0
        """How many rounds ended in an error."""

    @property
    def is_dead(self) -> bool:
        """Return True when the thread has ended though nobody stopped it."""
        return self._thread is not None and not self._thread.is_alive() and not self._stopped.is_set()

    def start(self) -> None:
        """Start the thread."""
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        thread.start()
        self._thread = thread

    def wake(self) -> None:
        """End the present pause."""
        self._wake.set()

    def stop(self, timeout_seconds: float = 30.0) -> bool:
        """Let the present round end; returns whether it did in time."""
        self._stopped.set()
        self._wake.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if not self._round() and not self._stopped.is_set():
                self._wake.wait(self._idle_seconds)
                self._wake.clear()

    def _round(self) -> bool:
        self.began_at = time.time()
        try:
            more = self._tick(self._clock())
        except NadirError as error:
            self._outage.failed(error)
        except Exception:  # the border of this thread: it must outlive a fault of ours, and tell of it
            log.exception(line("round-broke", loop=self.name))
        else:
            self._outage.over()
            return more
        self.failed_rounds += 1
        return False


__all__ = ["Loop"]

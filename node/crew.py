"""Threads that are there before the work: starting one costs as much as answering an association request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from node.logs import line

log = logging.getLogger(__name__)

Work = Callable[[], None]

MOST_IDLE = 4


class Crew:
    """Does each piece of work on a thread of its own, of which a few stay for the next.

    Parameters
    ----------
    name
        Beginning of the threads' names.

    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Work | None]] = []
        self._is_closing = False

    def do(self, work: Work) -> None:
        """Begin some work; returns at once. What it raises is told in one line."""
        with self._lock:
            waiting = self._idle.pop() if self._idle else None
        if waiting is not None:
            waiting.put(work)
        else:
            threading.Thread(target=self._serve, args=(work,), name=self._name, daemon=True).start()

    def stop(self) -> None:
        """Let those go that wait; the others go when they have done their work."""
        with self._lock:
            idle, self._idle, self._is_closing = self._idle, [], True
        for waiting in idle:
            waiting.put(None)

    def _serve(self, work: Work | None) -> None:
        inbox: SimpleQueue[Work | None] = SimpleQueue()
        while work is not None:
            try:
                work()
            except Exception:  # the border of this thread: a traceback is no line of the log
                log.exception(line("thread-failed", thread=self._name))
            del work  # it holds an association, its buffer and its peer
            with self._lock:
                if self._is_closing or len(self._idle) >= MOST_IDLE:
                    return
                self._idle.append(inbox)
            work = inbox.get()

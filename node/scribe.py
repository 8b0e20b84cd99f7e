"""Writes log lines in a thread of its own, so that who does not read standard error holds up nobody's work."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from select import PIPE_BUF

MOST_LINES = 10_000
FLUSH_SECONDS = 2.0
AGAIN_SECONDS = 0.1


class Scribe(logging.Handler):
    """Writes to a file descriptor, in the order of coming; what comes while `MOST_LINES` wait is lost and counted.

    Its thread begins with the first line, and anew after a fork. What waits at the exit is written within
    `FLUSH_SECONDS`, or lost.

    Parameters
    ----------
    descriptor
        Where the lines go: not through `sys.stderr`, whose lock a blocked thread would keep when the process ends.
    lost
        Gives what is told of lines that were lost, from their count.

    """

    def __init__(self, descriptor: int, lost: Callable[[int], str]) -> None:
        super().__init__()
        assert self.lock is not None
        self._descriptor = descriptor
        self._told = lost
        self._lines: list[str] = []
        self._lost = 0
        self._is_writing = False
        self._changed = threading.Condition(self.lock)  # `handle` holds that lock while it calls `emit`
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record in, or count it as lost."""
        if len(self._lines) >= MOST_LINES:
            self._lost += 1
            return
        try:
            self._lines.append(self.format(record))
        except Exception:  # a border, as in every handler: a record that cannot be told ends nobody's work
            self.handleError(record)
        self._begin()
        self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written, `FLUSH_SECONDS` at most."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._lines or self._is_writing), FLUSH_SECONDS)

    def _begin(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._is_writing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the machine gives no more threads: this one waits for who reads
            self._thread = None
            self._write(self._taken())

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                self._is_writing = True
                lines = self._taken()
            self._write(lines)

    def _taken(self) -> list[str]:
        """Return what waits; what was lost behind it is told first of what comes next."""
        lines, self._lines = self._lines, []
        if self._lost:
            self._lines.append(self._line_of_loss())
            self._lost = 0
        return lines

    def _line_of_loss(self) -> str:
        text = self._told(self._lost)
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (), None))

    def _write(self, lines: list[str]) -> None:
        """Write them, many at once where they are short: never a part of one, as other processes write there, too."""
        left = b""
        for line in (f"{line}\n".encode(errors="backslashreplace") for line in lines):
            if len(left) + len(line) > PIPE_BUF:
                self._put(left)
                left = b""
            left += line
        self._put(left)

    def _put(self, left: bytes) -> None:
        with suppress(OSError):  # nobody can read any more: there is nowhere to tell it
            while left:
                left = self._rest(left)

    def _rest(self, text: bytes) -> bytes:
        """Return what is left of it after one attempt."""
        try:
            return text[os.write(self._descriptor, text) :]
        except BlockingIOError:
            time.sleep(AGAIN_SECONDS)
            return text


__all__ = ["Scribe"]

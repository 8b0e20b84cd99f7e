"""What fails turn after turn, told as a person reads it: at once, then once a minute, and when it works again."""

from __future__ import annotations

import logging
import time

from node.logs import line
from plugins.errors import NadirError

TOLD_SECONDS = 60.0


class Outage:
    """The failures of one thread.

    Parameters
    ----------
    log
        Where they are told.
    failing, working
        What the lines are called: of a failure, and of the first success after a failure that was told.
    fields
        What else each line says.

    """

    def __init__(self, log: logging.Logger, failing: str, working: str, **fields: object) -> None:
        self._log = log
        self._failing = failing
        self._working = working
        self._fields = fields
        self._failures = 0
        self._told_at: float | None = None
        self._is_told = False

    def failed(self, error: Exception) -> None:
        """Count a failure; tell it unless one was told within the last minute."""
        self._failures += 1
        now = time.monotonic()
        if self._told_at is not None and now - self._told_at < TOLD_SECONDS:
            return
        self._told_at, self._is_told = now, True
        why = str(error) if isinstance(error, NadirError) else type(error).__name__
        self._log.warning(line(self._failing, **self._fields, failures=self._failures, error=why))

    def over(self) -> None:
        """Take a success; tell it when a failure was told since the last one."""
        if self._is_told:
            self._log.info(line(self._working, **self._fields, failures=self._failures))
        self._failures, self._is_told = 0, False


__all__ = ["Outage"]

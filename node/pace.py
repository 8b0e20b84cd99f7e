"""Whether a peer keeps up: from the first byte of a message to its last it owes us bytes, at the pace of a slow line.

A peer that sends one byte a second, or thousands of empty PDUs, never stalls, and is still not sending. Its account
runs out as time goes by and fills with every byte; what matters is how long it has been empty.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

SLOWEST_BYTES_PER_SECOND = 1024
CREDIT_SECONDS = 5.0
"""What a fast peer may have ahead: a pause this long is none."""


class Pace:
    """The account of one connection.

    Parameters
    ----------
    first_seconds
        Time to the first byte.
    clock
        Gives seconds that only grow.

    """

    def __init__(self, first_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owes = False
        self.rest(first_seconds)

    def owe(self) -> None:
        """Learn that a message, or another PDU, has begun."""
        if not self._owes:
            self._owes, self._lasts_until = True, self._clock()

    def got(self, count: int) -> None:
        """Learn that bytes came; the first of a message begin it."""
        now = self._clock()
        begun = self._lasts_until if self._owes else now
        self._owes, self._lasts_until = (
            True,
            min(begun + count / SLOWEST_BYTES_PER_SECOND, now + CREDIT_SECONDS),
        )

    def rest(self, seconds: float = math.inf) -> None:
        """Learn that a message is whole: for this time, nothing is owed until the next one begins."""
        self._owes = False
        self._lasts_until = self._clock() + seconds

    @property
    def behind_seconds(self) -> float:
        """Return for how long the peer has been behind; 0 when it is not, or owes nothing."""
        return max(0.0, self._clock() - self._lasts_until)

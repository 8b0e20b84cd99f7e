"""How long a test waits for what has to come: long, as a busy machine may let any thread stand still for seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from node.scu import Timeouts
from node.socket_guard import Limits

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
PATIENT = Timeouts(connect=PATIENCE_SECONDS, associate=PATIENCE_SECONDS, answer=PATIENCE_SECONDS)
STAND_STILL_SECONDS = 0.5
PATIENT_LIMITS = Limits(silent_seconds=60.0, stall_seconds=60.0, pdu_seconds=120.0, idle_seconds=120.0)
"""Of a listener that cuts nobody off who was only not run for a while."""


def eventually(condition: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """Return what `condition` gives once that is true, or what it gave last."""
    deadline, pause = time.monotonic() + seconds, 0.005
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(0.1, 1.5 * pause)
    return value


class Pulse:
    """Counts how often this process stood still for longer than half a second, and for how long in all."""

    def __init__(self) -> None:
        self.pauses, self.seconds = 0, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._over.wait(0.05):
            late, before = time.monotonic() - before - 0.05, time.monotonic()
            if late > STAND_STILL_SECONDS:
                self.pauses += 1
                self.seconds += late

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

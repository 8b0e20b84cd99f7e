"""What a process of the node does for itself: it hears signals, and lays what it has imported aside."""

from __future__ import annotations

import gc
import signal
from queue import SimpleQueue


def end_of(*signals: signal.Signals) -> SimpleQueue[None]:
    """Return a queue that has something to get once one of the signals came.

    A handler runs inside whatever the main thread does, its wait too: an Event's lock would be asked for twice.
    """
    told: SimpleQueue[None] = SimpleQueue()
    for number in signals:
        signal.signal(number, lambda *_: told.put(None))
    return told


def settle_down() -> None:
    """Keep the garbage collector from looking at what was imported and will stay, each time that it runs."""
    gc.collect()
    gc.freeze()


__all__ = ["end_of", "settle_down"]

"""Threads that begin at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

START_SECONDS = 60.0
"""A thread that has not begun by then breaks the test instead of letting it hang."""


def at_once(do: Callable[[int], None], threads: int) -> None:
    """Call `do` with 0, 1, ... in a thread each, none before all are there; raise what the first of them raised."""
    all_there = threading.Barrier(threads)

    def begin(number: int) -> None:
        all_there.wait(START_SECONDS)
        do(number)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(begin, range(threads)):
            pass

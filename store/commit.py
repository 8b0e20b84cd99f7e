"""Group commit: what many threads bring at one time is made durable once, by a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

LARGEST = 64
LARGEST_UNWATCHED = 1024
QUIET_SECONDS = 0.05
IDLE_SECONDS = 10.0


class Ticket(Generic[Item, Answer]):
    """One item of a group, and what becomes of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self._answer: Answer | Exception | None = None
        self._answered = threading.Lock()
        self._answered.acquire()

    def give(self, answer: Answer | Exception) -> None:
        """Set the answer; once."""
        self._answer = answer
        self._answered.release()

    def take(self) -> Answer:
        """Return the answer when it is there; once. Raises the item's own exception."""
        self._answered.acquire()
        if isinstance(self._answer, Exception):
            raise self._answer
        assert self._answer is not None
        return self._answer


class GroupCommit(Generic[Item, Answer]):
    """A queue in front of one thread that does all that waits at one time.

    Nothing waits for others to come: a thread that has nothing to do begins at once, with one item. What comes in the
    meantime is the next group, so that the longest wait is that for the group before. Whoever brings an item can do
    something else beside it. A thread without work ends after a while.

    Parameters
    ----------
    work
        Does a group and returns an answer or an exception for each item, in order. One group at a time.
    largest
        Items of one group.

    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Answer | Exception]], *, largest: int = LARGEST
    ) -> None:
        self._work = work
        self._largest = largest
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Ticket[Item, Answer]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, item: Item) -> Answer:
        """Return the answer to `item` once its group is done. Raises the item's own exception."""
        return self.begin(item).take()

    def begin(self, item: Item) -> Ticket[Item, Answer]:
        """Return what will hold the answer; the work on it begins at once, or after the group before."""
        ticket: Ticket[Item, Answer] = Ticket(item)
        with self._lock:
            self._waiting.put(ticket)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
                self._thread.start()
        return ticket

    def _run(self) -> None:
        while True:
            try:
                group = [self._waiting.get(timeout=IDLE_SECONDS)]
            except queue.Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._thread = None
                        return
                continue
            with suppress(queue.Empty):
                while len(group) < self._largest:
                    group.append(self._waiting.get_nowait())
            self._do(group)

    def _do(self, group: Sequence[Ticket[Item, Answer]]) -> None:
        try:
            answers = self._work([ticket.item for ticket in group])
        except Exception as error:  # a border: nobody may wait for an answer that never comes
            answers = [error] * len(group)
        missing = RuntimeError("the group was not finished")
        for ticket, answer in zip(group, [*answers, *[missing] * len(group)], strict=False):
            ticket.give(answer)


class Backlog(Generic[Item]):
    """A queue that nobody waits for: one thread does what has gathered, when no more comes or a group is full.

    Parameters
    ----------
    work
        Does a group; must not raise.
    largest
        Items of one group; the queue holds twice as many, and who finds it full waits for room.

    """

    def __init__(self, work: Callable[[Sequence[Item]], None], *, largest: int = LARGEST_UNWATCHED) -> None:
        self._work = work
        self._largest = largest
        self._queue: queue.Queue[Item | None] = queue.Queue(maxsize=2 * largest)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, item: Item) -> None:
        """Leave an item to the thread."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)
                self._thread.start()
        self._queue.put(item)

    def finish(self) -> None:
        """Return when everything is done."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _run(self) -> None:
        item = self._queue.get()
        while item is not None:
            group = [item]
            self._wait_for_quiet()
            try:
                while len(group) < self._largest and (item := self._queue.get_nowait()) is not None:
                    group.append(item)
            except queue.Empty:
                pass
            self._work(group)
            if item is not None:
                item = self._queue.get()

    def _wait_for_quiet(self) -> None:
        """Return when nothing more comes: working beside those who receive would take turns from them."""
        count = -1
        while count < self._queue.qsize() < self._largest and self._thread is not None:
            count = self._queue.qsize()
            time.sleep(QUIET_SECONDS)


__all__ = ["Backlog", "GroupCommit", "Ticket"]

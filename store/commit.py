"""Group commit: what many threads bring at one time is made durable once, by one of them."""

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


class _Ticket(Generic[Item, Answer]):
    """One item of a group, and what becomes of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: Answer | Exception | None = None
        self._woken = threading.Lock()
        self._woken.acquire()

    def wait(self) -> None:
        """Return when there is an answer, or when the next group is this one's to do."""
        self._woken.acquire()

    def wake(self) -> None:
        """Let the one that waits go on; once."""
        self._woken.release()


class GroupCommit(Generic[Item, Answer]):
    """All that waits at one time is done at once, by one of the threads that wait for it.

    Nothing waits for others to come: who finds nobody at work begins at once, with one item, and no other thread has
    to be woken for it. What comes in the meantime is the next group, done by the first of those who brought it, so
    that the longest wait is that for the group before.

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
        self._waiting: queue.SimpleQueue[_Ticket[Item, Answer]] = queue.SimpleQueue()
        self._is_led = False

    def do(self, item: Item) -> Answer:
        """Return the answer to `item` once its group is done. Raises the item's own exception."""
        ticket: _Ticket[Item, Answer] = _Ticket(item)
        with self._lock:
            must_wait, self._is_led = self._is_led, True
            if must_wait:
                self._waiting.put(ticket)
        if must_wait:
            ticket.wait()
        if ticket.answer is None:
            self._lead(ticket)
        if isinstance(ticket.answer, Exception):
            raise ticket.answer
        assert ticket.answer is not None
        return ticket.answer

    def _lead(self, own: _Ticket[Item, Answer]) -> None:
        """Do the next group, which begins with the caller's own item, and let the first of those behind it lead."""
        group = [own]
        answers: Sequence[Answer | Exception] = ()
        try:
            with suppress(queue.Empty):
                while len(group) < self._largest:
                    group.append(self._waiting.get_nowait())
            answers = self._work([ticket.item for ticket in group])
        except Exception as error:  # a border: nobody may wait for an answer that never comes
            answers = [error] * len(group)
        finally:
            self._hand_over()
            missing = RuntimeError("the group was not finished")
            for ticket, answer in zip(group, [*answers, *[missing] * len(group)], strict=False):
                ticket.answer = answer
            for ticket in group[1:]:
                ticket.wake()

    def _hand_over(self) -> None:
        with self._lock:
            try:
                self._waiting.get_nowait().wake()
            except queue.Empty:
                self._is_led = False


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
                thread = threading.Thread(target=self._run, name="backlog", daemon=True)
                thread.start()
                self._thread = thread
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


__all__ = ["Backlog", "GroupCommit"]

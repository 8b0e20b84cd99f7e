"""The hash of a file that is being written: by who writes it, or beside him by a thread that has nothing else to do."""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

BUFFER_BYTES = 1 << 20
"""What the thread reads at one time: much, because it has to wait for its turn before and after."""

STOP_SECONDS = 5.0

Step = Callable[[memoryview], None]


class FileHash:
    """The sha256 of a file that only grows, as far as it was told of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._sha256 = hashlib.sha256()
        self._hashed_bytes = 0

    def advance(self, size_bytes: int, buffer: memoryview) -> None:
        """Hash what the file holds up to a length. Raises OSError when it cannot be read or is shorter."""
        while self._hashed_bytes < size_bytes:
            count = os.preadv(self._descriptor, [buffer], self._hashed_bytes)
            if count == 0:
                raise OSError(errno.EIO, "the file is not as long as what was written to it")
            self._sha256.update(buffer[:count])
            self._hashed_bytes += count

    def hexdigest(self) -> str:
        """Return the hash of what was told."""
        return self._sha256.hexdigest()


class HashBeside:
    """The hash of one file, worked out by the thread of a `Hasher` while another thread writes.

    Parameters
    ----------
    descriptor
        The file; closed by the thread when `finish` was called.
    put
        Takes a step for the thread, and whether it is the last one of this file.

    """

    def __init__(self, descriptor: int, put: Callable[[Step, bool], None]) -> None:
        self._descriptor = descriptor
        self._hash = FileHash(descriptor)
        self._put = put
        self._failure: Exception | None = None
        self._works = threading.Lock()
        self._once = threading.Lock()

    def advance(self, size_bytes: int) -> None:
        """Let the thread hash the file up to a length, and return at once."""
        self._put(lambda buffer: self._advance(size_bytes, buffer), False)

    def finish(self, size_bytes: int) -> None:
        """The same with the length that it has for good, any for a file that is given up; later calls do nothing."""
        if self._once.acquire(blocking=False):
            self._works.acquire()
            self._put(lambda buffer: self._finish(size_bytes, buffer), True)

    def hexdigest(self) -> str:
        """Return the hash of a file that is finished, when it is known. Raises OSError when it could not be had."""
        with self._works:
            if self._failure is not None:
                raise OSError(errno.EIO, "the file cannot be hashed") from self._failure
            return self._hash.hexdigest()

    def _advance(self, size_bytes: int, buffer: memoryview) -> None:
        try:
            if self._failure is None:
                self._hash.advance(size_bytes, buffer)
        except Exception as error:  # a border: who asks for the hash is told
            self._failure = error

    def _finish(self, size_bytes: int, buffer: memoryview) -> None:
        self._advance(size_bytes, buffer)
        self._works.release()
        with suppress(OSError):  # some filesystems write only then; who keeps the file syncs it, and is told
            os.close(self._descriptor)


class Hasher:
    """A thread that hashes one file while another thread writes it; whose file comes meanwhile hashes it himself.

    With many files at one time every processor is busy anyway, and one more thread would only take turns from them.
    """

    def __init__(self) -> None:
        self._is_lent = threading.Lock()
        self._steps: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def lend(self, descriptor: int) -> HashBeside | None:
        """Return the hash of a file that is going to be written; None while another one is, or without a thread.

        It has to be finished, whatever becomes of the file. The descriptor may be closed whenever its owner likes.
        """
        if not self._is_lent.acquire(blocking=False):
            return None
        try:
            if self._thread is None:
                buffer = memoryview(bytearray(BUFFER_BYTES))
                self._steps = queue.SimpleQueue()
                thread = threading.Thread(
                    target=_work, args=(self._steps, buffer), name="hasher", daemon=True
                )
                thread.start()
                self._thread = thread
            return HashBeside(os.dup(descriptor), self._put)
        except (
            OSError,
            RuntimeError,
            MemoryError,
        ):  # too many of something: the file is hashed by who writes it
            self._is_lent.release()
            return None

    def stop(self) -> None:
        """End the thread, unless a file is still being written or the disk hangs; the next file begins another."""
        if not self._is_lent.acquire(blocking=False):
            return
        thread, self._thread = self._thread, None
        if thread is not None:
            self._steps.put(None)
            thread.join(STOP_SECONDS)
        self._is_lent.release()

    def _put(self, step: Step, is_last: bool) -> None:
        self._steps.put(step)
        if is_last:
            self._is_lent.release()


def _work(steps: queue.SimpleQueue[Step | None], buffer: memoryview) -> None:
    while (step := steps.get()) is not None:
        step(buffer)


__all__ = ["FileHash", "HashBeside", "Hasher"]

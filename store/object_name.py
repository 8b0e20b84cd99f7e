"""How a whole file gets its name in the object store: when it has it, bytes and name are on disk.

While one thread waits for the bytes, the other gives the name and waits for that: a disk takes both at one time. A
power cut in between may leave a name with other bytes than its hash says. It has no row, so nobody was told of it;
`node.recovery` puts it aside, and who sends the object again replaces it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from store.checked_copy import sync
from store.failpoint import reach

NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV})


@dataclass(frozen=True, kw_only=True)
class Unnamed:
    """An open file that nobody writes any more, its bytes on their way to the disk."""

    path: Path
    """Where it lies for now."""
    descriptor: int
    """Of the open file."""
    synced: Callable[[], object]
    """Returns once the bytes are on disk; raises OSError when they do not get there."""
    sync: Callable[[Path], None]
    """Returns once a file, or the names in a folder, are on disk; raises OSError."""

    @property
    def size_bytes(self) -> int:
        """Return the length of the file."""
        return os.fstat(self.descriptor).st_size

    def name(self, target: Path) -> None:
        """Give the file its final name, and return when bytes and name are on disk.

        What lies there already has the same hash, or has rotted: it is replaced, once these bytes are on disk.
        Raises OSError; a name whose bytes did not get to the disk is taken back.
        """
        try:
            os.link(self.path, target)
        except FileExistsError:
            self.synced()
            with names_held(target.parent):
                os.replace(self.path, target)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self.synced()
            os.replace(self.path, target)
        reach("after-link")
        try:
            self.sync(target.parent)
        finally:
            try:
                self.synced()
            except OSError:
                self._take_back(target)
                raise
        reach("after-fsync")

    def _take_back(self, target: Path) -> None:
        """Delete the name, unless somebody has brought the same bytes to disk under it meanwhile."""
        with names_held(target.parent), suppress(OSError):
            if os.path.samestat(target.stat(), os.fstat(self.descriptor)):
                target.unlink()


class FileSync:
    """Syncs files: one at a time in a thread of its own, while who asked gives it its name; others at once.

    Of many files at one time none gains by another thread: the filesystem gathers their syncs. Without `is_on` nothing
    is synced.
    """

    def __init__(self, *, is_on: bool = True) -> None:
        self._is_on = is_on
        self._is_lent = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="file-sync")

    @contextmanager
    def unnamed(self, path: Path) -> Iterator[Unnamed]:
        """Let nobody write a file any more, begin to bring it to disk, and give it. Raises OSError."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fchmod(descriptor, 0o440)
            begun = self._begin(descriptor)
            if begun is None and self._is_on:
                os.fsync(descriptor)
            try:
                synced = _done if begun is None else begun.result
                yield Unnamed(path=path, descriptor=descriptor, synced=synced, sync=self.sync)
            finally:
                if begun is not None:
                    begun.exception()  # waits
                    self._is_lent.release()
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """Return once a file, or the names in a folder, are on disk. Raises OSError."""
        if self._is_on:
            sync(path)

    def _begin(self, descriptor: int) -> Future[None] | None:
        """Return the sync of an open file that the thread does; None when it has another one, or there is no thread."""
        if not self._is_on or not self._is_lent.acquire(blocking=False):
            return None
        try:
            return self._thread.submit(os.fsync, descriptor)
        except RuntimeError:  # there are too many threads, or the process ends
            self._is_lent.release()
            return None


@contextmanager
def names_held(folder: Path) -> Iterator[None]:
    """Let nobody else replace or take away names in a folder, in whatever process; unlocked where locks are unknown."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _done() -> None:
    """The bytes are on disk already."""


__all__ = ["NO_LINKS", "FileSync", "Unnamed", "names_held"]

"""What a process of the node does for itself: it begins whole or not at all, hears signals, keeps one heap."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from node.logs import line
from plugins.errors import Unavailable

M_ARENA_MAX = -8
"""As in glibc's malloc.h."""
NO_MORE = "no more threads or processes can be started: raise TasksMax, the pids limit or ulimit -u"

log = logging.getLogger(__name__)


@contextmanager
def beginning(undo: Callable[[], None]) -> Iterator[None]:
    """Undo what was begun when the rest fails, and raise why that did. Raises Unavailable at a limit of processes."""
    try:
        yield
    except BaseException as error:
        try:
            undo()
        except Exception:  # a border: what failed first is told
            log.exception(line("stop-broke"))
        if isinstance(error, BlockingIOError) or "can't start new thread" in str(error):
            raise Unavailable(NO_MORE) from error
        raise


def tell(text: str) -> None:
    """Print a line at once; where nobody takes what is printed any more, it is lost from now on, and nothing ends."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        log.warning(line("not-told", why=error.strerror or "", text=text))
        nowhere, out, err = os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno(), sys.stderr.fileno()
        for stream in (out, err) if os.path.sameopenfile(out, err) else (out,):
            os.dup2(nowhere, stream)
        os.close(nowhere)


class End:
    """What the main thread waits for: one of some signals, or another thread that says so.

    Python runs a handler when the main thread comes to it, and a thread that has just begun to wait for a lock, or a
    signal that met another thread, never comes to it. What a signal writes to a socket is there whenever it came.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        """Hear these signals from now on, but SIGHUP where nohup lets it be ignored; in the main thread only."""
        self._told, self._tell = socket.socketpair()
        self._tell.setblocking(False)
        signal.set_wakeup_fd(self._tell.fileno(), warn_on_full_buffer=False)
        for number in signals:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: None)

    def tell(self) -> None:
        """Let the end come."""
        self._tell.send(b"\0")

    def wait(self) -> None:
        """Return once it has come."""
        self._told.recv(1)


def keep_one_heap() -> None:
    """Let all threads that begin from now on allocate from one heap; does nothing where the C library is not glibc.

    glibc gives them up to eight heaps a processor, and each keeps what it once needed, which is much after a crowd of
    associations. Threads of Python seldom allocate at one time: they wait for the interpreter, not for a heap.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_ARENA_MAX, 1)


def settle_down() -> None:
    """Keep the garbage collector from looking at what was imported and will stay, each time that it runs."""
    gc.collect()
    gc.freeze()


__all__ = ["End", "beginning", "keep_one_heap", "settle_down", "tell"]

"""A child process that does not outlive its parent, and the end of what it started."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
MARK = "ANALYSIS_SCRATCH"
"""What all that a task starts inherits in its environment: where the task's scratch folder, its own, lies."""


def die_with(parent: int) -> None:
    """End this process when the parent is gone, so that a killed node leaves no analysis behind."""
    with suppress(AttributeError, OSError):  # Linux only; the watch does the same a little later
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def mark_of(scratch: Path) -> dict[str, str]:
    """Return the variable of the environment that names a scratch folder, among those of all nodes of this machine."""
    return {MARK: str(scratch.resolve())}


def end_strays(scratch: Path) -> None:
    """Kill what a task of that scratch folder started and a killed node left behind, where the system tells (Linux).

    By the mark and not by the number of its group: whose leader is gone may be another's by now.
    """
    mark = f"{MARK}={mark_of(scratch)[MARK]}"
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it is not ours, or has just ended
            if os.fsencode(mark) in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), signal.SIGKILL)


__all__ = ["MARK", "die_with", "end_strays", "mark_of"]

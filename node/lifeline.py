"""A child process that does not outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """End this process when the parent is gone, so that a killed node leaves no analysis behind."""
    with suppress(AttributeError, OSError):  # Linux only; the watch does the same a little later
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


__all__ = ["die_with"]

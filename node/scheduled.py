"""A command of the schedule in a process of its own: the last to get the processor, and gone with the node.

`python -P -m node.scheduled PARENT MEMORY_BYTES models retrain nodule_segmenter`; settings come by the environment.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.lifeline import die_with

if TYPE_CHECKING:
    from node.settings import Settings

NICE = 19
PASSED = ("home", "database_url", "sync", "log_level", "ae_title")
"""Settings that a command is given beside `retrain`: no secret of another role is among them."""


class Children:
    """The processes that run; each in a session of its own, and gone with this one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(self, name: str, command: Sequence[str]) -> int:
        """Return the exit status of a command; what it prints is in `training/<job>.log` below the home folder."""
        folder = self._settings.home / "training"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        limits = (str(os.getpid()), str(self._settings.retrain.memory_bytes))
        with _private(folder / f"{name.replace(' ', '-')}.log") as written:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "node.scheduled", *limits, *command],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                start_new_session=True,
                env=environment_of(self._settings, os.environ),
            )
        with self._lock:
            self._running.add(child)
        try:
            return child.wait()
        finally:
            with self._lock:
                self._running.discard(child)

    def terminate(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Tell all of them to stop."""
        with self._lock:
            for child in self._running:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, how)

    def wait(self, seconds: float) -> None:
        """Return when none runs; after `seconds` they are killed."""
        deadline = time.monotonic() + seconds
        while self._running and time.monotonic() < deadline:
            time.sleep(0.02)
        self.terminate(signal.SIGKILL)


def environment_of(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command of the schedule: what it has to know of the settings, and no secret else."""
    kept = {name: value for name, value in environment.items() if not name.startswith("NADIR_")}
    passed = {f"NADIR_{name.upper()}": str(getattr(settings, name)) for name in PASSED}
    retrain = json.dumps(settings.retrain.model_dump(mode="json"))
    return {**kept, **passed, "NADIR_RETRAIN": retrain, "OMP_NUM_THREADS": str(settings.retrain.threads)}


def _private(path: Path) -> Any:
    """Return a file to write that only its owner may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb")


def main() -> None:
    """Run `nadir` with what is left of the command line."""
    parent, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    os.nice(NICE)
    with suppress(OSError):  # where the kernel gives each session a share of its own, this is its nice value
        Path("/proc/self/autogroup").write_text(str(NICE))
    die_with(parent)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = ["nadir", *sys.argv[3:]]
    from node.cli import main as nadir

    nadir()


if __name__ == "__main__":
    main()


__all__ = ["Children", "environment_of"]

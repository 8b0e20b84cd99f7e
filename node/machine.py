"""The machine that this process runs on: its disk, its GPU and what is installed. Looks, and imports nothing large."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

from plugins.registry import GROUP

PACKAGES = ("nadir", "pydicom", "pynetdicom", "highdicom", "torch", "numpy", "sqlalchemy", "fastapi")
QUESTION = ("--query-gpu=name,memory.used,memory.total,utilization.gpu", "--format=csv,noheader,nounits")
TORCH = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"
ASK_SECONDS, TORCH_SECONDS, KEEP_SECONDS = 5.0, 60.0, 30.0


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The disk that the home folder is on."""

    total_bytes: int
    """How large it is."""
    free_bytes: int
    """What is left of it for us."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One graphics card."""

    name: str
    """What it calls itself."""
    memory_bytes: int | None = None
    """Its memory; None when that was not told."""
    used_bytes: int | None = None
    """What is taken of it."""
    busy_percent: int | None = None
    """How busy it is at the moment."""


def disk(home: Path) -> Disk:
    """Return the disk of the home folder. Raises OSError."""
    state = os.statvfs(home)
    return Disk(total_bytes=state.f_blocks * state.f_frsize, free_bytes=state.f_bavail * state.f_frsize)


@cache
def versions() -> dict[str, str]:
    """Return what is installed in which version, as it was first asked; `not installed` where it is not."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


@cache
def installed_analyses() -> dict[str, str]:
    """Return every analysis that was installed when first asked, and the package that it came with."""
    return {
        entry.name: f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    }


class GpuWatch:
    """Asks for the graphics cards, in another process and seldom: a page that is reloaded starts none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[Gpu, ...] = ()
        self._asked = float("-inf")

    def gpus(self) -> tuple[Gpu, ...]:
        """Return the cards as they were at most half a minute ago; none when there is none."""
        with self._lock:
            if time.monotonic() - self._asked > KEEP_SECONDS:
                self._known = _by_driver() if shutil.which("nvidia-smi") else _by_torch()
                self._asked = time.monotonic()
            return self._known


def _by_driver() -> tuple[Gpu, ...]:
    said = _run(["nvidia-smi", *QUESTION], ASK_SECONDS)
    return tuple(_gpu(line) for line in said.splitlines() if line.count(",") >= 3)


def _gpu(line: str) -> Gpu:
    name, used, total, busy = (part.strip() for part in line.rsplit(",", 3))
    return Gpu(
        name=name,
        used_bytes=int(used) << 20 if used.isdecimal() else None,
        memory_bytes=int(total) << 20 if total.isdecimal() else None,
        busy_percent=int(busy) if busy.isdecimal() else None,
    )


@cache
def _by_torch() -> tuple[Gpu, ...]:
    """Return the first card that torch sees; asked once, because that takes seconds."""
    if _version("torch") == "not installed":
        return ()
    name = _run([sys.executable, "-c", TORCH], TORCH_SECONDS).strip()
    return (Gpu(name=name),) if name else ()


def _run(command: list[str], seconds: float) -> str:
    """Return what a command prints; nothing when it fails in any way."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


__all__ = ["Disk", "Gpu", "GpuWatch", "disk", "installed_analyses", "versions"]

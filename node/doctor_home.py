"""What the doctor says of the home folder: whether the node may write and read what it has to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from node.examined import Line
from node.own_folder import open_mode
from node.settings import Settings
from store.database_fault import MOUNT, is_mounted_read_only

FREE_BYTES = 1e9
IN_STORE = ("incoming", "ready", "objects", "quarantine")
RIGHTS = "let the user that runs nadir read and write it (chown or chmod)"
MOUNTED = f"its file system is read-only: {MOUNT}"


def home(settings: Settings) -> Iterator[Line]:
    """Yield a line for the folder, and one for each part of it that the node could not use."""
    yield _folder(settings.home, settings.reserve_bytes)
    if wrong := _store(settings.home / "store"):
        yield Line(what="object store", ok=False, says=wrong)
    yield from _rights(settings.home)


def _folder(home: Path, reserve_bytes: int) -> Line:
    there = home.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        _try(there)
        free = shutil.disk_usage(there).free
    except OSError as error:
        says = f"{home} cannot be written ({error.strerror}); name another with --home"
        return Line(what="home folder", ok=False, says=says)
    state = "writable" if there == home.absolute() else "can be made"
    says = f"{home} {state}, {free / 1e9:.0f} GB free"
    if free < reserve_bytes:
        says += f", below the {reserve_bytes / 1e9:.1f} GB of reserve_bytes: nothing is accepted"
    return Line(what="home folder", ok=free > max(FREE_BYTES, reserve_bytes), says=says)


def _rights(home: Path) -> Iterator[Line]:
    """Tell that everybody on this machine may enter the home, unless the node closes it when it first starts."""
    mode = open_mode(home)
    if mode and os.access(home, os.R_OK) and any(home.iterdir()):
        says = f"open to others (mode {mode}): chmod 700 {home}"
        yield Line(what="rights of the home folder", ok=False, says=says, needed=False)


def _store(root: Path) -> str:
    """Return what is wrong with the folders of the object store; empty when nothing is, or there are none yet."""
    folder = root
    try:
        if not root.exists():
            return ""
        os.listdir(root)
        for folder in (root / name for name in IN_STORE):
            _try(folder if folder.exists() else root)
            if folder.exists():
                os.listdir(folder)
    except OSError as error:
        return f"{folder} cannot be written or read ({error.strerror}); {mending(root)}"
    return ""


def mending(place: Path) -> str:
    """Return what makes a folder, or a file in one, readable and writable again."""
    folder = place if place.is_dir() else place.parent
    return MOUNTED if is_mounted_read_only(folder) else RIGHTS


def _try(folder: Path) -> None:
    """Write a file without a name into a folder. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as file:
        os.fsync(file.fileno())


__all__ = ["home", "mending"]

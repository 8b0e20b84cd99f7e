"""Folders with patients in them, which nobody else on the machine may enter."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def make_home(home: Path) -> None:
    """Make the folder of a node, closed to everybody else; one that is there, empty and ours is closed too.

    One with something in it stays as it is: others may read there on purpose. Raises OSError.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not any(home.iterdir()):
        close_to_others(home)


def close_to_others(folder: Path) -> None:
    """Let only its owner into a folder that is ours and open to everybody; access of its group alone stays."""
    if folder.stat().st_uid == os.geteuid() and open_mode(folder):
        with suppress(OSError):  # a disk without modes
            folder.chmod(0o700)


def open_mode(folder: Path) -> str:
    """Return the mode of a folder that everybody on the machine may enter or list, as `755`; empty otherwise."""
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError:
        return ""
    return f"{mode:o}" if mode & 0o007 else ""


__all__ = ["close_to_others", "make_home", "open_mode"]

"""The folder of a data set while it is made: one command at a time, and nothing half made that looks whole.

A mark lies in the folder from the beginning to the end, locked by the command that makes the data set there. Who opens
a data set that still has its mark is refused (`training.evaluate.data`); the next command makes it anew.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from plugins.errors import Refused, Unavailable
from training.evaluate.data import MANIFEST, UNFINISHED

FOLDERS = ("images", "masks")
"""Folders that a data set has."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder while a data set is made in it; what a command that was stopped left of one is removed first.

    Refuses `data-set-there`, `folder-in-use` (another command makes one there) and `folder-not-empty` (images or masks
    of somebody else); raises Unavailable when it cannot be written.
    """
    mark, is_new = folder / UNFINISHED, not folder.exists()
    if not mark.exists():
        _require_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = mark.open("a")
    except OSError as error:
        raise Unavailable(f"{folder} cannot be written: {error.strerror or error}") from error
    with file:
        _lock(file, folder)
        _clear(folder)
        is_done = False
        try:
            yield
            is_done = True
        finally:
            with suppress(OSError, Unavailable):  # the mark stays when what lies beside it does
                if not (folder / MANIFEST).exists():
                    _clear(folder)
                    is_done = True
                if is_done:
                    mark.unlink()
                if is_new:
                    folder.rmdir()


def _require_free(folder: Path) -> None:
    if (folder / MANIFEST).exists():
        raise Refused(
            "data-set-there", f"{folder} holds a data set already; name another folder, or remove it"
        )
    for name in FOLDERS:
        if (folder / name).exists():
            raise Refused("folder-not-empty", f"{folder} has a folder {name} already; name another folder")


def _lock(file: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.fstat(file.fileno()).st_nlink > 0
    except OSError:
        is_ours = False
    if not is_ours:
        raise Refused(
            "folder-in-use", f"another command makes a data set in {folder}; wait for it, or name another"
        )


def _clear(folder: Path) -> None:
    """Remove what was made of a data set."""
    try:
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in FOLDERS:
            with suppress(FileNotFoundError):
                shutil.rmtree(folder / name)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be cleared: {error.strerror or error}") from error


__all__ = ["hold"]

"""Copies of files that are on disk when the call returns, and are what their hash says."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plugins.errors import Refused

BLOCK_BYTES = 1 << 20
RESTORING = ".restoring"
"""Lies in a home while a node is made there of a backup."""


def copy_checked(source: Path, target: Path, sha256: str) -> None:
    """Copy a file that must have this hash. Refuses `damaged-backup`; raises OSError. Then the target is as it was."""
    if not source.is_file():
        raise Refused("damaged-backup", f"{source} is missing")
    copy_file(source, target, sha256)


def copy_file(source: Path, target: Path, wanted: str = "") -> str:
    """Return the hash of a file after a copy is on disk under its name. Refuses (`damaged-backup`) an unwanted hash."""
    digest = hashlib.sha256()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}.half")
    try:
        with source.open("rb") as read, half.open("wb") as write:
            os.fchmod(write.fileno(), stat.S_IMODE(source.stat().st_mode))
            while block := read.read(BLOCK_BYTES):
                digest.update(block)
                write.write(block)
            write.flush()
            os.fsync(write.fileno())
        if wanted and digest.hexdigest() != wanted:
            raise Refused("damaged-backup", f"{source} is not what was written: its sha256 differs")
        half.rename(target)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads: under its name it is whole and on disk, or not there."""
    half = path.with_name(f".{path.name}.half")
    half.write_bytes(content)
    half.chmod(0o600)
    sync(half)
    half.rename(path)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(root: Path) -> None:
    """Bring the names in a folder, and in all folders below it, to disk."""
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        sync(folder)


@contextmanager
def empty_unless_made(home: Path, being_made: Path) -> Iterator[None]:
    """Give a home with nothing in it but the file that says it is being made; left empty when making it fails."""
    _empty(home, being_made)
    try:
        yield
    except BaseException:
        _empty(home, being_made)
        being_made.unlink(missing_ok=True)
        raise


def _empty(home: Path, kept: Path) -> None:
    for left in home.iterdir():
        if left != kept:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


__all__ = [
    "RESTORING",
    "copy_checked",
    "copy_file",
    "empty_unless_made",
    "sync",
    "sync_folders",
    "write_whole",
]

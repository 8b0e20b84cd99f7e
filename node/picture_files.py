"""Pictures that were drawn before, as files below the home folder: named by a hash of what they show, bounded."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 512 << 20
KEPT_SHARE = 0.8


class PictureFiles:
    """A folder of pictures that may be deleted at any time; what was not looked at for longest goes first.

    A disk that is full or read-only makes pictures slower, and nothing else.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most = most_bytes
        self._bytes: int | None = None  # not known before the folder was looked at
        self._lock = threading.Lock()

    @staticmethod
    def name(*said: object) -> str:
        """Return the name of a picture by all that it depends on, plain values."""
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def get(self, name: str) -> bytes | None:
        """Return a picture that was kept; None when there is none."""
        path = self._path(name)
        with suppress(OSError):
            found = path.read_bytes()
            os.utime(path)
            return found
        return None

    def keep(self, name: str, picture: bytes) -> None:
        """Keep a picture, and let older ones go when there are too many."""
        path = self._path(name)
        temporary = path.with_name(uuid.uuid4().hex)
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                temporary.write_bytes(picture)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            self._bound(len(picture))

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / f"{name}.png"

    def _bound(self, more: int) -> None:
        with self._lock:
            if self._bytes is not None and self._bytes + more <= self._most:
                self._bytes += more
                return
            files = [(path.stat(), path) for path in self._folder.glob("*/*")]
            total = sum(stat.st_size for stat, _ in files)
            oldest = sorted(files, key=lambda one: one[0].st_mtime) if total > self._most else []
            for stat, path in oldest:
                if total <= KEPT_SHARE * self._most:
                    break
                path.unlink(missing_ok=True)
                total -= stat.st_size
            self._bytes = total


__all__ = ["PictureFiles"]

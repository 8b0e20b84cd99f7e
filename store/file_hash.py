"""The sha256 of a file: by it an object, an upload and a copy are known again."""

from __future__ import annotations

import errno
import os
import re
import stat
from hashlib import file_digest
from pathlib import Path

SHA256 = re.compile(r"[0-9a-f]{64}")


def is_hash(name: str) -> bool:
    """Return True when a name is one that a sha256 may be: 64 lower-case hexadecimal digits."""
    return SHA256.fullmatch(name) is not None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a whole file. Raises OSError, also for a pipe, which might be waited for without end."""
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        return file_digest(file, "sha256").hexdigest()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def has_hash(path: Path, sha256: str) -> bool:
    """Return True when the file is there, can be read, and its bytes have this hash."""
    try:
        return sha256_of(path) == sha256
    except OSError:
        return False


__all__ = ["has_hash", "is_hash", "sha256_of"]

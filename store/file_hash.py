"""The sha256 of a file: by it an object, an upload and a copy are known again."""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the sha256 of a whole file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def has_hash(path: Path, sha256: str) -> bool:
    """Return True when the file is there, can be read, and its bytes have this hash."""
    try:
        return sha256_of(path) == sha256
    except OSError:
        return False


__all__ = ["has_hash", "sha256_of"]

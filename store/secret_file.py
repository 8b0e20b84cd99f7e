"""A secret that a node makes once and keeps in a file: whole from the moment it has its name, and the same for all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from plugins.errors import Refused, Unavailable
from store.checked_copy import sync
from store.object_name import NO_LINKS


def secret_of(path: Path) -> bytes:
    """Return the secret in a file, 64 hexadecimal digits when it is made here, which happens once.

    Of several who make it at one time, all get that of the first. The file is the owner's only, and on disk when this
    returns. Refuses `empty-secret`, which no secret may be; raises Unavailable.
    """
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"the file {path} cannot be made or read ({error.strerror})") from error
    if not secret.strip():
        sentence = f"{path} is empty: bring it back from a backup, or delete it, and another secret is made"
        raise Refused("empty-secret", sentence)
    return secret


def write_new(path: Path, text: str) -> None:
    """Write a file that only its owner may read: under its name it is whole and on disk, or not there.

    Raises FileExistsError when the name is taken, and OSError; then nothing is left behind.
    """
    made = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        sync(made)
        _name(made, path)
        sync(path.parent)
    finally:
        made.unlink(missing_ok=True)


def _make(path: Path) -> None:
    """Write the secret, if nobody was quicker. Raises OSError."""
    try:
        write_new(path, secrets.token_hex(32))
    except FileExistsError:
        sync(path.parent)


def _name(made: Path, path: Path) -> None:
    try:
        os.link(made, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.replace(made, path)


__all__ = ["secret_of", "write_new"]

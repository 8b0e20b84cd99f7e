"""The key of a piece of work: equal inputs, equal key."""

from __future__ import annotations

import hashlib
import re

CREDENTIALS = re.compile(r"(?<=:)//.*@", re.DOTALL)
"""Up to the last @: a password may hold one, and what else no URL may."""


def job_key(
    manifest_sha256: str, plugin: str, version: str, model_sha256: str, config_sha256: str, run: int = 0
) -> str:
    """Return the key of a job; every result UID derives from it.

    `run` is how often a person asked for the same work again: its results are others, and supersede those before.
    """
    parts = (manifest_sha256, plugin, version, model_sha256, config_sha256, *((f"run {run}",) if run else ()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def without_credentials(address: str) -> str:
    """Return a destination or URL as it may be shown and kept: without the user and password of a URL."""
    return CREDENTIALS.sub("//", address, count=1)


def destination_key(address: str) -> str:
    """Return what the outbox calls a destination: its address without password and closing slash."""
    return without_credentials(address).rstrip("/")


__all__ = ["destination_key", "job_key", "without_credentials"]

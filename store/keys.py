"""The key of a piece of work: equal inputs, equal key."""

from __future__ import annotations

import hashlib


def job_key(manifest_sha256: str, plugin: str, version: str, model_sha256: str, config_sha256: str) -> str:
    """Return the key of a job; every result UID derives from it."""
    parts = (manifest_sha256, plugin, version, model_sha256, config_sha256)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


__all__ = ["job_key"]

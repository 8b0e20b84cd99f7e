"""What foreign code said as it stopped, for people to read."""

from __future__ import annotations

UNSAFE = "weights_only"
"""Stands in every message in which torch says how to read a pickle without its protection."""


def said_by(error: Exception) -> str:
    """Return the type of an error and its message, without the message where that is such advice."""
    kind, message = type(error).__name__, str(error).strip()
    return kind if UNSAFE in message or not message else f"{kind}: {message}"


__all__ = ["said_by"]

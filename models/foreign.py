"""What foreign code said as it stopped, for people to read."""

from __future__ import annotations

import re

UNSAFE = "weights_only"
"""Stands in every message in which torch says how to read a pickle without its protection."""
ADDRESS = re.compile(r" object at 0x[0-9a-fA-F]+")
MOST_CAUSES = 8


def said_by(error: BaseException) -> str:
    """Return the type of an error and its message, and those of the errors that it names as its causes.

    A message that is such advice is left out, and so is where in memory an object lay.
    """
    said: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(said) < MOST_CAUSES:
        kind, message = type(cause).__name__, ADDRESS.sub("", str(cause)).strip()
        said.append(kind if UNSAFE in message or not message else f"{kind}: {message}")
        cause = cause.__cause__
    return ", because of ".join(said)


__all__ = ["said_by"]

"""Settings that are paths: `~` is the folder of a person, as in a shell."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


def without_tilde(value: Value) -> Value:
    """Return a path, or each of several, with the folder that its `~` or `~name` stands for; any other value as it is.

    Raises ValueError for a person whom this machine does not know.
    """
    if isinstance(value, tuple):
        return type(value)(map(without_tilde, value))
    if not isinstance(value, Path):
        return value
    try:
        return value.expanduser()
    except RuntimeError as error:
        raise ValueError(f"'{value}' begins with a person who has no folder here") from error


__all__ = ["without_tilde"]

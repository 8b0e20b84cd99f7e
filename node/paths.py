"""Settings that are paths: `~` is the folder of a person, as in a shell, and nothing is not the folder one is in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator

Value = TypeVar("Value")


def _none_for_nothing(value: object) -> object:
    return None if _is_nothing(value) else value


def _no_nothing(value: object) -> object:
    if _is_nothing(value):
        raise ValueError("name a folder, as ~/.nadir")
    return value


def _is_nothing(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


MaybePath = Annotated[Path | None, BeforeValidator(_none_for_nothing)]
"""A path, or none: so is an empty text, as a variable that is set to nothing."""
HomePath = Annotated[Path, BeforeValidator(_no_nothing)]
"""A folder that has to be named: an empty text is refused."""


def without_tilde(value: Value) -> Value:
    """Return a path, or each of several, with the folder that its `~` or `~name` stands for; any other value as it is.

    Raises ValueError for a person whom this machine does not know, and for a name that no file can have.
    """
    if isinstance(value, tuple):
        return type(value)(map(without_tilde, value))
    if not isinstance(value, Path):
        return value
    if "\0" in str(value):
        raise ValueError("no file or folder has a NUL character in its name")
    try:
        return value.expanduser()
    except RuntimeError as error:
        raise ValueError(f"'{value}' begins with a person who has no folder here") from error


__all__ = ["HomePath", "MaybePath", "without_tilde"]

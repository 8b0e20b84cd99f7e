"""What one setting of an experiment has to be, and the sentence that refuses what it is instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from plugins.errors import Refused

KINDS = {
    str: "a text",
    bool: "a truth value",
    int: "a whole number",
    float: "a number with a point",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a setting has to be."""

    says: str
    """The same in words: it is written as ..."""
    fits: Callable[[object], bool]
    """Return whether a value is that."""


A_TEXT = Wanted(says="a text", fits=lambda value: isinstance(value, str) and value != "")
A_FLAG = Wanted(says="true or false", fits=lambda value: isinstance(value, bool))
A_TABLE = Wanted(says="a table of keys and values", fits=lambda value: isinstance(value, dict))


def whole(least: int, most: int | None = None) -> Wanted:
    """Return what a whole number from `least` to `most` is."""
    up_to = "" if most is None else f" and at most {most}"
    return Wanted(
        says=f"a whole number that is at least {least}{up_to}",
        fits=lambda value: type(value) is int and least <= value and (most is None or value <= most),
    )


def number(
    least: float, *, below: float = math.inf, most: float = math.inf, is_above: bool = False
) -> Wanted:
    """Return what a finite number from `least`, or above it, to less than `below` and at most `most` is."""
    words = f"a number {'above' if is_above else 'that is at least'} {least:g}"
    words += "" if math.isinf(below) else f" and below {below:g}"
    words += "" if math.isinf(most) else f" and at most {most:g}"
    return Wanted(
        says=words,
        fits=lambda value: (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and (least < value if is_above else least <= value)
            and value < below
            and value <= most
        ),
    )


def require(value: object, wanted: Wanted, key: str, path: Path) -> None:
    """Refuse (`bad-experiment`) a value that is not what is wanted; says which key of which file it is."""
    if not wanted.fits(value):
        is_ = "empty" if value is None else f"{value!r}, {KINDS.get(type(value), type(value).__name__)}"
        raise Refused("bad-experiment", f"{key} in {path} is {is_}; write {_better(value, wanted)}")


def _better(value: object, wanted: Wanted) -> str:
    """Return what to write: the number that a text was meant for, when there is one."""
    meant: int | float | None = None
    if isinstance(value, str):
        with suppress(ValueError):
            meant = int(value) if value.strip().isdecimal() else float(value)
    if meant is None or not wanted.fits(meant):
        return wanted.says
    return f"{meant!r} without quotes (YAML takes 1e-3 for a text and 1.0e-3 for a number)"


__all__ = ["A_FLAG", "A_TABLE", "A_TEXT", "Wanted", "number", "require", "whole"]

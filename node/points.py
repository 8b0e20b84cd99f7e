"""Points and boxes as people write them on a command line."""

from __future__ import annotations

import math

from plugins.contract import Point
from plugins.errors import Refused


def numbers_of(text: str, count: int, what: str) -> tuple[float, ...]:
    """Return the numbers of `1,2.5,-3`. Refuses `bad-numbers` when they are not as many as that, or not finite."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count or not all(math.isfinite(number) for number in found):
        sentence = f"{what} takes {count} numbers with commas between them, in mm; not '{text}'"
        raise Refused("bad-numbers", sentence)
    return found


def point_of(text: str) -> Point:
    """Return the point `x,y,z` in mm. Refuses `bad-numbers`."""
    x, y, z = numbers_of(text, 3, "--at")
    return (x, y, z)


__all__ = ["numbers_of", "point_of"]

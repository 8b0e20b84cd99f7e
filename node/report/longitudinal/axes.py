"""Where a number lies on a chart: scales, ticks, and labels that do not cover each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The frame that points are drawn in; lengths in points (1/72 inch), the origin at the lower left."""

    left: float
    """x of the left edge."""
    bottom: float
    """y of the lower edge."""
    width: float
    """Width of the frame."""
    height: float
    """Height of the frame."""
    lowest: float
    """Value at the lower edge."""
    highest: float
    """Value at the upper edge."""
    first: float
    """Value at the left edge."""
    last: float
    """Value at the right edge."""

    @property
    def right(self) -> float:
        """Return x of the right edge."""
        return self.left + self.width

    @property
    def top(self) -> float:
        """Return y of the upper edge."""
        return self.bottom + self.height

    def x(self, value: float) -> float:
        """Return where a value lies from left to right."""
        span = self.last - self.first
        return self.left + self.width * ((value - self.first) / span if span else 0.5)

    def y(self, value: float) -> float:
        """Return where a value lies from below; one outside of the scale lies on its edge."""
        share = (value - self.lowest) / (self.highest - self.lowest)
        return self.bottom + self.height * min(max(share, 0.0), 1.0)


def step_of(span: float, most: int) -> float:
    """Return the smallest of 1, 2, 2.5, 5 times a power of ten that parts `span` into at most `most` steps."""
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    return next(n * power for n in NICE if n * power >= raw * (1 - 1e-9))


def ticks(lowest: float, highest: float, most: int = 6) -> list[float]:
    """Return round values from `lowest` to `highest`, both inside."""
    step = step_of(highest - lowest, most)
    first, last = math.ceil(lowest / step - 1e-9), math.floor(highest / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Return positions near `wanted`, in the same order along the line, at least `apart` from each other.

    They stay within `low` and `high` as far as there is room; where there is none they come closer together.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    if len(order) > 1:
        apart = min(apart, (high - low) / (len(order) - 1))
    placed = [0.0] * len(wanted)
    floor = low
    for i in order:
        placed[i] = max(wanted[i], floor)
        floor = placed[i] + apart
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - apart
    return placed


def rows_without_overlap(middles: Sequence[float], widths: Sequence[float], rows: int) -> list[int | None]:
    """Return the row for each label, the first in which it covers none before it; None when there is no room.

    `middles` grow; the first and the last label are placed before the others, because they say most.
    """
    ends: list[list[tuple[float, float]]] = [[] for _ in range(rows)]
    chosen: list[int | None] = [None] * len(middles)
    count = len(middles)
    for i in [*dict.fromkeys([0, count - 1]), *range(1, count - 1)] if count else []:
        low, high = middles[i] - widths[i] / 2 - 2, middles[i] + widths[i] / 2 + 2
        for row in range(rows):
            if all(high <= a or low >= b for a, b in ends[row]):
                ends[row].append((low, high))
                chosen[i] = row
                break
    return chosen


__all__ = ["Axes", "rows_without_overlap", "spread", "step_of", "ticks"]

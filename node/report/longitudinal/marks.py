"""Marks, dashes, inks and hatches: what tells one line or bar from another without colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reportlab.graphics.shapes import Circle, Drawing, Line, Polygon, Rect
from reportlab.lib import colors

INKS = tuple(
    map(colors.HexColor, ("#0b4f8a", "#a3431b", "#1a6b3c", "#6b3fa0", "#7a5c00", "#12737a", "#8f1d5b"))
)
DASHES: tuple[Sequence[float] | None, ...] = (None, (5, 2), (1.5, 1.8), (7, 2, 1.5, 2))
CORNERS: tuple[Sequence[float], ...] = (
    (45, 135, 225, 315),
    (90, 210, 330),
    (0, 90, 180, 270),
    (270, 30, 150),
    (90, 162, 234, 306, 18),
)
"""Directions of the corners of the marks that have some, degrees; the first mark is a disc."""
APART = 4.0
"""Points between the lines or dots of a pattern."""
INK = colors.HexColor("#1b2530")
COMPLETE, PARTIAL, STABLE, PROGRESSION = "complete", "partial", "stable", "progression"
PATTERNS = {
    "CR": COMPLETE, "iCR": COMPLETE, "CMR": COMPLETE,
    "PR": PARTIAL, "iPR": PARTIAL, "PMR": PARTIAL,
    "SD": STABLE, "iSD": STABLE, "SMD": STABLE, "NMR": STABLE, "NON-CR/NON-PD": STABLE,
    "NON-iCR/NON-iUPD": STABLE,
    "PD": PROGRESSION, "iUPD": PROGRESSION, "iCPD": PROGRESSION, "PMD": PROGRESSION,
}  # fmt: skip
"""The pattern of each verdict; of what is not here, dots."""


def mark(drawing: Drawing, x: float, y: float, number: int, radius: float = 2.9) -> None:
    """Draw the mark of the lesion of this number: one of six shapes, filled, then hollow."""
    ink = INKS[number % len(INKS)]
    shapes = len(CORNERS) + 1
    fill = ink if (number // shapes) % 2 == 0 else colors.white
    shape = number % shapes
    if shape == 0:
        drawing.add(Circle(x, y, radius, fillColor=fill, strokeColor=ink, strokeWidth=0.9))
        return
    reach = radius * 1.25
    corners = [
        v
        for turn in CORNERS[shape - 1]
        for v in (x + reach * math.cos(math.radians(turn)), y + reach * math.sin(math.radians(turn)))
    ]
    drawing.add(Polygon(corners, fillColor=fill, strokeColor=ink, strokeWidth=0.9))


def hatched(drawing: Drawing, left: float, bottom: float, width: float, height: float, verdict: str) -> None:
    """Draw a bar in the pattern of a verdict.

    Complete response is black, partial response has slanted lines, stable disease is empty, progression has lines both
    ways, and what is none of these has dots.
    """
    pattern = PATTERNS.get(verdict)
    fill = INK if pattern == COMPLETE else colors.white
    drawing.add(Rect(left, bottom, width, height, fillColor=fill, strokeColor=INK, strokeWidth=0.6))
    if pattern in (PARTIAL, PROGRESSION):
        _slanted(drawing, left, bottom, width, height, rising=True)
    if pattern == PROGRESSION:
        _slanted(drawing, left, bottom, width, height, rising=False)
    if pattern is None:
        _dotted(drawing, left, bottom, width, height)


def _slanted(
    drawing: Drawing, left: float, bottom: float, width: float, height: float, *, rising: bool
) -> None:
    """Draw lines of 45 degrees inside a bar."""
    for number in range(1, int((width + height) / APART) + 1):
        offset = number * APART - height
        x1, x2 = max(offset, 0.0), min(offset + height, width)
        if x2 <= x1:
            continue
        y1, y2 = x1 - offset, x2 - offset
        if not rising:
            y1, y2 = height - y1, height - y2
        drawing.add(Line(left + x1, bottom + y1, left + x2, bottom + y2, strokeColor=INK, strokeWidth=0.5))


def _dotted(drawing: Drawing, left: float, bottom: float, width: float, height: float) -> None:
    columns = max(1, int(width / APART))
    for row in range(int(height / APART)):
        for column in range(columns):
            x, y = left + width * (column + 0.5) / columns, bottom + APART * (row + 0.5)
            drawing.add(Circle(x, y, 0.5, fillColor=INK, strokeColor=None))


__all__ = ["DASHES", "INKS", "hatched", "mark"]

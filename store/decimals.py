"""Numbers as people read them: rounded half up, as the criteria round lengths, so that one number looks like one."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, localcontext


def in_decimals(value: float, digits: int = 1) -> str:
    """Return a number with so many decimals, half up as it is written in decimals: 12.25 is 12.3."""
    with localcontext(rounding=ROUND_HALF_UP):
        return f"{Decimal(repr(float(value))):.{digits}f}"


__all__ = ["in_decimals"]

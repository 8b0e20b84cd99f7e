"""Settings that are quantities: how large they may be, so that dates and timers can be reckoned with them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

MOST_SECONDS = 1e9
MOST_DAYS = 365_000
MOST_BYTES = 1 << 62
MOST = 1_000_000


def _no_switch(value: object) -> object:
    """Return what is not true or false, which would count as 1 or 0. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError(f"it is a number, not {str(value).lower()}")
    return value


Whole = Annotated[int, BeforeValidator(_no_switch)]
Number = Annotated[float, BeforeValidator(_no_switch)]
Seconds = Annotated[Number, Field(le=MOST_SECONDS)]
"""At most 31 years."""
Days = Annotated[Whole, Field(le=MOST_DAYS)]
"""At most a thousand years."""
Bytes = Annotated[Whole, Field(le=MOST_BYTES)]
Count = Annotated[Whole, Field(le=MOST)]


__all__ = [
    "MOST",
    "MOST_BYTES",
    "MOST_DAYS",
    "MOST_SECONDS",
    "Bytes",
    "Count",
    "Days",
    "Number",
    "Seconds",
    "Whole",
]

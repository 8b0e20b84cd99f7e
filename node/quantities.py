"""Settings that are quantities: how large they may be, so that dates and timers can be reckoned with them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST_SECONDS = 1e9
MOST_DAYS = 365_000
MOST_BYTES = 1 << 62
MOST = 1_000_000

Seconds = Annotated[float, Field(le=MOST_SECONDS)]
"""At most 31 years."""
Days = Annotated[int, Field(le=MOST_DAYS)]
"""At most a thousand years."""
Bytes = Annotated[int, Field(le=MOST_BYTES)]
Count = Annotated[int, Field(le=MOST)]


__all__ = ["MOST", "MOST_BYTES", "MOST_DAYS", "MOST_SECONDS", "Bytes", "Count", "Days", "Seconds"]

"""Time zones by name."""

from __future__ import annotations

from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UTC: Final = ZoneInfo("UTC")


def known_zone(name: str) -> str:
    """Return the name of a time zone. Raises ValueError when this machine does not know it."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"'{name}' is no time zone that is known here") from error
    return name


__all__ = ["UTC", "known_zone"]

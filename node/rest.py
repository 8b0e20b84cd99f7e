"""How long something is left alone, by a clock that may be put right meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Rest:
    """A time in which something is left alone; without one, none."""

    began: datetime = NEVER
    """When it began."""
    lasting: timedelta = timedelta(0)
    """How long it is."""

    def holds(self, now: datetime) -> bool:
        """Return whether it goes on; one that has yet to begin was begun by a clock that ran ahead, and is over."""
        return self.began <= now and now - self.began < self.lasting

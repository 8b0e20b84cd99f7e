"""One line of what the doctor says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that was examined."""

    what: str
    """What was looked at."""
    ok: bool
    """True when it is as it should be."""
    says: str
    """What was found, or what to do."""
    needed: bool = True
    """False for what the node can do without."""

    def plain(self) -> dict[str, object]:
        """Return it for JSON."""
        return {"what": self.what, "ok": self.ok, "needed": self.needed, "says": self.says}


__all__ = ["Line"]

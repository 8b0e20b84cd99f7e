"""What `nadir fsck` found: one broken promise, what it concerns, and who can mend it."""

from __future__ import annotations

from dataclasses import dataclass

RESTORE = "restore the database from a copy"
REPAIR = "run nadir fsck --repair"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is not as the node promises."""

    invariant: str
    """`I1` to `I6`, or `ledger`, `disk`, `database`, `models`, `evaluations` for what breaks none of them yet."""
    code: str
    """Lower-case word with hyphens."""
    subject: str
    """Our own name of what it concerns: a sha256, a row as `job 7`, a path below the store, escaped."""
    sentence: str
    """What is wrong, for people; no patient's data."""
    todo: str
    """What a person does about it, when it cannot be mended safely or nobody asked for that."""
    young: bool = False
    """True when a live node may be at it right now: look again before believing it."""


__all__ = ["REPAIR", "RESTORE", "Fault"]

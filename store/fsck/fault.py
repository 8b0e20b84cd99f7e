"""What `nadir fsck` found: one broken promise, what it concerns, and who can mend it."""

from __future__ import annotations

from dataclasses import dataclass

RESTORE = "restore the database from a copy"
REPAIR = "run nadir fsck --repair"
NOT_OURS = "look what it is and who put it there, then take it out of the folder"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is not as the node promises."""

    invariant: str
    """`I1` to `I6`, or `ledger`, `disk`, `database`, `models`, `evaluations`, `training`: that breaks none of them."""
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


def unreadable(subject: str, error: OSError) -> Fault:
    """Return the fault of what could not be looked at; `error` says why, and what file where it knows.

    `subject` may be a foreign name.
    """
    if isinstance(error, PermissionError):
        todo = "let the user that runs nadir read it (chown or chmod), then run nadir fsck again"
    else:
        todo = "look whether its disk is sound and mounted, then run nadir fsck again"
    name = shown(str(error.filename or subject))
    return Fault(
        invariant="disk",
        code="unreadable",
        subject=shown(subject),
        sentence=f"{name} cannot be read ({error.strerror}): what lies there is not known.",
        todo=todo,
        young=isinstance(error, FileNotFoundError),  # a live node took it away meanwhile
    )


def database_damaged(sentence: str) -> Fault:
    """Return the fault of a database that cannot be read, or says so of itself."""
    return Fault(
        invariant="database", code="database-damaged", subject="database", sentence=sentence, todo=RESTORE
    )


def shown(name: str) -> str:
    """Return a foreign file name as one harmless line."""
    return name.encode("unicode_escape", "surrogateescape").decode("ascii")[:200]


__all__ = ["NOT_OURS", "REPAIR", "RESTORE", "Fault", "database_damaged", "shown", "unreadable"]

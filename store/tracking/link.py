"""What became of a lesion from one time point to the next, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

UNCOMPARED = "not all earlier lesions could be compared"
"""How the reason of a link ends where nobody knows whether the lesion is new."""


class Kind(StrEnum):
    """What became of it."""

    SAME = "same"
    CUT = "cut-by-field-of-view"
    NEW = "new"
    GONE = "disappeared"
    SPLIT = "split"
    MERGED = "merged"
    OUT_OF_VIEW = "outside-field-of-view"
    REDRAWN = "re-segmented"
    NOT_SEGMENTED = "visible-not-segmented"


@dataclass(frozen=True, kw_only=True)
class Link:
    """One decision of the tracking, made before anything is written."""

    kind: Kind
    """What became of it."""
    tracking_uid: str
    """The lesion's identity from here on (of an earlier lesion that is gone or out of view: its own)."""
    tracking_identifier: str
    """Its Tracking ID."""
    finding: str | None
    """`Finding.key` of what it is at this time point; None for gone, out of view and not segmented."""
    earlier: tuple[str, ...]
    """Tracking UIDs of what it was before: none when new, several when merged."""
    study_instance_uid: str
    """The earlier study that it was compared with; empty when there was none."""
    confidence: float
    """0 to 1."""
    reason: str
    """The numbers that decided it, in words (`4.2 mm from where it was expected, overlap 0.71, volume 1.3 times`)."""
    expected_mm: tuple[float, float, float] | None = None
    """Where the earlier lesion was expected at this time point, LPS mm."""


def was_compared(reason: str) -> bool:
    """Return whether a lesion that a link with this reason calls new was laid beside all earlier ones."""
    return not reason.endswith(UNCOMPARED)


__all__ = ["UNCOMPARED", "Kind", "Link", "was_compared"]

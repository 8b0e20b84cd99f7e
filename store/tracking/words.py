"""What became of lesions, in sentences for the reader of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plugins.contract import Flag
from store.tracking.link import Kind, Link

DOUBTFUL = 0.5
"""Links that are less sure are told as doubtful."""
SAID = {
    Kind.NEW: ("lesion-new", "was not seen before; a reader must confirm it before it counts"),
    Kind.GONE: ("lesion-disappeared", "is no longer seen"),
    Kind.OUT_OF_VIEW: ("lesion-out-of-view", "cannot be judged, which does not mean that it is gone"),
    Kind.CUT: ("lesion-cut", "is cut by the end of the scan, so its size is not judged"),
    Kind.NOT_SEGMENTED: (
        "lesion-not-segmented",
        "seems to be there and was not segmented; measure it by hand",
    ),
    Kind.REDRAWN: ("lesion-redrawn", "was drawn from where it was expected"),
    Kind.SPLIT: ("lesion-split", "is a part of what was one lesion"),
    Kind.MERGED: ("lesion-merged", "is what several lesions have become"),
}
"""Code and words of each kind; that a lesion is the same needs none unless it is doubtful."""


def flags_of(links: Sequence[Link], dates: Mapping[str, str], plugin: str) -> tuple[Flag, ...]:
    """Return what a reader needs to know of links; `dates` are those of the studies they were compared with."""
    flags: list[Flag] = []
    for link in links:
        since = (
            f" (compared with {dates[link.study_instance_uid]})" if link.study_instance_uid in dates else ""
        )
        name = f"'{link.tracking_identifier}'"
        if link.kind in SAID:
            code, words = SAID[link.kind]
            flags.append(Flag(code=code, sentence=f"{name} {words}: {link.reason}{since}.", plugin=plugin))
        if link.finding is not None and link.confidence < DOUBTFUL and link.kind is not Kind.NEW:
            words = f"may be another lesion than before, confidence {link.confidence:.2f}"
            flags.append(
                Flag(code="lesion-doubtful", sentence=f"{name} {words}: {link.reason}{since}.", plugin=plugin)
            )
    return tuple(flags)


__all__ = ["flags_of"]

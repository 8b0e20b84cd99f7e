"""What became of lesions, in sentences for the reader of a report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from plugins.contract import Flag
from store.tracking.link import Kind, Link, was_compared

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
NEW_BY_HAND = "was not seen before and counts as new, as a person drew it"


def flags_of(
    links: Sequence[Link], dates: Mapping[str, str], plugin: str, by_hand: Collection[str] = ()
) -> tuple[Flag, ...]:
    """Return what a reader needs to know of links; `dates` are those of the studies they were compared with.

    `by_hand` are the keys of the findings that people drew.
    """
    flags: list[Flag] = []
    for link in links:
        since = (
            f" (compared with {dates[link.study_instance_uid]})" if link.study_instance_uid in dates else ""
        )
        name = f"'{link.tracking_identifier}'"
        if link.kind in SAID:
            code, words = SAID[link.kind]
            if link.kind is Kind.NEW and link.finding in by_hand and was_compared(link.reason):
                words = NEW_BY_HAND
            flags.append(Flag(code=code, sentence=f"{name} {words}: {link.reason}{since}.", plugin=plugin))
        if link.finding is not None and link.confidence < DOUBTFUL and link.kind is not Kind.NEW:
            words = f"may be another lesion than before, confidence {link.confidence:.2f}"
            flags.append(
                Flag(code="lesion-doubtful", sentence=f"{name} {words}: {link.reason}{since}.", plugin=plugin)
            )
    return tuple(flags)


__all__ = ["flags_of"]

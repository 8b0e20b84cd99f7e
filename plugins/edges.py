"""Doubts about how large a lesion is, such as that of one that reaches the edge of the images."""

from __future__ import annotations

from collections.abc import Sequence

from plugins.contract import Flag, Mask, Volume


def doubts_of_edge(mask: Mask, volume: Volume, measured: Sequence[slice] | None = None) -> tuple[Flag, ...]:
    """Return the doubt about a mask that touches edges of the grid, or of what was measured of it; else none."""
    named = (("first slice", "last slice"), ("first row", "last row"), ("first column", "last column"))
    sides_of = measured or [slice(0, size) for size in mask.shape]
    ends = zip(named, mask.origin, mask.voxels.shape, sides_of, strict=True)
    sides = [
        word
        for (first, last), o, n, side in ends
        for word, there in ((first, o == side.start), (last, o + n == side.stop))
        if there
    ]
    words = f"it reaches the edge of the images ({', '.join(sides)}), beyond which it may go on"
    return (doubt("reaches-image-edge", words, volume),) if sides else ()


def doubt(code: str, words: str, volume: Volume) -> Flag:
    """Return a doubt about how large a lesion of a series is."""
    return Flag(
        code=code,
        sentence=f"{words}; do not take its size as it is",
        series_instance_uid=volume.series_instance_uid,
    )


__all__ = ["doubt", "doubts_of_edge"]

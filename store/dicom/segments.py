"""SEG objects to masks on the grid of the series they were made from."""

from __future__ import annotations

from collections.abc import Sequence

from plugins.contract import Drawn, Flag, Volume
from store.dicom.files import File


def read_segments(file: File, volumes: Sequence[Volume]) -> tuple[tuple[Drawn, ...], tuple[Flag, ...]]:
    """Return the segments on their series, and a refusal for each that cannot be used."""
    return (), (Flag(code="seg-without-image", sentence="not yet"),)

"""The files of one series out of a PACS: by one request, or one by one where it does not give the series as such."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from node.pacs import DicomWeb
from plugins.errors import Refused

NOT_GIVEN = frozenset({"pacs-unknown", "pacs-refused"})
"""Refusals that are about what was asked for."""


def series_files(
    dicomweb: DicomWeb,
    study: str,
    series: str,
    sops: Sequence[str],
    new_path: Callable[[], Path],
    *,
    whole: bool,
) -> Generator[Path, None, None]:
    """Yield the file of each instance that the PACS gives of those that are wanted, `whole` when they are the series.

    What it refuses of one instance is left out; Refused, as `DicomWeb`, where it denies access. Raises Unavailable.
    """
    # One request for a series of which nothing is held: a request per slice costs more than the slice.
    if whole and len(sops) > 1:
        try:
            yield from dicomweb.retrieve_series(study, series, new_path)
            return
        except Refused as refused:
            if refused.code not in NOT_GIVEN:
                raise
    # To Orthanc a series whose images name two patients is two series of one name, and it gives neither.
    for sop in sops:
        path = new_path()
        try:
            dicomweb.retrieve_instance(study, series, sop, path)
        except Refused as refused:
            if refused.code not in NOT_GIVEN:
                raise
            continue
        yield path


__all__ = ["series_files"]

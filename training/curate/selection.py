"""Which series of a collection are wanted: what an archive says of a series, and what is chosen of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RemoteSeries:
    """One series that an archive says it has."""

    series_instance_uid: str
    """Series Instance UID."""
    study_instance_uid: str = ""
    """Study Instance UID; empty when the archive does not tell."""
    patient_id: str = ""
    """PatientID."""
    modality: str = ""
    """Modality."""
    collection: str = ""
    """Collection, as the archive names it."""
    instances: int | None = None
    """Number of instances; None when the archive does not tell."""
    size_bytes: int | None = None
    """Length of all instances; None when the archive does not tell."""
    version: str = ""
    """Changes when the archive changes the series."""
    licence: str = ""
    """Name of the licence."""
    licence_uri: str = ""
    """Where the licence is to be read."""
    citation: str = ""
    """What is to be cited, a DOI as a URL."""
    where: str = ""
    """Where the archive keeps the files, in its own words."""

    def plain(self) -> dict[str, Any]:
        """Return what is written beside the data."""
        return {key: value for key, value in vars(self).items() if value not in ("", None) and key != "where"}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is wanted of a collection; empty means all."""

    modalities: frozenset[str] = frozenset()
    """Modalities, in capitals."""
    patients: frozenset[str] = frozenset()
    """PatientIDs."""
    series: frozenset[str] = frozenset()
    """Series Instance UIDs."""
    at_most_series: int | None = None
    """Number of series."""
    at_most_bytes: int | None = None
    """Length of them together, as the archive tells it."""

    def plain(self) -> dict[str, Any]:
        """Return what was asked for, for the record."""
        return {
            key: sorted(value) if isinstance(value, frozenset) else value
            for key, value in vars(self).items()
            if value
        }


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is to be downloaded, and how much of the collection is not."""

    series: tuple[RemoteSeries, ...]
    """In order of patient, study and series."""
    left_out: dict[str, int]
    """Number of series by the reason they are left out for."""

    @property
    def size_bytes(self) -> int:
        """Length of all that is chosen, as far as the archive tells it."""
        return sum(one.size_bytes or 0 for one in self.series)


def choose(offered: Iterable[RemoteSeries], selection: Selection) -> Chosen:
    """Return what is chosen of a collection; a series that is offered twice is one.

    The same series are chosen each time, and with a higher limit the same ones and more. A series whose length the
    archive does not tell counts nothing against `at_most_bytes`.
    """
    distinct = {one.series_instance_uid: one for one in offered}
    order = sorted(
        distinct.values(), key=lambda s: (s.patient_id, s.study_instance_uid, s.series_instance_uid)
    )
    chosen: list[RemoteSeries] = []
    left_out: dict[str, int] = {}
    size_bytes = 0
    is_full = False
    for one in order:
        why = _unwanted(one, selection)
        if not why:
            too_many = selection.at_most_series is not None and len(chosen) >= selection.at_most_series
            too_long = selection.at_most_bytes is not None and (
                size_bytes + (one.size_bytes or 0) > selection.at_most_bytes
            )
            is_full = is_full or too_many or too_long
            why = "beyond the limit" if is_full else ""
        if why:
            left_out[why] = left_out.get(why, 0) + 1
        else:
            chosen.append(one)
            size_bytes += one.size_bytes or 0
    return Chosen(series=tuple(chosen), left_out=left_out)


def _unwanted(one: RemoteSeries, selection: Selection) -> str:
    if selection.modalities and one.modality not in selection.modalities:
        return f"modality {one.modality or 'unknown'}"
    if selection.patients and one.patient_id not in selection.patients:
        return "other patients"
    if selection.series and one.series_instance_uid not in selection.series:
        return "other series"
    return ""


__all__ = ["Chosen", "RemoteSeries", "Selection", "choose"]

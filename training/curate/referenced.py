"""Which image series the objects of a folder speak of and are not there: SEG, RTSTRUCT, SR and the XML of LIDC-IDRI."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from plugins.errors import Absent, Refused, Unavailable
from store.part10 import scan_header
from store.walk import all_files_under
from training.curate.lidc_xml import read_lidc_xml
from training.curate.series_files import UID, WORKPLACE, SeriesFiles

NO_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.66",
    "1.2.840.10008.5.1.4.1.1.88.",
    "1.2.840.10008.5.1.4.1.1.11.",
    "1.2.840.10008.5.1.4.1.1.104.",
    "1.2.840.10008.5.1.4.1.1.481.3",
    "1.2.840.10008.5.1.4.1.1.481.5",
    "1.2.840.10008.5.1.4.1.1.67",
)
"""SOP classes, or how they begin (PS3.4 B.5): registration and SEG, SR, presentation states, PDF, RTSTRUCT and plan."""
TOWARDS = (
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
    "RTReferencedStudySequence",
    "RTReferencedSeriesSequence",
    "CurrentRequestedProcedureEvidenceSequence",
    "PertinentOtherEvidenceSequence",
)
"""Sequences that lead to items with a Series Instance UID (PS3.3 C.12.4, C.8.8.5, C.17.2)."""
INSTANCES = ("ReferencedInstanceSequence", "ReferencedSOPSequence", "ContourImageSequence")
MAX_DEPTH = 6


@dataclass(kw_only=True)
class Spoken:
    """What the objects of a folder speak of, and what is there."""

    images: dict[str, set[str]] = field(default_factory=dict)
    """SOP Instance UIDs of images that are spoken of, by series; none named means the series."""
    there: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Files of images that are there, by series and SOP Instance UID."""
    mute: list[Path] = field(default_factory=list)
    """Objects that ought to name a series of images and name none that can be read."""

    def needs(self, out: Path) -> dict[str, frozenset[str]]:
        """Return what is missing by series: the named instances, or all when nothing of the series is there.

        What an earlier download brought to `out` is left to that download to judge, unless it was whole.
        """
        found: dict[str, frozenset[str]] = {}
        for uid, sops in sorted(self.images.items()):
            there = {sop for sop, path in self.there.get(uid, {}).items() if path.parent != out / uid}
            if not there:
                if SeriesFiles(out, uid).complete_version is None:
                    found[uid] = frozenset()
            elif missing := sops - there - SeriesFiles(out, uid).kept.keys():
                found[uid] = frozenset(missing)
        return found

    def md5s(self, uids: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        """Return the MD5s of the files that are there of the series of which some instances are missing."""
        return {
            uid: frozenset(
                hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                for path in self.there.get(uid, {}).values()
            )
            for uid, sops in uids.items()
            if sops
        }


def listen(folder: Path) -> Spoken:
    """Return what the files under a folder speak of. Refuses `no-folder` and `closed-folder`."""
    if not folder.is_dir():
        raise Refused("no-folder", f"there is no folder {folder}")
    spoken = Spoken()
    for path in all_files_under(folder):
        if WORKPLACE not in path.parts:
            if path.suffix.lower() == ".xml":
                _hear_xml(path, spoken)
            else:
                _hear(path, spoken)
    return spoken


def _hear(path: Path, spoken: Spoken) -> None:
    try:
        header = scan_header(path)
    except (Refused, Unavailable):
        return
    if not header.sop_class_uid.startswith(NO_IMAGES):
        files = spoken.there.setdefault(header.series_instance_uid, {})
        files.setdefault(header.sop_instance_uid, path)
        return
    found: dict[str, set[str]] = {}
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TOWARDS))
        for uid, sops in _series(dataset):
            found.setdefault(uid, set()).update(sops)
    except Exception as error:  # pydicom raises whatever the bytes make it raise
        raise Refused("unreadable-object", f"{path} cannot be read ({type(error).__name__})") from error
    _add(found, path, spoken)


def _series(dataset: Dataset, depth: int = 0) -> Iterator[tuple[str, set[str]]]:
    """Yield the image series that a dataset refers to, with the instances it names of each."""
    if depth > MAX_DEPTH:
        return
    for name in TOWARDS:
        for item in dataset.get(name) or ():
            uid = str(item.get("SeriesInstanceUID") or "").strip()
            named = [one for sequence in INSTANCES for one in item.get(sequence) or ()]
            images = [
                one for one in named if not str(one.get("ReferencedSOPClassUID", "")).startswith(NO_IMAGES)
            ]
            if UID.fullmatch(uid) and (images or not named):
                sops = {str(one.get("ReferencedSOPInstanceUID") or "").strip() for one in images}
                yield uid, {sop for sop in sops if UID.fullmatch(sop)}
            yield from _series(item, depth + 1)


def _hear_xml(path: Path, spoken: Spoken) -> None:
    try:
        reading = read_lidc_xml(path)
    except Absent:
        return
    except Refused:
        _add({}, path, spoken)
        return
    drawn = {contour.sop_instance_uid for _, one in reading.annotations() for contour in one.contours}
    marked = {mark.sop_instance_uid for _, mark in reading.marks()}
    _add({reading.series_instance_uid: drawn | marked}, path, spoken)


def _add(found: Mapping[str, set[str]], path: Path, spoken: Spoken) -> None:
    if not found:
        spoken.mute.append(path)
    for uid, sops in found.items():
        spoken.images.setdefault(uid, set()).update(sops)


__all__ = ["Spoken", "listen"]

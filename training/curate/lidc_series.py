"""The CT series that readings of LIDC-IDRI speak of, found by their UID in a folder of DICOM files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plugins.contract import Flag, Volume
from plugins.errors import Refused
from store.dicom.files import File, read_file
from store.dicom.headers import Headers
from store.dicom.values import integer, number, numbers, quiet, text
from store.dicom.volumes import read_volume
from store.walk import files_under
from training.curate.lidc_sizes import Scale

SAME_POSITION_DIGITS = 2
"""Two images whose positions are equal to 0.01 mm lie at one place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CtSeries:
    """One series with what its outlines are placed by."""

    volume: Volume
    """The CT in HU, `(K, R, C)`."""
    slice_of: Mapping[str, int]
    """Slice k of each SOP Instance UID; images at one place are one slice."""
    scale: Scale
    """What turns indices into mm."""
    patient_id: str
    """PatientID, public in this collection."""
    scanner: str
    """Manufacturer and model."""


def find_series(
    folder: Path, wanted: Collection[str], tell: Callable[[Path], None] = lambda path: None
) -> tuple[dict[str, list[Path]], tuple[Flag, ...]]:
    """Return the files of each wanted series under a folder, by Series Instance UID, and which files are damaged.

    `tell` is called with every file before it is looked at.
    """
    found: dict[str, list[Path]] = {}
    files, closed = files_under(folder)
    damaged = [Flag(code=one.code, sentence=one.sentence) for one in closed]
    headers = Headers()
    with quiet():
        for path in files:
            tell(path)
            try:
                file = read_file(path, headers)
            except Refused as reason:
                damaged.append(Flag(code=reason.code, sentence=reason.sentence))
                continue
            if file is not None and file.series_instance_uid in wanted:
                found.setdefault(file.series_instance_uid, []).append(path)
    return found, tuple(damaged)


def read_series(paths: Sequence[Path], named: Collection[str]) -> CtSeries:
    """Return the series of the files. Of several images at one place one that is `named` counts, else the earliest.

    Refuses what the geometry gate and the pixel data do not allow, `not-hounsfield`, `multi-frame` and
    `no-patient-id`.
    """
    with quiet():
        headers = Headers()
        files = [file for path in paths if (file := read_file(path, headers)) is not None]
        places = _places(files, named)
        volume = read_volume([one[0] for one in places])
        if volume.role != "ct":
            raise Refused("not-hounsfield", "its values are no Hounsfield units")
        index = {uid: k for k, uid in enumerate(volume.sop_instance_uids)}
        if len(index) < len(volume.sop_instance_uids):
            raise Refused(
                "multi-frame", "its slices share a SOP Instance UID, so outlines cannot be told apart"
            )
        header = files[0].header
        patient_id, thickness_mm = text(header, "PatientID"), number(header, "SliceThickness")
        scanner = f"{text(header, 'Manufacturer')} {text(header, 'ManufacturerModelName')}".strip()
    if not patient_id:
        raise Refused("no-patient-id", "it has no PatientID, without which nobody can be held apart")
    slice_of = {
        file.sop_instance_uid: index[one[0].sop_instance_uid]
        for one in places
        if one[0].sop_instance_uid in index  # a localizer is no slice
        for file in one
    }
    _, row_mm, column_mm = volume.spacing_mm
    slice_mm = _slice_mm(volume)
    scale = Scale(
        row_mm=row_mm, column_mm=column_mm, slice_mm=slice_mm, thickness_mm=thickness_mm or slice_mm
    )
    return CtSeries(volume=volume, slice_of=slice_of, scale=scale, patient_id=patient_id, scanner=scanner)


def _places(files: Sequence[File], named: Collection[str]) -> list[list[File]]:
    """Return the files of each place, the one that counts first."""
    places: dict[object, list[File]] = {}
    for file in sorted(files, key=lambda f: _rank(f, named)):
        position = numbers(file.header, "ImagePositionPatient")
        key = tuple(round(x, SAME_POSITION_DIGITS) + 0.0 for x in position) or file.sop_instance_uid
        places.setdefault(key, []).append(file)
    return list(places.values())


def _rank(file: File, named: Collection[str]) -> tuple[bool, int, str]:
    uid = file.sop_instance_uid
    return uid not in named, integer(file.header, "InstanceNumber") or 0, uid


def _slice_mm(volume: Volume) -> float:
    """Return the median distance of two slices, mm."""
    steps = np.linalg.norm(np.diff(np.asarray(volume.slice_positions), axis=0), axis=1)
    return float(np.median(steps)) if len(steps) else volume.spacing_mm[0]


__all__ = ["CtSeries", "find_series", "read_series"]

"""A course whose images exist: balls of known size in noisy lung at each visit, their SEGs and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from courses import course_patient, sighting, tracked, visit
from dicom_series import make_series, write
from numpy.typing import NDArray
from small_results import PROVENANCE

from node.report.longitudinal.stored import ObjectFiles
from plugins import codes
from plugins.contract import Finding, Mask, Point, Volume
from plugins.measure.lesion import measure_lesion
from store.course import Course, CourseVisit
from store.dicom.files import read_file
from store.dicom.seg import Identified, encode_seg
from store.dicom.series import read_study
from store.response.history import Role, Status
from store.sighting import Measure, Sighting
from store.tracking.link import Kind

PLACES: Mapping[int, Point] = {1: (12.0, -8.0, 20.0), 2: (-18.0, 14.0, 30.0)}
"""Centre of each lesion, LPS mm, the same at every visit."""
GRIDS = (
    ((2.0, 0.9, 0.9), (1, 0, 0, 0, 1, 0)),
    ((2.5, 1.2, 1.2), (-1, 0, 0, 0, -1, 0)),
    ((2.0, 0.8, 0.8), (1, 0, 0, 0, 1, 0)),
)
"""Spacing (k, r, c) and orientation of each visit's CT; the second lies the other way round."""


@dataclass(frozen=True, kw_only=True)
class Imaged:
    """A course with its files."""

    course: Course
    objects: ObjectFiles


def imaged(
    folder: Path,
    diameters_mm: Mapping[int, Sequence[float | None]],
    *,
    modality: str = "CT",
    name: str = "Doe^Jane",
) -> Imaged:
    """Return a course of balls; one that has no diameter at a visit is gone, and expected where it was."""
    visits = [visit(n) for n in range(max(map(len, diameters_mm.values())))]
    files: dict[str, str] = {}
    images: dict[str, Mapping[str, Sequence[str]]] = {}
    sightings: list[Sighting] = []
    for number, at in enumerate(visits):
        there = {lesion: d for lesion, row in diameters_mm.items() if (d := row[number]) is not None}
        volume, found, new_files = _scanned(folder, at, number, there, modality)
        files |= {name: str(path) for name, path in new_files.items()}
        images[at.study_instance_uid] = {volume.series_instance_uid: volume.sop_instance_uids}
        sightings += [_seen(at, number, one, volume) for one in found]
        sightings += [
            sighting(at, lesion, None, status=Status.ABSENT, role=Role.TARGET,
                     link=tracked(Kind.GONE, 0.9, [lesion], expected=PLACES[lesion]))
            for lesion in sorted(set(diameters_mm) - set(there))
        ]  # fmt: skip
    course = Course(patient=course_patient(name), visits=tuple(visits), sightings=tuple(sightings))
    return Imaged(course=course, objects=ObjectFiles(files=files, images=images))


def _scanned(
    folder: Path, at: CourseVisit, number: int, there: Mapping[int, float], modality: str
) -> tuple[Volume, list[Identified], dict[str, Path]]:
    """Return the volume of a visit, its findings, and its files by SOP Instance UID and name of the SEG."""
    spacing, orientation = GRIDS[number % len(GRIDS)]
    array, grids = _painted(spacing, orientation, there, number)
    array = array if modality == "CT" else array + 1100.0  # an activity is never negative
    paths = make_series(
        folder / f"visit{number}", array, modality=modality, spacing_mm=spacing, orientation=orientation,
        origin_mm=_origin(spacing, orientation), study_uid=at.study_instance_uid,
        study_date=at.study_date.strftime("%Y%m%d"), rescale=(1.0, -1024.0) if modality == "CT" else (1.0, 0.0),
    )  # fmt: skip
    read = read_study(paths)
    volume = read.study.volumes[0]
    findings = [
        Identified(
            finding=Finding(
                key=f"ball-{lesion}", label=f"Nodule {lesion}", series_instance_uid=volume.series_instance_uid,
                mask=Mask.from_full(grids[lesion]), category=codes.MORPHOLOGICALLY_ABNORMAL, type=codes.NODULE,
                site=codes.LUNG, measurements=measure_lesion(Mask.from_full(grids[lesion]), volume),
            ),
            segment_number=place + 1, tracking_identifier=f"Nodule {lesion}", tracking_uid=f"2.25.{1000 + lesion}",
        )
        for place, lesion in enumerate(there)
    ]  # fmt: skip
    files = dict(zip(volume.sop_instance_uids, _by_slice(paths, volume.sop_instance_uids), strict=True))
    if findings:
        seg = encode_seg(findings, volume, read.headers, PROVENANCE, 801, visit_time(number))
        files[f"{number:064x}"] = write(seg, folder / f"seg{number}.dcm")
    return volume, findings, files


def _seen(at: CourseVisit, number: int, one: Identified, volume: Volume) -> Sighting:
    uids = volume.sop_instance_uids
    return sighting(
        at, int(one.tracking_uid.rpartition(".")[2]) - 1000, None, series_instance_uid=volume.series_instance_uid,
        segment_number=one.segment_number, seg_sha256=f"{number:064x}", confidence=0.9,
        centroid_mm=volume.centroid_mm(one.finding.mask), link=tracked(Kind.SAME) if number else None,
        measurements={
            m.name: Measure(
                value=m.value, unit=m.unit.value, uncertainty=0.6 if m.name.endswith("axis") else None,
                end_points_mm=m.end_points_mm, method=m.method,
                sop_instance_uid=None if m.slice_index is None else uids[m.slice_index],
            )
            for m in one.finding.measurements
        },
    )  # fmt: skip


def visit_time(number: int) -> datetime:
    """Return when the results of a visit were written."""
    return datetime(2024, 1 + number, 11, 12, tzinfo=UTC)


def _origin(spacing: Sequence[float], orientation: Sequence[int]) -> tuple[float, float, float]:
    """Return the position of the first voxel: the grid reaches from -48 to 48 mm, whichever way it lies."""
    return (-48.0 * orientation[0], -48.0 * orientation[4], 0.0)


def _painted(
    spacing: Sequence[float], orientation: Sequence[int], diameters: Mapping[int, float], seed: int
) -> tuple[NDArray[np.float64], dict[int, NDArray[np.bool_]]]:
    """Return noisy lung with balls of soft tissue, and the mask of each."""
    dk, dr, dc = spacing
    shape = (int(48 / dk) + 1, int(96 / dr) + 1, int(96 / dc) + 1)
    x = orientation[0] * (np.arange(shape[2]) * dc - 48.0)
    y = orientation[4] * (np.arange(shape[1]) * dr - 48.0)
    z = np.arange(shape[0]) * dk
    array = np.random.default_rng(seed).normal(-830, 35, shape)
    array[:, np.abs(y) > 42, :] = 40.0
    masks = {}
    for lesion, diameter in diameters.items():
        cx, cy, cz = PLACES[lesion]
        far = (z[:, None, None] - cz) ** 2 + (y[None, :, None] - cy) ** 2 + (x[None, None, :] - cx) ** 2
        masks[lesion] = far <= (diameter / 2) ** 2
        array[masks[lesion]] = 35.0
    return array, masks


def _by_slice(paths: Sequence[Path], uids: Sequence[str]) -> list[Path]:
    by_uid = {file.sop_instance_uid: path for path in paths if (file := read_file(path)) is not None}
    return [by_uid[uid] for uid in uids]


__all__ = ["PLACES", "Imaged", "imaged"]

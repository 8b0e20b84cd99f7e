"""Labels of people to cases in the training form, with the images that lie in the object store of the node.

A case is a crop of the images around one mask, on their own grid, voxel for voxel as it was drawn; a CT beside a PET
keeps its own. Its patient is the
key of the person, so two visits of one lesion are two cases of one patient; the fold follows from that key alone, so
that it stays the same when others come.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset
from sqlmodel import Session, and_, col, or_, select

from plugins.contract import Volume
from plugins.errors import Refused
from store.dicom.series import ReadStudy, read_regions, read_study
from store.dicom.values import number, text
from store.labels import Label, Left
from store.objects import ObjectStore
from store.tables import Instance, Series
from training.curate.case_files import case_name, write_case, write_data_set
from training.image_owners import VOXELS, sha256_of_voxels
from training.labelled_kind import KINDS, LabelledKind
from training.manifest import FOLDS, Case, DataManifest


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What became of labels."""

    manifest: DataManifest | None
    """The cases; None when there is none."""
    left: tuple[Left, ...]
    """Labels that became none, with the reason."""


def collect(
    session: Session, objects: ObjectStore, labels: Iterable[Label], folder: Path, family: str
) -> Collected:
    """Return the cases of a family that labels make, after they were written into the folder, with its manifest.

    The same labels make the same files. Refuses `unknown-family`; raises Unavailable when the folder cannot be written.
    """
    kind = KINDS.get(family)
    if kind is None:
        raise Refused("unknown-family", f"labels are collected for {', '.join(KINDS)}, not for '{family}'")
    cases: list[Case] = []
    left: list[Left] = []
    by_series: defaultdict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if (why := kind.why_not(label, None)) is None:
            by_series[label.series_instance_uid].append(label)
        else:
            left.append(_left(label, why))
    for series, own in sorted(by_series.items()):
        try:
            read = read_study(_images(session, objects, series, kind.with_ct))
            names = _names(own)
            found = [
                one for label in own for one in _case(objects, label, read, folder, kind, names[label], left)
            ]
            if found:
                voxels = sha256_of_voxels(read.study.volume(series))
                cases += [replace(case, tags={**case.tags, VOXELS: voxels}) for case in found]
        except Refused as refusal:
            left += [_left(label, refusal.sentence) for label in own]
    if not cases:
        return Collected(manifest=None, left=tuple(left))
    folds = {case.patient_id: case.fold for case in cases}
    return Collected(manifest=write_data_set(folder, family, cases, folds), left=tuple(left))


def _left(label: Label, why: str) -> Left:
    return Left(sop_instance_uid=label.sop_instance_uid, sentence=f"region {label.number}: {why}")


def _images(session: Session, objects: ObjectStore, series_instance_uid: str, with_ct: bool) -> list[Path]:
    """Return the files of a series; `with_ct` also those of the CTs of its study in its frame of reference."""
    wanted = col(Series.series_instance_uid) == series_instance_uid
    row = session.exec(select(Series).where(wanted)).one_or_none()
    if with_ct and row is not None and (frame := row.frame_of_reference_uid):
        beside = col(Series.study_pk) == row.study_pk, col(Series.modality) == "CT"
        wanted = or_(wanted, and_(*beside, col(Series.frame_of_reference_uid) == frame))
    statement = (
        select(Instance.sha256)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(wanted, col(Instance.current))
    )
    paths = [objects.path(sha256) for sha256 in session.exec(statement)]
    if missing := sum(not path.is_file() for path in paths):
        raise Refused(
            "object-missing", f"{missing} of its {len(paths)} images are no longer in the object store"
        )
    return paths


def _names(labels: Sequence[Label]) -> dict[Label, str]:
    """Return a name for the case of each label of a series: the same for what is drawn anew of the same lesion."""
    names: dict[Label, str] = {}
    for label in labels:
        place = "|".join((label.study_instance_uid, label.series_instance_uid, label.tracking_uid))
        name = case_name(label.patient_key, hashlib.sha256(place.encode()).hexdigest()[:12])
        twins = sum(taken == name or taken.startswith(f"{name}_") for taken in names.values())
        names[label] = f"{name}_{twins + 1}" if twins else name
    return names


def _case(
    objects: ObjectStore,
    label: Label,
    read: ReadStudy,
    folder: Path,
    kind: LabelledKind,
    name: str,
    left: list[Left],
) -> list[Case]:
    """Return the case of one label, after its files were written; none, and why, when it cannot be one."""
    volumes = read.study.volumes
    try:
        regions, refused = read_regions(objects.path(label.sha256), volumes)
        here = (one for one in regions if one.series_instance_uid == label.series_instance_uid)
        region = next((one for one in here if one.number == label.number), None)
        if region is None:
            reasons = [flag.sentence for flag in (*refused, *read.study.refused)]
            raise Refused("no-region", reasons[0] if reasons else "the region is not in its object")
        if (why := kind.why_not(label, region)) is not None:
            raise Refused("other-family", why)
        volume = read.study.volume(label.series_instance_uid)
        kind.require(volume, region.mask)
        case = write_case(
            folder,
            volume,
            {"mask": region.mask},
            case_id=name,
            patient_id=label.patient_key,
            fold=int(label.patient_key, 16) % FOLDS,
            tags=_tags(label, read.headers[volume.sop_instance_uids[0]], volume),
            margin_mm=kind.margin_mm,
            image_role=kind.image_role,
            beside=kind.beside(volume, region.mask, read.study.by_role("ct")),
        )
    except Refused as refusal:
        left.append(_left(label, refusal.sentence))
        return []
    return [case]


def _tags(label: Label, header: Dataset, volume: Volume) -> dict[str, float | str | None]:
    equipment = (text(header, keyword) for keyword in ("Manufacturer", "ManufacturerModelName"))
    return {
        "origin": label.origin,
        "tracking_uid": label.tracking_uid,
        "scanner": " ".join(filter(None, equipment)) or None,
        "kernel": text(header, "ConvolutionKernel") or None,
        "slice_thickness_mm": number(header, "SliceThickness") or volume.spacing_mm[0],
    }


__all__ = ["Collected", "collect"]

"""The nodules of one reading as cases in the training form, and what is told of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plugins.contract import BoolArray, Flag, Mask
from plugins.errors import Refused
from training.curate.case_files import MARGIN_MM, Box, case_name, write_case
from training.curate.lidc_consensus import (
    READERS,
    Consensus,
    clusters,
    consensus,
    malignancy_class,
    mean_ratings,
)
from training.curate.lidc_masks import Outline, place
from training.curate.lidc_reading import Reading
from training.curate.lidc_series import CtSeries
from training.curate.lidc_sizes import diameter_mm, extent_mm, surface_mm2, volume_mm3
from training.manifest import Case

ORIGIN = "LIDC-IDRI"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What became of one reading."""

    cases: tuple[Case, ...]
    """One for each nodule."""
    nodules: tuple[dict[str, Any], ...]
    """What is told of each nodule, also of those that became no case."""
    marks: tuple[dict[str, Any], ...]
    """Nodules of less than 3 mm and things that are no nodules: one point each, index and LPS mm."""
    flags: tuple[Flag, ...]
    """What was left out, and why."""


def make_cases(
    reading: Reading, series: CtSeries, folder: Path, *, margin_mm: float = MARGIN_MM, least_readers: int = 1
) -> Made:
    """Return what became of a reading after the files of its cases were written.

    A case is a nodule of 3 mm or more: the voxels that at least half of its outlines hold, and each outline's own.
    Left out and told: what `place` refuses, `mark-without-image`, `outline-without-ratings`, `too-few-readers`,
    `too-many-outlines` (more than four that cannot be told apart), `empty-consensus`.
    """
    flags: list[Flag] = []
    cases: list[Case] = []
    nodules: list[dict[str, Any]] = []
    groups = clusters(_placed(reading, series, flags), series.scale.thickness_mm)
    for number, outlines in enumerate(groups, start=1):
        agreed = consensus(outlines)
        name = case_name(series.patient_id, _short(reading), f"nodule{number:02d}")
        told = {"case_id": None, **_told(outlines, agreed, reading, series)}
        nodules.append(told)
        try:
            _require_clear(outlines, agreed, name, least_readers)
            cases.append(_write(folder, series, outlines, agreed, name, margin_mm))
            told["case_id"] = name
        except Refused as reason:
            flags.append(_flag(reading, reason))
    return Made(
        cases=tuple(cases),
        nodules=tuple(nodules),
        marks=tuple(_marks(reading, series, flags)),
        flags=tuple(flags),
    )


def _flag(reading: Reading, reason: Refused) -> Flag:
    return Flag(code=reason.code, sentence=reason.sentence, series_instance_uid=reading.series_instance_uid)


def _short(reading: Reading) -> str:
    """Return eight digits that stand for a series in names; a patient may have several."""
    return hashlib.sha256(reading.series_instance_uid.encode()).hexdigest()[:8]


def _placed(reading: Reading, series: CtSeries, flags: list[Flag]) -> list[Outline]:
    """Return the rated outlines that lie on the series."""
    _, rows, columns = series.volume.array.shape
    placed = []
    for session, annotation in reading.annotations():
        try:
            if annotation.ratings is None:
                sentence = (
                    f"nodule '{annotation.nodule_id}' of reader {session} is outlined and has no ratings"
                )
                raise Refused("outline-without-ratings", sentence)
            placed.append(place(annotation, session, series.slice_of, (rows, columns)))
        except Refused as reason:
            flags.append(_flag(reading, reason))
    return placed


def _readers(outlines: Sequence[Outline]) -> int:
    return len({outline.session for outline in outlines})


def _require_clear(outlines: Sequence[Outline], agreed: Consensus, name: str, least_readers: int) -> None:
    if _readers(outlines) < least_readers:
        raise Refused(
            "too-few-readers",
            f"{name}: {_readers(outlines)} readers outlined it, {least_readers} are asked for",
        )
    if len(outlines) > READERS:
        raise Refused(
            "too-many-outlines",
            f"{name}: {len(outlines)} outlines touch, more than {READERS} readers draw; they cannot be told apart",
        )
    if not agreed.mask.any():
        raise Refused("empty-consensus", f"{name}: no voxel is in half of its {len(outlines)} outlines")


def _write(
    folder: Path,
    series: CtSeries,
    outlines: Sequence[Outline],
    agreed: Consensus,
    name: str,
    margin_mm: float,
) -> Case:
    masks = {f"mask_reader{n}": mask for n, mask in enumerate(agreed.masks, start=1)}
    ratings = mean_ratings(outlines)
    return write_case(
        folder,
        series.volume,
        {role: _mask(m, agreed.box, series) for role, m in {"mask": agreed.mask, **masks}.items()},
        case_id=name,
        patient_id=series.patient_id,
        tags={
            "slice_thickness_mm": series.scale.thickness_mm,
            "scanner": series.scanner or None,
            "origin": ORIGIN,
            "readers": _readers(outlines),
            **ratings,
            "malignancy_class": malignancy_class(ratings["malignancy"]) if "malignancy" in ratings else None,
        },
        margin_mm=margin_mm,
    )


def _mask(voxels: BoolArray, box: Box, series: CtSeries) -> Mask:
    k, r, c = series.volume.array.shape
    return Mask(shape=(k, r, c), origin=(box[0].start, box[1].start, box[2].start), voxels=voxels)


def _told(
    outlines: Sequence[Outline], agreed: Consensus, reading: Reading, series: CtSeries
) -> dict[str, Any]:
    """Return what is told of a nodule: its place, what was agreed on, and each reader's figures, reader 1 first."""
    return {
        "patient_id": series.patient_id,
        "series_instance_uid": reading.series_instance_uid,
        "first_voxel_krc": [s.start for s in agreed.box],
        "voxels_krc": list(agreed.mask.shape),
        "extent_krc_mm": list(extent_mm(outlines, series.scale)),
        "mask_voxels": int(agreed.mask.sum()),
        "mask_volume_mm3": float(agreed.mask.sum()) * series.volume.voxel_volume_mm3,
        "ratings": mean_ratings(outlines),
        "outlines": [
            {
                "session": outline.session,
                "reader": reading.sessions[outline.session - 1].reader,
                "nodule_id": outline.annotation.nodule_id,
                "mask_voxels": int(mask.sum()),
                "polygon_diameter_mm": diameter_mm(outline, series.scale),
                "polygon_volume_mm3": volume_mm3(outline, series.scale),
                "mask_surface_mm2": surface_mm2(mask, series.scale),
                "ratings": asdict(outline.annotation.ratings) if outline.annotation.ratings else None,
            }
            for outline, mask in zip(outlines, agreed.masks, strict=True)
        ],
    }


def _marks(reading: Reading, series: CtSeries, flags: list[Flag]) -> list[dict[str, Any]]:
    """Return the points that lie on the series."""
    found = []
    for session, mark in reading.marks():
        k, (c, r) = series.slice_of.get(mark.sop_instance_uid), mark.point
        if k is None or r >= series.volume.array.shape[1] or c >= series.volume.array.shape[2]:
            where = "an image that is not in the series" if k is None else "no pixel of its image"
            sentence = f"{mark.kind} '{mark.mark_id}' of reader {session} lies on {where}"
            flags.append(_flag(reading, Refused("mark-without-image", sentence)))
            continue
        found.append(
            {
                "patient_id": series.patient_id,
                "series_instance_uid": reading.series_instance_uid,
                "sop_instance_uid": mark.sop_instance_uid,
                "kind": mark.kind,
                "mark_id": mark.mark_id,
                "session": session,
                "krc": [k, r, c],
                "position_mm": series.volume.to_mm((float(k), float(r), float(c))).tolist(),
            }
        )
    return found


__all__ = ["Made", "make_cases"]

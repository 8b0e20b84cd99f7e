"""Lesions at points that are named on the command line: drawn, measured, and written as a NIfTI label image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.nodule_segmenter import LearnedNoduleSegmenter
from models.segmenter import LesionSegmenter
from plugins.contract import Flag, Mask, Point, Volume
from plugins.errors import Refused
from plugins.marked_lesion import is_same
from plugins.nodule_drawing import Drawing, draw_at
from plugins.series_order import frame_doubts, holds, preferred, reformat_doubts, several
from store.dicom.nifti import is_nifti
from store.dicom.nifti_image import NiftiImage, read_ct, write_labels
from store.dicom.series import group_by_study, read_study
from store.walk import all_files_under

MOST = 255
"""Labels of a NIfTI of bytes."""
TOLD = 3
"""Reasons why something could not be used that a refusal names."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One lesion that is asked for: a point in LPS mm, or two opposite corners of a box around it."""

    point_mm: Point
    """The point, or the middle of the box."""
    corners_mm: tuple[Point, Point] | None = None
    """The box."""

    @property
    def extent_mm(self) -> float | None:
        """Return the longest side of the box."""
        if self.corners_mm is None:
            return None
        return float(np.ptp(np.asarray(self.corners_mm), axis=0).max())

    @classmethod
    def box(cls, numbers: Sequence[float]) -> Asked:
        """Return what a box x0, y0, z0, x1, y1, z1 asks for. Refuses `bad-box` (one without an inside)."""
        low, high = (tuple(numbers[:3]), tuple(numbers[3:]))
        if any(a == b for a, b in zip(low, high, strict=True)):
            raise Refused("bad-box", f"the box {','.join(f'{n:g}' for n in numbers)} has no inside")
        middle = np.add(low, high) / 2
        return cls(point_mm=_point(middle.tolist()), corners_mm=(_point(low), _point(high)))


def segment(path: Path, out: Path, asked: Sequence[Asked], segmenter: LesionSegmenter) -> dict[str, Any]:
    """Return what was drawn and measured at each point of a CT, after the labels 1, 2, ... were written to `out`.

    `path` is a folder of DICOM with the CT, a file of it, or a NIfTI in HU. A point at which nothing is seen, or a
    lesion that an earlier point has given, has `found` False and a warning; its label is not in the image. What of
    the folder could not be used is in `warnings`.
    Refuses `no-such-path`, `closed-folder`, `no-dicom`, `no-ct`, `several-studies`, `point-outside`, `nothing-asked`,
    `too-many`, `bad-output` (it is `path`), and what the readers and the writer refuse.
    """
    if not 1 <= len(asked) <= MOST:
        raise Refused(
            "too-many" if asked else "nothing-asked",
            f"name 1 to {MOST} points (--at) or boxes (--box), not {len(asked)}",
        )
    if not path.exists():
        raise Refused("no-such-path", f"{path} does not exist")
    _require_other(out, path)
    image: NiftiImage | None = read_ct(path) if is_nifti(path) else None
    volumes, refused, doubts = _cts(path) if image is None else ((image.volume,), (), ())
    held = _holding(asked, volumes, refused)
    volume = held[0]
    told = (*several(volume, volumes), *reformat_doubts(volume, held), *frame_doubts(volume, held))
    labels = np.zeros(volume.array.shape, dtype=np.uint8)
    lesions = []
    drawn: dict[int, Mask] = {}
    for number, one in enumerate(asked, start=1):
        drawing = draw_at(volume, one.point_mm, segmenter, extent_mm=one.extent_mm, corners_mm=one.corners_mm)
        same = next((n for n, mask in drawn.items() if is_same(drawing.mask, mask)), None)
        if same is not None:
            drawing = _once(drawing, same)
        drawn[number] = drawing.mask
        lesions.append(_plain(number, one, drawing, volume, labels))
    write_labels(out, labels, volume, image)
    return {
        "mask": str(out),
        "image": {
            "path": str(path),
            "series_instance_uid": volume.series_instance_uid or None,
            "shape": list(volume.array.shape),
            "spacing_mm": list(volume.spacing_mm),
        },
        "model": _model(segmenter),
        "lesions": lesions,
        "warnings": [_told(flag) for flag in (*refused, *doubts, *volume.flags, *told)],
    }


def _require_other(out: Path, path: Path) -> None:
    """Refuse `bad-output`: the mask would take the place of the image."""
    with suppress(OSError):  # what is not there yet is no image
        if out.samefile(path):
            raise Refused("bad-output", f"{out} is the image itself ({path}); name another file for the mask")


def _cts(path: Path) -> tuple[tuple[Volume, ...], tuple[Flag, ...], tuple[Flag, ...]]:
    """Return every CT of one study, why files and series beside them could not be used, and other doubts."""
    files = [path] if path.is_file() else all_files_under(path)
    studies = group_by_study(files)
    if not studies:
        raise Refused(
            "no-dicom", f"{path} holds no DICOM file that can be read, and is no NIfTI (.nii, .nii.gz)"
        )
    if len(studies) > 1:
        raise Refused("several-studies", f"{path} holds {len(studies)} studies; name the folder of one")
    read = read_study(files)
    study = read.study
    if volumes := study.by_role("ct"):
        return volumes, study.refused, read.flags
    no_hu = [v for v in study.volumes if v.modality == "CT"]
    if study.refused and not no_hu:
        raise Refused(study.refused[0].code, study.refused[0].sentence)
    why = _no_hu(no_hu[0]) if no_hu else f"{study.volumes[0].modality} is not segmented"
    raise Refused("no-ct", f"{path} holds no CT in Hounsfield units: {why}{_not_used(study.refused)}")


def _no_hu(volume: Volume) -> str:
    """Return why the values of a CT are no Hounsfield units, in words."""
    if any(flag.code == "no-rescale" for flag in volume.flags):
        return (
            "its CT has no rescale slope and intercept, so its values are no HU; export it again with RescaleSlope "
            "and RescaleIntercept, or give a NIfTI in HU"
        )
    said = [flag.sentence for flag in volume.flags if flag.code == "not-hounsfield"]
    return f"series {volume.series_number}: {'; '.join(said) or 'its values are none'}"


def _holding(
    asked: Sequence[Asked], volumes: tuple[Volume, ...], refused: Sequence[Flag]
) -> tuple[Volume, ...]:
    """Return the volumes that hold all points, the one to measure first.

    Refuses `point-outside`, with what else was refused.
    """
    kept = volumes
    for one in asked:
        held = _held(one, kept)
        if not held:
            told = ", ".join(f"{x:g}" for x in one.point_mm) + " mm (LPS)"
            lies = f"the point {told} lies outside of the images"
            if _held(one, volumes):
                lies = f"no series holds all points up to {told}; name those of one series at a time"
            reaches = "; ".join(_reach(volume) for volume in volumes)
            raise Refused("point-outside", f"{lies}: {reaches}{_not_used(refused)}")
        kept = held
    return preferred(kept)


def _held(one: Asked, volumes: tuple[Volume, ...]) -> tuple[Volume, ...]:
    return tuple(v for v in volumes if holds(v, one.point_mm))


def _reach(volume: Volume) -> str:
    """Return from where to where a volume reaches, in words."""
    ends = [(-0.5, n - 0.5) for n in volume.array.shape]
    corners = volume.to_mm(np.array(np.meshgrid(*ends)).reshape(3, -1).T)
    low, high = corners.min(axis=0), corners.max(axis=0)
    told = ", ".join(f"{x} {a:.1f} to {b:.1f}" for x, a, b in zip("xyz", low, high, strict=True))
    name = "the image" if not volume.series_instance_uid else f"series {volume.series_number}"
    return f"{name} reaches from {told} mm"


def _not_used(refused: Sequence[Flag]) -> str:
    """Return what could not be used, in words: the first few reasons."""
    if not refused:
        return ""
    told = [f"{flag.sentence} ({flag.code})" for flag in refused[:TOLD]]
    more = [f"and {len(refused) - TOLD} more"] if len(refused) > TOLD else []
    return f"; not used: {'; '.join(told + more)}"


def _once(drawing: Drawing, number: int) -> Drawing:
    """Return a drawing of nothing that tells that lesion `number` has been drawn there."""
    sentence = f"it is the same lesion as {number}, where it is measured"
    nothing = Mask.from_full(np.zeros(drawing.mask.shape, dtype=np.bool_))
    return replace(drawing, mask=nothing, flags=(Flag(code="same-lesion", sentence=sentence),))


def _plain(number: int, one: Asked, drawing: Drawing, volume: Volume, labels: Any) -> dict[str, Any]:
    """Return what is told of one lesion, after its label was put where no other is."""
    flags = list(drawing.flags)
    here = labels[drawing.mask.box]
    if (here[drawing.mask.voxels] > 0).any():
        others = ", ".join(str(n) for n in np.unique(here[drawing.mask.voxels]) if n)
        sentence = f"it shares voxels with lesion {others}, which keeps them in the mask"
        flags.append(Flag(code="overlap", sentence=sentence))
    here[drawing.mask.voxels & (here == 0)] = number
    told: dict[str, Any] = {"label": number, "at_mm": list(one.point_mm), "found": drawing.mask.count > 0}
    if drawing.mask.count:
        told |= _measured(drawing, volume)
    return told | {"warnings": [_told(flag) for flag in flags]}


def _measured(drawing: Drawing, volume: Volume) -> dict[str, Any]:
    by_name = {m.name: m for m in drawing.measurements}
    intervals = dict(drawing.intervals)
    told: dict[str, Any] = {}
    for name, unit in (("volume", "ml"), ("long_axis", "mm"), ("short_axis", "mm")):
        told[f"{name}_{unit}"] = by_name[name].value
        interval = intervals.get(name)
        told[f"{name}_interval_{unit}"] = None if interval is None else [_finite(x) for x in interval]
    ends = by_name["long_axis"].end_points_mm
    told["long_axis_end_points_mm"] = None if ends is None else [list(p) for p in ends]
    told["centroid_mm"] = list(volume.centroid_mm(drawing.mask))
    told["hu_mean"] = by_name["hu_mean"].value
    unsure = drawing.uncertainty
    told["uncertainty"] = None if unsure is None else {k: _finite(v) for k, v in asdict(unsure).items()}
    return told


def _model(segmenter: LesionSegmenter) -> dict[str, Any]:
    card = segmenter.card
    learned = segmenter if isinstance(segmenter, LearnedNoduleSegmenter) else None
    return {
        "name": card.name,
        "version": card.version,
        "kind": card.kind,
        "sha256": card.weights_sha256 or card.sha256,
        "runtime": learned.runtime if learned else "numpy",
        "interval_coverage": 1 - learned.doubt.volume_mm3.alpha if learned else None,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _told(flag: Flag) -> dict[str, str]:
    return {"code": flag.code, "sentence": flag.sentence}


def _point(numbers: Sequence[float]) -> Point:
    x, y, z = (float(n) for n in numbers)
    return (x, y, z)


__all__ = ["Asked", "segment"]

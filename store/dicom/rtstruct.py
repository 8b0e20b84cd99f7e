"""RTSTRUCT contours to masks, on the series they were drawn on, by position.

A voxel belongs to a region when its centre lies inside the contour; contours of one slice combine as
`slice_contours` says, inner ones as holes. References by UID choose the series; where none resolves, the frame
of reference and the fit of the planes do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from plugins.contract import Drawn, Flag, Mask, Volume
from plugins.errors import Refused
from store.dicom.files import File
from store.dicom.regions import frame_doubts, mask_of_box, slice_distances, slice_normal
from store.dicom.slice_contours import enclosed
from store.dicom.values import code, integer, items, text, texts

SAME_PLANE_FRACTION = 0.1
SAME_FIT_MM = 1e-3
ON_CENTRE = 1e-9

FloatArray = NDArray[np.float64]
Level = tuple[float, FloatArray]
"""How far a contour lies from its slice, mm, and its points (row, column)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contours:
    """The contours of one region, as they are in the file."""

    number: int
    """ROINumber."""
    name: str
    """ROIName."""
    header: Dataset
    """Item of StructureSetROISequence."""
    observation: Dataset
    """Item of RTROIObservationsSequence, empty when there is none."""
    frame_of_reference_uid: str
    """Frame of reference that the positions lie in."""
    polygons_mm: tuple[FloatArray, ...]
    """Closed contours, `(n, 3)` LPS mm each."""
    sop_instance_uids: tuple[str, ...]
    """Instances that the contours refer to."""
    kinds: tuple[str, ...]
    """Geometric type of every contour, also of those that are not closed."""


def read_rtstruct(file: File, volumes: Sequence[Volume]) -> tuple[tuple[Drawn, ...], tuple[Flag, ...]]:
    """Return the regions on their series, and a refusal for each region that cannot be used.

    Refusals: `empty-roi`, `point-contour`, `open-contour`, `bad-contour`, `contour-without-image`,
    `contour-off-plane`, `contour-not-planar`, `empty-region`. Doubts are in each region's flags.
    """
    header = file.header
    stated = _referenced_series(header)
    drawn, refused = [], []
    for region in _regions(header):
        try:
            drawn.append(_drawn(region, stated, volumes, file))
        except Refused as reason:
            refused.append(Flag(code=reason.code, sentence=f"region '{region.name}': {reason.sentence}"))
    if not drawn and not refused:
        refused.append(Flag(code="empty-roi", sentence="it holds no region"))
    return tuple(drawn), tuple(refused)


def _regions(header: Dataset) -> list[Contours]:
    contours = {integer(c, "ReferencedROINumber"): c for c in items(header, "ROIContourSequence")}
    observed = {integer(o, "ReferencedROINumber"): o for o in items(header, "RTROIObservationsSequence")}
    found = []
    for roi in items(header, "StructureSetROISequence"):
        number = integer(roi, "ROINumber")
        drawn = items(contours.get(number, Dataset()), "ContourSequence")
        kinds = tuple(text(c, "ContourGeometricType").upper() for c in drawn)
        closed = [c for c, kind in zip(drawn, kinds, strict=True) if kind.startswith("CLOSED")]
        images = [
            text(i, "ReferencedSOPInstanceUID") for c in closed for i in items(c, "ContourImageSequence")
        ]
        found.append(
            Contours(
                number=number or 0,
                name=text(roi, "ROIName") or f"ROI {number}",
                header=roi,
                observation=observed.get(number, Dataset()),
                frame_of_reference_uid=text(roi, "ReferencedFrameOfReferenceUID"),
                polygons_mm=tuple(_points(c) for c in closed),
                sop_instance_uids=tuple(uid for uid in images if uid),
                kinds=kinds,
            )
        )
    return found


def _points(contour: Dataset) -> FloatArray:
    """Return the points `(n, 3)` of one contour, LPS mm; none when the data are no triplets of numbers."""
    try:
        raw = contour.get_item("ContourData")
        words = raw.value.decode("ascii").split("\\") if raw and isinstance(raw.value, bytes) else None
        flat = np.array(texts(contour, "ContourData") if words is None else words, dtype=np.float64)
    except ValueError:
        return np.empty((0, 3))
    if flat.size == 0 or flat.size % 3 or not np.isfinite(flat).all():
        return np.empty((0, 3))
    return flat.reshape(-1, 3)


def _referenced_series(header: Dataset) -> set[str]:
    return {
        text(series, "SeriesInstanceUID")
        for frame in items(header, "ReferencedFrameOfReferenceSequence")
        for study in items(frame, "RTReferencedStudySequence")
        for series in items(study, "RTReferencedSeriesSequence")
    }


def _drawn(region: Contours, stated: set[str], volumes: Sequence[Volume], file: File) -> Drawn:
    flags: list[Flag] = []
    _require_closed(region, flags)
    volume = choose_volume(region, stated, volumes, flags)
    mask = rasterise(region.polygons_mm, volume, flags)
    return Drawn(
        label=region.name,
        mask=mask,
        series_instance_uid=volume.series_instance_uid,
        source="RTSTRUCT",
        source_sop_instance_uid=file.sop_instance_uid,
        number=region.number,
        type_code=code(region.observation, "RTROIIdentificationCodeSequence"),
        interpreted_type=text(region.observation, "RTROIInterpretedType") or None,
        tracking_identifier=text(region.observation, "TrackingID") or None,
        tracking_uid=text(region.observation, "TrackingUID") or None,
        flags=tuple(flags),
    )


def _require_closed(region: Contours, flags: list[Flag]) -> None:
    """Refuse a region that is not made of closed contours; points beside closed contours are left out."""
    if not region.kinds:
        raise Refused("empty-roi", "it has no contours")
    if any(kind.startswith("OPEN") for kind in region.kinds):
        raise Refused("open-contour", "it has open contours, which enclose nothing")
    if not region.polygons_mm:
        raise Refused("point-contour", "it holds points only, which enclose nothing")
    if any(len(points) == 0 for points in region.polygons_mm):
        raise Refused("bad-contour", "the coordinates of a contour are no triplets of numbers")
    points = sum(not kind.startswith("CLOSED") for kind in region.kinds)
    if points:
        flags.append(
            Flag(code="points-left-out", sentence=f"{points} points beside the contours were left out")
        )


def choose_volume(region: Contours, stated: set[str], volumes: Sequence[Volume], flags: list[Flag]) -> Volume:
    """Return the series that a region was drawn on. Refuses (`contour-without-image`).

    By the instances its contours name; else by the series that the object names; else, flagged, by frame of
    reference: the series whose slices lie nearest to all contours.
    """
    wanted = set(region.sop_instance_uids)
    hits = {v.series_instance_uid: len(wanted & set(v.sop_instance_uids)) for v in volumes}
    by_instance = [v for v in volumes if hits[v.series_instance_uid]]
    by_series = [v for v in volumes if v.series_instance_uid in stated]
    frame = region.frame_of_reference_uid
    if by_instance:
        chosen = max(by_instance, key=lambda v: hits[v.series_instance_uid])
    elif fitting := [v for v in by_series if not frame or v.frame_of_reference_uid == frame]:
        chosen = _nearest(region, fitting)
    else:
        same = [v for v in volumes if frame and v.frame_of_reference_uid == frame]
        if not same:
            raise Refused(
                "contour-without-image",
                "the images it was drawn on are not here or were refused; send them as well",
            )
        chosen = _nearest(region, same)
        sentence = f"it names no image that is here; taken as drawn on series {chosen.series_number} by its positions"
        flags.append(Flag(code="contour-series-by-position", sentence=sentence))
    flags += frame_doubts(frame, chosen)
    return chosen


def _nearest(region: Contours, volumes: Sequence[Volume]) -> Volume:
    """Return the volume whose slices lie nearest to the contours; of those alike one with the fewest slices between."""
    placed = [[_plane_of(polygon, v) for polygon in region.polygons_mm] for v in volumes]
    misfits = [max(float(np.abs(distances).max()) for _, distances in planes) for planes in placed]
    best = min(misfits) + SAME_FIT_MM
    gaps = [max(ks := [k for k, _ in planes]) - min(ks) + 1 - len(set(ks)) for planes in placed]
    return min(zip(volumes, misfits, gaps, strict=True), key=lambda one: (one[1] > best, one[2]))[0]


def _plane_of(points_mm: FloatArray, volume: Volume) -> tuple[int, FloatArray]:
    """Return the slice that a planar contour lies in, and the distance of each point from it, mm."""
    nearest, _ = slice_distances(points_mm.mean(axis=0, keepdims=True), volume)
    k = int(nearest[0])
    return k, (points_mm - np.asarray(volume.slice_positions[k])) @ slice_normal(volume)


def rasterise(polygons_mm: Sequence[FloatArray], volume: Volume, flags: list[Flag]) -> Mask:
    """Return the mask of closed planar contours, `(n, 3)` LPS mm each, on the grid of a volume.

    Refuses (`contour-off-plane`, `contour-not-planar`, `empty-region`).
    """
    found: dict[int, list[Level]] = {}
    for points in polygons_mm:
        k, distances = _plane_of(points, volume)
        _require_on_plane(distances, volume.spacing_mm[0])
        # the affine is an even grid; the position of an uneven slice itself gives its row and column
        shift = volume.to_mm((float(k), 0.0, 0.0)) - np.asarray(volume.slice_positions[k])
        index = _snapped(volume.to_index(points + shift)[:, 1:])
        found.setdefault(k, []).append((float(distances.mean()), index))
    kept = {k: _nearest_level(levels, volume.spacing_mm[0]) for k, levels in found.items()}
    _tell_between(found, kept, volume.spacing_mm[0], flags)
    _tell_gaps(sorted(kept), flags)
    return _fill({k: [polygon for _, polygon in level] for k, level in kept.items()}, volume, flags)


def _snapped(index: FloatArray) -> FloatArray:
    """Return index points with those that are meant to lie on a voxel centre exactly there."""
    whole = np.rint(index)
    return np.where(np.abs(index - whole) < ON_CENTRE, whole, index)


def _require_on_plane(distances: FloatArray, spacing: float) -> None:
    if np.ptp(distances) > spacing / 2:
        raise Refused("contour-not-planar", "a contour runs across slices; it was drawn in another plane")
    if np.abs(distances).max() > spacing / 2 + 1e-6:
        far = float(np.abs(distances).max())
        raise Refused(
            "contour-off-plane", f"a contour lies {far:.1f} mm from the nearest slice; its images are missing"
        )


def _nearest_level(found: Sequence[Level], spacing: float) -> list[Level]:
    """Return the contours of the level nearest to the slice: contours finer than the slices must not cancel out."""
    nearest = min((distance for distance, _ in found), key=abs)
    return [one for one in found if abs(one[0] - nearest) <= SAME_PLANE_FRACTION * spacing]


def _tell_between(
    found: Mapping[int, Sequence[Level]],
    kept: Mapping[int, Sequence[Level]],
    spacing: float,
    flags: list[Flag],
) -> None:
    """Tell what levels were passed over, and how far from its slice a level lies that was put on it."""
    far = max((min(abs(distance) for distance, _ in level) for level in kept.values()), default=0.0)
    is_off = far > SAME_PLANE_FRACTION * spacing
    if is_off or any(len(kept[k]) < len(found[k]) for k in found):
        how_far = f", up to {far:.2g} mm from it" if is_off else ""
        sentence = f"contours lie between the slices; those nearest to each slice are used{how_far}"
        flags.append(Flag(code="contours-between-slices", sentence=sentence))


def _tell_gaps(ks: Sequence[int], flags: list[Flag]) -> None:
    """Tell what slices have no contour between those that have, which are sorted."""
    steps = np.diff(np.array(ks))
    missing = int((steps - 1).sum())
    if not missing:
        return
    if len(steps) > 1 and (steps == steps[0]).all():
        said = f"only one slice in {steps[0]} has a contour"
    else:
        slices, have = ("slice", "has") if missing == 1 else ("slices", "have")
        said = f"{missing} {slices} between the first and the last {have} no contour"
    flags.append(Flag(code="contour-gaps", sentence=f"{said}; nothing was filled in between"))


def _fill(chosen: Mapping[int, Sequence[FloatArray]], volume: Volume, flags: list[Flag]) -> Mask:
    _, rows, columns = volume.array.shape
    every = np.concatenate([polygon for polygons in chosen.values() for polygon in polygons])
    low = np.clip(np.floor(every.min(axis=0)).astype(int), 0, (rows, columns))
    high = np.clip(np.ceil(every.max(axis=0)).astype(int) + 1, 0, (rows, columns))
    if (every < -0.5).any() or (every > np.array([rows, columns]) - 0.5).any():
        flags.append(Flag(code="contour-clipped", sentence="it reaches beyond the image and was cut there"))
    if (high <= low).any():
        raise Refused("empty-region", "it lies outside the image")
    first, last = min(chosen), max(chosen)
    box = np.zeros((last - first + 1, high[0] - low[0], high[1] - low[1]), dtype=np.bool_)
    doubled = crossing = 0
    for k, polygons in chosen.items():
        found = enclosed([p - low for p in polygons], box.shape[1:])
        box[k - first] = found.pixels
        doubled, crossing = doubled + found.are_doubled, crossing + found.do_cross
    _tell_overlaps(doubled, crossing, flags)
    if not box.any():
        raise Refused("empty-region", "it encloses no voxel centre; it is smaller than a voxel")
    return mask_of_box(volume, (first, int(low[0]), int(low[1])), box)


def _tell_overlaps(doubled: int, crossing: int, flags: list[Flag]) -> None:
    """Tell on how many slices a contour stands twice, and on how many contours cross."""
    if doubled:
        sentence = f"on {doubled} of its slices a contour stands more than once; it counts once"
        flags.append(Flag(code="contours-doubled", sentence=sentence))
    if crossing:
        sentence = f"on {crossing} of its slices contours overlap and neither holds the other; both count"
        flags.append(Flag(code="contours-cross", sentence=sentence))

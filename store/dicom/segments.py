"""SEG objects to masks on the grid of the series they were made from, by position.

BINARY, FRACTIONAL and LABELMAP; frames in any order, any subset of the slices, any segment order, overlapping
segments. A frame must fall on the voxels of a source slice, flipped or cropped at most; nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SurfaceSegmentationStorage

from plugins.contract import BoolArray, Drawn, Flag, Mask, Volume
from plugins.errors import Refused
from store.dicom.decode import Stored, open_frames, pixel_format
from store.dicom.files import File
from store.dicom.geometry import Plane, axes, require_complete
from store.dicom.regions import (
    Block,
    frame_doubts,
    mask_of_blocks,
    overlap,
    slice_distances,
    slice_normal,
)
from store.dicom.values import code, integer, items, numbers, text

ON_GRID = 0.25
THRESHOLD = 0.5
STEP_FRACTION = 0.1
"""By what part of it a distance of slices may be off."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame of a SEG."""

    index: int
    """Index in the pixel data."""
    segment: int | None
    """ReferencedSegmentNumber; None in a label map."""
    plane: Plane
    """Where it lies."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """Where a frame's pixels fall in the volume."""

    k: int
    """Slice."""
    turn: Callable[[BoolArray], BoolArray]
    """Turns the frame to rows and columns of the volume."""
    origin: tuple[int, int]
    """Row and column of its first pixel after the turn."""


def read_segments(file: File, volumes: Sequence[Volume]) -> tuple[tuple[Drawn, ...], tuple[Flag, ...]]:
    """Return the segments on their series, and a refusal for each segment that cannot be used.

    Refuses as a whole what is drawn as surfaces (`seg-surface`) or not in patient coordinates (`seg-microscopy`), whose
    images are not here (`seg-without-image`), or whose frames do not fall on the voxels of its images
    (`seg-other-grid`).
    Refusals of single segments: `empty-segment`, `seg-off-plane`. Doubts are in each region's flags.
    """
    header = file.header
    if file.sop_class_uid == SurfaceSegmentationStorage:
        raise Refused(
            "seg-surface", "it is drawn as surfaces, which are not read; send it as a SEG of voxels"
        )
    if "TotalPixelMatrixRows" in header or _has(header, "PlanePositionSlideSequence"):
        raise Refused("seg-microscopy", "it segments a microscopy slide, which is not measured")
    described = {integer(s, "SegmentNumber"): s for s in items(header, "SegmentSequence")}
    layout = pixel_format(file)
    frames = _frames(header, layout.frames)
    flags: list[Flag] = []
    volume = _choose_volume(header, frames, volumes, flags)
    placed = [place(frame.plane, volume) for frame in frames]
    reader, values = open_frames(file, layout), _Values.of(header)
    drawn, refused = [], []
    blocks = _collect(frames, placed, reader, values, described)
    for number, segment in described.items():
        if not number:  # segment 0 of a label map is its background
            continue
        label = text(segment, "SegmentLabel") or f"segment {number}"
        pieces = blocks.get(number, [])
        own = [*flags, *values.flags(number), *_gaps(pieces)]
        try:
            mask = mask_of_blocks(pieces, volume, "seg-off-plane")
        except Refused as reason:
            refused.append(Flag(code=reason.code, sentence=f"segment '{label}': {reason.sentence}"))
            continue
        drawn.append(_drawn(file, segment, number, label, mask, volume, own))
    if not described:
        refused.append(Flag(code="empty-segment", sentence="it describes no segment"))
    return tuple(drawn), tuple(refused)


def _has(header: Dataset, macro: str) -> bool:
    groups = (
        *items(header, "SharedFunctionalGroupsSequence"),
        *items(header, "PerFrameFunctionalGroupsSequence")[:1],
    )
    return any(macro in group for group in groups)


def _frames(header: Dataset, count: int) -> list[Frame]:
    """Return the frames with their planes. Refuses (`seg-without-image`) frames without a position."""
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    each = items(header, "PerFrameFunctionalGroupsSequence")
    if len(each) != count:
        raise Refused(
            "seg-without-image", f"{count} frames have {len(each)} descriptions, so they cannot be placed"
        )
    frames = []
    for index, group in enumerate(each):

        def find(macro: str, keyword: str, group: Dataset = group) -> tuple[float, ...]:
            for place_ in (group, *shared):
                for item in items(place_, macro)[:1]:
                    return numbers(item, keyword)
            return ()

        named = [i for place_ in (group, *shared) for i in items(place_, "SegmentIdentificationSequence")]
        plane = Plane(
            sop_instance_uid=text(header, "SOPInstanceUID"),
            frame=index,
            rows=integer(header, "Rows") or 0,
            columns=integer(header, "Columns") or 0,
            spacing_mm=find("PixelMeasuresSequence", "PixelSpacing"),
            orientation=find("PlaneOrientationSequence", "ImageOrientationPatient"),
            position_mm=find("PlanePositionSequence", "ImagePositionPatient"),
            frame_of_reference_uid=text(header, "FrameOfReferenceUID"),
        )
        frames.append(
            Frame(
                index=index,
                segment=integer(named[0], "ReferencedSegmentNumber") if named else None,
                plane=plane,
            )
        )
    try:
        require_complete([frame.plane for frame in frames])
    except Refused as reason:
        raise Refused("seg-without-image", f"its frames cannot be placed: {reason.sentence}") from reason
    return frames


def _choose_volume(
    header: Dataset, frames: Sequence[Frame], volumes: Sequence[Volume], flags: list[Flag]
) -> Volume:
    """Return the series that was segmented: by instances, by series, or (flagged) by frame of reference and grid."""
    uid = text(header, "FrameOfReferenceUID")
    if (named := _named_volume(header, frames, volumes)) is not None:
        flags += frame_doubts(uid, named)
        return named
    same = [v for v in volumes if uid and v.frame_of_reference_uid == uid and _fits(frames, v)]
    if not same:
        raise Refused(
            "seg-without-image", "the images it was made from are not here or were refused; send them as well"
        )
    volume = _as_far_apart(header, frames, same)
    sentence = f"it names no image that is here; taken as made from series {volume.series_number} by its grid"
    flags.append(Flag(code="seg-series-by-position", sentence=sentence))
    return volume


def _named_volume(header: Dataset, frames: Sequence[Frame], volumes: Sequence[Volume]) -> Volume | None:
    """Return the volume of the images that frames were derived from, or else of those that are listed beside them."""
    for wanted in (_derived_from(header), _listed(header)):
        hits = [(len(wanted & set(v.sop_instance_uids)), v) for v in volumes]
        hit = [(count, v) for count, v in hits if count]
        if len(hit) > 1:
            hit = [(count, v) for count, v in hit if _fits(frames, v)] or hit
        if hit:
            return max(hit, key=lambda one: one[0])[1]
    series = {text(s, "SeriesInstanceUID") for s in items(header, "ReferencedSeriesSequence")}
    return next((v for v in volumes if v.series_instance_uid in series), None)


def _as_far_apart(header: Dataset, frames: Sequence[Frame], volumes: Sequence[Volume]) -> Volume:
    """Return the volume whose slices are as far apart as the frames, all of which fit; the first of those alike.

    Refuses (`seg-without-image`) when the frames and SpacingBetweenSlices agree on another distance.
    """
    step = _step(frames, volumes[0])
    if step is None:
        return volumes[0]
    best = min(volumes, key=lambda v: round(abs(v.spacing_mm[0] - step), 2))
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    each = items(header, "PerFrameFunctionalGroupsSequence")[:1]
    measures = [m for group in (*each, *shared) for m in items(group, "PixelMeasuresSequence")]
    said = next((d[0] for m in measures if (d := numbers(m, "SpacingBetweenSlices"))), None)
    off = STEP_FRACTION * step
    if said is not None and abs(said - step) <= off < abs(best.spacing_mm[0] - step):
        raise Refused(
            "seg-without-image",
            f"its frames lie {step:.1f} mm apart and the slices of the images here {best.spacing_mm[0]:.1f} mm; "
            "send the images that it was made from",
        )
    return best


def _step(frames: Sequence[Frame], volume: Volume) -> float | None:
    """Return the smallest distance of frames in different planes, mm; None when all lie in one."""
    positions = np.array([frame.plane.position_mm for frame in frames]).reshape(-1, 3)
    along = np.sort(positions @ slice_normal(volume))
    steps = np.diff(along)
    apart = steps[steps > ON_GRID * volume.spacing_mm[0]]
    return float(apart.min()) if apart.size else None


def _derived_from(header: Dataset) -> set[str]:
    """Return the instances that the frames say they were derived from."""
    groups = (
        *items(header, "SharedFunctionalGroupsSequence"),
        *items(header, "PerFrameFunctionalGroupsSequence"),
    )
    return {
        text(source, "ReferencedSOPInstanceUID")
        for group in groups
        for derivation in items(group, "DerivationImageSequence")
        for source in items(derivation, "SourceImageSequence")
    } - {""}


def _listed(header: Dataset) -> set[str]:
    """Return the instances of ReferencedSeriesSequence."""
    return {
        text(source, "ReferencedSOPInstanceUID")
        for series in items(header, "ReferencedSeriesSequence")
        for source in items(series, "ReferencedInstanceSequence")
    } - {""}


def _fits(frames: Sequence[Frame], volume: Volume) -> bool:
    try:
        return all(place(frame.plane, volume) is not None for frame in frames)
    except Refused:
        return False


def place(plane: Plane, volume: Volume) -> Placed | None:
    """Return where a frame's pixels fall in a volume, None when its plane lies on no slice.

    Refuses (`seg-other-grid`) frames that are turned, stretched or shifted by a part of a voxel against the slices.
    """
    row, column, normal = axes(plane)
    step = volume.geometry.affine[:3, 0] / volume.spacing_mm[0]
    if abs(normal @ step) < 0.999:
        raise Refused("seg-other-grid", "its frames are not parallel to the slices of its images")
    position = np.array(plane.position_mm)
    ks, distances = slice_distances(position[None], volume)
    k = int(ks[0])
    if abs(distances[0]) > ON_GRID * volume.spacing_mm[0]:
        return None
    corner = np.array(volume.slice_positions[k]) - volume.geometry.affine[:3, 3]
    inverse = np.linalg.inv(volume.geometry.affine)[:3, :3]
    first = (inverse @ (position - volume.geometry.affine[:3, 3] - corner))[1:]
    along_row = (inverse @ (row * plane.spacing_mm[1]))[1:]
    along_column = (inverse @ (column * plane.spacing_mm[0]))[1:]
    turn = np.rint(np.stack([along_column, along_row], axis=1))
    ends = np.array([plane.rows - 1, plane.columns - 1])
    drift = np.abs(np.stack([along_column, along_row], axis=1) - turn) @ ends
    is_turn = (np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()
    if not is_turn or (drift + np.abs(first - np.rint(first)) > ON_GRID).any():
        raise Refused(
            "seg-other-grid", "its pixels are not those of its images; resample it to their grid first"
        )
    last = np.rint(first) + turn @ ends
    origin = np.minimum(np.rint(first), last).astype(int)
    swaps = bool(turn[0, 0] == 0)
    signs = turn.sum(axis=1)
    return Placed(
        k=k,
        turn=lambda frame: (frame.T if swaps else frame)[:: int(signs[0]), :: int(signs[1])],
        origin=(int(origin[0]), int(origin[1])),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Values:
    """What the pixel values of a SEG mean, and which segments had values between none and full."""

    kind: str
    maximum: float
    between: set[int]

    @classmethod
    def of(cls, header: Dataset) -> _Values:
        kind = text(header, "SegmentationType").upper() or "BINARY"
        return cls(kind=kind, maximum=float(integer(header, "MaximumFractionalValue") or 255), between=set())

    def of_frame(self, stored: Stored, segment: int | None, numbers_: Sequence[int]) -> dict[int, BoolArray]:
        """Return the pixels of each segment in a frame."""
        if self.kind == "LABELMAP":
            present = set(np.unique(stored).tolist())
            return {n: stored == n for n in numbers_ if n in present}
        if segment is None:
            return {}
        if self.kind == "FRACTIONAL":
            if ((stored != 0) & (stored != self.maximum)).any():
                self.between.add(segment)
            return {segment: stored >= THRESHOLD * self.maximum}
        return {segment: stored != 0}

    def flags(self, segment: int) -> list[Flag]:
        """Return the doubt that a segment was thresholded."""
        if segment not in self.between:
            return []
        return [
            Flag(code="seg-thresholded", sentence=f"its fractions were cut at {THRESHOLD} of the maximum")
        ]


def _collect(
    frames: Sequence[Frame],
    placed: Sequence[Placed | None],
    reader: Callable[[int], Stored],
    values: _Values,
    described: dict[int | None, Dataset],
) -> dict[int, list[Block]]:
    """Return the blocks of each segment; a block without slice (None) has pixels where no image is."""
    blocks: dict[int, list[Block]] = {}
    wanted = [n for n in described if n]
    for frame, where in zip(frames, placed, strict=True):
        for number, pixels in values.of_frame(reader(frame.index), frame.segment, wanted).items():
            if not pixels.any():
                continue
            if where is None:
                blocks.setdefault(number, []).append(Block(k=None, origin=(0, 0), pixels=pixels))
            else:
                block = Block(k=where.k, origin=where.origin, pixels=where.turn(pixels))
                blocks.setdefault(number, []).append(block)
    return blocks


def _gaps(pieces: Sequence[Block]) -> list[Flag]:
    """Return the doubt that slices are left out: no two follow one another, or one is empty amid a region."""
    ks = sorted({piece.k for piece in pieces if piece.k is not None})
    steps = np.diff(ks)
    if steps.size and steps.min() > 1:
        if (steps == steps[0]).all():
            said = f"only one slice in {steps[0]} has pixels of it"
        else:
            said = "no two neighbouring slices have pixels of it"
    elif count := sum(_goes_on(pieces, int(ks[i]), int(ks[i + 1])) for i in np.flatnonzero(steps == 2)):
        slices, have = ("slice", "has") if count == 1 else ("slices", "have")
        said = f"{count} {slices} between two that have pixels of it at the same place {have} none"
    else:
        return []
    return [Flag(code="seg-gaps", sentence=f"{said}; nothing was filled in between")]


def _goes_on(pieces: Sequence[Block], first: int, last: int) -> bool:
    """Return whether a segment has on two slices pixels at the same place."""
    ends = ([piece for piece in pieces if piece.k == k] for k in (first, last))
    return any(overlap(one, other) for one, other in product(*ends))


def _drawn(
    file: File, segment: Dataset, number: int, label: str, mask: Mask, volume: Volume, flags: Sequence[Flag]
) -> Drawn:
    return Drawn(
        label=label,
        mask=mask,
        series_instance_uid=volume.series_instance_uid,
        source="SEG",
        source_sop_instance_uid=file.sop_instance_uid,
        number=number,
        type_code=code(segment, "SegmentedPropertyTypeCodeSequence"),
        category_code=code(segment, "SegmentedPropertyCategoryCodeSequence"),
        site_code=code(segment, "AnatomicRegionSequence"),
        tracking_identifier=text(segment, "TrackingID") or None,
        tracking_uid=text(segment, "TrackingUID") or None,
        flags=tuple(flags),
    )

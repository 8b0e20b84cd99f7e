"""Findings to a DICOM Segmentation: one BINARY SEG per source series, on the source grid.

highdicom builds the object; the frames are laid in here, straight from the boxes of the masks, so that memory goes
with what is segmented and not with slices times segments, overlapping segments cost nothing extra, and the bytes
are the same whenever the input is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from plugins.contract import Finding, Mask, Volume
from plugins.errors import Broken
from store.dicom.common_voxels import overlaps
from store.dicom.encoded import Form, put
from store.dicom.equipment import (
    MANUFACTURER,
    RESEARCH_USE,
    algorithm_family,
    contributing,
    equipment,
    inherit,
    one_line,
    parameters,
    stand_in,
)
from store.dicom.frames import (
    FRAME_GROUPS,
    References,
    decimal,
    frame_groups,
    orientation,
    pack_frames,
    position,
)
from store.dicom.uids import derive_uid
from store.dicom.voxel_hash import voxel_hash
from store.provenance import Provenance

PALETTE: Final[tuple[tuple[int, int, int], ...]] = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
    (0, 128, 128),
    (220, 190, 255),
    (170, 110, 40),
    (255, 250, 200),
    (128, 0, 0),
    (170, 255, 195),
    (128, 128, 0),
    (255, 215, 180),
    (0, 0, 128),
    (128, 128, 128),
    (255, 225, 25),
)
"""RGB of the segments, by number; distinct to most eyes, none near black or white."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Identified:
    """A finding that has its identity: who it is over time, and which segment it is."""

    finding: Finding
    """What was found."""
    segment_number: int
    """Number of its segment in the SEG of its series, from 1, without gaps."""
    tracking_identifier: str
    """Tracking ID: what people read, unique in the patient."""
    tracking_uid: str
    """Tracking UID: the same in SEG and SR, and at every time point of the same lesion."""
    before_uid: str = ""
    """What it would be without a person's relink of this very drawing; empty where nobody relinked it."""


def encode_seg(
    findings: Sequence[Identified],
    volume: Volume,
    headers: Mapping[str, Dataset],
    provenance: Provenance,
    series_number: int,
    written_at: datetime,
    *,
    omit_empty_frames: bool = True,
) -> Dataset:
    """Return the SEG of all findings on one volume: BINARY, Explicit VR Little Endian, on the source grid.

    `headers` are the source's, by SOP Instance UID, without pixels; frames are at the positions they give. Segments
    are in the order of their numbers, frames by segment and slice; `omit_empty_frames=False` writes every slice of
    every segment. Equal input gives equal bytes. Broken when there is no finding, when segment numbers are not
    1 .. n, or when a mask is not on the grid of the volume. Source: PS3.3 A.51, C.8.20.
    """
    ordered = sorted(findings, key=lambda f: f.segment_number)
    if [f.segment_number for f in ordered] != list(range(1, len(ordered) + 1)) or not ordered:
        raise Broken("the segments of a SEG are numbered 1 to n; an empty SEG is not written")
    if any(f.finding.mask.shape != volume.array.shape for f in ordered):
        raise Broken("a mask does not have the shape of the volume it lies on")
    first = headers[volume.sop_instance_uids[0]]
    result = _shell(ordered, volume, first, provenance, series_number)
    inherit(result, first, provenance, written_at)
    frames = [
        (f.segment_number, k, f.finding.mask)
        for f in ordered
        for k in _slices(f.finding.mask, omit_empty_frames)
    ]
    _lay_frames(result, frames, volume, headers)
    return result


def _shell(
    ordered: Sequence[Identified], volume: Volume, first: Dataset, provenance: Provenance, series_number: int
) -> Dataset:
    """Return the SEG with everything but its frames: highdicom is given one pixel a segment, on one slice."""
    _, rows, columns = volume.array.shape
    if len(ordered) > rows * columns:
        raise Broken("there are more segments than pixels in a frame")
    plane = np.zeros(rows * columns, dtype=np.uint16)
    plane[: len(ordered)] = np.arange(1, len(ordered) + 1)
    key, series = provenance.job_key, volume.series_instance_uid
    source = stand_in(first)
    source.Rows, source.Columns = rows, columns
    source.FrameOfReferenceUID = volume.frame_of_reference_uid or derive_uid("frame-of-reference", series)
    source.PositionReferenceIndicator = first.get("PositionReferenceIndicator")
    source.ImageOrientationPatient = orientation(volume)
    source.ImagePositionPatient = list(volume.slice_positions[0])
    spacing = [decimal(s) for s in volume.spacing_mm]
    source.PixelSpacing, source.SliceThickness = spacing[1:], spacing[0]
    result: Dataset = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=plane.reshape(1, rows, columns),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(f, provenance) for f in ordered],
        series_instance_uid=derive_uid(key, "seg", series, "series"),
        series_number=series_number,
        series_description=one_line(f"{MANUFACTURER} {provenance.plugin} segmentation ({volume.modality})"),
        sop_instance_uid=derive_uid(key, "seg", series, "instance"),
        instance_number=1,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        pixel_measures=highdicom.PixelMeasuresSequence(
            pixel_spacing=spacing[1:],
            slice_thickness=decimal(first.get("SliceThickness") or spacing[0]),
            spacing_between_slices=spacing[0],
        ),
        plane_orientation=highdicom.PlaneOrientationSequence("PATIENT", orientation(volume)),
        plane_positions=[highdicom.PlanePositionSequence("PATIENT", position(volume, first, 0))],
        content_label="NADIR_SEG",
        content_creator_name="Nadir^Algorithm",
        content_description=one_line(f"{RESEARCH_USE}: {provenance.plugin} {provenance.plugin_version}"),
        contributing_equipment=[contributing(provenance)],
        **equipment(provenance),
    )
    # highdicom's is that of the one plane it was given
    result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = spacing[0]
    organization = derive_uid(key, "seg", series, "dimensions")
    result.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in result.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    return result


def _describe(identified: Identified, provenance: Provenance) -> SegmentDescription:
    finding = identified.finding
    automatic = finding.automatic
    item = SegmentDescription(
        segment_number=identified.segment_number,
        segment_label=one_line(finding.label) or f"Segment {identified.segment_number}",
        segmented_property_category=finding.category,
        segmented_property_type=finding.type,
        algorithm_type=_algorithm_type(finding),
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=one_line(provenance.model_name),
            family=algorithm_family(provenance),
            version=one_line(provenance.model_version),
            source=MANUFACTURER,
            parameters={**parameters(provenance), "voxels": voxel_hash(finding.mask)},
        )
        if automatic
        else None,
        tracking_uid=identified.tracking_uid,
        tracking_id=identified.tracking_identifier,
        anatomic_regions=None if finding.site is None else [finding.site],
        display_color=CIELabColor.from_rgb(*PALETTE[(identified.segment_number - 1) % len(PALETTE)]),
    )
    if finding.laterality is not None:
        side = [CodedConcept.from_code(finding.laterality)]
        if finding.site is not None:
            item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = side
        else:
            item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = side
    return item


def _algorithm_type(finding: Finding) -> SegmentAlgorithmTypeValues:
    if not finding.automatic:
        return SegmentAlgorithmTypeValues.MANUAL
    if finding.is_pointed_at:
        return SegmentAlgorithmTypeValues.SEMIAUTOMATIC
    return SegmentAlgorithmTypeValues.AUTOMATIC


def _slices(mask: Mask, omit_empty: bool) -> list[int]:
    if not omit_empty:
        return list(range(mask.shape[0]))
    return [int(k) + mask.origin[0] for k in np.flatnonzero(mask.voxels.any(axis=(1, 2)))]


def _lay_frames(
    result: Dataset, frames: Sequence[tuple[int, int, Mask]], volume: Volume, headers: Mapping[str, Dataset]
) -> None:
    """Put the frames `(segment number, slice k, mask)` with their functional groups into the SEG."""
    used = sorted({k for _, k, _ in frames})
    shared = result.SharedFunctionalGroupsSequence[0]
    for keyword in FRAME_GROUPS:
        if keyword in shared:  # highdicom shares what its one frame has
            del shared[keyword]
    result.NumberOfFrames = len(frames)
    result.PixelData = pack_frames(
        [(k, mask) for _, k, mask in frames], volume.array.shape[1], volume.array.shape[2]
    )
    result["PixelData"].VR = "OB"
    masks = list({number: mask for number, _, mask in frames}.values())
    overlap = any(overlaps(a, b) for i, a in enumerate(masks) for b in masks[:i])
    result.SegmentsOverlap = "YES" if overlap else "NO"
    uids = dict.fromkeys(volume.sop_instance_uids[k] for k in used)
    references = References()
    sources = [references.encode(headers[uid], volume) for uid in uids]
    series = Dataset()
    series.SeriesInstanceUID = volume.series_instance_uid
    series.ReferencedInstanceSequence = []
    put(
        result,
        {
            "PerFrameFunctionalGroupsSequence": frame_groups(
                [(number, k) for number, k, _ in frames], volume, headers
            ),
            "ReferencedSeriesSequence": [Form(series, [series["ReferencedInstanceSequence"]]).fill(sources)],
            "SourceImageSequence": sources,
        },
    )

"""Rules for SEG: segments, frames, geometry, packed bits (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from plugins import codes
from store.dicom.equipment import RESEARCH_USE
from store.dicom.items import code_of, items, same, text
from store.dicom.uids import is_legal
from store.dicom.violation import Rule, Violation, own

LABEL_MAP_SEGMENTATION_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.66.7"
SEG_CLASSES: Final = (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE)
ALGORITHM_TYPES: Final = ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL")
NEAR_MM: Final = 0.01


def seg_header(seg: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Type, content label, referenced series, patient and study present; the syntax that every reader knows."""
    if text(seg, "SegmentationType") not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        yield _broken("seg-type", "SegmentationType", "the type is not BINARY, FRACTIONAL or LABELMAP")
    for keyword in (
        "ContentLabel",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "SeriesNumber",
    ):
        if not text(seg, keyword):
            yield _broken("seg-header", keyword, "is missing or empty")
    series = items(seg, "ReferencedSeriesSequence")
    if not series:
        yield _broken("seg-references", "ReferencedSeriesSequence", "is missing: viewers drop such a SEG")
    for item in series:
        if not text(item, "SeriesInstanceUID") or not items(item, "ReferencedInstanceSequence"):
            yield _broken(
                "seg-references", "ReferencedSeriesSequence", "an item names no series or no instances"
            )


def seg_own(seg: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """What every SEG of our own has besides."""
    if not own(seg):
        return
    if text(seg, "SegmentationType") != "BINARY":
        yield _broken("seg-type", "SegmentationType", "ours are BINARY")
    meta = getattr(seg, "file_meta", None)
    if meta is not None and meta.get("TransferSyntaxUID") != ExplicitVRLittleEndian:
        yield _broken("seg-syntax", "TransferSyntaxUID", "ours are Explicit VR Little Endian, uncompressed")
    if RESEARCH_USE.lower() not in text(seg, "ContentDescription").lower():
        yield _broken("research-use", "ContentDescription", f"does not say '{RESEARCH_USE}'")
    if len(items(seg, "ReferencedSeriesSequence")) != 1:
        yield _broken("seg-references", "ReferencedSeriesSequence", "ours refer to one series")
    yield from own_equipment(seg)
    for segment in items(seg, "SegmentSequence"):
        where = f"segment {text(segment, 'SegmentNumber')}"
        if not text(segment, "TrackingID") or not text(segment, "TrackingUID"):
            yield _broken("seg-tracking", where, "has no Tracking ID and UID")
        if len(segment.get("RecommendedDisplayCIELabValue") or ()) != 3:
            yield _broken("seg-colour", where, "has no recommended colour")
    uids = Counter(text(s, "TrackingUID") for s in items(seg, "SegmentSequence"))
    for uid, times in uids.items():
        if uid and times > 1:
            yield _broken("seg-tracking", uid, "is the Tracking UID of several segments")


def own_equipment(dataset: Dataset) -> Iterator[Violation]:
    """Every result of our own names the algorithm as contributing equipment (IHE AIR)."""
    found = [
        item
        for item in items(dataset, "ContributingEquipmentSequence")
        if same(code_of(item, "PurposeOfReferenceCodeSequence"), codes.PROCESSING_ALGORITHM)
    ]
    needed = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID")
    if not any(all(text(item, keyword) for keyword in needed) for item in found):
        yield _broken(
            "equipment", "ContributingEquipmentSequence", "does not name the algorithm with its Device UID"
        )


def seg_segments(seg: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Each segment has number, label, algorithm, coded category and type, and a whole, legal tracking pair or none."""
    segments = items(seg, "SegmentSequence")
    if not segments:
        yield _broken("seg-segments", "SegmentSequence", "there is no segment")
    numbers = [text(s, "SegmentNumber") for s in segments]
    if text(seg, "SegmentationType") != "LABELMAP" and numbers != [str(i + 1) for i in range(len(numbers))]:
        yield _broken("seg-segments", "SegmentNumber", "segments are not numbered 1 to n")
    for segment, number in zip(segments, numbers, strict=True):
        where = f"segment {number}"
        if not text(segment, "SegmentLabel"):
            yield _broken("seg-segments", where, "has no label")
        kind = text(segment, "SegmentAlgorithmType")
        if kind not in ALGORITHM_TYPES:
            yield _broken("seg-algorithm", where, "SegmentAlgorithmType is missing or unknown")
        elif kind != "MANUAL" and not text(segment, "SegmentAlgorithmName"):
            yield _broken("seg-algorithm", where, "names no algorithm although it was not drawn by hand")
        for keyword in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
            if code_of(segment, keyword) is None:
                yield _broken("seg-codes", where, f"{keyword} is missing or no whole code")
        if bool(text(segment, "TrackingID")) != bool(text(segment, "TrackingUID")):
            yield _broken("seg-tracking", where, "Tracking ID and Tracking UID come together or not at all")
        if (uid := text(segment, "TrackingUID")) and not is_legal(uid):
            yield _broken("seg-tracking", where, f"its Tracking UID '{uid}' is no legal UID")


def seg_frames(seg: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Each frame has its segment, its place and its source; no place has two frames of one segment."""
    frames = items(seg, "PerFrameFunctionalGroupsSequence")
    tiled = text(seg, "DimensionOrganizationType") == "TILED_FULL"
    if not tiled and len(frames) != int(text(seg, "NumberOfFrames") or 0):
        yield _broken(
            "seg-frames", "NumberOfFrames", f"says {text(seg, 'NumberOfFrames')}, groups are {len(frames)}"
        )
    shared = (items(seg, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for element in frames[0] if frames else ():
        if element.tag in shared:
            yield _broken(
                "seg-frames", element.keyword, "is given for each frame and for all frames together"
            )
    known = {text(s, "SegmentNumber") for s in items(seg, "SegmentSequence")}
    dimensions = len(items(seg, "DimensionIndexSequence"))
    listed = referenced_instances(seg)
    seen: Counter[tuple[str, ...]] = Counter()
    for i, frame in enumerate(frames, start=1):
        where = f"frame {i}"
        number = ""
        if text(seg, "SegmentationType") != "LABELMAP":
            groups = items(frame, "SegmentIdentificationSequence") or items(
                shared, "SegmentIdentificationSequence"
            )
            number = text(groups[0], "ReferencedSegmentNumber") if groups else ""
            if number not in known:
                yield _broken("seg-frames", where, f"belongs to segment '{number}', which is not described")
        for content in items(frame, "FrameContentSequence")[:1]:
            values = content.get("DimensionIndexValues")
            if np.size(values) != dimensions:
                yield _broken("seg-frames", where, "DimensionIndexValues do not fit DimensionIndexSequence")
        position = _position(frame, shared)
        seen[(number, *position)] += 1
        if position and seen[(number, *position)] > 1:
            yield _broken("seg-frames", where, f"is a second frame of segment {number} at {position}")
        if not position and "TotalPixelMatrixColumns" not in seg and text(seg, "FrameOfReferenceUID"):
            yield _broken("seg-geometry", where, "has no position")
        sources = [uid for uid, _ in frame_sources(frame)]
        if own(seg) and not sources:
            yield _broken("seg-derivation", where, "names no source image")
        for uid in sources:
            if uid not in listed:
                yield _broken("seg-references", where, f"its source {uid} is not in ReferencedSeriesSequence")


def seg_pixels(seg: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """The packed bits are exactly as many as the frames need (PS3.5 8.1.1)."""
    if text(seg, "SegmentationType") != "BINARY":
        return
    if seg.get("BitsAllocated") != 1 or seg.get("BitsStored") != 1:
        yield _broken("seg-pixels", "BitsAllocated", "a BINARY SEG has one bit a pixel")
    meta = getattr(seg, "file_meta", None)
    if "PixelData" not in seg or (meta is not None and meta.TransferSyntaxUID.is_compressed):
        return
    bits = int(text(seg, "NumberOfFrames") or 1) * int(seg.Rows) * int(seg.Columns)
    length = (bits + 7) // 8
    if len(seg.PixelData) != length + length % 2:
        yield _broken(
            "seg-pixels", "PixelData", f"has {len(seg.PixelData)} bytes, {length + length % 2} are needed"
        )


def seg_geometry(seg: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Each frame lies where its source image lies: same patient, study, frame of reference, grid, position."""
    images = {text(c, "SOPInstanceUID"): c for c in companions if "ImagePositionPatient" in c}
    shared = (items(seg, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    judged: set[str] = set()
    for i, frame in enumerate(items(seg, "PerFrameFunctionalGroupsSequence"), start=1):
        for uid, _ in frame_sources(frame):
            image = images.get(uid)
            if image is None:
                continue
            place = np.array(_position(frame, shared), dtype=float)
            if place.size and not np.allclose(
                place, np.array(image.ImagePositionPatient, dtype=float), atol=NEAR_MM
            ):
                yield _broken(
                    "seg-geometry", f"frame {i}", "does not lie at the position of its source image"
                )
            if uid not in judged:
                judged.add(uid)
                yield from _same_image(seg, image, frame, shared)


def _same_image(seg: Dataset, image: Dataset, frame: Dataset, shared: Dataset) -> Iterator[Violation]:
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "Rows", "Columns"):
        ours, theirs = text(seg, keyword), text(image, keyword)
        if keyword in image and ours != theirs:
            yield _broken("seg-geometry", keyword, f"is '{ours}', that of its source '{theirs}'")
    groups = items(frame, "PlaneOrientationSequence") or items(shared, "PlaneOrientationSequence")
    given = image.get("ImageOrientationPatient")
    if (
        groups
        and given is not None
        and not np.allclose(
            np.array(groups[0].ImageOrientationPatient, float), np.array(given, float), atol=1e-4
        )
    ):
        yield _broken("seg-geometry", "ImageOrientationPatient", "is not that of its source")


def referenced_instances(seg: Dataset) -> set[str]:
    """Return every SOP Instance UID that a SEG lists as referenced, in its own study and in others."""
    found = set()
    for series in items(seg, "ReferencedSeriesSequence"):
        found |= {text(i, "ReferencedSOPInstanceUID") for i in items(series, "ReferencedInstanceSequence")}
    for study in items(seg, "StudiesContainingOtherReferencedInstancesSequence"):
        found |= referenced_instances(study)
    return found


def frame_sources(frame: Dataset) -> list[tuple[str, str]]:
    """Return (SOP Instance UID, frame number or empty) of the images that a frame was derived from."""
    return [
        (text(source, "ReferencedSOPInstanceUID"), text(source, "ReferencedFrameNumber"))
        for derivation in items(frame, "DerivationImageSequence")
        for source in items(derivation, "SourceImageSequence")
    ]


def _position(frame: Dataset, shared: Dataset) -> tuple[str, ...]:
    groups = items(frame, "PlanePositionSequence") or items(shared, "PlanePositionSequence")
    if groups and groups[0].get("ImagePositionPatient") is not None:
        return tuple(str(x) for x in groups[0].ImagePositionPatient)
    for slide in items(frame, "PlanePositionSlideSequence")[:1]:
        keys = ("ColumnPositionInTotalImagePixelMatrix", "RowPositionInTotalImagePixelMatrix")
        return (*(text(slide, key) for key in keys), text(slide, "ZOffsetInSlideCoordinateSystem"))
    return ()


def _broken(rule: str, where: str, sentence: str) -> Violation:
    return Violation(rule=rule, where=where, sentence=sentence)


SEG_RULES: Final[tuple[Rule, ...]] = (seg_header, seg_own, seg_segments, seg_frames, seg_pixels, seg_geometry)

"""SEG and SRs made by highdicom and pydicom alone, item by item: what the encoded ones must equal byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.sr import (
    CodeContentItem,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    LanguageOfContentItemAndDescendants,
)
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from small_results import NOW, Case

from plugins import codes
from store.dicom import seg as seg_module
from store.dicom import sr as sr_module
from store.dicom.common_voxels import overlaps
from store.dicom.drawing import drawn_slice
from store.dicom.equipment import MANUFACTURER, contributing, equipment, inherit, one_line, stand_in
from store.dicom.frames import FRAME_GROUPS, pack_frames, plane_groups, reference
from store.dicom.groups import identify_algorithm, planar_group, volumetric_group
from store.dicom.sr import Report
from store.dicom.uids import derive_uid


def plain_seg(case: Case) -> Dataset:
    """Return the SEG of a case with every functional group a pydicom data set."""
    volume, headers = case.volume, case.headers
    first = headers[volume.sop_instance_uids[0]]
    result = seg_module._shell(case.findings, volume, first, case.provenance, 801)
    inherit(result, first, case.provenance, NOW)
    frames = [
        (f.segment_number, k, f.finding.mask)
        for f in case.findings
        for k in seg_module._slices(f.finding.mask, True)
    ]
    used = sorted({k for _, k, _ in frames})
    planes = {k: plane_groups(volume, headers, k) for k in used}
    groups = []
    for number, k, _ in frames:
        content, identification, group = Dataset(), Dataset(), Dataset()
        content.DimensionIndexValues = [number, used.index(k) + 1]
        identification.ReferencedSegmentNumber = number
        group.add(planes[k]["DerivationImageSequence"])
        group.FrameContentSequence = [content]
        group.add(planes[k]["PlanePositionSequence"])
        group.SegmentIdentificationSequence = [identification]
        groups.append(group)
    result.PerFrameFunctionalGroupsSequence = groups
    for keyword in FRAME_GROUPS:
        if keyword in result.SharedFunctionalGroupsSequence[0]:
            del result.SharedFunctionalGroupsSequence[0][keyword]
    result.NumberOfFrames = len(frames)
    result.PixelData = pack_frames([(k, mask) for _, k, mask in frames], *volume.array.shape[1:])
    result["PixelData"].VR = "OB"
    masks = [f.finding.mask for f in case.findings]
    overlap = any(overlaps(a, b) for i, a in enumerate(masks) for b in masks[:i])
    result.SegmentsOverlap = "YES" if overlap else "NO"
    uids = dict.fromkeys(volume.sop_instance_uids[k] for k in used)
    series = Dataset()
    series.SeriesInstanceUID = volume.series_instance_uid
    series.ReferencedInstanceSequence = [reference(headers[uid], volume) for uid in uids]
    result.ReferencedSeriesSequence = [series]
    result.SourceImageSequence = [reference(headers[uid], volume) for uid in uids]
    return result


def plain_volumetric(case: Case, seg: Dataset, report: Report) -> Dataset:
    """Return the TID 1411 report of a case, its whole content given to highdicom's constructor."""
    algorithm = identify_algorithm(case.provenance)
    groups = [volumetric_group(f, seg, algorithm)[0] for f in case.findings]
    listed = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    uids = [item.ReferencedSOPInstanceUID for item in listed]
    ordered = [uid for uid in dict.fromkeys(case.volume.sop_instance_uids) if uid in uids]
    return _document(
        Comprehensive3DSR, "sr-volumetric", "measurements (segments)", groups, ordered, seg, report
    )


def plain_planar(case: Case, seg: Dataset, report: Report) -> Dataset:
    """Return the TID 1410 report of a case, likewise."""
    algorithm = identify_algorithm(case.provenance)
    groups = [planar_group(f, case.volume, case.headers, algorithm)[0] for f in case.findings]
    uids = [case.volume.sop_instance_uids[drawn_slice(f.finding)] for f in case.findings]
    return _document(ComprehensiveSR, "sr-planar", "measurements (key images)", groups, uids, seg, report)


def _document(
    kind: type[Dataset],
    name: str,
    title: str,
    groups: Sequence[Dataset],
    uids: Sequence[str],
    seg: Dataset,
    report: Report,
) -> Dataset:
    images = [stand_in(report.headers[uid]) for uid in dict.fromkeys(uids)]
    for image in images:
        image.SOPClassUID = report.headers[image.SOPInstanceUID].SOPClassUID
    header, provenance = report.headers[images[0].SOPInstanceUID], report.provenance
    root = ContainerContentItem(
        codes.IMAGING_MEASUREMENT_REPORT, is_content_continuous=False, template_id="1500"
    )
    content = ContentSequence()
    content.extend(LanguageOfContentItemAndDescendants(codes.ENGLISH))
    content.extend(sr_module.observer(provenance))
    for procedure in sr_module.procedures(header):
        content.append(CodeContentItem(codes.PROCEDURE_REPORTED, procedure, "HAS CONCEPT MOD"))
    measurements = ContainerContentItem(codes.IMAGING_MEASUREMENTS, relationship_type="CONTAINS")
    measurements.ContentSequence = ContentSequence(groups)
    content.append(measurements)
    outcome = sr_module._OUTCOMES[True, bool(report.refused)]
    content.append(sr_module._evaluations(outcome, report))
    root.ContentSequence = content
    result: Dataset = kind(
        evidence=[*images, seg],
        content=root,
        series_instance_uid=derive_uid(provenance.job_key, name, "series"),
        series_number=report.series_number,
        series_description=one_line(f"{MANUFACTURER} {provenance.plugin} {title}"),
        sop_instance_uid=derive_uid(provenance.job_key, name, "instance"),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=list(report.predecessors) or None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[contributing(provenance)],
        **equipment(provenance),
    )
    inherit(result, header, provenance, NOW)
    return result

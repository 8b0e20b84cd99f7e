"""Findings to Structured Reports after TID 1500.

Two reports say the same of one job. The volumetric one (TID 1411, Comprehensive 3D SR) names each finding's segment:
it is what machines read. The planar one (TID 1410, Comprehensive SR) draws each finding on one source image: it is
what a viewer shows, because viewers of today show nothing of a group that names a segment. They are not mixed in one
report, which some viewers do not open. Each is alone in its series: viewers show the last report of a series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from highdicom.sr import (
    CodeContentItem,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    ObservationContext,
    ObserverContext,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from plugins import codes
from plugins.contract import Flag, Volume
from plugins.errors import Broken
from store.dicom.drawing import drawn_slice
from store.dicom.encoded import Form, all_ascii, encode, put
from store.dicom.equipment import (
    MANUFACTURER,
    RESEARCH_USE,
    contributing,
    device_uid,
    equipment,
    inherit,
    one_line,
    stand_in,
)
from store.dicom.group_forms import Groups
from store.dicom.seg import Identified
from store.dicom.uids import derive_uid
from store.dicom.values import text
from store.provenance import Provenance

PROCEDURES: Final = {
    "CT": codes.CT_PROCEDURE,
    "MR": codes.MR_PROCEDURE,
    "PT": codes.PET_PROCEDURE,
    "NM": codes.NM_PROCEDURE,
    "CR": codes.XR_PROCEDURE,
    "DX": codes.XR_PROCEDURE,
}
_OUTCOMES: Final = {
    (True, False): codes.ALL_WITH_FINDINGS,
    (True, True): codes.SOME_WITH_FINDINGS,
    (False, False): codes.ALL_WITHOUT_FINDINGS,
    (False, True): codes.SOME_WITHOUT_FINDINGS,
}
"""What CAD Processing and Findings Summary (CID 6047) says, by whether something was found and something refused."""
NOTHING_FOUND_TITLE: Final = codes.ONCOLOGY_MEASUREMENT_REPORT
INTENDED_USE: Final = f"{RESEARCH_USE}. Made by an algorithm and not verified by a person; not for diagnosis."


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report is made of beside its findings."""

    headers: Mapping[str, Dataset]
    """Headers of the source, by SOP Instance UID, without pixels."""
    provenance: Provenance
    """Who made it, from what."""
    series_number: int
    """SeriesNumber of the report."""
    written_at: datetime
    """When it is written; aware."""
    flags: Sequence[Flag] = ()
    """Doubts and notes; they become text."""
    refused: Sequence[Flag] = ()
    """What was refused; it becomes text."""
    predecessors: Sequence[Dataset] = ()
    """The reports that this one supersedes."""


def encode_volumetric(
    findings: Sequence[Identified],
    volumes: Sequence[Volume],
    segs: Sequence[Dataset],
    report: Report,
) -> Dataset:
    """Return the report whose groups name the findings' segments in `segs` (TID 1411), over all series of one job.

    Evidence are the SEGs and the slices of `volumes` that they were made from.
    Broken when there is no finding (`encode_nothing_found` says that) or no SEG of a finding's series.
    """
    by_series = {seg.ReferencedSeriesSequence[0].SeriesInstanceUID: seg for seg in segs}
    _check(findings, by_series)
    groups = Groups(report.provenance)
    encoded = [groups.volumetric(f, by_series[f.finding.series_instance_uid]) for f in findings]
    listed = {
        item.ReferencedSOPInstanceUID
        for seg in segs
        for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    uids = [uid for volume in volumes for uid in volume.sop_instance_uids if uid in listed]
    return _document(
        Comprehensive3DSR,
        "sr-volumetric",
        "measurements (segments)",
        encoded,
        uids,
        segs,
        report,
        groups.is_ascii,
    )


def encode_planar(
    findings: Sequence[Identified],
    volumes: Sequence[Volume],
    segs: Sequence[Dataset],
    report: Report,
) -> Dataset:
    """Return the report that draws each finding on one source image (TID 1410), over all series of one job.

    `segs` are named as evidence. Everything else as in `encode_volumetric`.
    """
    by_series = {volume.series_instance_uid: volume for volume in volumes}
    _check(findings, by_series)
    groups = Groups(report.provenance)
    encoded, uids = [], []
    for identified in findings:
        volume = by_series[identified.finding.series_instance_uid]
        encoded.append(groups.planar(identified, volume, report.headers))
        uids.append(volume.sop_instance_uids[drawn_slice(identified.finding)])
    return _document(
        ComprehensiveSR,
        "sr-planar",
        "measurements (key images)",
        encoded,
        uids,
        segs,
        report,
        groups.is_ascii,
    )


def encode_nothing_found(
    volumes: Sequence[Volume],
    report: Report,
) -> Dataset:
    """Return the report of an analysis that found nothing: TID 1500 with evaluations and no measurements.

    Its title is another one of TID 1500 (CID 7021) than that of measurements: viewers look for lines to draw in an
    Imaging Measurement Report and fail when there are none, but show this one as text.
    `volumes` are the ones that were analysed; their images are the evidence. Without any, the report says that no
    analysis succeeded, and every image of `headers` is evidence.
    """
    uids = [uid for volume in volumes for uid in volume.sop_instance_uids] or list(report.headers)
    title = "nothing found" if volumes else "not analysed"
    return _document(Comprehensive3DSR, "sr-volumetric", title, [], uids, (), report, analysed=bool(volumes))


def _check(findings: Sequence[Identified], by_series: Mapping[str, object]) -> None:
    if not findings:
        raise Broken(
            "a report of measurements needs a finding; `encode_nothing_found` says that there is none"
        )
    missing = {f.finding.series_instance_uid for f in findings} - set(by_series)
    if missing:
        raise Broken(f"a finding lies on a series that was not given: {min(missing)}")


def _document(
    kind: type[ComprehensiveSR] | type[Comprehensive3DSR],
    name: str,
    title: str,
    groups: Sequence[bytes],
    uids: Iterable[str],
    segs: Sequence[Dataset],
    report: Report,
    is_ascii: bool = True,
    analysed: bool = True,
) -> Dataset:
    """Return the SR of encoded `groups`; `uids` are its evidence, the first of them gives patient and study.

    highdicom makes it with one image and no content: with all of them its constructor copies and searches the tree.
    """
    images = list(dict.fromkeys(uids))
    key, provenance = report.provenance.job_key, report.provenance
    heading = codes.IMAGING_MEASUREMENT_REPORT if groups else NOTHING_FOUND_TITLE
    root = ContainerContentItem(heading, is_content_continuous=False, template_id="1500")
    root.ContentSequence = ContentSequence()
    header = report.headers[images[0]]
    result: Dataset = kind(
        evidence=[stand_in(header)],
        content=root,
        series_instance_uid=derive_uid(key, name, "series"),
        series_number=report.series_number,
        series_description=one_line(f"{MANUFACTURER} {provenance.plugin} {title}"),
        sop_instance_uid=derive_uid(key, name, "instance"),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=list(report.predecessors) or None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[contributing(provenance)],
        **equipment(provenance),
    )
    items = _content(groups, header, report, analysed)
    is_ascii = is_ascii and all(item if isinstance(item, bytes) else all_ascii(item) for item in items)
    inherit(result, header, provenance, report.written_at, other_texts_are_ascii=is_ascii)
    put(
        result,
        {
            "ContentSequence": [item if isinstance(item, bytes) else encode(item) for item in items],
            "CurrentRequestedProcedureEvidenceSequence": [
                _evidence([report.headers[u] for u in images], segs)
            ],
        },
    )
    return result


def _evidence(headers: Sequence[Dataset], segs: Sequence[Dataset]) -> bytes:
    """Return the item that lists images and segmentations of one study, by series (PS3.3 C.17.2.3)."""
    forms: dict[str, Form] = {}
    listed: dict[str, list[bytes]] = {}
    for instance in (*headers, *segs):
        kind = text(instance, "SOPClassUID")
        if kind not in forms:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, ""
            forms[kind] = Form(item, [item["ReferencedSOPInstanceUID"]])
        octets = forms[kind].fill(text(instance, "SOPInstanceUID"))
        listed.setdefault(text(instance, "SeriesInstanceUID"), []).append(octets)
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "", []
    one = Form(series, [series["SeriesInstanceUID"], series["ReferencedSOPSequence"]])
    study.StudyInstanceUID, study.ReferencedSeriesSequence = headers[0].StudyInstanceUID, []
    return Form(study, [study["ReferencedSeriesSequence"]]).fill(
        [one.fill(uid, items) for uid, items in listed.items()]
    )


def _content(
    groups: Sequence[bytes], header: Dataset, report: Report, analysed: bool
) -> list[Dataset | bytes]:
    """Return the content items under the root of TID 1500; encoded what holds the groups."""
    content: list[Dataset | bytes] = [
        *LanguageOfContentItemAndDescendants(codes.ENGLISH),
        *observer(report.provenance),
    ]
    for procedure in procedures(header):
        content.append(CodeContentItem(codes.PROCEDURE_REPORTED, procedure, "HAS CONCEPT MOD"))
    if groups:
        measurements = ContainerContentItem(codes.IMAGING_MEASUREMENTS, relationship_type="CONTAINS")
        measurements.ContentSequence = ContentSequence()
        content.append(Form(measurements, [measurements["ContentSequence"]]).fill(groups))
    outcome = _OUTCOMES[bool(groups), bool(report.refused)] if analysed else codes.NONE_SUCCEEDED
    content.append(_evaluations(outcome, report))
    return content


def observer(provenance: Provenance) -> ObservationContext:
    """Return who observed: the device that the analysis with its model and settings is."""
    uid = device_uid(provenance)
    device = DeviceObserverIdentifyingAttributes(
        uid=uid,
        name=f"{MANUFACTURER} {provenance.plugin} {provenance.plugin_version}",
        manufacturer_name=MANUFACTURER,
        model_name=f"{provenance.model_name} {provenance.model_version}",
        serial_number=uid[-16:],
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DEVICE, device))


def procedures(header: Dataset) -> list[Code]:
    """Return the imaging procedures: those of the source where it names any, else one by its modality (CID 100)."""
    named = []
    for item in header.get("ProcedureCodeSequence") or []:
        if item.get("CodeValue") and item.get("CodingSchemeDesignator") and item.get("CodeMeaning"):
            named.append(Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning))
    return named or [PROCEDURES.get(str(header.get("Modality", "")), codes.IMAGING_PROCEDURE)]


def _evaluations(outcome: Code, report: Report) -> ContainerContentItem:
    """Return the container of what is said in words: outcome, intended use, refusals, doubts, notes."""
    items = [CodeContentItem(codes.PROCESSING_SUMMARY, outcome, "CONTAINS")]
    items.append(TextContentItem(codes.RESEARCH_USE, INTENDED_USE, "CONTAINS"))
    told = [(codes.REFUSED_INPUT, flag) for flag in dict.fromkeys(report.refused)]
    told += [(codes.DOUBT, flag) for flag in dict.fromkeys(report.flags) if not flag.is_note]
    told += [(codes.COMMENT, flag) for flag in dict.fromkeys(report.flags) if flag.is_note]
    items += [TextContentItem(concept, f"{flag.code}: {flag.sentence}", "CONTAINS") for concept, flag in told]
    container = ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, False, relationship_type="CONTAINS")
    container.ContentSequence = ContentSequence(items)
    return container

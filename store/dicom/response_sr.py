"""The response of a patient to a Structured Report after TID 1500: every lesion at every time point, and the verdict.

One measurement group for each lesion and time point (TID 1411 where its segment is known, else TID 1501), each with
the time point that it belongs to (TID 1502); sums among the derived measurements (TID 1420), each with the numbers
that it adds up; criteria, verdict and the reasons among the qualitative evaluations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    LongitudinalTemporalOffsetFromEvent,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TextContentItem,
    TimePointContext,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from plugins import codes
from plugins.contract import Measurement
from plugins.errors import Broken
from store.dicom import response_codes
from store.dicom.equipment import MANUFACTURER, contributing, equipment, inherit, one_line, stand_in
from store.dicom.groups import number_item, sixteen
from store.dicom.sr import INTENDED_USE, observer, procedures
from store.dicom.uids import derive_uid
from store.provenance import Provenance
from store.response.history import Role, Status

KIND: Final = "sr-response"
IN_WORDS: Final[dict[Status, str]] = {
    Status.MEASURED: "measured",
    Status.ABSENT: "not there any more",
    Status.TOO_SMALL: "too small to measure",
    Status.NOT_EVALUABLE: "not evaluable",
    Status.PRESENT: "present",
    Status.PROGRESSED: "unequivocally progressed",
    Status.COALESCED: "grown together with another one",
}


@dataclass(frozen=True, kw_only=True)
class SegmentOf:
    """Where the mask of a lesion is."""

    study_instance_uid: str
    """The study of the SEG."""
    sop_instance_uid: str
    """The SEG."""
    seg_series_instance_uid: str
    """Its series."""
    number: int
    """The segment in it."""
    series_instance_uid: str
    """The image series that it lies on."""


@dataclass(frozen=True, kw_only=True)
class ReportedLesion:
    """One lesion at one time point."""

    tracking_uid: str
    """Tracking UID, the same at every time point."""
    tracking_identifier: str
    """Tracking ID."""
    role: Role | None
    """What it is to the criteria; None when nothing."""
    status: Status
    """What was seen of it."""
    type: Code = codes.LESION
    """What it is."""
    category: Code = codes.MORPHOLOGICALLY_ABNORMAL
    """Of which category."""
    site: Code | None = None
    """Where in the body."""
    laterality: Code | None = None
    """On which side."""
    measurements: tuple[Measurement, ...] = ()
    """What was measured."""
    summed: str | None = None
    """Name of the measurement that is part of the sum."""
    segment: SegmentOf | None = None
    """Its mask; None when it has none."""
    algorithm: tuple[str, str] = ("", "")
    """Name and version of what measured it."""


@dataclass(frozen=True, kw_only=True)
class ReportedVisit:
    """One time point."""

    date: date
    """When."""
    lesions: tuple[ReportedLesion, ...]
    """What was seen; only what can be told of with a number or a segment makes a group."""
    sum: float | None = None
    """What the criteria add up; None when it is not complete."""


@dataclass(frozen=True, kw_only=True)
class ReportedResponse:
    """What is said of all of it."""

    criteria: str
    """Name of the criteria, as in `response_codes.CRITERIA`."""
    quantity: str
    """What the sum is, in words."""
    unit: Code
    """Unit of the sum."""
    overall: str | None
    """The verdict at the last time point; None when there is only the baseline."""
    target: str | None
    """Response of the target lesions."""
    non_target: str | None
    """Response of the other lesions."""
    best: str | None
    """Best overall response."""
    reasons: tuple[str, ...]
    """Sentences: the rule and the numbers that decided it, doubts, what a person corrected."""
    before_baseline: int = 0
    """How many visits lie before the baseline."""


def encode_response(
    visits: Sequence[ReportedVisit],
    response: ReportedResponse,
    header: Dataset,
    provenance: Provenance,
    series_number: int,
    written_at: datetime,
    predecessors: Sequence[Dataset] = (),
) -> Dataset:
    """Return the report as Comprehensive 3D SR in the study of `header`, that of the last visit.

    Equal input gives equal bytes. `visits` are by date; without any it is a report that
    takes `predecessors` back. SEGs of earlier studies are pertinent other evidence. Its title is not that of
    measurements: OHIF takes all groups of one Tracking UID in an Imaging Measurement Report for one lesion, looks for
    lines to draw and fails; this one it shows as text.
    Raises `Broken` when no lesion was seen at any of the visits.
    Source: PS3.16 TID 1500, 1411, 1501, 1502, 1420; PS3.3 C.17.2.3.
    """
    groups = [
        _group(lesion, _context(visits, order, response.before_baseline))
        for order, visit in enumerate(visits)
        for lesion in visit.lesions
        if lesion.measurements or lesion.segment
    ]
    if visits and not groups:
        raise Broken("a report of response needs a lesion that was seen")
    lead = [*LanguageOfContentItemAndDescendants(codes.ENGLISH), *observer(provenance)]
    lead += [
        CodeContentItem(codes.PROCEDURE_REPORTED, code, "HAS CONCEPT MOD") for code in procedures(header)
    ]
    measurements = ContainerContentItem(codes.IMAGING_MEASUREMENTS, relationship_type="CONTAINS")
    measurements.ContentSequence = ContentSequence(groups)
    measured = [measurements, *_derived(visits, response)] if visits else []
    what = "response" if visits else "response withdrawn"
    title = f"{MANUFACTURER} {what} ({_criteria(response).meaning}), {written_at:%Y-%m-%d %H:%M}"
    result = _without_content(header, provenance, series_number, title, predecessors)
    found = codes.ALL_WITH_FINDINGS if visits else codes.ALL_WITHOUT_FINDINGS
    result.ContentSequence = [*lead, *measured, _evaluations(response, found)]
    _list_evidence(result, visits, header)
    inherit(result, header, provenance, written_at)
    return result


def _without_content(
    header: Dataset,
    provenance: Provenance,
    series_number: int,
    series_description: str,
    predecessors: Sequence[Dataset],
) -> Dataset:
    """Return the report as an SR that has a title and no content yet."""
    root = ContainerContentItem(
        codes.ONCOLOGY_MEASUREMENT_REPORT, is_content_continuous=False, template_id="1500"
    )
    root.ContentSequence = ContentSequence()
    key = provenance.job_key
    result: Dataset = Comprehensive3DSR(
        evidence=[stand_in(header)],
        content=root,
        series_instance_uid=derive_uid(key, KIND, "series"),
        series_number=series_number,
        series_description=one_line(series_description),
        sop_instance_uid=derive_uid(key, KIND, "instance"),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=list(predecessors) or None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[contributing(provenance)],
        **equipment(provenance),
    )
    return result


def _criteria(response: ReportedResponse) -> Code:
    return response_codes.CRITERIA[response.criteria]


def _context(visits: Sequence[ReportedVisit], order: int, before: int) -> TimePointContext:
    """Return the time point of a visit (TID 1502); it is called by its date, of which a patient has one.

    The baseline comes after `before` visits, which have no type.
    """
    visit, later = visits[order], order - before
    days = (visit.date - visits[before].date).days
    name = (
        f"follow-up {later}" if later > 0 else "baseline" if later == 0 else f"{-later} before the baseline"
    )
    after = response_codes.POSTTREATMENT if later > 0 else None
    return TimePointContext(
        time_point=name,
        time_point_type=response_codes.BASELINE if later == 0 else after,
        time_point_order=order + 1,
        subject_time_point_identifier=visit.date.isoformat(),
        temporal_offset_from_event=LongitudinalTemporalOffsetFromEvent(
            days, response_codes.DAY, response_codes.BASELINE_EVENT
        ),
    )


def _group(lesion: ReportedLesion, context: TimePointContext) -> Dataset:
    name, version = lesion.algorithm
    said: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(
            uid=lesion.tracking_uid, identifier=lesion.tracking_identifier
        ),
        "time_point_context": context,
        "finding_type": lesion.type,
        "finding_category": lesion.category,
        "finding_sites": [FindingSite(lesion.site, lesion.laterality)] if lesion.site else None,
        "algorithm_id": AlgorithmIdentification(
            name=name or MANUFACTURER, version=version or "1", manufacturer=MANUFACTURER
        ),
        "measurements": [number_item(m) for m in lesion.measurements],
        "qualitative_evaluations": [
            QualitativeEvaluation(response_codes.ROLE, response_codes.ROLES[role.value])
            for role in [lesion.role]
            if role is not None
        ],
    }
    segment = lesion.segment
    group: Dataset
    if segment is None:
        group = MeasurementsAndQualitativeEvaluations(**said)[0]
    else:
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=ReferencedSegment(
                SegmentationStorage,
                segment.sop_instance_uid,
                segment.number,
                source_series=SourceSeriesForSegmentation(segment.series_instance_uid),
            ),
            **said,
        )[0]
    group.ContentSequence.append(TextContentItem(response_codes.STATUS, IN_WORDS[lesion.status], "CONTAINS"))
    return group


def _derived(visits: Sequence[ReportedVisit], response: ReportedResponse) -> list[Dataset]:
    """Return the container of the sums, each with what it was inferred from.

    The addends stand in it by value: readers, highdicom's among them, refuse items by reference.
    """
    sums = []
    for order, visit in enumerate(visits):
        if visit.sum is None:
            continue
        number = NumContentItem(
            response_codes.MEASUREMENT_OF_RESPONSE,
            sixteen(visit.sum),
            response.unit,
            relationship_type="CONTAINS",
        )
        number.ContentSequence = ContentSequence(
            [
                CodeContentItem(codes.DERIVATION, response_codes.TOTAL, "HAS CONCEPT MOD"),
                *_context(visits, order, response.before_baseline),
                TextContentItem(codes.COMMENT, response.quantity, "HAS PROPERTIES"),
                *(_addend(lesion) for lesion in visit.lesions if lesion.summed),
            ]
        )
        sums.append(number)
    container = ContainerContentItem(codes.DERIVED_MEASUREMENTS, relationship_type="CONTAINS")
    container.ContentSequence = ContentSequence(sums)
    return [container] if sums else []


def _addend(lesion: ReportedLesion) -> Dataset:
    measured = next(m for m in lesion.measurements if m.name == lesion.summed)
    number: Dataset = NumContentItem(
        measured.concept, sixteen(measured.value), measured.unit, relationship_type="INFERRED FROM"
    )
    identity = TrackingIdentifier(uid=lesion.tracking_uid, identifier=lesion.tracking_identifier)
    number.ContentSequence = ContentSequence(identity)
    return number


def _evaluations(response: ReportedResponse, found: Code) -> ContainerContentItem:
    items: list[Dataset] = [
        CodeContentItem(codes.PROCESSING_SUMMARY, found, "CONTAINS"),
        TextContentItem(codes.RESEARCH_USE, INTENDED_USE, "CONTAINS"),
        CodeContentItem(response_codes.EVALUATION_METHOD, _criteria(response), "CONTAINS"),
    ]
    coded: Iterable[tuple[Code, str | None, Mapping[str, Code]]] = (
        (response_codes.RESPONSE_EVALUATION, response.target, response_codes.TARGET),
        (response_codes.RESPONSE_EVALUATION, response.non_target, response_codes.NON_TARGET),
    )
    items += [CodeContentItem(c, known[w], "CONTAINS") for c, w, known in coded if w in known and w]
    for concept, word in (
        (response_codes.CURRENT_RESPONSE, response.overall),
        (response_codes.BEST_RESPONSE, response.best),
    ):
        if word is not None:
            items.append(CodeContentItem(concept, response_codes.verdict(word), "CONTAINS"))
    items += [TextContentItem(codes.COMMENT, sentence, "CONTAINS") for sentence in response.reasons]
    container = ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, False, relationship_type="CONTAINS")
    container.ContentSequence = ContentSequence(items)
    return container


def _list_evidence(result: Dataset, visits: Sequence[ReportedVisit], header: Dataset) -> None:
    """List the SEGs: those of the report's own study as its evidence, those of other studies as pertinent."""
    study = str(header.StudyInstanceUID)
    segments = {
        (
            lesion.segment.study_instance_uid,
            lesion.segment.seg_series_instance_uid,
            lesion.segment.sop_instance_uid,
        )
        for visit in visits
        for lesion in visit.lesions
        if lesion.segment
    }
    own = _studies(sorted(s for s in segments if s[0] == study))
    others = _studies(sorted(s for s in segments if s[0] != study))
    # Without a SEG of its own study the image that gave patient and study stays as evidence.
    if own:
        result.CurrentRequestedProcedureEvidenceSequence = own
    if others:
        result.PertinentOtherEvidenceSequence = others


def _studies(segments: Sequence[tuple[str, str, str]]) -> list[Dataset]:
    tree: dict[str, dict[str, list[str]]] = {}
    for study_uid, series_uid, uid in segments:
        tree.setdefault(study_uid, {}).setdefault(series_uid, []).append(uid)
    listed = []
    for study_uid, by_series in tree.items():
        study = Dataset()
        study.StudyInstanceUID = study_uid
        study.ReferencedSeriesSequence = [_series(*one) for one in by_series.items()]
        listed.append(study)
    return listed


def _series(series_uid: str, uids: Sequence[str]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = series_uid
    series.ReferencedSOPSequence = [Dataset() for _ in uids]
    for item, uid in zip(series.ReferencedSOPSequence, uids, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SegmentationStorage, uid
    return series


__all__ = [
    "KIND",
    "ReportedLesion",
    "ReportedResponse",
    "ReportedVisit",
    "SegmentOf",
    "encode_response",
]

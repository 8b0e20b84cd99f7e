"""A Unified Procedure Step as a performer sees it (PS3.4 Annex CC): what it asks for, and what it is told.

Read from plain DICOM JSON, of which nothing is believed before it was looked at; written with pydicom, which knows the
value representations. A sequence is always set whole: N-SET replaces it (PS3.4 CC.2.6.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from node.pacs import UID, plain
from plugins.errors import Refused
from plugins.private_scheme import PRIVATE_SCHEME
from store.asked import Output

SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"
READY = "READY"
PRIORITIES: Final = ("HIGH", "MEDIUM", "LOW")
REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "requested": ("110513", "Discontinued for unspecified reason"),
    "input": ("110523", "Object Set incomplete"),
    "unsuitable": ("110522", "Object Types not supported"),
    "not-for-us": ("110530", "Workitem assignment rejected by assigned resource"),
    "failed": ("110501", "Equipment failure"),
    "resources": ("110527", "Resource inadequate"),
}
"""Why a workitem is cancelled: code and meaning of DCM (PS3.16 CID 9300)."""
FINAL_STATE: Final[Mapping[str, str]] = {
    "SOPClassUID": "R",
    "SOPInstanceUID": "R",
    "ScheduledProcedureStepPriority": "R",
    "ScheduledProcedureStepModificationDateTime": "R",
    "ScheduledProcedureStepStartDateTime": "R",
    "InputReadinessState": "R",
    "ProcedureStepState": "R",
    "ProcedureStepProgressInformationSequence": "X",
    "ProcedureStepProgressInformationSequence.ProcedureStepCancellationDateTime": "X",
    "ProcedureStepProgressInformationSequence.ProcedureStepDiscontinuationReasonCodeSequence": "X",
    "UnifiedProcedureStepPerformedProcedureSequence": "P",
    "UnifiedProcedureStepPerformedProcedureSequence.PerformedStationNameCodeSequence": "P",
    "UnifiedProcedureStepPerformedProcedureSequence.PerformedProcedureStepStartDateTime": "P",
    "UnifiedProcedureStepPerformedProcedureSequence.PerformedWorkitemCodeSequence": "P",
    "UnifiedProcedureStepPerformedProcedureSequence.PerformedProcedureStepEndDateTime": "P",
    "UnifiedProcedureStepPerformedProcedureSequence.OutputInformationSequence": "P",
}
"""What has to have a value before a final state: R in both, P in COMPLETED, X in CANCELED (PS3.4 Table CC.2.5-3).

Codes RC and O ask for nothing here: no person performs, and the character set is always given. Output Information may
have no items when nothing was made.
"""
MAY_BE_EMPTY: Final = frozenset({"UnifiedProcedureStepPerformedProcedureSequence.OutputInformationSequence"})
OURS_TO_SET: Final = (
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
"""The attributes that a performer sets; the others are there since the workitem was made, or are the manager's."""
DATETIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2})?(\d{2})?(\d{2})?(\.\d{1,6})?([+-]\d{4})?")
TEXT, LINE = 1024, 64


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept."""

    value: str
    """Code Value."""
    scheme: str
    """Coding Scheme Designator."""
    meaning: str = ""
    """Code Meaning."""

    @property
    def key(self) -> str:
        """Return it as the settings name it: `SCHEME:VALUE`."""
        return f"{self.scheme}:{self.value}"


@dataclass(frozen=True, kw_only=True)
class Input:
    """One series, or one study, that is to be looked at."""

    study: str
    """Study Instance UID."""
    series: str = ""
    """Series Instance UID; empty for the whole study."""
    instances: tuple[str, ...] = ()
    """SOP Instance UIDs; none for the whole series."""
    places: tuple[str, ...] = ()
    """Where it is said to be: URLs and AE titles, which are only compared with the settings."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a workitem says of itself."""

    uid: str
    """SOP Instance UID."""
    state: str
    """Procedure Step State."""
    label: str = ""
    """Procedure Step Label."""
    worklist_label: str = ""
    """Worklist Label."""
    codes: tuple[Code, ...] = ()
    """What is to be done: Scheduled Workitem Code Sequence."""
    readiness: str = READY
    """Input Readiness State."""
    priority: str = "MEDIUM"
    """Scheduled Procedure Step Priority."""
    start: datetime | None = None
    """Not before this time, aware; None when it says nothing that can be read."""
    stations: tuple[str, ...] = ()
    """Code values of the stations that it is scheduled on; none for any."""
    is_for_person: bool = False
    """True when a person is scheduled for it."""
    parameters: int = 0
    """How many processing parameters it gives."""
    study: str = ""
    """Study Instance UID that is looked at; empty when it does not say, or names input of several and none of them."""
    patient_id: str = ""
    """PatientID; empty when it does not say."""
    issuer: str = ""
    """IssuerOfPatientID; empty when it does not say."""
    inputs: tuple[Input, ...] = field(default=())
    """What is to be looked at."""


def read(row: Mapping[str, Any], zone: tzinfo = UTC) -> Step:
    """Return what a workitem in DICOM JSON says; a time without offset is in `zone`. Refuses `bad-workitem`."""
    uid = _text(row, "SOPInstanceUID")
    if not UID.fullmatch(uid):
        raise Refused("bad-workitem", f"a workitem of the worklist has no UID: {uid[:80]!r}")
    inputs = tuple(_inputs(row))
    return Step(
        uid=uid,
        state=_text(row, "ProcedureStepState"),
        label=_text(row, "ProcedureStepLabel"),
        worklist_label=_text(row, "WorklistLabel"),
        codes=tuple(_codes(row, "ScheduledWorkitemCodeSequence")),
        readiness=_text(row, "InputReadinessState") or READY,
        priority=_text(row, "ScheduledProcedureStepPriority") or "MEDIUM",
        start=_time(_text(row, "ScheduledProcedureStepStartDateTime"), zone),
        stations=tuple(code.value for code in _codes(row, "ScheduledStationNameCodeSequence")),
        is_for_person=bool(_items(row, "ScheduledHumanPerformersSequence")),
        parameters=len(_items(row, "ScheduledProcessingParametersSequence")),
        study=_study(row, inputs),
        patient_id=_text(row, "PatientID"),
        issuer=_text(row, "IssuerOfPatientID"),
        inputs=inputs,
    )


def progress(percent: int, text: str) -> Dataset:
    """Return what tells how far the work is (N-SET)."""
    item = Dataset()
    item.ProcedureStepProgress = str(percent)
    item.ProcedureStepProgressDescription = text[:TEXT]
    return _update(progress=item)


def cancelled(reason: str, text: str, at: datetime, percent: int) -> Dataset:
    """Return the progress information that a workitem needs before it is CANCELED: when, why as code, why in words."""
    value, meaning = REASONS[reason]
    item = Dataset()
    item.ProcedureStepProgress = str(percent)
    item.ProcedureStepProgressDescription = text[:TEXT]
    item.ProcedureStepCancellationDateTime = _datetime(at)
    item.ReasonForCancellation = text
    item.ProcedureStepDiscontinuationReasonCodeSequence = [
        _code(Code(value=value, scheme="DCM", meaning=meaning))
    ]
    return _update(progress=item)


@dataclass(frozen=True, kw_only=True)
class Performed:
    """What was done for a workitem."""

    station: str
    """Name of the station, ours."""
    codes: tuple[Code, ...]
    """What was to be done, and was."""
    study: str
    """The study."""
    began: datetime
    """When the work began."""
    description: str
    """What it was, in a line."""
    comments: str = ""
    """What else is to be said of it."""
    ended: datetime | None = None
    """When the work ended; None while it goes on."""
    outputs: Sequence[Output] = ()
    """Everything that was made of it."""


def performed(what: Performed, update: Dataset | None = None) -> Dataset:
    """Return what tells what was performed, and by whom, with every object that was made and where it lies (N-SET)."""
    station = Code(value=what.station, scheme=PRIVATE_SCHEME, meaning=f"Nadir node {what.station}")
    item = Dataset()
    item.PerformedStationNameCodeSequence = [_code(station)]
    item.PerformedProcedureStepStartDateTime = _datetime(what.began)
    item.PerformedProcedureStepDescription = what.description[:LINE]
    if what.comments:
        item.CommentsOnThePerformedProcedureStep = what.comments[:TEXT]
    item.PerformedWorkitemCodeSequence = [_code(code) for code in what.codes]
    if what.ended is not None:
        item.PerformedProcedureStepEndDateTime = _datetime(what.ended)
    item.OutputInformationSequence = list(_references(what))
    update = update if update is not None else _update()
    update.UnifiedProcedureStepPerformedProcedureSequence = [item]
    return update


def lacking(step: Dataset, state: str, *, only: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return which attributes a workitem lacks before it may be in a final state (PS3.4 CC.2.5.1.1); none: it may.

    `only` asks for what lies under these attributes: what an update has to bring.
    """
    needed = {"R", "P" if state == COMPLETED else "X"}
    missing = []
    for path, code in FINAL_STATE.items():
        first = path.partition(".")[0]
        if code in needed and (only is None or first in only) and not _has_value(step, path):
            missing.append(path)
    return tuple(missing)


def _has_value(step: Dataset, path: str) -> bool:
    first, _, rest = path.partition(".")
    if first not in step:
        return False
    value = step[first].value
    if rest:
        return bool(value) and all(_has_value(item, rest) or _may_be_empty(item, path) for item in value)
    return value not in (None, "") and (not isinstance(value, Sequence) or len(value) > 0)


def _may_be_empty(item: Dataset, path: str) -> bool:
    return path in MAY_BE_EMPTY and path.partition(".")[2] in item


def _references(what: Performed) -> Iterator[Dataset]:
    """Yield one item for each series and the places where its objects lie, so that each object stands in one item."""
    groups: dict[tuple[str, tuple[str, ...]], list[Output]] = {}
    for output in what.outputs:
        groups.setdefault((output.series_instance_uid, output.places), []).append(output)
    for (series, places), outputs in groups.items():
        item = Dataset()
        item.TypeOfInstances = "DICOM"
        item.StudyInstanceUID, item.SeriesInstanceUID = what.study, series
        item.ReferencedSOPSequence = []
        for output in outputs:
            one = Dataset()
            one.ReferencedSOPClassUID = output.sop_class_uid
            one.ReferencedSOPInstanceUID = output.sop_instance_uid
            item.ReferencedSOPSequence.append(one)
        urls = [
            _only("RetrieveURL", f"{p}/studies/{what.study}/series/{series}") for p in places if "//" in p
        ]
        titles = [_only("RetrieveAETitle", p.partition("@")[0]) for p in places if "//" not in p]
        if urls:
            item.WADORSRetrievalSequence = urls
        if titles:
            item.DICOMRetrievalSequence = titles
        yield item


def _only(keyword: str, value: str) -> Dataset:
    item = Dataset()
    setattr(item, keyword, value)
    return item


def _update(progress: Dataset | None = None) -> Dataset:
    update = Dataset()
    update.SpecificCharacterSet = "ISO_IR 192"
    if progress is not None:
        update.ProcedureStepProgressInformationSequence = [progress]
    return update


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = (code.meaning or code.value)[:LINE]
    return item


def _datetime(at: datetime) -> str:
    """Return a DT value (PS3.5 6.2) with its offset from UTC."""
    return f"{at.astimezone(UTC):%Y%m%d%H%M%S.%f}+0000"


def _study(row: Mapping[str, Any], inputs: Sequence[Input]) -> str:
    """Return the study that workitem or request names, of those of the input when there is any."""
    studies = [_text(row, "StudyInstanceUID")]
    studies += [_text(item, "StudyInstanceUID") for item in _items(row, "ReferencedRequestSequence")]
    of_input = list(dict.fromkeys(one.study for one in inputs))
    named = [study for study in studies if UID.fullmatch(study) and (not of_input or study in of_input)]
    return next(iter(named or (of_input if len(of_input) == 1 else [])), "")


def _inputs(row: Mapping[str, Any]) -> Iterator[Input]:
    for item in _items(row, "InputInformationSequence"):
        study, series = _text(item, "StudyInstanceUID"), _text(item, "SeriesInstanceUID")
        if not UID.fullmatch(study) or (series and not UID.fullmatch(series)):
            continue
        instances = (_text(one, "ReferencedSOPInstanceUID") for one in _items(item, "ReferencedSOPSequence"))
        urls = (_text(one, "RetrieveURL") for one in _items(item, "WADORSRetrievalSequence"))
        titles = (_text(one, "RetrieveAETitle") for one in _items(item, "DICOMRetrievalSequence"))
        yield Input(
            study=study,
            series=series,
            instances=tuple(uid for uid in instances if UID.fullmatch(uid)),
            places=tuple(place for place in (*urls, *titles) if place),
        )


def _codes(row: Mapping[str, Any], keyword: str) -> Iterator[Code]:
    for item in _items(row, keyword):
        value, scheme = _text(item, "CodeValue"), _text(item, "CodingSchemeDesignator")
        if value and scheme:
            yield Code(value=value, scheme=scheme, meaning=_text(item, "CodeMeaning"))


def _time(text: str, zone: tzinfo) -> datetime | None:
    match = DATETIME.fullmatch(text)
    if match is None:
        return None
    *numbers, fraction, offset = match.groups()
    year, *rest = (int(number) if number else None for number in numbers)
    month, day, hour, minute, second = rest
    micro = round(float(fraction or 0) * 1e6)
    try:
        if offset:
            minutes = int(offset[:3]) * 60 + int(offset[0] + offset[3:])
            zone = timezone(timedelta(minutes=minutes))
        return datetime(
            year or 1, month or 1, day or 1, hour or 0, minute or 0, min(second or 0, 59), micro, tzinfo=zone
        )
    except ValueError:
        return None


def _tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword):08X}"


def _values(row: Mapping[str, Any], keyword: str) -> list[Any]:
    element = row.get(_tag(keyword))
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _items(row: Mapping[str, Any], keyword: str) -> list[dict[str, Any]]:
    return [item for item in _values(row, keyword) if isinstance(item, dict)]


def _text(row: Mapping[str, Any], keyword: str) -> str:
    value = next(iter(_values(row, keyword)), None)
    return plain(value) if isinstance(value, str) else ""


__all__ = [
    "FINAL_STATE",
    "REASONS",
    "Code",
    "Input",
    "Performed",
    "Step",
    "cancelled",
    "lacking",
    "performed",
    "progress",
    "read",
]

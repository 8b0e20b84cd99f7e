"""A patient's response as DICOM objects and as a page, out of the course that the job was given.

It runs in the child process: pictures are made from images of strangers.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code

from node.report.longitudinal.course_view import decision_words
from node.report.longitudinal.document import write_pdf
from node.report.longitudinal.page import write_html
from node.report.longitudinal.report import build
from node.report.longitudinal.stored import ObjectFiles
from node.report.longitudinal.withdrawn import MOVED, SENTENCE, write_withdrawal
from node.response_job import PAGE, PDF_KIND, SR_KIND, ResponseTask
from node.task import Analysed, Answer
from plugins import codes
from plugins.contract import Measurement
from plugins.errors import Absent, Broken
from store.analysed import AnalysedFindings, Told, Written
from store.course import Course
from store.dicom.pdf import encode_pdf
from store.dicom.response_sr import (
    ReportedLesion,
    ReportedResponse,
    ReportedVisit,
    SegmentOf,
    encode_response,
)
from store.dicom.rules import check
from store.dicom.uids import derive_uid, is_legal
from store.lesions import is_unconfirmed
from store.provenance import Provenance
from store.response.burden import TOO_SMALL_TENTHS
from store.response.history import Role, Status
from store.response.rules import Rules
from store.response.verdict import Response
from store.response_jobs import PLUGIN, VERSION
from store.sighting import Sighting
from store.told import in_words, judge, looked_at

TOLD: Final = (
    "long_axis",
    "short_axis",
    "volume",
    "suv_max",
    "suv_mean",
    "suv_peak",
    "sul_peak",
    "mtv",
    "tlg",
)
"""Numbers that are compared over time."""
DERIVED: Final = {
    "suv_max": codes.MAXIMUM,
    "suv_mean": codes.MEAN,
    "suv_peak": codes.PEAK,
    "sul_peak": codes.PEAK,
}
COUNTED_MM: Final = {Status.ABSENT: 0.0, Status.COALESCED: 0.0, Status.TOO_SMALL: TOO_SMALL_TENTHS / 10}
"""What a target counts whatever its length is, but for a node that is too small (RECIST 1.1, 4.3.2)."""
BY_LENGTH: Final = ("recist1.1", "irecist")


def write_response(task: ResponseTask) -> Answer:
    """Return the SR and the PDF written into `task.out`, and the page beside them.

    When every lesion was rejected, or the report is only to be taken back, there is no page, and the two take the
    earlier report back where there is one.
    Raises `Broken` rather than leave an object that breaks the project's own rules.
    """
    course, files = task.read()
    header = dcmread(task.header, stop_before_pixels=True)
    if task.taken_back:
        written = _withdrawal(task, course, header, MOVED) if task.predecessors else ()
        told = (Told(code="report-taken-back", sentence=MOVED, refused=False),)
        return _answer(task, header, AnalysedFindings(written=written, told=told))
    try:
        response = judge(course, task.criteria, Rules(**task.rules))
    except Absent as nothing:
        written = _withdrawal(task, course, header, SENTENCE) if task.predecessors else ()
        told = (_all_rejected(task, nothing),)
        return _answer(task, header, AnalysedFindings(written=written, told=told))
    said = reported_response(course, in_words(response, course))
    visits = reported_visits(course, response, _segs(course, files))
    report = build(course, [response], files.open_object, files.images_of, made_at=_when(task))
    page, zone = Path(task.out) / PAGE, ZoneInfo(task.time_zone)
    page.write_text(write_html(report, zone), encoding="utf-8")
    written = _written(task, header, visits, said, write_pdf(report, zone))
    return _answer(task, header, AnalysedFindings(written=written), str(page))


def _withdrawal(task: ResponseTask, course: Course, header: Dataset, sentence: str) -> tuple[Written, ...]:
    """Return what takes the earlier report back, with the reason."""
    said = ReportedResponse(
        criteria=task.criteria,
        quantity="",
        unit=codes.MM,
        overall=None,
        target=None,
        non_target=None,
        best=None,
        reasons=(sentence, *_decided(course)),
    )
    software, zone = f"Nadir {version('nadir')}", ZoneInfo(task.time_zone)
    document = write_withdrawal(course, task.criteria, software, _when(task), sentence, zone)
    return _written(task, header, (), said, document)


def _written(
    task: ResponseTask,
    header: Dataset,
    visits: Sequence[ReportedVisit],
    said: ReportedResponse,
    document: bytes,
) -> tuple[Written, ...]:
    """Return the SR and the PDF of what is said, written into `task.out`."""
    provenance, when = _provenance(task), _when(task)
    earlier = [dcmread(file) for file in task.predecessors]
    number = _series_number(task, SR_KIND)
    sr = encode_response(visits, said, header, provenance, number, when, earlier)
    if violations := check(sr):
        first = violations[0]
        raise Broken(f"the report on response breaks rule {first.rule} at {first.where}: {first.sentence}")
    number = _series_number(task, PDF_KIND)
    pdf = encode_pdf(document, [sr], header, provenance, number, when, str(sr.SeriesDescription))
    out = Path(task.out)
    return (_write(SR_KIND, sr, out), _write(PDF_KIND, pdf, out))


def _when(task: ResponseTask) -> datetime:
    return datetime.fromisoformat(task.started_at)


def _answer(task: ResponseTask, header: Dataset, results: AnalysedFindings, *pages: str) -> Answer:
    study = str(header.StudyInstanceUID)
    analysed = Analysed(plugin=PLUGIN, job_key=task.job_key, study_instance_uid=study, results=results)
    return Answer(analysed=(analysed,), pages=pages)


def _all_rejected(task: ResponseTask, nothing: Absent) -> Told:
    """Return why there is no report: the job is asked for only where lesions are known, rejected ones too."""
    sentence = (
        f"no lesion that {task.criteria} looks at counts: all were rejected, so that there is no response to tell; "
        "an earlier report, where there is one, no longer holds"
    )
    return Told(code=nothing.code, sentence=sentence, refused=True)


def reported_response(course: Course, response: Response) -> ReportedResponse:
    """Return what is said of the whole course."""
    last = response.time_points[-1] if response.time_points else None
    reasons = [] if last is None else [last.because, *last.doubts]
    reasons += response.doubts
    reasons += _decided(course)
    return ReportedResponse(
        criteria=response.criteria,
        quantity=response.quantity,
        unit=Code(response.unit, "UCUM", response.unit),
        overall=last.overall if last else None,
        target=last.target if last else None,
        non_target=last.non_target if last else None,
        best=response.best_overall,
        reasons=tuple(dict.fromkeys(r for r in reasons if r)),
        before_baseline=response.before_baseline,
    )


def _decided(course: Course) -> list[str]:
    """Return what people decided, in words."""
    names = course.names
    decisions = {d.number: (d, names[s.lesion]) for s in course.sightings for d in s.decisions}
    return [
        f"{d.author} ({d.at:%Y-%m-%d %H:%M} UTC): {name}: {decision_words(d, names)}"
        for d, name in decisions.values()
    ]


def reported_visits(
    course: Course, response: Response, segs: Mapping[str, Dataset]
) -> tuple[ReportedVisit, ...]:
    """Return every time point that was judged, with what counts of each lesion there; `segs` by their hash.

    Of a lesion that counts on a CT and on a PET of one date, the one that the criteria look at is told: the other one
    is in the report of its own analysis.
    """
    judged = {id(s) for s in looked_at(course, response.criteria)}
    names, by_length = course.names, response.criteria in BY_LENGTH
    visits = []
    for point in response.time_points:
        counting = [s for s in course.sightings if s.date == point.date and s.counts]
        told: dict[str, ReportedLesion] = {}
        for s in sorted(counting, key=lambda one: id(one) not in judged):
            added = by_length and id(s) in judged
            name = s.label if s.written_uid == s.tracking_uid != s.lesion else names[s.lesion]
            uid = _legal(s.tracking_uid, course)
            told.setdefault(uid, _lesion(s, uid, name, segs, counts=added))
        visits.append(ReportedVisit(date=point.date, lesions=tuple(told.values()), sum=point.sum))
    return tuple(visits)


def _legal(uid: str, course: Course) -> str:
    """Return a Tracking UID; for one that is not legal, the UID that stands for it in the patient."""
    patient = course.patient
    return uid if is_legal(uid) else derive_uid(patient.patient_id, "tracking", patient.issuer, uid)


def _lesion(
    sighting: Sighting, uid: str, name: str, segs: Mapping[str, Dataset], *, counts: bool
) -> ReportedLesion:
    axis = "short_axis" if sighting.node else "long_axis"
    measurements = [_number(one, sighting) for one in TOLD if one in sighting.measurements]
    is_added = counts and sighting.role is Role.TARGET
    has_own = sighting.node and sighting.status is Status.TOO_SMALL and axis in sighting.measurements
    if is_added and sighting.status in COUNTED_MM and not has_own:
        measurements = [one for one in measurements if one.name != axis]
        measurements.append(_stand_in(axis, sighting.status))
    return ReportedLesion(
        tracking_uid=uid,
        tracking_identifier=name,
        role=None if is_unconfirmed(sighting) else sighting.role,
        status=sighting.status,
        type=sighting.type_code or codes.LESION,
        site=sighting.site_code,
        measurements=tuple(measurements),
        summed=axis if is_added and any(m.name == axis for m in measurements) else None,
        segment=_segment(sighting, segs),
        algorithm=(sighting.plugin, sighting.plugin_version),
    )


def _number(name: str, sighting: Sighting) -> Measurement:
    measure = sighting.measurements[name]
    concept = measure.concept or Code(name.upper(), codes.PRIVATE_SCHEME, name.replace("_", " "))
    return Measurement(
        name=name,
        concept=concept,
        value=measure.value,
        unit=Code(measure.unit, "UCUM", measure.unit),
        method=measure.method or "as reported",
        derivation=DERIVED.get(name),
        uncertainty=measure.uncertainty,
    )


def _stand_in(axis: str, status: Status) -> Measurement:
    words = {
        Status.ABSENT: "not there any more: counts 0 mm",
        Status.COALESCED: "grown together with another one: counts there",
        Status.TOO_SMALL: "too small: counts 5 mm",
    }
    return Measurement(
        name=axis,
        concept=codes.SHORT_AXIS if axis == "short_axis" else codes.LONG_AXIS,
        value=COUNTED_MM[status],
        unit=codes.MM,
        method=words[status],
    )


def _segment(sighting: Sighting, segs: Mapping[str, Dataset]) -> SegmentOf | None:
    seg = segs.get(sighting.seg_sha256 or "")
    if seg is None or sighting.segment_number is None:
        return None
    return SegmentOf(
        study_instance_uid=str(seg.StudyInstanceUID),
        sop_instance_uid=str(seg.SOPInstanceUID),
        seg_series_instance_uid=str(seg.SeriesInstanceUID),
        number=sighting.segment_number,
        series_instance_uid=sighting.series_instance_uid,
    )


def _segs(course: Course, files: ObjectFiles) -> dict[str, Dataset]:
    wanted = {s.seg_sha256 for s in course.sightings if s.seg_sha256}
    paths = {name: files.open_object(name) for name in sorted(wanted)}
    tags = ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"]
    return {
        name: dcmread(path, stop_before_pixels=True, specific_tags=tags)
        for name, path in paths.items()
        if path.is_file()
    }


def _series_number(task: ResponseTask, kind: str) -> int:
    """Return 5 digits from a hash, as other results have them."""
    return 10_000 + zlib.crc32(f"{task.job_key}|{kind}".encode()) % 80_000


def _write(kind: str, dataset: Dataset, out: Path) -> Written:
    path = out / f"{kind}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return Written.of(kind, dataset, path)


def _provenance(task: ResponseTask) -> Provenance:
    return Provenance(
        plugin=PLUGIN,
        plugin_version=VERSION,
        model_name=task.criteria,
        model_version=version("nadir"),
        model_sha256="",
        config_sha256=task.config_sha256,
        manifest_sha256=task.manifest_sha256,
        job_key=task.job_key,
        software_version=version("nadir"),
        started_at=task.started_at,
    )


__all__ = ["reported_response", "reported_visits", "write_response"]

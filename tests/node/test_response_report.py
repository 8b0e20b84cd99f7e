"""What the report on response is told of a course."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from courses import course_of, response_of, sighting, visit
from dicom_series import make_series
from programs import program
from pydicom import dcmread

from node.report.longitudinal.stored import ObjectFiles
from node.report.longitudinal.withdrawn import SENTENCE
from node.response_job import PDF_KIND, SR_KIND, ResponseTask
from node.response_report import reported_visits, write_response
from plugins import codes
from store.course_json import to_json
from store.dicom.uids import derive_uid
from store.response.burden import look
from store.response.history import Role, Status
from store.response.rules import Rules
from store.sighting import Decision, Measure, Sighting


def test_a_lesion_on_a_ct_and_a_pet_of_one_date_is_one_group_with_what_the_criteria_look_at() -> None:
    first = visit(0)
    uptake = {
        "long_axis": Measure(value=26.0, unit="mm"),
        "suv_max": Measure(value=5.0, unit="g/ml{SUVbw}"),
    }
    on_pet = sighting(first, 1, None, measurements=uptake, series_instance_uid="PET")
    course = course_of({}, more=[on_pet, sighting(first, 1, 20.0)])
    assert [s.on_pet for s in course.sightings] == [True, False]

    (told,) = reported_visits(course, response_of("P", [(first.study_date, 20.0)], [None]), {})

    (lesion,) = told.lesions
    assert {m.name: m.value for m in lesion.measurements}["long_axis"] == 20.0
    assert (lesion.role, lesion.summed) == (Role.TARGET, "long_axis")


@pytest.mark.parametrize(
    ("status", "node", "summed", "counted"),
    [
        (Status.TOO_SMALL, True, "short_axis", 7.4),
        (Status.TOO_SMALL, False, "long_axis", 5.0),
        (Status.ABSENT, True, "short_axis", 0.0),
    ],
)
def test_the_sr_adds_what_the_criteria_count_of_a_drawn_target_whatever_its_length(
    status: Status, node: bool, summed: str, counted: float
) -> None:
    one = sighting(visit(0), 1, 12.0, short_mm=7.4, status=status, node=node)
    course = course_of({}, more=[one])
    (told,) = reported_visits(course, response_of("P", [(visit(0).study_date, counted)], [None]), {})
    (group,) = told.lesions
    assert group.summed == summed
    assert [m.value for m in group.measurements if m.name == summed] == [counted]
    (seen,) = course.history().visits[0].seen
    assert look(seen).tenths == round(10 * counted)


def test_a_part_of_a_lesion_is_called_as_in_the_seg() -> None:
    first = visit(0)
    whole = sighting(first, 1, 20.0, label="Lesion 1")
    part = replace(
        sighting(first, 2, 9.0, label="Lesion 4"), lesion=whole.lesion, segment_number=2, measurements={}
    )
    course = course_of({}, more=[whole, part])

    (told,) = reported_visits(course, response_of("P", [(first.study_date, 20.0)], [None]), {})

    names = {one.tracking_uid: one.tracking_identifier for one in told.lesions}
    assert names == {whole.tracking_uid: "Lesion 1", part.tracking_uid: "Lesion 4"}


def task_of(folder: Path, job_key: str, more: Sequence[Sighting], *predecessors: str) -> ResponseTask:
    """Return the task of a report on sightings at two visits."""
    told = {"course": to_json(course_of({}, more=more)), **asdict(ObjectFiles(files={}, images={}))}
    out = folder / job_key
    out.mkdir()
    (out / "course").write_text(json.dumps(told))
    (header,) = make_series(out / "in", np.zeros((1, 8, 8)))
    (out / "out").mkdir()
    return ResponseTask(
        job_key=job_key, manifest_sha256="", config_sha256="", criteria="recist1.1", rules=asdict(Rules()),
        told=str(out / "course"), header=str(header), predecessors=predecessors, out=str(out / "out"),
        started_at="2026-03-10T12:00:00+01:00",
    )  # fmt: skip


NO = Decision(
    source="page",
    number=7,
    kind="reject",
    value="",
    author="Dr. Eins",
    note="a vessel",
    at=datetime(2026, 3, 10, 9, tzinfo=UTC),
)
REJECTED = [replace(sighting(visit(n), 1, 20.0), counts=False, decisions=(NO,)) for n in (0, 1)]


def test_of_lesions_that_were_all_rejected_there_is_no_report_and_nothing_has_failed(tmp_path: Path) -> None:
    task = task_of(tmp_path, "ab", REJECTED)

    answer = write_response(task)

    (analysed,) = answer.analysed
    assert (analysed.job_key, analysed.error_code, analysed.results.written) == ("ab", None, ())
    (reason,) = analysed.results.told
    assert (reason.code, reason.refused) == ("no-course", True)
    assert reason.sentence.startswith("no lesion that recist1.1 looks at counts: all were rejected")
    assert answer.pages == () and list(Path(task.out).iterdir()) == []


def test_an_earlier_report_is_taken_back_when_every_lesion_was_rejected(tmp_path: Path) -> None:
    any_report = task_of(tmp_path, "ab", REJECTED)
    (first,) = write_response(replace(any_report, predecessors=(any_report.header,))).analysed
    earlier = next(one.path for one in first.results.written if one.kind == SR_KIND)

    answer = write_response(task_of(tmp_path, "cd", REJECTED, earlier))

    results = answer.analysed[0].results
    assert answer.pages == () and [one.code for one in results.told] == ["no-course"]
    assert [one.kind for one in results.written] == [SR_KIND, PDF_KIND]
    sr, pdf = (dcmread(one.path) for one in results.written)
    (said,) = sr.PredecessorDocumentsSequence
    superseded = said.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert superseded == dcmread(earlier).SOPInstanceUID
    assert "withdrawn" in sr.SeriesDescription and pdf.SeriesDescription == sr.SeriesDescription
    containers = [i for i in sr.ContentSequence if i.ValueType == "CONTAINER"]
    assert [i.ConceptNameCodeSequence[0].CodeMeaning for i in containers] == ["Qualitative Evaluations"]
    (said,) = containers
    codes_told = [i.ConceptCodeSequence[0].CodeValue for i in said.ContentSequence if i.ValueType == "CODE"]
    assert codes_told == [codes.ALL_WITHOUT_FINDINGS.value, "126081"]
    comments = [i.TextValue for i in said.ContentSequence if i.ValueType == "TEXT"][1:]
    assert comments == [SENTENCE, "Dr. Eins (2026-03-10 09:00 UTC): Nodule 1: is no lesion (a vessel)"]
    (tmp_path / "told.pdf").write_bytes(pdf.EncapsulatedDocument[: pdf.EncapsulatedDocumentLength])
    command = [program("pdftotext", "poppler-utils"), "-layout", str(tmp_path / "told.pdf"), "-"]
    text = " ".join(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert all(
        word in text for word in ("withdrawn", "holds no longer", "Dr. Eins", "is no lesion (a vessel)")
    )


def test_a_lesion_that_another_system_calls_by_no_uid_has_one_of_its_own_at_every_visit() -> None:
    first, second = visit(0), visit(1)
    said = dict.fromkeys(("lesion", "tracking_uid", "written_uid"), "not a uid!")
    course = course_of({}, more=[replace(sighting(at, 1, 20.0), **said) for at in (first, second)])
    days = [(first.study_date, 20.0), (second.study_date, 20.0)]

    told = reported_visits(course, response_of("P", days, [None, None]), {})

    uids = {lesion.tracking_uid for visit in told for lesion in visit.lesions}
    assert uids == {derive_uid(course.patient.patient_id, "tracking", course.patient.issuer, "not a uid!")}

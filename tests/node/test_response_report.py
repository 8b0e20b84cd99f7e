"""What the report on response is told of a course."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from courses import course_of, response_of, sighting, visit
from dicom_series import make_series

from node.report.longitudinal.stored import ObjectFiles
from node.response_job import ResponseTask
from node.response_report import reported_visits, write_response
from store.course_json import to_json
from store.dicom.uids import derive_uid
from store.response.history import Role
from store.response.rules import Rules
from store.sighting import Measure


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


def test_of_lesions_that_were_all_rejected_there_is_no_report_and_nothing_has_failed(tmp_path: Path) -> None:
    rejected = [replace(sighting(visit(n), 1, 20.0), counts=False) for n in (0, 1)]
    told = {"course": to_json(course_of({}, more=rejected)), **asdict(ObjectFiles(files={}, images={}))}
    (tmp_path / "course").write_text(json.dumps(told))
    (header,) = make_series(tmp_path / "in", np.zeros((1, 8, 8)))
    (tmp_path / "out").mkdir()
    task = ResponseTask(
        job_key="ab", manifest_sha256="", config_sha256="", criteria="recist1.1", rules=asdict(Rules()),
        told=str(tmp_path / "course"), header=str(header), predecessors=(), out=str(tmp_path / "out"),
        started_at="2026-03-10T12:00:00+01:00",
    )  # fmt: skip

    answer = write_response(task)

    (analysed,) = answer.analysed
    assert (analysed.job_key, analysed.error_code, analysed.results.written) == ("ab", None, ())
    (reason,) = analysed.results.told
    assert (reason.code, reason.refused) == ("no-course", True)
    assert reason.sentence.startswith("no lesion that recist1.1 looks at counts: all were rejected")
    assert answer.pages == () and list((tmp_path / "out").iterdir()) == []


def test_a_lesion_that_another_system_calls_by_no_uid_has_one_of_its_own_at_every_visit() -> None:
    first, second = visit(0), visit(1)
    said = dict.fromkeys(("lesion", "tracking_uid", "written_uid"), "not a uid!")
    course = course_of({}, more=[replace(sighting(at, 1, 20.0), **said) for at in (first, second)])
    days = [(first.study_date, 20.0), (second.study_date, 20.0)]

    told = reported_visits(course, response_of("P", days, [None, None]), {})

    uids = {lesion.tracking_uid for visit in told for lesion in visit.lesions}
    assert uids == {derive_uid(course.patient.patient_id, "tracking", course.patient.issuer, "not a uid!")}

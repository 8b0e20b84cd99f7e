"""What the report on response is told of a course."""

from __future__ import annotations

from dataclasses import replace

from courses import course_of, response_of, sighting, visit

from node.response_report import reported_visits
from store.response.history import Role
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

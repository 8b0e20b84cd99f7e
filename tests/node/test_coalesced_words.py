from __future__ import annotations

from dataclasses import replace

from courses import course_of, response_of, sighting, tracked, visit

from node.report.longitudinal.course_view import events_of, lesions_of, visits_of
from node.report.longitudinal.sums import sums_of
from node.report.longitudinal.words import glance
from node.response_report import reported_visits
from store.coalesced import settled
from store.course import Course
from store.response.history import Role, Status
from store.tracking.link import Kind


def grown_together(role: Role) -> Course:
    """Return a target 2 that grew into lesion 1, which has this role, at the second of two visits."""
    at = [visit(0), visit(1)]
    merged = tracked(Kind.MERGED, 0.8, [1, 2])
    seen = (
        sighting(at[0], 1, 16.0, role=role),
        sighting(at[0], 2, 14.0),
        sighting(at[1], 1, 45.3, role=role, link=merged),
        sighting(at[1], 2, None, status=Status.COALESCED, link=merged, whole="2.25.1001"),
    )
    return replace(course_of({}), visits=tuple(at), sightings=settled(seen))


def test_a_page_says_with_what_a_lesion_has_grown_together_and_never_that_it_is_gone() -> None:
    for role, shown in (
        (Role.TARGET, {"Nodule 1": "45.3", "Nodule 2": "grown together with Nodule 1"}),
        (Role.NON_TARGET, {"Nodule 1": "grown together with Nodule 2", "Nodule 2": "45.3"}),
    ):
        course = grown_together(role)
        lesions = lesions_of(course, visits_of(course, ()))
        assert {one.name: glance(one.cells[1])[0] for one in lesions} == shown
        told = " ".join(words for _, words in events_of(course, lesions, {}))
        assert told.count("grown together") == 2 and "gone" not in told


def test_the_sum_of_a_report_has_the_uncertainty_of_what_counts() -> None:
    course = grown_together(Role.TARGET)
    response = response_of(
        "P", [(v.study_date, n) for v, n in zip(course.visits, (30.0, 45.3), strict=True)], [None, "PD"]
    )
    lesions = lesions_of(course, visits_of(course, (response,)))
    assert [point.sd for point in sums_of(response, lesions).points][1] == 0.8


def test_the_sr_tells_0_mm_of_the_one_and_the_size_of_the_other() -> None:
    course = grown_together(Role.NON_TARGET)
    response = response_of(
        "P", [(v.study_date, n) for v, n in zip(course.visits, (14.0, 45.3), strict=True)], [None, "PD"]
    )
    told = {one.tracking_identifier: one for one in reported_visits(course, response, {})[1].lesions}
    assert (told["Nodule 2"].summed, told["Nodule 2"].measurements[0].value) == ("long_axis", 45.3)
    assert (told["Nodule 1"].summed, told["Nodule 1"].status) == (None, Status.COALESCED)
    other = reported_visits(grown_together(Role.TARGET), response, {})[1].lesions[1]
    assert (other.summed, other.measurements[0].value) == ("long_axis", 0.0)
    assert "grown together" in other.measurements[0].method

"""The longitudinal report of a patient, put together: values, then pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

from node.report.longitudinal.course_view import (
    coded,
    codes_of,
    corrections_of,
    densities_of,
    events_of,
    lesions_of,
    made_of,
    margins_in_words,
    visits_of,
)
from node.report.longitudinal.lesion_pictures import Images, Open, lesion_pictures
from node.report.longitudinal.sums import sums_of
from node.report.longitudinal.view import LongitudinalReport, Who
from plugins.errors import Refused
from store.course import Course
from store.response.growth import Growth, growth_of
from store.response.verdict import Response


def build(
    course: Course,
    responses: Sequence[Response],
    open_object: Open,
    images_of: Images | None = None,
    *,
    made_at: datetime,
    software: str | None = None,
    with_pictures: bool = True,
) -> LongitudinalReport:
    """Return the report of a patient by one or several sets of criteria, the first of which is the report's own.

    `open_object` gives the file of an object, by sha256 or SOP Instance UID, and raises KeyError or OSError for what is
    not here; `images_of` gives the images of a study by series, for what was not drawn. Without them pictures say that
    they are missing; without `with_pictures` none is made. Equal input gives an equal report. Refuses `no-course` when
    there is no verdict or no visit.
    """
    if not responses or not responses[0].time_points:
        raise Refused("no-course", "there is no visit to report on; lesions have to be measured first")
    visits = visits_of(course, responses)
    lesions = lesions_of(course, visits, responses[0].criteria)
    names = codes_of(course, lesions)
    shown = lesions if with_pictures else ()
    pictures, missing = lesion_pictures(course, shown, visits, open_object, images_of or _no_images)
    return LongitudinalReport(
        patient=Who.of(course.patient),
        visits=visits,
        responses=tuple(_named(response, names) for response in responses),
        sums=tuple(sums_of(response, lesions) for response in responses),
        growth=tuple(map(_growth, responses)),
        margins=margins_in_words(responses[0].time_points[-1].margins, names),
        lesions=lesions,
        events=events_of(course, lesions, names),
        pictures=pictures,
        corrections=corrections_of(course, names),
        made=made_of(course),
        densities=densities_of(course),
        software=software or f"Nadir {version('nadir')}",
        made_at=made_at,
        missing=missing,
    )


def _named(response: Response, names: Mapping[str, str]) -> Response:
    """Return the verdicts with the short names of lesions in their sentences."""
    return replace(
        response,
        doubts=tuple(coded(doubt, names) for doubt in response.doubts),
        time_points=tuple(
            replace(
                point,
                because=coded(point.because, names),
                doubts=tuple(coded(doubt, names) for doubt in point.doubts),
            )
            for point in response.time_points
        ),
    )


def _growth(response: Response) -> Growth | None:
    """Return the rates of the sums; a score grows at no rate."""
    points = response.time_points
    known = len(points) > 1 and any(point.sum is not None for point in points)
    return growth_of(response) if known and response.unit != "1" else None


def _no_images(_: str) -> Mapping[str, Sequence[str]]:
    return {}


__all__ = ["build"]

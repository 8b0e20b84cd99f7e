"""Axes that a person measured again in another viewer: they win, and their ends are where they were drawn."""

from __future__ import annotations

from datetime import date

import pytest
from course_rows import NODE, Clock, lesion, patient_pk, visit
from persons_report import IMAGE, LONG, SHORT, axis, bring, given, image, of_a_person, report
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from node.report.longitudinal.course_view import events_of, lesions_of, visits_of
from plugins import codes
from store.course import Course, course
from store.database import Database
from store.objects import ObjectStore
from store.sighting import Sighting
from store.told import judge

JANUARY, MARCH, ONE, OWN = date(2026, 1, 10), date(2026, 3, 10), "2.25.1", "2.25.99"


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


@pytest.mark.parametrize(
    ("uid", "column", "wins"), [(ONE, 10.5, True), (OWN, 10.5, True), (OWN, 16.0, False)]
)
def test_an_axis_that_a_person_drew_on_an_image_is_the_one_that_counts_and_lies_where_it_was_drawn(
    database: Database, objects: ObjectStore, uid: str, column: float, wins: bool
) -> None:
    with database.transaction() as session:
        clock = Clock()
        found = [lesion(ONE, 20, series_instance_uid="1.2.1.51", centroid_mm=(1.0, 3.0, 3.0))]
        visit(session, clock, JANUARY, found)
        bring(session, objects, image(), 1)
        bring(session, objects, report(uid, "1.2.1.51.1", column), 2)
        known = course(session, patient_pk(session), objects)
    (seen,) = known.history().visits[0].seen
    assert (seen.lesion, seen.long_axis_tenths) == (ONE, 240 if wins else 200)
    if wins:
        one = next(s for s in known.sightings if s.counts)
        assert (one.automatic, one.series_instance_uid, one.frame_of_reference_uid) == (
            False,
            "1.2.1.51",
            "1.2.9",
        )
        assert one.measurements["long_axis"].end_points_mm == ((-11.0, 3.0, 3.0), (13.0, 3.0, 3.0))
        assert one.measurements["short_axis"].end_points_mm == ((1.0, -2.0, 3.0), (1.0, 8.0, 3.0))
        assert one.measurements["long_axis"].sop_instance_uid == "1.2.1.51.1"
        assert one.site == "Lung"


ROW = [5.0, 11.0, 17.0, 11.0]
"""A line across the lesion of `known_with`."""


def known_with(database: Database, objects: ObjectStore, *reports: Dataset, **changes: object) -> Course:
    """Return the course of a lesion of 40 x 20 mm and 5 ml, and of 24 x 12 mm later, with reports of the first."""
    with database.transaction() as session:
        clock = Clock()
        first = {"series_instance_uid": "1.2.1.51", "centroid_mm": (1.0, 3.0, 3.0), "volume": 5.0}
        visit(session, clock, JANUARY, [lesion(ONE, 40.0, **{**first, **changes})])
        visit(session, clock, MARCH, [lesion(ONE, 24.0, volume=2.0, **changes)])
        bring(session, objects, image(), 1)
        for number, dataset in enumerate(reports, start=2):
            bring(session, objects, dataset, number)
        return course(session, patient_pk(session), objects)


def counting(known: Course) -> Sighting:
    """Return what counts of the lesion at the first visit."""
    return next(one for one in known.sightings if one.counts and one.date == JANUARY)


def test_sizes_in_other_units_count_in_millimetres_and_millilitres(
    database: Database, objects: ObjectStore
) -> None:
    numbers = [
        axis(LONG, 3.85, ROW, IMAGE, "cm"),
        axis(SHORT, 20000.0, ROW, IMAGE, "um"),
        axis(codes.VOLUME, 4100.0, ROW, IMAGE, "mm3"),
    ]
    known = known_with(database, objects, of_a_person(given(*numbers)))
    told = {name: (m.value, m.unit) for name, m in counting(known).measurements.items()}
    assert told == {"long_axis": (38.5, "mm"), "short_axis": (20.0, "mm"), "volume": (4.1, "ml")}
    assert [(p.overall, p.sum) for p in judge(known, "recist1.1").time_points] == [(None, 38.5), ("PR", 24.0)]


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (-3.8, "mm", "-3.8 mm"),
        (0.0, "mm", "0 mm"),
        (3.8, "[in_i]", "3.8 [in_i]"),
        (38.0, "", "38 of no unit"),
    ],
)
def test_what_is_no_size_is_told_and_takes_the_place_of_nothing(
    database: Database, objects: ObjectStore, value: float, unit: str, words: str
) -> None:
    known = known_with(database, objects, of_a_person(given(axis(LONG, value, ROW, IMAGE, unit))))
    seen = counting(known)
    assert (seen.automatic, seen.measurements["long_axis"].value) == (True, 40.0)
    said = f"Grey Meredith gave its long axis as {words}, which is no size and is left out."
    assert seen.remarks == (said,)
    visits = visits_of(known, ())
    assert events_of(known, lesions_of(known, visits), {}) == ((JANUARY, f"T1 (Nodule .1): {said}"),)


@pytest.mark.parametrize(
    ("came", "told"),
    [
        ("20260112", ("Grey Meredith gave its long axis as -1 mm, which is no size and is left out.",)),
        ("20260110", ()),
    ],
)
def test_a_report_without_a_size_leaves_an_earlier_one_and_is_mended_by_a_later_one(
    database: Database, objects: ObjectStore, came: str, told: tuple[str, ...]
) -> None:
    good = of_a_person(given(axis(LONG, 38.0, ROW, IMAGE)))
    bad = of_a_person(given(axis(LONG, -1.0, ROW, IMAGE)))
    good.ContentDate, bad.ContentDate = "20260111", came
    good.ContentTime = bad.ContentTime = "100000"
    seen = counting(known_with(database, objects, bad, good))
    assert (seen.automatic, seen.measurements["long_axis"].value) == (False, 38.0)
    assert seen.remarks == told


COLUMN = [11.0, 6.0, 11.0, 16.0]
"""A line across `ROW`."""
TAKEN = "; a length that is not called an axis is taken for a long one."


@pytest.mark.parametrize("as_one", [True, False])
@pytest.mark.parametrize(
    ("names", "first", "counts", "remark"),
    [
        ((codes.LENGTH, codes.LENGTH), 38.0, 38.0, f"38 mm and 20 mm, of which 38 mm counts{TAKEN}"),
        ((codes.LENGTH, codes.DIAMETER), 18.0, 20.0, f"18 mm and 20 mm, of which 20 mm counts{TAKEN}"),
        ((codes.LENGTH, LONG), 38.0, 20.0, "38 mm and 20 mm, of which 20 mm counts."),
        ((LONG, LONG), 38.0, 38.0, "38 mm and 20 mm, of which 38 mm counts."),
    ],
)
def test_of_two_lengths_across_a_lesion_the_larger_is_its_long_axis_and_both_are_told(
    database: Database,
    objects: ObjectStore,
    as_one: bool,
    names: tuple[Code, Code],
    first: float,
    counts: float,
    remark: str,
) -> None:
    numbers = axis(names[0], first, ROW, IMAGE), axis(names[1], 20.0, COLUMN, IMAGE)
    groups = [given(*numbers)] if as_one else [given(n, uid=f"2.25.9{at}") for at, n in enumerate(numbers)]
    known = known_with(database, objects, of_a_person(*groups))
    seen = counting(known)
    assert (seen.automatic, seen.measurements["long_axis"].value) == (False, counts)
    across = ((-10.0, 3.0, 3.0), (14.0, 3.0, 3.0))
    along = ((2.0, -7.0, 3.0), (2.0, 13.0, 3.0))
    assert seen.measurements["long_axis"].end_points_mm == (across if counts == first else along)
    assert seen.remarks == (f"Grey Meredith gave its long axis as {remark}",)
    first_point = judge(known, "recist1.1").time_points[0]
    assert first_point.sum == counts
    assert first_point.doubts == (f"'{known.names[seen.lesion]}': {seen.remarks[0]}",)


def test_what_a_person_did_not_measure_anew_stays_as_it_was_drawn(
    database: Database, objects: ObjectStore
) -> None:
    known = known_with(database, objects, of_a_person(given(axis(LONG, 38.0, ROW, IMAGE))), type=NODE)
    told = {name: (m.value, m.made_by) for name, m in counting(known).measurements.items()}
    ours = "lung_nodule 1"
    assert told == {"long_axis": (38.0, ""), "short_axis": (20.0, ours), "volume": (5.0, ours)}
    points = judge(known, "recist1.1").time_points
    assert [(p.overall, p.sum) for p in points] == [(None, 20.0), ("PR", 12.0)]
    assert judge(known, "volume").time_points[0].sum == 5000.0
    (lesion_course,) = lesions_of(known, visits_of(known, ()))
    assert [cell.made_by for cell in lesion_course.cells] == ["report, lung_nodule 1", "lung_nodule 1"]


@pytest.mark.parametrize(
    ("name", "mm", "kept", "words"),
    [
        (LONG, 19.5, 20.0, None),
        (LONG, 15.0, None, "20 mm does not fit a long axis of 15 mm: the short axis"),
        (SHORT, 45.0, None, "45 mm does not fit a long axis of 40 mm: the long axis"),
    ],
)
def test_an_axis_that_does_not_fit_that_of_a_person_is_left_out_and_told(
    database: Database, objects: ObjectStore, name: Code, mm: float, kept: float | None, words: str | None
) -> None:
    seen = counting(known_with(database, objects, of_a_person(given(axis(name, mm, ROW, IMAGE)))))
    own, other = ("long_axis", "short_axis") if name is LONG else ("short_axis", "long_axis")
    measure = seen.measurements.get(other)
    assert (seen.measurements[own].value, measure and measure.value) == (mm, kept)
    end = "of 'lung_nodule' is left out, and a person has to measure both."
    assert seen.remarks == (() if words is None else (f"A short axis of {words} {end}",))
    assert seen.measurements["volume"].value == 5.0

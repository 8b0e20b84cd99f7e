from __future__ import annotations

from datetime import date

import pytest
from course_rows import Clock, Linked, lesion, patient_pk, visit
from ledger import at

from node.report.longitudinal.course_view import lesions_of, visits_of
from store.choices import choose
from store.course import course
from store.database import Database
from store.response.history import Status
from store.told import judge
from store.tracking.link import Kind

JANUARY, MARCH, MAY = date(2026, 1, 10), date(2026, 3, 10), date(2026, 5, 10)


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def test_a_lesion_that_the_end_of_the_scan_cuts_is_not_evaluable_and_keeps_its_numbers(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock, uid = Clock(), "2.25.1"
        first = visit(session, clock, JANUARY, [lesion(uid, 31.6)])
        cut = [Linked(kind=Kind.CUT, uid=uid, earlier=[uid], study=first)]
        second = visit(session, clock, MARCH, [lesion(uid, 19.2)], cut)
        visit(
            session,
            clock,
            MAY,
            [lesion(uid, 31.6)],
            [Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=second)],
        )
        known = course(session, patient_pk(session))
        said = {"author": "Dr. Grey", "now": at(clock.seconds), "study_instance_uid": second}
        choose(session, patient_pk(session), "status", uid, "measured", **said)  # type: ignore[arg-type]
        overruled = course(session, patient_pk(session))
    points = judge(known, "recist1.1").time_points
    assert [(p.overall, p.sum) for p in points] == [(None, 31.6), ("NE", None), ("SD", 31.6)]
    assert "is cut by the end of the scan and not evaluable" in " ".join(points[1].doubts)
    seen = next(one for one in known.sightings if one.date == MARCH)
    assert (seen.status, seen.measurements["long_axis"].value) == (Status.NOT_EVALUABLE, 19.2)
    (shown,) = lesions_of(known, visits_of(known, ()))
    cell = shown.cells[1]
    assert (cell.words, cell.counted_mm) == ("not evaluable, cut by the end of the scan", None)
    assert cell.numbers["long_axis"].value == 19.2
    assert judge(overruled, "recist1.1").time_points[1].overall == "PR"

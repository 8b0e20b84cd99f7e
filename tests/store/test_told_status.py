"""What was measured at a visit counts whatever a person calls it there, unless that says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest
from course_rows import NODE, Clock, Linked, lesion, liver, patient_pk, visit
from ledger import at
from sqlmodel import Session

from store.analysed import Found
from store.choices import choose
from store.course import Course, course
from store.database import Database
from store.response.history import Status
from store.response.table import read_table
from store.response.verdict import Response
from store.told import CRITERIA, judge
from store.tracking.link import Kind

DATES = (date(2026, 1, 10), date(2026, 3, 10), date(2026, 5, 10))


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def three_visits(
    database: Database, still: Sequence[float], grown: Sequence[float], role: str, status: str
) -> Course:
    """Return the course of a target and of a lesion that a person calls `status` at the second of three visits."""
    with database.transaction() as session:
        clock = Clock()
        for on, one, other in zip(DATES, still, grown, strict=True):
            visit(
                session, clock, on, [lesion("2.25.1", one), lesion("2.25.2", other, volume=other**3 / 2000)]
            )
        said = {"author": "Dr. Grey", "now": at(clock.seconds)}
        pk = patient_pk(session)
        choose(session, pk, "role", "2.25.2", role, **said)  # type: ignore[arg-type]
        choose(session, pk, "status", "2.25.2", status, study_instance_uid="1.2.2", **said)  # type: ignore[arg-type]
        return course(session, pk)


def of_table(still: Sequence[float], grown: Sequence[float], role: str, criteria: str) -> Response:
    """Return the verdicts of the same lengths as a table gives them."""
    rows = ["patient,lesion,date,role,status,long_axis_mm"]
    for at_visit, (on, one, other) in enumerate(zip(DATES, still, grown, strict=True)):
        status = "unequivocal-progression" if at_visit == 1 else "measured"
        rows += [f"A,T,{on},target,measured,{one}", f"A,N,{on},{role},{status},{other}"]
    return CRITERIA[criteria](read_table("\n".join(rows).encode()).histories[0])


def told(response: Response) -> list[tuple[str | None, float | None]]:
    return [(point.overall, point.sum) for point in response.time_points]


@pytest.mark.parametrize(
    ("role", "grown", "verdicts", "why"),
    [
        ("non-target", (9, 20, 30), [(None, 20.0), ("iUPD", 20.0), ("iCPD", 20.0)], "grew further"),
        ("target", (20, 23, 29), [(None, 40.0), ("iUPD", 43.0), ("iCPD", 49.0)], "is 6.0 mm larger"),
    ],
)
def test_a_lesion_that_is_called_progressed_keeps_the_numbers_of_that_visit(
    database: Database, role: str, grown: Sequence[float], verdicts: list[tuple[str | None, float]], why: str
) -> None:
    known = three_visits(database, (20, 20, 20), grown, role, "unequivocal-progression")
    response = judge(known, "irecist")
    assert told(response) == verdicts == told(of_table((20, 20, 20), grown, role, "irecist"))
    assert why in response.time_points[-1].because
    for criteria in ("recist1.1", "irecist"):
        assert told(judge(known, criteria)) == told(of_table((20, 20, 20), grown, role, criteria))
    assert known.history("volume").visits[1].seen[1].volume_mm3 == 1000 * grown[1] ** 3 / 2000


def hot(sul: float) -> Found:
    return lesion("2.25.1", 20, suv_peak=1.25 * sul, sul_peak=sul, tlg=10)


def two_pets(session: Session, clock: Clock, *, with_ct: bool = False) -> Course:
    """Write two PETs on which a lesion has SULpeak 6.4 and 2.4, the second CT beside them cutting it; the course."""
    for number, (on, sul) in enumerate(zip(DATES[:2], (6.4, 2.4), strict=True), 1):
        uid = f"1.5.{number}"
        if with_ct:
            cut = [Linked(kind=Kind.CUT, uid="2.25.1", study="1.5.1")] if number == 2 else []
            visit(session, clock, on, [lesion("2.25.1", 20 if number == 1 else 9)], cut, study=uid)
        found = [hot(sul), liver(f"2.25.9{number}", sul_mean=1.6, sul_sd=0.2)]
        visit(session, clock, on, found, study=uid, plugin="pet_lesion")
    return course(session, patient_pk(session))


@pytest.mark.parametrize(
    ("status", "percist", "lugano"),
    [
        ("measured", "PMR", "PMR"),
        ("too-small", "PMR", "PMR"),
        ("present", "PMR", "PMR"),
        ("unequivocal-progression", "PMD", "PMD"),
        ("absent", "CMR", "CMR"),
        ("NE", "NE", "NE"),
    ],
)
def test_an_uptake_counts_whatever_the_size_is_called(
    database: Database, status: str, percist: str, lugano: str
) -> None:
    with database.transaction() as session:
        clock = Clock()
        two_pets(session, clock)
        pk = patient_pk(session)
        choose(session, pk, "role", "2.25.1", "target", author="Dr. Grey", now=at(clock.seconds))
        said = {"author": "Dr. Grey", "now": at(clock.seconds), "study_instance_uid": "1.5.2"}
        choose(session, pk, "status", "2.25.1", status, **said)  # type: ignore[arg-type]
        known = course(session, pk)
    last = [judge(known, criteria).time_points[-1].overall for criteria in ("percist", "lugano")]
    assert last == [percist, lugano]
    (seen,) = known.history("percist").visits[1].seen
    is_told = status not in ("absent", "NE")
    assert (seen.suv_peak, seen.tlg) == ((2.4, 8.0) if is_told else (None, None))


def test_an_uptake_counts_where_the_ct_of_the_date_cuts_the_lesion(database: Database) -> None:
    with database.transaction() as session:
        known = two_pets(session, Clock(), with_ct=True)
    assert [judge(known, one).time_points[-1].overall for one in ("percist", "lugano")] == ["PMR", "PMR"]
    assert judge(known, "recist1.1").time_points[-1].overall == "NE"
    (seen,) = known.history("lugano").visits[1].seen
    assert (seen.status, seen.long_axis_tenths, seen.suv_peak) == (Status.PRESENT, None, 2.4)


def test_a_node_that_was_normal_at_the_baseline_is_new_when_a_person_calls_it_so(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        for on, short in zip(DATES[:2], (8.0, 22.0), strict=True):
            node = lesion("2.25.2", 25, short_axis=short, type=NODE)
            visit(session, clock, on, [lesion("2.25.1", 20), node])
        pk = patient_pk(session)
        unsaid = course(session, pk)
        choose(session, pk, "role", "2.25.2", "new", author="Dr. Grey", now=at(clock.seconds))
        known = course(session, pk)
    doubts = judge(unsaid, "recist1.1").time_points[1].doubts
    assert "was normal at the baseline and has a short axis of 10 mm or more" in doubts[0]
    assert [point.overall for point in judge(known, "recist1.1").time_points] == [None, "PD"]

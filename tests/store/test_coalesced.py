from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest
from course_rows import ANATOMY, NODE, Clock, Linked, lesion, patient_pk, visit
from ledger import at
from sqlmodel import Session

from store.choices import choose
from store.course import Course, course
from store.database import Database
from store.response.history import Seen, Status
from store.response.verdict import TimePoint
from store.told import in_words, judge
from store.tracking.link import Kind

JANUARY, MARCH, MAY = date(2026, 1, 10), date(2026, 3, 10), date(2026, 5, 10)
A, B, C = "2.25.31", "2.25.32", "2.25.33"
MEASURED, COALESCED, ABSENT, NE = Status.MEASURED, Status.COALESCED, Status.ABSENT, Status.NOT_EVALUABLE


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def grown_together(
    session: Session, roles: str = "t tn", mm: float = 45.3, **of_b: object
) -> tuple[Clock, str]:
    """Write A 25.7, B 14 and C 16 mm, then A and one mass as C, and what a person said each is (`t`, `n` or nothing).

    Return the clock and the Study Instance UID of the second visit.
    """
    clock = Clock()
    sizes = {A: 25.7, B: 14.0, C: 16.0}
    found = [lesion(u, size, segment_number=n, volume=size / 10, **(of_b if u == B else {}))
             for n, (u, size) in enumerate(sizes.items(), start=1)]  # fmt: skip
    first = visit(session, clock, JANUARY, found)
    links = [
        Linked(kind=Kind.SAME, uid=A, earlier=[A], study=first),
        Linked(kind=Kind.MERGED, uid=C, earlier=[B, C], study=first),
    ]
    mass = lesion(C, mm, segment_number=2, volume=9.0, label="BC")
    second = visit(session, clock, MARCH, [lesion(A, 25.7, volume=2.57), mass], links)
    for uid, role in zip((A, B, C), roles.replace(" ", ""), strict=True):
        words = {"t": "target", "n": "non-target"}[role]
        choose(session, patient_pk(session), "role", uid, words, author="Dr. Grey", now=at(clock.seconds))
    return clock, second


def told_of(session: Session, on: date, criteria: str = "recist1.1") -> tuple[dict[str, Seen], TimePoint]:
    known = course(session, patient_pk(session))
    seen = next(v.seen for v in known.history(criteria).visits if v.date == on)
    points = in_words(judge(known, criteria), known).time_points
    return {one.lesion: one for one in seen}, next(p for p in points if p.date == on)


def later(session: Session, clock: Clock, second: str, kind: Kind) -> None:
    """Write a third visit with A as it was, where the mass is not drawn and what the tracking says of it."""
    links = [
        Linked(kind=Kind.SAME, uid=A, earlier=[A], study=second),
        Linked(kind=kind, uid=C, earlier=[C], study=second, is_drawn=False),
    ]
    visit(session, clock, MAY, [lesion(A, 25.7, volume=2.57)], links)


def sizes(seen: dict[str, Seen]) -> dict[str, tuple[Status, int | None]]:
    return {uid: (one.status, one.long_axis_tenths) for uid, one in seen.items()}


def test_a_mass_of_which_one_parent_was_a_target_is_in_the_sum_whichever_it_goes_on_as(
    database: Database,
) -> None:
    with database.transaction() as session:
        grown_together(session, "t tn")
        seen, point = told_of(session, MARCH)
    assert sizes(seen) == {A: (MEASURED, 257), B: (MEASURED, 453), C: (COALESCED, None)}
    assert (point.sum, point.overall, point.target, point.non_target) == (71.0, "PD", "PD", "NON-CR/NON-PD")
    assert "Still there: Nodule 33." in point.because
    assert (
        "'Nodule 32': It has grown together with 'Nodule 33', and the size of both counts here, for the target."
        in point.doubts
    )
    assert "'Nodule 33': It has grown together with 'Nodule 32', whose size counts for both." in point.doubts


def test_a_non_target_that_grew_into_a_target_is_still_there(database: Database) -> None:
    with database.transaction() as session:
        grown_together(session, "t nt", 16.0)
        seen, point = told_of(session, MARCH)
    assert sizes(seen) == {A: (MEASURED, 257), B: (COALESCED, None), C: (MEASURED, 160)}
    assert (point.sum, point.overall, point.non_target) == (41.7, "SD", "NON-CR/NON-PD")
    assert "Still there: Nodule 32." in point.because


def test_of_two_targets_that_grew_together_one_adds_the_size_and_the_other_nothing(
    database: Database,
) -> None:
    with database.transaction() as session:
        grown_together(session, "t tt", 30.0)
        seen, point = told_of(session, MARCH)
    assert sizes(seen) == {A: (MEASURED, 257), B: (COALESCED, None), C: (MEASURED, 300)}
    assert (point.sum, point.overall) == (55.7, "SD")


def test_non_targets_that_grew_together_are_in_no_sum_and_both_there(database: Database) -> None:
    with database.transaction() as session:
        grown_together(session, "t nn")
        seen, point = told_of(session, MARCH)
    assert sizes(seen) == {A: (MEASURED, 257), B: (COALESCED, None), C: (MEASURED, 453)}
    assert (point.sum, point.overall, point.non_target) == (25.7, "SD", "NON-CR/NON-PD")
    assert "Still there: Nodule 32, Nodule 33." in point.because


@pytest.mark.parametrize(
    ("criteria", "total"), [("irecist", 71.0), ("who", 25.7 * 12.9 + 45.3 * 22.7), ("volume", 11_570.0)]
)
def test_every_criterion_with_a_sum_counts_the_mass_once(
    database: Database, criteria: str, total: float
) -> None:
    with database.transaction() as session:
        grown_together(session, "t tn")
        _, point = told_of(session, MARCH, criteria)
    assert point.sum == pytest.approx(total)
    assert point.overall in ("PD", "iUPD")


@pytest.mark.parametrize(("roles", "non_target"), [("t tn", "CR"), ("t nt", "CR"), ("n tt", "NON-CR/NON-PD")])
def test_when_the_mass_is_gone_both_are_gone(database: Database, roles: str, non_target: str) -> None:
    with database.transaction() as session:
        clock, second = grown_together(session, roles)
        later(session, clock, second, Kind.GONE)
        seen, point = told_of(session, MAY)
    assert sizes(seen) == {A: (MEASURED, 257), B: (ABSENT, None), C: (ABSENT, None)}
    assert point.non_target == non_target
    assert (point.sum, point.target) == ((25.7, "PR") if roles[0] == "t" else (0.0, "CR"))


@pytest.mark.parametrize("roles", ["t tn", "t nt", "t tt"])
def test_when_the_mass_is_not_evaluable_neither_is(database: Database, roles: str) -> None:
    with database.transaction() as session:
        clock, second = grown_together(session, roles)
        later(session, clock, second, Kind.OUT_OF_VIEW)
        seen, point = told_of(session, MAY)
    assert sizes(seen) == {A: (MEASURED, 257), B: (NE, None), C: (NE, None)}
    assert (point.sum, point.overall) == (None, "NE")


def test_a_person_who_says_that_the_mass_is_gone_says_so_of_both(database: Database) -> None:
    with database.transaction() as session:
        clock, second = grown_together(session, "t tn")
        said = {"author": "Dr. Grey", "now": at(clock.seconds), "study_instance_uid": second}
        choose(session, patient_pk(session), "status", C, "absent", **said)  # type: ignore[arg-type]
        seen, point = told_of(session, MARCH)
    assert (seen[B].status, seen[C].status, point.non_target) == (ABSENT, ABSENT, "CR")


def test_of_a_node_that_is_the_target_the_short_axis_of_the_mass_counts(database: Database) -> None:
    with database.transaction() as session:
        grown_together(session, "t tn", category=ANATOMY, type=NODE, short_axis=15.0)
        seen, point = told_of(session, MARCH)
    assert (seen[B].node, seen[B].short_axis_tenths, seen[C].node) == (True, 227, False)
    assert point.sum == pytest.approx(25.7 + 22.7)


def test_lesions_that_part_again_are_what_they_were(database: Database) -> None:
    with database.transaction() as session:
        clock, second = grown_together(session, "t tn")
        links = [Linked(kind=Kind.SAME, uid=u, earlier=[u], study=second) for u in (A, C)]
        links.append(Linked(kind=Kind.NEW, uid=B, study=second))
        found = [
            lesion(u, mm, segment_number=n)
            for n, (u, mm) in enumerate({A: 25.7, B: 12.0, C: 13.0}.items(), 1)
        ]
        visit(session, clock, MAY, found, links)
        seen, point = told_of(session, MAY)
    assert sizes(seen) == {A: (MEASURED, 257), B: (MEASURED, 120), C: (MEASURED, 130)}
    assert point.sum == 37.7


def test_parts_of_a_mass_are_added_up_for_the_target_in_it(database: Database) -> None:
    with database.transaction() as session:
        clock, second = grown_together(session, "t tn")
        links: Sequence[Linked] = [
            Linked(kind=Kind.SAME, uid=A, earlier=[A], study=second),
            *(Linked(kind=Kind.SPLIT, uid=u, earlier=[C], study=second) for u in (C, "2.25.39")),
        ]
        found = [
            lesion(u, mm, segment_number=n)
            for n, (u, mm) in enumerate({A: 25.7, C: 20.0, "2.25.39": 10.0}.items(), 1)
        ]
        visit(session, clock, MAY, found, links)
        seen, point = told_of(session, MAY)
    assert sizes(seen) == {A: (MEASURED, 257), B: (MEASURED, 300), C: (COALESCED, None)}
    assert point.sum == 55.7


def test_what_ended_in_a_lesion_ends_in_the_next_one_with_it(database: Database) -> None:
    with database.transaction() as session:
        clock, second = grown_together(session, "t tn")
        both = [Linked(kind=Kind.MERGED, uid=A, earlier=[A, C], study=second)]
        visit(session, clock, MAY, [lesion(A, 80.0)], both)
        seen, point = told_of(session, MAY)
    assert sizes(seen) == {A: (MEASURED, 800), B: (COALESCED, None), C: (COALESCED, None)}
    assert (point.sum, point.non_target) == (80.0, "NON-CR/NON-PD")


def test_a_mass_that_a_person_relinked_is_a_lesion_of_its_own(database: Database) -> None:
    with database.transaction() as session:
        clock, second = grown_together(session, "t tn")
        said = {"author": "Dr. Grey", "now": at(clock.seconds), "study_instance_uid": second}
        choose(session, patient_pk(session), "relink", C, B, **said)  # type: ignore[arg-type]
        known: Course = course(session, patient_pk(session))
        seen, point = told_of(session, MARCH)
    assert not any(one.whole for one in known.sightings)
    assert (sizes(seen), point.sum) == ({A: (MEASURED, 257), B: (MEASURED, 453)}, 71.0)

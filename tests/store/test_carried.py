"""What people decided of a lesion is said of it under the name that tracking gives it later."""

from __future__ import annotations

from datetime import date

import pytest
from course_rows import Clock, lesion, patient_pk, visit
from ledger import at
from sqlmodel import Session

from store.choices import choose, undo
from store.chosen import chosen
from store.course import course
from store.database import Database

MARCH, MAY = date(2026, 3, 10), date(2026, 5, 10)
ONE, TWO, NINE = "2.25.1", "2.25.2", "2.25.9"
NEAR, FAR = (1.5, 2.0, 3.0), (90.0, 2.0, 3.0)


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def decide(session: Session, kind: str, uid: str, value: str, study: str = "") -> None:
    patient = patient_pk(session)
    choose(session, patient, kind, uid, value, author="Dr. Grey", now=at(50), study_instance_uid=study)


def says(session: Session) -> set[tuple[str, str, str]]:
    standing = chosen(session, patient_pk(session)).counting
    return {(one.kind, one.tracking_uid, one.value) for one in standing}


@pytest.mark.parametrize("place", [NEAR, FAR])
def test_a_choice_follows_its_drawing_to_another_name_and_to_no_other_place(
    database: Database, place: tuple[float, float, float]
) -> None:
    with database.transaction() as session:
        visit(session, Clock(), MARCH, [lesion(NINE)], study="1.2.1")
        decide(session, "reject", NINE, "true")
        decide(session, "status", NINE, "NE", "1.2.1")
        visit(session, Clock(100, 8), MARCH, [lesion(ONE, centroid_mm=place)], study="1.2.1")
        name = ONE if place == NEAR else NINE
        assert says(session) == {("reject", name, "true"), ("status", name, "NE")}
        assert [
            one.counts for one in course(session, patient_pk(session)).sightings if one.lesion == ONE
        ] == [place == FAR]


def test_a_choice_of_a_visit_follows_and_one_of_the_lesion_stays_while_another_visit_has_its_name(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, MARCH, [lesion(NINE)], study="1.2.1")
        visit(session, clock, MAY, [lesion(NINE)], study="1.2.2")
        decide(session, "role", NINE, "non-target")
        decide(session, "status", NINE, "NE", "1.2.2")
        visit(session, Clock(100, 8), MAY, [lesion(ONE)], study="1.2.2")
        assert says(session) == {("role", NINE, "non-target"), ("status", ONE, "NE")}


def test_a_relink_follows_the_lesion_that_it_gave_to_the_name_that_this_has(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, MARCH, [lesion(NINE)], study="1.2.1")
        visit(session, clock, MAY, [lesion(TWO)], study="1.2.2")
        decide(session, "relink", TWO, NINE, "1.2.2")
        visit(session, Clock(100, 8), MAY, [lesion(NINE, before_uid=TWO)], study="1.2.2")
        visit(session, Clock(200, 9), MARCH, [lesion(ONE)], study="1.2.1")
        assert says(session) == {("relink", TWO, ONE)}
        assert {one.lesion for one in course(session, patient_pk(session)).sightings} == {ONE}


def test_what_was_said_of_the_lesion_that_a_relink_gave_stays_its_own_when_the_relink_is_taken_back(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, MARCH, [lesion(NINE)], study="1.2.1")
        visit(session, clock, MAY, [lesion(TWO)], study="1.2.2")
        decide(session, "relink", TWO, NINE, "1.2.2")
        visit(session, Clock(100, 8), MAY, [lesion(NINE, before_uid=TWO)], study="1.2.2")
        decide(session, "status", NINE, "NE", "1.2.2")
        (relink, _) = chosen(session, patient_pk(session)).counting
        undo(session, patient_pk(session), relink.number, author="Dr. Grey", now=at(150))
        visit(session, Clock(200, 9), MAY, [lesion(TWO)], study="1.2.2")
        assert says(session) == {("status", NINE, "NE")}

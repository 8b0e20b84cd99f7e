"""What stays of the time when two patients were declared to be one person, after they were parted again."""

from __future__ import annotations

from datetime import date

import pytest
from course_rows import Clock, Linked, lesion, patient_pk, visit
from ledger import at
from sqlmodel import Session

from store.assessments import assessments
from store.choices import choose, give_reference, keep, undo
from store.chosen import chosen, decided_of
from store.course import course
from store.database import Database
from store.findings import Wanted
from store.patients import merge, part
from store.response.history import Role, Status
from store.retrack import retrack
from store.tracking.link import Kind

JANUARY, MARCH, MAY = date(2026, 1, 10), date(2026, 3, 10), date(2026, 5, 10)
ONE, EIGHT, NINE = "2.25.1", "2.25.8", "2.25.9"
B = {"patient_id": "B"}


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def merged(session: Session) -> tuple[int, int]:
    """Write a lesion in a study of A, two that are followed over two of B, merge B into A; return A and B."""
    clock = Clock()
    visit(session, clock, JANUARY, [lesion(ONE, 30)], study="1.2.1", patient={"patient_id": "A"})
    both = [lesion(NINE, 25), lesion(EIGHT, 15, segment_number=2)]
    visit(session, clock, MARCH, both, study="1.2.2", patient=B)
    links = [Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study="1.2.2") for uid in (NINE, EIGHT)]
    visit(session, clock, MAY, both, links, study="1.2.3", patient=B)
    a, b = patient_pk(session, "A"), patient_pk(session, "B")
    merge(session, b, a, "Admin", at(100))
    return a, b


def says(session: Session, patient: int) -> list[tuple[str, str, str]]:
    return [(one.kind, one.tracking_uid, one.value) for one in chosen(session, patient).counting]


@pytest.mark.parametrize("is_old", [False, True])
def test_what_was_decided_while_two_patients_were_one_stays_with_the_lesion_of_which_it_speaks(
    database: Database, is_old: bool
) -> None:
    with database.transaction() as session:
        a, b = merged(session)
        said = (("reject", EIGHT, "true", ""), ("role", NINE, "non-target", ""), ("role", ONE, "ignore", ""))
        for kind, uid, value, study in (*said, ("status", NINE, "NE", "1.2.3")):
            if is_old:  # choices were kept of the row that speaks for the person
                keep(session, a, kind, uid, value, "Dr. Grey", at(101), study_instance_uid=study)
            else:
                about = {"author": "Dr. Grey", "now": at(101), "study_instance_uid": study}
                choose(session, a, kind, uid, value, **about)  # type: ignore[arg-type]
        part(session, b, "Admin", at(102))
        assert says(session, a) == [("role", ONE, "ignore")]
        assert says(session, b) == [
            ("reject", EIGHT, "true"), ("role", NINE, "non-target"), ("status", NINE, "NE"),
        ]  # fmt: skip
        found = {one.lesion: one for one in course(session, b).sightings}
        assert found[NINE].role is Role.NON_TARGET
        assert [d.kind for d in found[EIGHT].decisions] == ["reject"]
        assert {a, b} >= set(decided_of(session)) >= {b}
        told, _, _ = assessments(session, Wanted(study_instance_uid="1.2.3"))
        assert {one["tracking_uid"]: one["verdict"] for one in told}[EIGHT] == "rejected"


def test_what_was_undone_while_two_patients_were_one_stays_undone_and_can_be_undone_after(
    database: Database,
) -> None:
    with database.transaction() as session:
        a, b = merged(session)
        number = keep(session, a, "reject", EIGHT, "true", "Dr. Grey", at(101)).number
        back = undo(session, a, number, author="Dr. Grey", now=at(102)).number
        part(session, b, "Admin", at(103))
        assert says(session, b) == says(session, a) == []
        undo(session, b, back, author="Dr. Grey", now=at(104))
        assert says(session, b) == [("reject", EIGHT, "true")]
        assert [one.kind for one in chosen(session, b).decisions] == ["reject", "undo", "undo"]


def test_normal_tissue_that_was_given_of_a_study_stays_with_the_patient_of_the_study(
    database: Database,
) -> None:
    with database.transaction() as session:
        a, b = merged(session)
        give_reference(session, a, "1.2.3", {"liver_mean": 1.5}, author="Dr. Grey", now=at(101))
        part(session, b, "Admin", at(102))
        assert [(one.date, one.values) for one in course(session, b).given] == [(MAY, {"liver_mean": 1.5})]
        assert course(session, a).given == ()


def test_a_relink_to_a_lesion_of_the_other_patient_says_nothing_after_they_were_parted_and_again_when_merged(
    database: Database,
) -> None:
    with database.transaction() as session:
        a, b = merged(session)
        choose(
            session, a, "relink", NINE, ONE, author="Dr. Grey", now=at(101), study_instance_uid="1.2.2"
        )  # fmt: skip
        assert course(session, b).lesions == (ONE, EIGHT)
        part(session, b, "Admin", at(102))
        assert course(session, b).lesions == (NINE, EIGHT)
        assert [one.kind for one in chosen(session, b).decisions] == ["relink"]
        assert chosen(session, b).standing == ()
        merge(session, b, a, "Admin", at(103))
        assert course(session, b).lesions == (ONE, EIGHT)


def test_what_was_compared_with_a_study_of_a_patient_who_was_parted_is_asked_for_once_more(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [lesion(ONE)], study="1.2.1", patient={"patient_id": "A"})
        visit(session, clock, MARCH, [lesion(NINE)], study="1.2.2", patient=B)
        a, b = patient_pk(session, "A"), patient_pk(session, "B")
        merge(session, b, a, "Admin", at(21))
        link = Linked(kind=Kind.NEW, uid=NINE, study="1.2.1")
        visit(session, clock, MARCH, [lesion(NINE)], [link], study="1.2.2", patient=B)
        part(session, b, "Admin", at(31))
        assert retrack(session, a, at(32)) == []
        (asked,) = retrack(session, b, at(32))
        assert asked.created_at == at(32)
        assert retrack(session, b, at(33)) == []


def test_an_old_choice_of_a_lesion_goes_to_whose_it_is_also_where_the_other_patients_study_has_its_name(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [lesion(NINE, 25)], study="1.2.1", patient=B)
        visit(session, clock, MARCH, [lesion(ONE, 30)], study="1.2.2", patient={"patient_id": "A"})
        a, b = patient_pk(session, "A"), patient_pk(session, "B")
        merge(session, b, a, "Admin", at(21))
        link = Linked(kind=Kind.SAME, uid=NINE, earlier=[NINE], study="1.2.1")
        visit(session, clock, MARCH, [lesion(NINE, 30)], [link], study="1.2.2", patient={"patient_id": "A"})
        keep(session, a, "reject", NINE, "true", "Dr. Grey", at(40))  # of the row that spoke for the person
        part(session, b, "Admin", at(50))
        keep(session, a, "role", NINE, "non-target", "Dr. Grey", at(60))
        assert says(session, a) == [("role", NINE, "non-target")]
        assert says(session, b) == [("reject", NINE, "true")]


def told_while_one(session: Session) -> tuple[int, int]:
    """Let B's study be analysed while B is A, so that a lesion of his has A's name; say four things of it there."""
    clock = Clock()
    visit(session, clock, JANUARY, [lesion(ONE, 30)], study="1.2.1", patient={"patient_id": "A"})
    found = [lesion(NINE, 30), lesion(EIGHT, 15, segment_number=2, centroid_mm=(90.0, 2.0, 3.0))]
    visit(session, clock, MARCH, found, study="1.2.2", patient=B)
    a, b = patient_pk(session, "A"), patient_pk(session, "B")
    merge(session, b, a, "Admin", at(21))
    found[0] = lesion(ONE, 30)
    link = Linked(kind=Kind.SAME, uid=ONE, earlier=[ONE], study="1.2.1")
    visit(session, clock, MARCH, found, [link], study="1.2.2", patient=B)
    for kind, value in (("outline", "approved"), ("status", "NE"), ("reject", "true"), ("confirm", "true")):
        choose(session, a, kind, ONE, value, author="Dr. Grey", now=at(31), study_instance_uid="1.2.2")
    part(session, b, "Admin", at(32))
    return a, b


def test_a_choice_of_a_visit_follows_its_drawing_to_the_name_that_it_has_once_two_patients_are_parted(
    database: Database,
) -> None:
    kinds = ["outline", "status", "reject", "confirm"]
    with database.transaction() as session:
        a, b = told_while_one(session)
        assert {one.tracking_uid for one in chosen(session, b).decisions} == {ONE}
        again = Clock(seconds=40, studies=8)
        found = [lesion(EIGHT, 15, segment_number=2, centroid_mm=(90.0, 2.0, 3.0)), lesion(NINE, 29)]
        visit(session, again, MARCH, found, study="1.2.2", patient=B)
        assert [(one.kind, one.tracking_uid) for one in chosen(session, b).counting] == [
            (kind, NINE) for kind in kinds
        ]
        seen = {one.lesion: one for one in course(session, b).sightings}
        assert {one.kind for one in seen[NINE].decisions} == set(kinds)
        assert seen[NINE].status is Status.NOT_EVALUABLE and not seen[NINE].counts
        assert seen[EIGHT].decisions == () and seen[EIGHT].counts
        assert says(session, a) == []
        merge(session, b, a, "Admin", at(80))
        assert {one.tracking_uid for one in chosen(session, a).decisions} == {NINE}


def test_a_choice_of_a_visit_says_nothing_where_nothing_is_drawn_at_its_place_once_two_patients_are_parted(
    database: Database,
) -> None:
    with database.transaction() as session:
        _, b = told_while_one(session)
        found = [lesion(NINE, 30, centroid_mm=(40.0, 2.0, 3.0))]
        visit(session, Clock(seconds=40, studies=8), MARCH, found, study="1.2.2", patient=B)
        known = chosen(session, b)
        assert known.counting == () and len(known.void) == len(known.decisions) == 4


def test_what_was_said_of_a_drawing_that_a_relink_called_after_the_other_patients_lesion_is_said_of_it_still(
    database: Database,
) -> None:
    with database.transaction() as session:
        a, b = merged(session)
        about = {"author": "Dr. Grey", "now": at(101), "study_instance_uid": "1.2.2"}
        choose(session, a, "relink", NINE, ONE, **about)  # type: ignore[arg-type]
        choose(session, a, "status", ONE, "NE", **about)  # type: ignore[arg-type]
        part(session, b, "Admin", at(102))
        assert says(session, b) == [("status", NINE, "NE")]
        seen = {(one.lesion, one.study_instance_uid): one.status for one in course(session, b).sightings}
        assert seen[NINE, "1.2.2"] is Status.NOT_EVALUABLE

"""Whose a study is by its row, held against what its objects say: what is found, and what is none."""

from __future__ import annotations

from datetime import timedelta

from fsck_faults import LATER, codes, mended
from sqlmodel import select
from whole_node import WholeNode, image

from store.tables import Patient, Study


def patient_of(node: WholeNode, study_pk: int) -> tuple[str, str]:
    """Return issuer and PatientID of a study by the rows."""
    with node.database.reading() as session:
        found = session.exec(select(Patient).join(Study).where(Study.id == study_pk)).one()
    return found.issuer, found.patient_id


def test_a_study_that_is_said_to_be_of_another_patient_is_found_and_left_to_a_person(node: WholeNode) -> None:
    with node.database.transaction() as session:
        session.get_one(Study, 1).patient_pk = session.get_one(Study, 2).patient_pk
    (left,) = mended(node)
    fault = left.fault
    assert (fault.invariant, fault.code, fault.subject) == ("I6", "study-of-another-patient", "study 1")
    assert (left.mended, fault.todo) == ("", "restore the database from a copy")
    assert codes(node, quick=True) == []


def test_an_object_of_somebody_else_in_a_study_is_no_fault_of_its_row(node: WholeNode) -> None:
    node.take(image(1, 4, patient_id="SOMEBODY ELSE"), LATER)
    assert patient_of(node, 1) == ("", "P1")
    assert codes(node) == []


def test_a_study_that_came_again_for_another_patient_is_his_once_it_settles(node: WholeNode) -> None:
    for number in range(1, 4):
        node.take(image(1, number, patient_id="SOMEBODY ELSE"), LATER)
    assert patient_of(node, 1) == ("", "P1")
    assert codes(node) == []
    node.settle(LATER + timedelta(minutes=5))
    assert patient_of(node, 1) == ("", "SOMEBODY ELSE")
    assert codes(node) == []


def test_a_study_without_patient_id_is_of_a_patient_of_its_own(node: WholeNode) -> None:
    node.take(image(3, 1).replace(b"LO\x02\x00P3", b"LO\x02\x00  "), LATER)
    assert patient_of(node, 3) == ("study 1.2.3", "")
    node.settle(LATER + timedelta(minutes=5))
    assert codes(node) == []


def test_objects_that_cannot_be_read_say_nothing_of_the_patient(node: WholeNode) -> None:
    for path in (node.objects.root / "objects").rglob("*.dcm"):
        path.unlink()
    assert {code for _, code in codes(node)} == {"object-missing"}

"""When a patient's response is told anew: once for each state of affairs, on the newest study."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from course_rows import Clock, lesion, patient_pk, visit
from ledger import at, queued
from sqlmodel import Session, col, select

from store import jobs
from store.choices import choose
from store.database import Database
from store.response_jobs import PLUGIN, ask, state_of
from store.tables import Job, Patient, Revision, Study

JANUARY, MARCH, MAY = date(2026, 1, 10), date(2026, 3, 10), date(2026, 5, 10)


@pytest.fixture
def session(sqlite_template: Path, tmp_path: Path) -> Iterator[Session]:
    path = tmp_path / "nadir.sqlite"
    shutil.copyfile(sqlite_template, path)
    database = Database(f"sqlite:///{path}", sync=False)
    with database.transaction() as session:
        yield session
    database.dispose()


def asked(session: Session) -> list[Job]:
    return list(session.exec(select(Job).where(col(Job.plugin) == PLUGIN).order_by(col(Job.id))))


def study_of(session: Session, job: Job) -> str:
    revision = session.get_one(Revision, job.revision_pk)
    return session.get_one(Study, revision.study_pk).study_instance_uid


def test_one_date_has_no_response_and_two_are_told_once_on_the_newer_study(session: Session) -> None:
    clock = Clock()
    newer = visit(session, clock, MARCH, [lesion("2.25.1")])
    patient = patient_pk(session)
    assert ask(session, patient, at(50)) is None
    visit(session, clock, JANUARY, [lesion("2.25.1")])

    first = ask(session, patient, at(60))

    assert first is not None
    assert study_of(session, first) == newer
    assert ask(session, patient, at(70)) is None
    assert [job.state for job in asked(session)] == [jobs.QUEUED]


def test_a_choice_is_told_anew_in_place_of_what_still_waits_and_so_is_taking_it_back(
    session: Session,
) -> None:
    clock = Clock()
    for on in (JANUARY, MARCH):
        visit(session, clock, on, [lesion("2.25.1"), lesion("2.25.2", segment_number=2)])
    patient = patient_pk(session)
    states = [state_of(session, patient)]
    ask(session, patient, at(60))
    for seconds, value in ((70, "non-target"), (80, "target")):
        choose(session, patient, "role", "2.25.1", value, author="A", now=at(seconds))
        ask(session, patient, at(seconds))
        states.append(state_of(session, patient))

    session.expire_all()
    assert [job.state for job in asked(session)] == [jobs.SUPERSEDED, jobs.SUPERSEDED, jobs.QUEUED]
    assert len(set(states)) == 3


def test_whoever_has_no_patient_id_has_no_course(session: Session) -> None:
    clock = Clock()
    for on in (JANUARY, MARCH):
        visit(session, clock, on, [lesion("2.25.1")])
    patient = session.get_one(Patient, patient_pk(session))
    patient.patient_id = ""
    assert ask(session, int(patient.id or 0), at(60)) is None


@pytest.mark.parametrize(
    ("criteria", "is_asked"), [("recist1.1", False), ("volume", False), ("percist", True), ("lugano", True)]
)
def test_criteria_that_look_at_nothing_of_a_patient_tell_no_response(
    session: Session, criteria: str, is_asked: bool
) -> None:
    clock = Clock()
    for on in (JANUARY, MARCH):
        visit(session, clock, on, [lesion("2.25.1", suv_peak=8.0)], plugin="pet_lesion")
    assert (ask(session, patient_pk(session), at(60), criteria=criteria) is not None) == is_asked


def test_what_was_rejected_after_it_was_told_is_told_anew(session: Session) -> None:
    clock = Clock()
    for on in (JANUARY, MARCH):
        visit(session, clock, on, [lesion("2.25.1")])
    patient = patient_pk(session)
    first = ask(session, patient, at(60))
    choose(session, patient, "reject", "2.25.1", "true", author="A", now=at(70))
    second = ask(session, patient, at(70))
    assert first is not None and second is not None
    assert second.id != first.id


def test_a_report_waits_for_the_analyses_of_its_patient_and_for_no_others(session: Session) -> None:
    clock = Clock()
    for on in (JANUARY, MARCH):
        visit(session, clock, on, [lesion("2.25.1")])
    visit(session, clock, MAY, patient={"patient_id": "P2"})
    report = ask(session, patient_pk(session), at(60))
    revisions = session.exec(select(Revision).order_by(col(Revision.id))).all()
    mine, stranger = queued(session, revisions[1], plugin="b"), queued(session, revisions[2], plugin="b")

    order = [jobs.claim(session, "w", at(70), 60) for _ in range(3)]
    assert [job.id if job else None for job in order] == [mine.id, stranger.id, None]
    jobs.finish(session, int(mine.id or 0), 1, jobs.DONE, at(71))
    claimed = jobs.claim(session, "w", at(72), 60)
    assert claimed is not None and report is not None
    assert claimed.id == report.id


def test_a_report_that_was_overtaken_while_it_ran_is_not_tried_again(session: Session) -> None:
    clock = Clock()
    for on in (JANUARY, MARCH):
        visit(session, clock, on, [lesion("2.25.1")])
    ask(session, patient_pk(session), at(60))
    running = jobs.claim(session, "w", at(61), 60)
    assert running is not None
    jobs.overtake(session, int(running.id or 0), running.attempt, at(62))
    assert jobs.get(session, int(running.id or 0)).state == jobs.SUPERSEDED
    with pytest.raises(jobs.Fenced):
        jobs.overtake(session, int(running.id or 0), running.attempt, at(63))

"""Two patients who were merged by mistake and parted again: lesions of the one are none of the other's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from clinic import A, B, C, Clinic, D, ball, clinic_in
from course_rows import patient_pk
from pydicom import dcmread
from typer.testing import CliRunner

from node.cli import app
from store.choices import choose
from store.course import Course, course
from store.database import Database
from store.response.history import Status
from store.tables import Job

FIRST, SECOND, THIRD = "20250101", "20250301", "20250501"
HERE, THERE, BESIDE, ELSEWHERE = (ball(at, 30.0) for at in (A, B, C, D))


class Desk(Clinic):
    """A clinic with somebody who merges patients and parts them; what is done after another thing is done later."""

    later = timedelta(0)

    def declare(self, *words: str) -> None:
        self.pass_time()
        words = ("patients", *words, "--author", "Admin", "--home", str(self.node.home))
        CliRunner().invoke(app, words, catch_exceptions=False)
        self.pass_time()
        self.work()

    def uids(self, date: str, patient_id: str = "P1") -> set[str]:
        return {one.tracking_uid for one in self.findings(date, patient_id)}

    def study_uid(self, date: str, patient_id: str) -> str:
        return str(dcmread(self.study(date, HERE, THERE, patient_id=patient_id)[0]).StudyInstanceUID)

    def pass_time(self) -> None:
        Desk.later += timedelta(minutes=1)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    right = Database.now

    def now(database: Database) -> datetime:
        return right(database) + Desk.later

    monkeypatch.setattr(Database, "now", now)
    monkeypatch.setenv("NADIR_RESPONSE_CRITERIA", "off")
    with clinic_in(tmp_path, monkeypatch):
        made = Desk(tmp_path / "desk")
        yield made
        made.node.database.dispose()


@pytest.mark.parametrize("is_head_first", [True, False])
def test_lesions_have_the_identities_again_that_they_had_before_the_patients_were_merged(
    desk: Desk, is_head_first: bool
) -> None:
    early, late = ("P1", "P2") if is_head_first else ("P2", "P1")
    desk.examine(FIRST, HERE, patient_id=early)
    for date in (SECOND, THIRD):
        desk.examine(date, HERE, THERE, patient_id=late)
    own, theirs = [desk.uids(date, late) for date in (SECOND, THIRD)], desk.uids(FIRST, early)
    desk.declare("merge", "P2", "P1")
    assert theirs < desk.uids(SECOND, late) == desk.uids(THIRD, late)
    desk.declare("part", "P2")
    assert [desk.uids(date, late) for date in (SECOND, THIRD)] == own
    assert desk.links(SECOND, late) == {}
    before = {link.earlier_study_instance_uid for link in desk.links(THIRD, late).values()}
    assert before == {desk.study_uid(SECOND, late)}
    assert desk.uids(FIRST, early) == theirs
    jobs = len(desk.node.rows(Job))
    desk.pass_time()
    desk.work()
    assert len(desk.node.rows(Job)) == jobs


def test_a_study_that_came_while_the_patients_were_merged_shares_no_lesion_with_the_other_one_after(
    desk: Desk,
) -> None:
    desk.examine(FIRST, HERE, BESIDE)
    desk.examine(FIRST, ELSEWHERE, patient_id="P2")
    theirs = desk.uids(FIRST)
    desk.declare("merge", "P2", "P1")
    found = (HERE, THERE, ELSEWHERE)
    desk.examine(SECOND, *found, patient_id="P2")
    merged = desk.uids(SECOND, "P2")
    assert merged & theirs and merged - theirs
    desk.declare("part", "P2")
    parted = desk.uids(SECOND, "P2")
    assert merged - theirs < parted and not parted & theirs
    assert desk.uids(FIRST, "P2") < parted
    desk.pass_time()
    desk.examine(THIRD, *found, patient_id="P2")
    assert desk.uids(THIRD, "P2") == parted
    assert desk.uids(FIRST) == theirs


def test_what_was_said_of_a_visit_while_the_patients_were_merged_is_said_of_the_same_drawing_after(
    desk: Desk,
) -> None:
    desk.examine(FIRST, HERE)
    for date in (SECOND, THIRD):
        desk.examine(date, HERE, THERE, patient_id="P2")
    (theirs,), own = (course_of(desk, patient).lesions for patient in ("P1", "P2"))
    desk.declare("merge", "P2", "P1")
    (other,) = set(own) & set(course_of(desk, "P1").lesions)
    (mine,) = set(own) - {other}
    here, last = (desk.study_uid(date, "P2") for date in (SECOND, THIRD))
    said = (("outline", "approved", here), ("reject", "true", here), ("status", "NE", last))
    with desk.node.database.transaction() as session:
        now, pk = desk.node.database.now(), patient_pk(session, "P1")
        for kind, value, study in said:
            choose(session, pk, kind, theirs, value, author="Dr. Grey", now=now, study_instance_uid=study)
    desk.declare("part", "P2")
    seen = course_of(desk, "P2").sightings
    assert {(s.lesion, s.study_instance_uid): {d.kind for d in s.decisions} for s in seen} == {
        (mine, here): {"outline", "reject"}, (mine, last): {"status"}, (other, here): set(), (other, last): set(),
    }  # fmt: skip
    assert [s.status for s in seen if s.lesion == mine and s.counts] == [Status.NOT_EVALUABLE]


def test_what_was_said_before_the_patients_were_merged_is_said_of_the_lesions_that_these_are_then(
    desk: Desk,
) -> None:
    desk.examine(FIRST, HERE)
    for date in (SECOND, THIRD):
        desk.examine(date, HERE, THERE, patient_id="P2")
    theirs = desk.uids(FIRST)
    first = desk.study_uid(FIRST, "P1")
    here, last = (desk.study_uid(date, "P2") for date in (SECOND, THIRD))
    with desk.node.database.transaction() as session:
        now, pk = desk.node.database.now(), patient_pk(session, "P2")
        for uid in course_of(desk, "P2").lesions:
            choose(session, pk, "reject", uid, "true", author="Dr. Grey", now=now)
            for kind, value, study in (("outline", "approved", here), ("status", "NE", last)):
                choose(session, pk, kind, uid, value, author="Dr. Grey", now=now, study_instance_uid=study)
    before = decided_on(desk, "P2")
    assert list(before) == [here, last]
    assert before[here] == [{"reject", "outline"}] * 2
    desk.declare("merge", "P2", "P1")
    assert theirs < desk.uids(SECOND, "P2")
    assert decided_on(desk, "P1") == {first: [{"reject"}], **before}
    assert not any(one.counts for one in course_of(desk, "P1").sightings)
    desk.declare("part", "P2")
    assert decided_on(desk, "P2") == before
    assert decided_on(desk, "P1") == {first: [set()]}


def decided_on(desk: Desk, patient_id: str) -> dict[str, list[set[str]]]:
    """Return the kinds of what was decided of each lesion that was seen, by study."""
    found: dict[str, list[set[str]]] = {}
    for one in course_of(desk, patient_id).sightings:
        found.setdefault(one.study_instance_uid, []).append({d.kind for d in one.decisions})
    return found


def course_of(desk: Desk, patient_id: str) -> Course:
    with desk.node.database.reading() as session:
        return course(session, patient_pk(session, patient_id), desk.node.objects)

"""The worklist out of SQL, on both engines: which studies, in which order, and where each of them stands."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from statistics import median

import pytest
from ledger import arrive, at, queued, settled
from many_findings import NOW, fill, stage_of
from sqlmodel import Session, col, select

from store import jobs, operations, processes
from store.database import Database
from store.parking import park_study
from store.standing import standings, usual_seconds
from store.tables import Instance, Job, Pull, Study
from store.worklist import STAGES, Worklist, counts, not_here, worklist

STUDIES = 120
STATED = {
    "waiting": ("queued", "failing"),
    "running": ("running",),
    "delivering": ("delivering", "parked", "pending"),
    "failed": ("dead", "parked"),
    "done": ("done", "superseded"),
}
"""Which of the made stages each filter shows."""


@pytest.fixture
def filled(database: Database) -> Database:
    assert fill(database, findings=20 * STUDIES).studies == STUDIES
    return database


def uids(page: Worklist) -> list[str]:
    return [one.study.study_instance_uid for one in page.rows]


def test_stages_are_counted_and_filtered_alike_and_pages_meet_without_a_gap(filled: Database) -> None:
    made = Counter(stage_of(n, STUDIES) for n in range(STUDIES))
    with filled.reading() as session:
        counted = counts(session)
        assert {name: counted[name] for name in STATED} == {
            name: sum(made[one] for one in of) for name, of in STATED.items()
        }
        assert (counted["refused"], counted["parked"], counted["receiving"]) == (12, 0, 0)
        for name in STAGES:
            assert worklist(session, NOW, stage=name, limit=200).total == counted[name]
        newest_first = [f"2.25.1{n:06d}" for n in reversed(range(STUDIES))]
        assert uids(worklist(session, NOW, limit=200)) == newest_first
        walked, after = [], None
        for offset in range(0, STUDIES, 50):
            page = worklist(session, NOW, limit=50, after=after)
            assert uids(page) == uids(worklist(session, NOW, limit=50, offset=offset))
            walked += uids(page)
            last = page.rows[-1].study
            after = (last.last_arrival_at, int(last.id or 0))
            assert page.has_more == (offset + 50 < STUDIES)
        assert walked == newest_first


def test_each_word_is_a_part_of_patient_name_accession_or_description(filled: Database) -> None:
    def found(session: Session, words: str) -> list[str]:
        return [one.study.accession_number for one in worklist(session, NOW, words=words).rows]

    with filled.reading() as session:
        assert found(session, "MANY-00007") == ["A000097", "A000067", "A000037", "A000007"]
        assert found(session, "made^up many-00007 follow") == []
        assert found(session, "up many-00008 FOLLOW a00003") == ["A000038"]
        assert found(session, "%") == found(session, "_") == []
    with filled.transaction() as session:
        session.get_one(Study, 1).study_description = "SCHÄDEL FOLLOW"
    with filled.reading() as session:
        assert len(found(session, "schädel")) == len(found(session, "SCHÄDEL follow")) == 1


def test_the_usual_duration_is_the_median_from_claim_to_results(filled: Database) -> None:
    ended = [40 + n % 30 for n in range(STUDIES) if stage_of(n, STUDIES) in ("done", *STATED["delivering"])]
    with filled.reading() as session:
        assert usual_seconds(session, "lung_nodule") == median(ended[-30:])
        assert usual_seconds(session, "never_ran") is None
        (running,) = worklist(session, NOW, stage="running", limit=1).rows
        (task,) = (one for one in running.standing.tasks if one.job.state == "running")
        assert task.usual_seconds == median(ended[-30:])


def test_what_went_through_is_counted_by_the_hour_and_destinations_by_state(filled: Database) -> None:
    with filled.reading() as session:
        hours = operations.hours(session, NOW)
        since = NOW - timedelta(hours=24)
        images = session.exec(select(Instance.received_at).where(col(Instance.received_at) >= since)).all()
        of_hour = Counter(int((one - since).total_seconds() // 3600) for one in images)
        assert [hour.images for hour in hours] == [of_hour[n] for n in range(24)]
        assert sum(hour.studies for hour in hours) == 120 and hours[0].at == since
        pacs, archive = operations.destinations(session, ("https://archive.example/dicom-web",))[::-1]
        assert (pacs.counts["parked"], pacs.waiting, pacs.error) == (39, 75, "the connection was refused")
        assert (archive.waiting, archive.error) == (0, "")
        assert operations.trail(session, words="ct3 transferred", limit=2)[0] == 17


def test_where_a_study_stands_while_it_comes_and_why_it_waits(database: Database) -> None:
    with database.transaction() as session:
        for number in range(1, 4):
            arrive(session, number)
        (study,) = session.exec(select(Study)).all()
        pull = {"run_after": at(0), "requested_at": at(0)}
        session.add(Pull(study_instance_uid="1.2.3", state="parked", error_text="it is gone", **pull))
        session.add(Pull(study_instance_uid="9.9", **pull))
        session.flush()
        stands = standings(session, [study], at(5), 0)[int(study.id or 0)]
        assert (stands.images, stands.modalities, stands.tasks) == (3, ("CT",), ())
        assert stands.pull is not None and stands.pull.error_text == "it is gone"
        assert not_here(session)[0] == 1
        first = queued(session, settled(session, 4, seconds=10))
        queued(session, settled(session, 1, "1.2.4", seconds=10))
        (task,) = worklist(session, at(20), words="", limit=1, offset=1).rows[0].standing.tasks
        assert (task.job.id, task.position, task.held_by) == (first.id, 1, ())
        park_study(session, "1.2.3", "ada", at(21))
        assert counts(session)["parked"] == 1
        assert uids(worklist(session, at(22), stage="parked")) == ["1.2.3"]


def test_of_one_analysis_the_newest_job_is_shown(database: Database) -> None:
    with database.transaction() as session:
        revision = settled(session)
        queued(session, revision)
        jobs.claim(session, "w", at(1), 60)
        jobs.finish(session, 1, 1, jobs.DONE, at(2))
        session.add(
            Job(**{**session.get_one(Job, 1).model_dump(), "id": 2, "key": "k", "state": "superseded"})
        )
        session.flush()
        (task,) = worklist(session, at(3)).rows[0].standing.tasks
        assert (task.job.id, task.job.state) == (1, "done")


def test_a_process_that_gives_no_sign_of_life_is_silent_then_forgotten(database: Database) -> None:
    with database.transaction() as session:
        processes.beat(session, "a:1", ("web", "sender"), "1", at(0))
        processes.beat(session, "b:2", ("worker",), "1", at(0))
        processes.beat(session, "a:1", ("web", "sender"), "1", at(90))
        one, other = processes.processes(session, at(100))
        assert (one.name, one.roles, one.started_at, one.is_alive) == ("a:1", ("web", "sender"), at(0), True)
        assert not other.is_alive
        processes.ended(session, "a:1")
        processes.beat(session, "c:3", ("worker",), "1", at(90_000))
        assert [one.name for one in processes.processes(session, at(90_000))] == ["c:3"]

"""What is parked does not run, and what is asked for again supersedes what was there."""

from __future__ import annotations

import pytest
from ledger import at, labels, queued, result, run, settled
from sqlmodel import Session, select

from plugins.errors import Refused
from store import jobs, outbox
from store.database import Database
from store.parking import park_job, park_study, unpark_job, unpark_study
from store.rerun import rerun
from store.tables import Delivery, Job, Study

STUDY = "1.2.3"


def states(session: Session) -> list[str]:
    return [job.state for job in jobs.list_jobs(session)]


def test_a_parked_study_runs_nothing_that_waits_runs_or_comes_until_it_is_unparked(
    database: Database,
) -> None:
    with database.transaction() as session:
        revision = settled(session)
        queued(session, revision, "a", max_attempts=1)
        queued(session, revision, "b")
        running = jobs.claim(session, "w", at(1), 60)
        assert running is not None and running.id is not None
        assert park_study(session, STUDY, "ada", at(2)) == 2
        queued(session, revision, "c")
    with database.transaction() as session:
        assert states(session) == ["parked", "parked", "parked"]
        assert [job.owner for job in jobs.list_jobs(session)] == ["ada", "ada", "ada"]
        assert jobs.claim(session, "w", at(10_000), 60) is None
        assert not jobs.heartbeat(session, running.id, running.attempt, at(3), 60)
        with pytest.raises(jobs.Fenced):
            jobs.finish(session, running.id, running.attempt, jobs.DONE, at(3))
    with database.transaction() as session:
        assert unpark_study(session, STUDY, at(20)) == 3
        assert states(session) == ["queued", "queued", "queued"]
        again = jobs.claim(session, "w", at(20), 60)
        assert again is not None and (again.id, again.attempt) == (running.id, 2)
        assert jobs.get(session, running.id).max_attempts == 2


def test_a_study_that_is_parked_while_it_is_received_settles_into_parked_jobs(database: Database) -> None:
    with database.transaction() as session:
        settled(session)
        park_study(session, STUDY, "ada", at(1))
        queued(session, settled(session, 2, seconds=10))
        assert states(session) == ["parked"]
        queued(session, settled(session, 3, seconds=20))
        assert states(session) == ["superseded", "parked"]


def test_parking_a_study_twice_or_one_that_is_not_there_is_refused(database: Database) -> None:
    with database.transaction() as session:
        settled(session)
        with pytest.raises(Refused, match="not parked"):
            unpark_study(session, STUDY, at(1))
        park_study(session, STUDY, "ada", at(1))
        with pytest.raises(Refused, match="parked already"):
            park_study(session, STUDY, "bob", at(2))
        assert session.exec(select(Study.parked_by)).one() == "ada"
        with pytest.raises(Refused, match=r"no study 9\.9"):
            park_study(session, "9.9", "ada", at(1))


def test_one_job_is_parked_and_the_others_go_on(database: Database) -> None:
    with database.transaction() as session:
        revision = settled(session)
        first, second = queued(session, revision, "a"), queued(session, revision, "b")
        assert park_job(session, int(first.id or 0), "ada").state == "parked"
        claimed = jobs.claim(session, "w", at(1), 60)
        assert claimed is not None and claimed.id == second.id
        with pytest.raises(Refused, match="only one that waits or runs"):
            park_job(session, int(first.id or 0), "ada")
        assert unpark_job(session, int(first.id or 0), at(2)).state == "queued"
        with pytest.raises(Refused, match="only a parked one"):
            unpark_job(session, int(first.id or 0), at(2))
        park_study(session, STUDY, "ada", at(3))
        with pytest.raises(Refused, match="unpark the study"):
            unpark_job(session, int(first.id or 0), at(4))


def test_a_dead_job_of_a_parked_study_that_is_retried_waits_parked(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session), max_attempts=1)
        jobs.claim(session, "w", at(0), 60)
        jobs.fail(session, int(job.id or 0), 1, "x", "reason", at(0))
        park_study(session, STUDY, "ada", at(1))
        assert states(session) == ["dead"]
        assert jobs.retry(session, int(job.id or 0), at(2)).state == "parked"
        unpark_study(session, STUDY, at(3))
        assert states(session) == ["queued"]


def test_every_change_of_parking_is_a_transition_of_the_table() -> None:
    assert {pair for pair in jobs.TRANSITIONS if "parked" in pair} == {
        ("queued", "parked"),
        ("running", "parked"),
        ("dead", "parked"),
        ("superseded", "parked"),
        ("parked", "queued"),
        ("parked", "superseded"),
    }


def test_a_job_that_is_run_again_supersedes_and_doubles_nothing(database: Database) -> None:
    with database.transaction() as session:
        first = queued(session, settled(session))
        assert run(session, 1) == "done"
        second = rerun(session, int(first.id or 0), at(10))
        assert (second.run, second.state, second.plugin) == (1, "queued", "contours")
        assert second.key != first.key
        assert labels(session) == [f"of job {first.id}"]  # the old ones count until the new are there
        run(session, 20)
        assert labels(session) == [f"of job {second.id}"]
        third = rerun(session, int(first.id or 0), at(30))
        assert third.run == 2
        run(session, 40)
        assert labels(session) == [f"of job {third.id}"]


def test_what_the_first_run_had_not_delivered_is_taken_back_by_the_second(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session))
        job = jobs.claim(session, "w", at(0), 60)
        assert job is not None
        outbox.add(session, result(session, job), ["A@h:1"], at(0))
        jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(0))
        rerun(session, int(job.id or 0), at(10))
        assert session.exec(select(Delivery.state)).one() == "pending"
        run(session, 20)
        assert session.exec(select(Delivery.state)).one() == "superseded"
        assert states(session) == ["superseded", "done"]


def test_running_again_is_refused_when_it_would_double_or_be_useless(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session), max_attempts=1)
        number = int(job.id or 0)
        with pytest.raises(Refused, match="only one that is done"):
            rerun(session, number, at(1))
        run(session, 1)
        rerun(session, number, at(2))
        with pytest.raises(Refused, match="Job 2 does this already"):
            rerun(session, number, at(3))
        claimed = jobs.claim(session, "w", at(4), 60)
        assert claimed is not None
        jobs.fail(session, int(claimed.id or 0), 1, "x", "x", at(4), permanent=True)
        with pytest.raises(Refused, match="retry it"):
            rerun(session, int(claimed.id or 0), at(5))
        settled(session, 2, seconds=10)
        with pytest.raises(Refused, match="newer content"):
            rerun(session, number, at(20))
        with pytest.raises(Refused, match="no job 99"):
            rerun(session, 99, at(20))
        assert session.exec(select(Job.run).order_by(Job.id)).all() == [0, 1]  # type: ignore[arg-type]

"""Whose turn it is: jobs wait for what is known of the patient's past, and for nothing else."""

from __future__ import annotations

from datetime import date

import pytest
from ledger import at, header, kept, queued
from sqlmodel import Session

from store import instances, jobs, studies
from store.database import Database
from store.prior_tables import Prior, PriorSearch
from store.priors import earlier, later
from store.tables import Job, Revision


def settled_study(
    session: Session, study: str, on: date | None, patient_id: str = "P1", time: str = ""
) -> Revision:
    """Record one image of a study of a date, and settle it."""
    one = header(1, study, study_date=on, patient_id=patient_id, study_time=time)
    recorded = instances.record(session, one, kept(one.sop_instance_uid), source="CT", now=at(0))
    revision = studies.settle(session, recorded.study_pk, now=at(0), forced=False)
    assert revision is not None
    return revision


def ask(session: Session, revision: Revision, state: str = "waiting", prior: str | None = None) -> None:
    """Write down a search for the past of a study, and one study that it found."""
    search = PriorSearch(
        study_pk=revision.study_pk, source="PACS", state=state, run_after=at(0), requested_at=at(0)
    )
    session.add(search)
    session.flush()
    if prior is not None:
        row = Prior(
            search_pk=search.id or 0,
            study_instance_uid="1.9",
            state=prior,
            run_after=at(0),
            requested_at=at(0),
        )
        session.add(row)
        session.flush()


def claimed(session: Session, seconds: float, wait: float = 120.0) -> int | None:
    job = jobs.claim(session, "w", at(seconds), 60.0, wait)
    return None if job is None else job.id


@pytest.mark.parametrize(("search", "prior"), [("waiting", None), ("done", "waiting")])
def test_a_job_waits_for_earlier_studies_that_are_coming_but_not_for_ever(
    database: Database, search: str, prior: str | None
) -> None:
    with database.transaction() as session:
        revision = settled_study(session, "1.2.3", date(2025, 1, 1))
        job = queued(session, revision)
        ask(session, revision, search, prior)
        assert claimed(session, 119) is None
        assert jobs.get(session, job.id or 0).attempt == 0
        assert claimed(session, 119, wait=60) == job.id


@pytest.mark.parametrize(("search", "prior"), [("done", None), ("parked", None), ("done", "done")])
def test_a_job_waits_for_nothing_that_is_here_or_was_given_up(
    database: Database, search: str, prior: str | None
) -> None:
    with database.transaction() as session:
        revision = settled_study(session, "1.2.3", date(2025, 1, 1))
        job = queued(session, revision)
        ask(session, revision, search, prior)
        assert claimed(session, 1) == job.id


def test_studies_of_one_patient_are_analysed_by_date_whatever_the_order_in_which_they_came(
    database: Database,
) -> None:
    with database.transaction() as session:
        late = queued(session, settled_study(session, "1.2.3", date(2025, 5, 1)))
        other_plugin = queued(session, settled_study(session, "1.2.4", date(2025, 6, 1)), plugin="lungs")
        early = queued(session, settled_study(session, "1.2.2", date(2025, 1, 1)))
        stranger = queued(session, settled_study(session, "1.2.5", date(2025, 7, 1), patient_id="P2"))
        assert claimed(session, 1) == other_plugin.id
        assert claimed(session, 1) == early.id
        assert claimed(session, 1) == stranger.id
        assert claimed(session, 1) is None
        jobs.finish(session, early.id or 0, 1, jobs.DONE, at(2))
        assert claimed(session, 3) == late.id


def test_studies_of_one_date_are_analysed_by_time_then_by_uid_and_know_each_other(database: Database) -> None:
    with database.transaction() as session:
        day = date(2025, 5, 1)
        made = [
            settled_study(session, uid, day, time=time)
            for uid, time in (("1.2.1", "1830"), ("1.2.3", "0915"), ("1.2.2", "0915"))
        ]
        queued_jobs = [queued(session, revision) for revision in made]
        for job in (queued_jobs[2], queued_jobs[1], queued_jobs[0]):
            assert claimed(session, 1) == job.id
            assert claimed(session, 1) is None
            jobs.finish(session, job.id or 0, 1, jobs.DONE, at(2))
        known = [[one.study_instance_uid for one in earlier(session, r.study_pk)] for r in made]
        assert known == [["1.2.2", "1.2.3"], ["1.2.2"], []]
        after = [[one.study_instance_uid for one in later(session, r.study_pk)] for r in made]
        assert after == [[], ["1.2.1"], ["1.2.3", "1.2.1"]]


def test_a_job_waits_for_an_earlier_study_that_is_being_received_but_not_for_ever(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled_study(session, "1.2.3", date(2025, 5, 1)))
        one = header(1, "1.2.2", study_date=date(2025, 1, 1))
        instances.record(session, one, kept(one.sop_instance_uid), source="CT", now=at(5))
        assert claimed(session, 119) is None
        assert claimed(session, 121) == job.id


def test_a_job_that_failed_and_pauses_holds_nobody_back(database: Database) -> None:
    with database.transaction() as session:
        early = queued(session, settled_study(session, "1.2.2", date(2025, 1, 1)))
        late = queued(session, settled_study(session, "1.2.3", date(2025, 5, 1)))
        assert claimed(session, 1) == early.id
        jobs.fail(session, early.id or 0, 1, "unavailable", "no", at(2))
        assert claimed(session, 3) == late.id


def test_studies_without_a_date_wait_for_nobody(database: Database) -> None:
    with database.transaction() as session:
        first = queued(session, settled_study(session, "1.2.2", None))
        second = queued(session, settled_study(session, "1.2.3", None))
        assert [claimed(session, 1), claimed(session, 1)] == [first.id, second.id]
        assert session.get_one(Job, second.id).state == jobs.RUNNING

"""What was written while the clock was ahead is not waited for once it is right again."""

from __future__ import annotations

from ledger import arrive, at, queued, result, settled

from store import jobs, leases, outbox, studies
from store.database import Database

YEAR_SECONDS = 400 * 86_400.0
PACS = "dicom:P@h:104"


def test_a_study_that_came_while_the_clock_was_ahead_settles(database: Database) -> None:
    with database.transaction() as session:
        study_pk = arrive(session, 1, seconds=YEAR_SECONDS).study_pk
        ((due),) = studies.due(session, now=at(0), quiet_seconds=60, hard_cap_seconds=5400)
        assert (due.study_pk, due.forced) == (study_pk, False)
        assert (
            studies.settle(session, study_pk, now=at(0), forced=False, seen=due.last_arrival_at) is not None
        )


def test_clocks_of_several_machines_may_lie_some_minutes_apart(database: Database) -> None:
    with database.transaction() as session:
        arrive(session, 1, seconds=540)
        assert studies.due(session, now=at(0), quiet_seconds=60, hard_cap_seconds=5400) == []


def test_a_job_that_was_leased_while_the_clock_was_ahead_is_taken_over(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session))
        assert jobs.claim(session, "first", at(YEAR_SECONDS), 60) is not None
        assert jobs.claim(session, "second", at(YEAR_SECONDS - 500), 60) is None
        taken = jobs.claim(session, "second", at(10), 60)
        assert taken is not None
        assert (taken.attempt, taken.owner, taken.lease_until) == (2, "second", at(70))


def test_a_job_that_failed_while_the_clock_was_ahead_is_tried_again(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session))
        jobs.claim(session, "first", at(YEAR_SECONDS), 60)
        jobs.fail(session, int(job.id or 0), 1, "x", "y", at(YEAR_SECONDS))
        assert jobs.claim(session, "second", at(10), 60) is not None


def test_a_delivery_that_waited_or_was_under_way_while_the_clock_was_ahead_goes_out(
    database: Database,
) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session))
        jobs.claim(session, "w", at(0), 60)
        outbox.add(session, result(session, job), [PACS], at(YEAR_SECONDS))
        assert outbox.claim(session, PACS, "first", at(YEAR_SECONDS), 60) is not None
        again = outbox.claim(session, PACS, "second", at(0), 60)
        assert again is not None
        outbox.failed(session, int(again.id or 0), again.attempt, "unreachable", "", at(YEAR_SECONDS))
        assert outbox.claim(session, PACS, "third", at(0), 60) is not None


def test_a_lease_that_was_taken_while_the_clock_was_ahead_is_free(database: Database) -> None:
    with database.transaction() as session:
        assert leases.take(session, "scheduler", "first", at(YEAR_SECONDS), 60)
        assert leases.take(session, "scheduler", "second", at(0), 60)

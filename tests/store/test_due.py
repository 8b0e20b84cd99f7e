"""What was written while the clock was ahead is not waited for once it is right again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from ledger import arrive, at, queued, result, settled
from sqlmodel import Session, col, select

from plugins.errors import Refused
from store import (
    accounts,
    asked_runs,
    instances,
    jobs,
    leases,
    outbox,
    outside_people,
    runs,
    sessions,
    studies,
)
from store.access_tables import LoginFailure, WebSession
from store.database import Database
from store.runs import State
from store.tables import Association

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


@pytest.mark.parametrize("step", [-YEAR_SECONDS, -3600, 3600, YEAR_SECONDS])
def test_what_is_received_waits_anew_after_the_clock_was_set(database: Database, step: float) -> None:
    with database.transaction() as session:
        sender = instances.open_association(session, "CT1", "h", at(0))
        silent = instances.open_association(session, "CT2", "h", at(-120))
        arrive(session, 1)
        now = at(10 + step)
        assert studies.wait_anew(session, now, timedelta(seconds=step)) == 1
        alive = dict(session.exec(select(Association.id, Association.alive_at)).all())
        # What fell silent before the clock was put on stays so; set back, nobody can tell.
        assert alive == {sender: now, silent: at(-120) if step > 0 else now}
        assert studies.due(session, now=now, quiet_seconds=60, hard_cap_seconds=5400) == []
        ((due),) = studies.due(session, now=at(70 + step), quiet_seconds=60, hard_cap_seconds=5400)
        assert due.forced is False


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


@pytest.mark.parametrize("begun", [-3600, YEAR_SECONDS], ids=["the clock jumped in it", "it began ahead"])
def test_a_retraining_that_was_killed_while_the_clock_was_ahead_leaves_its_place(
    database: Database, begun: float
) -> None:
    family, now = "nodule_segmenter", at(0)
    with database.transaction() as session:
        killed = runs.begin(session, family, "host:1", at(begun), 120)
        assert runs.keep(session, killed, "host:1", at(YEAR_SECONDS), 120)
        assert runs.is_alive(runs.get(session, killed), at(YEAR_SECONDS))
        assert not runs.is_alive(runs.get(session, killed), now)
        asked_runs.ask(session, family, "somebody", now)
    with database.transaction() as session:
        next_one = runs.begin(session, family, "host:2", now, 120)
        gone = runs.get(session, killed)
        assert (gone.state, gone.slot, gone.ended_at) == (State.ABANDONED, None, at(max(begun, 0)))
        assert runs.is_alive(runs.get(session, next_one), now)


def test_wrong_tries_while_the_clock_was_ahead_shut_nobody_out(database: Database) -> None:
    here = ["address 1"]
    with database.transaction() as session:
        for _ in range(5):
            assert not sessions.try_once(session, here, at(YEAR_SECONDS))
        assert sessions.try_once(session, here, at(YEAR_SECONDS)) == timedelta(seconds=30)
        tries = [sessions.try_once(session, here, at(0)).total_seconds() for _ in range(6)]
        assert tries == [0, 0, 0, 0, 0, 30]
        sessions.try_once(session, ["account x"], at(YEAR_SECONDS))
        sessions.sweep(session, at(1), 43_200)
        assert session.exec(select(LoginFailure.subject)).all() == here


def test_a_wait_begins_now_where_another_machine_whose_clock_is_ahead_counted_the_failure(
    database: Database,
) -> None:
    with database.transaction() as session:
        for _ in range(5):
            assert not sessions.try_once(session, ["address 1"], at(540))
        waits = [sessions.try_once(session, ["address 1"], at(n)).total_seconds() for n in (0, 10, 29, 30)]
        assert waits == [30, 20, 1, 0]


@pytest.mark.parametrize(("began", "used"), [(YEAR_SECONDS, YEAR_SECONDS), (0.0, 660.0)])
def test_a_session_of_a_clock_that_was_ahead_is_over(database: Database, began: float, used: float) -> None:
    with database.transaction() as session:
        cookie = _signed_in(session, began)
        sessions.touch(session, cookie, at(used))
        assert _is_in(session, cookie, used + 60)
        assert not _is_in(session, cookie, 0)
        sessions.sweep(session, at(0), 43_200)
        assert session.exec(select(col(WebSession.id))).all() == []


def test_a_session_of_a_machine_whose_clock_is_minutes_ahead_goes_on(database: Database) -> None:
    with database.transaction() as session:
        cookie = _signed_in(session, 540)
        sessions.sweep(session, at(0), 43_200)
        assert _is_in(session, cookie, 0)


def test_signing_in_by_a_provider_that_began_while_the_clock_was_ahead_is_over(database: Database) -> None:
    with database.transaction() as session:
        begun = outside_people.begin(session, "/", at(YEAR_SECONDS))
        with pytest.raises(Refused, match="unknown-attempt"):
            outside_people.end(session, begun.state, begun.browser, at(0))
        near = outside_people.begin(session, "/", at(540))
        assert outside_people.end(session, near.state, near.browser, at(0)).nonce == near.nonce
        outside_people.begin(session, "/", at(YEAR_SECONDS))
        outside_people.begin(session, "/then", at(0))
        assert session.exec(select(outside_people.OutsideAttempt.then)).all() == ["/then"]


def _signed_in(session: Session, seconds: float) -> str:
    accounts.add_account(session, "ada", "viewer", "a long password", at(0))
    return sessions.begin(session, accounts.require_account(session, "ada").id, at(seconds))


def _is_in(session: Session, cookie: str, seconds: float) -> bool:
    idle, whole = timedelta(minutes=30), timedelta(hours=12)
    return sessions.find(session, cookie, at(seconds), idle=idle, whole=whole) is not None

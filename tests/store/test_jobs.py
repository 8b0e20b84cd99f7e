"""The ledger of jobs: enqueued once, claimed by one, tried again, superseded, and never lost."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path

import pytest
from ledger import START, at, found, labels, queued, result, run, settled
from sqlmodel import select

from plugins.errors import Refused
from store import findings, jobs, outbox
from store.database import Database
from store.tables import Delivery, Finding, Result


def test_the_key_names_everything_that_the_result_depends_on() -> None:
    base = ["manifest", "plugin", "1", "model", "config"]
    keys = {jobs.job_key(*base)}
    for index in range(5):
        changed = list(base)
        changed[index] += "x"
        keys.add(jobs.job_key(*changed))
    assert len(keys) == 6
    assert jobs.job_key(*base) in keys


def test_the_same_work_is_enqueued_once(database: Database) -> None:
    with database.transaction() as session:
        revision = settled(session)
        first = queued(session, revision)
        again = jobs.enqueue(
            session,
            revision,
            plugin="contours",
            plugin_version="1",
            model_sha256="m",
            config_sha256="c",
            now=START,
        )
        assert again is None
        assert [job.id for job in jobs.list_jobs(session)] == [first.id]


def test_jobs_are_claimed_in_order_and_only_once(database: Database) -> None:
    with database.transaction() as session:
        revision = settled(session)
        expected = [queued(session, revision, plugin).id for plugin in ("a", "b", "c")]
        claimed = [jobs.claim(session, "w", at(1), 60) for _ in range(4)]
    assert [job and job.id for job in claimed] == [*expected, None]
    assert claimed[0] is not None
    assert (claimed[0].state, claimed[0].attempt, claimed[0].owner, claimed[0].lease_until) == (
        "running",
        1,
        "w",
        at(61),
    )


def test_a_job_whose_worker_died_is_taken_over_when_the_lease_ends(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session))
        assert jobs.claim(session, "first", at(1), 60) is not None
        assert jobs.claim(session, "second", at(60.9), 60) is None
        second = jobs.claim(session, "second", at(61), 60)
        assert second is not None
        assert (second.id, second.attempt, second.owner) == (job.id, 2, "second")


def test_a_heartbeat_keeps_the_lease_and_a_lost_one_says_so(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session))
        assert job.id is not None
        jobs.claim(session, "first", at(0), 60)
        assert jobs.heartbeat(session, job.id, 1, at(50), 60)
        assert jobs.claim(session, "second", at(100), 60) is None
        assert jobs.claim(session, "second", at(110), 60) is not None
        assert not jobs.heartbeat(session, job.id, 1, at(111), 60)


def test_a_fenced_out_worker_leaves_nothing_behind(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session))
        assert job.id is not None
        slow = jobs.claim(session, "slow", at(0), 10)
        assert slow is not None
        jobs.claim(session, "fast", at(20), 60)
    with pytest.raises(jobs.Fenced), database.transaction() as session:
        findings.save(session, slow, found("twice"), {}, at(21))
        outbox.add(session, result(session, slow), ["A@h:1"], at(21))
        jobs.finish(session, job.id, slow.attempt, jobs.DELIVERING, at(21))
    with pytest.raises(jobs.Fenced), database.transaction() as session:
        jobs.fail(session, job.id, slow.attempt, "x", "x", at(21))
    with database.reading() as session:
        assert session.exec(select(Finding)).all() == []
        assert session.exec(select(Result)).all() == []
        assert session.exec(select(Delivery)).all() == []
        assert jobs.get(session, job.id).state == "running"
        assert jobs.get(session, job.id).error_code is None


def test_finish_delivers_when_something_is_to_be_sent_and_is_done_when_not(database: Database) -> None:
    with database.transaction() as session:
        revision = settled(session)
        queued(session, revision, "a")
        queued(session, revision, "b")
        assert run(session, 1, state=jobs.DELIVERING) == "done"
        job = jobs.claim(session, "w", at(2), 60)
        assert job is not None
        outbox.add(session, result(session, job), ["A@h:1"], at(2))
        assert jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(2)) == "delivering"


def test_a_failure_is_tried_again_after_a_pause_that_doubles(database: Database) -> None:
    pauses = []
    with database.transaction() as session:
        job = queued(session, settled(session), max_attempts=8)
        assert job.id is not None
        now = START
        for attempt in range(1, 8):
            assert jobs.claim(session, "w", now, 60) is not None
            assert jobs.fail(session, job.id, attempt, "disk-full", "No space.", now) == "queued"
            now, before = jobs.get(session, job.id).run_after, now
            pauses.append((now - before).total_seconds())
            assert jobs.claim(session, "w", before, 60) is None
    assert pauses == [30, 60, 120, 240, 480, 900, 900]


def test_a_job_that_fails_every_time_is_dead_with_its_reason(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session), max_attempts=2)
        assert job.id is not None
        jobs.claim(session, "w", at(0), 60)
        jobs.fail(session, job.id, 1, "first", "first", at(0))
        jobs.claim(session, "w", at(100), 60)
        assert jobs.fail(session, job.id, 2, "no-decoder", "Nothing reads\0this.", at(100)) == "dead"
        dead = jobs.get(session, job.id)
        assert (dead.error_code, dead.error_text, dead.finished_at) == (
            "no-decoder",
            "Nothing reads this.",
            at(100),
        )
        assert jobs.claim(session, "w", at(10_000), 60) is None


def test_a_permanent_failure_is_dead_at_once(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session))
        jobs.claim(session, "w", at(0), 60)
        assert (
            jobs.fail(session, int(job.id or 0), 1, "mixed-patients", "Two patients.", at(0), permanent=True)
            == "dead"
        )


def test_a_study_that_kills_its_worker_is_dead_after_its_attempts(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session), max_attempts=3)
        for attempt in range(1, 4):
            claimed = jobs.claim(session, "w", at(attempt * 100), 60)
            assert claimed is not None
            assert claimed.attempt == attempt
        assert jobs.claim(session, "w", at(1000), 60) is None
        dead = jobs.get(session, int(job.id or 0))
        assert (dead.state, dead.error_code) == ("dead", "worker-lost")


def test_a_dead_job_can_be_retried_and_the_old_worker_stays_fenced_out(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session), max_attempts=1)
        assert job.id is not None
        with pytest.raises(Refused) as caught:
            jobs.retry(session, job.id, at(0))
        assert caught.value.code == "illegal-transition"
        jobs.claim(session, "w", at(0), 60)
        jobs.fail(session, job.id, 1, "x", "reason", at(0))
        retried = jobs.retry(session, job.id, at(10))
        assert (retried.state, retried.error_text, retried.max_attempts) == ("queued", "reason", 6)
        second = jobs.claim(session, "w", at(10), 60)
        assert second is not None
        assert second.attempt == 2
        with pytest.raises(jobs.Fenced):
            jobs.finish(session, job.id, 1, jobs.DONE, at(11))
        assert jobs.finish(session, job.id, 2, jobs.DONE, at(11)) == "done"
        assert jobs.get(session, job.id).error_code is None


def test_a_job_given_back_is_not_blamed_for_it(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session), max_attempts=1)
        jobs.claim(session, "w", at(0), 60)
        jobs.release(session, int(job.id or 0), 1, at(5))
        again = jobs.claim(session, "w", at(5), 60)
        assert again is not None
        assert again.attempt == 2


def test_a_newer_revision_takes_waiting_and_dead_jobs_off_the_list(database: Database) -> None:
    with database.transaction() as session:
        revision = settled(session)
        waiting, dead = queued(session, revision, "a"), queued(session, revision, "b", max_attempts=1)
        jobs.claim(session, "w", at(0), 60)
        jobs.claim(session, "w", at(0), 60)
        jobs.fail(session, int(waiting.id or 0), 1, "x", "x", at(0))
        jobs.fail(session, int(dead.id or 0), 1, "x", "x", at(0))
        settled(session, 2, seconds=10)
        assert [job.state for job in jobs.list_jobs(session)] == ["superseded", "superseded"]
        assert jobs.claim(session, "w", at(1000), 60) is None
        with pytest.raises(Refused):
            jobs.retry(session, int(dead.id or 0), at(20))


def test_a_late_finisher_of_an_old_revision_is_stored_and_not_sent(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session))
        job = jobs.claim(session, "w", at(0), 60)
        assert job is not None
        newer = queued(session, settled(session, 2, seconds=10))
    with database.transaction() as session:
        findings.save(session, job, found("old"), {}, at(20))
        assert outbox.add(session, result(session, job), ["A@h:1"], at(20)) == 0
        assert jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(20)) == "superseded"
        assert labels(session) == ["old"]
        assert session.exec(select(Delivery)).all() == []
        assert run(session, 30) == "done"
        assert labels(session) == [f"of job {newer.id}"]


def test_results_of_an_old_revision_do_not_come_back_when_it_ends_after_the_new_one(
    database: Database,
) -> None:
    with database.transaction() as session:
        queued(session, settled(session))
        old = jobs.claim(session, "slow", at(0), 600)
        assert old is not None
        newer = queued(session, settled(session, 2, seconds=10))
        run(session, 20)
        findings.save(session, old, found("old"), {}, at(30))
        assert jobs.finish(session, int(old.id or 0), 1, jobs.DONE, at(30)) == "superseded"
        assert labels(session) == [f"of job {newer.id}"]


def test_a_failed_or_lost_job_of_an_old_revision_is_not_run_again(database: Database) -> None:
    with database.transaction() as session:
        revision = settled(session)
        failing, lost = queued(session, revision, "a"), queued(session, revision, "b")
        jobs.claim(session, "w", at(0), 60)
        jobs.claim(session, "w", at(0), 60)
        settled(session, 2, seconds=10)
        assert jobs.fail(session, int(failing.id or 0), 1, "x", "x", at(20)) == "superseded"
        assert jobs.claim(session, "w", at(100), 60) is None
        assert jobs.get(session, int(lost.id or 0)).state == "superseded"


def test_undelivered_results_are_withdrawn_when_newer_ones_are_there(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session), "a")
        job = jobs.claim(session, "w", at(0), 60)
        assert job is not None
        outbox.add(session, result(session, job), ["A@h:1"], at(0))
        jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(0))
        queued(session, settled(session, 2, seconds=10), "a")
        assert [d.state for d in outbox.list_deliveries(session)] == ["pending"]
        run(session, 20)
        assert [d.state for d in outbox.list_deliveries(session)] == ["superseded"]
        assert jobs.get(session, int(job.id or 0)).state == "superseded"


def test_half_delivered_results_go_on_when_newer_ones_are_there(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session), "a")
        job = jobs.claim(session, "w", at(0), 60)
        assert job is not None
        for number in (1, 2):
            outbox.add(session, result(session, job, number), ["A@h:1"], at(0))
        jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(0))
        first = outbox.claim(session, "A@h:1", "s", at(1), 60)
        assert first is not None
        outbox.delivered(session, int(first.id or 0), 1, "0000", at(1))
        queued(session, settled(session, 2, seconds=10), "a")
        run(session, 20)
        assert [d.state for d in outbox.list_deliveries(session)] == ["delivered", "pending"]
        assert jobs.get(session, int(job.id or 0)).state == "delivering"


def test_findings_of_another_plugin_are_left_alone_until_it_is_retired(database: Database) -> None:
    with database.transaction() as session:
        first = settled(session)
        queued(session, first, "a")
        kept = queued(session, first, "b")
        run(session, 1)
        run(session, 1)
        second = settled(session, 2, seconds=10)
        newer = queued(session, second, "a")
        run(session, 20)
        assert labels(session) == [f"of job {kept.id}", f"of job {newer.id}"]
        assert jobs.retire(session, second, ["a"]) == 1
        assert labels(session) == [f"of job {newer.id}"]


@pytest.mark.parametrize(
    ("old", "new"), sorted(itertools.product(jobs.STATES, ["queued", "dead", "running"]))
)
def test_a_job_leaves_only_running_by_its_worker(
    tmp_path: Path, sqlite_template: Path, old: str, new: str
) -> None:
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    (tmp_path / "x.sqlite").write_bytes(sqlite_template.read_bytes())
    database = Database(url)
    try:
        with database.transaction() as session:
            job = queued(session, settled(session))
            job.state, job.attempt = old, 1
            session.flush()
            if old == "running":
                with pytest.raises(Refused):
                    jobs.finish(session, int(job.id or 0), 1, new, at(1))
            else:
                with pytest.raises(jobs.Fenced):
                    jobs.finish(session, int(job.id or 0), 1, jobs.DONE, at(1))
    finally:
        database.dispose()


def test_an_unknown_job_or_state_is_refused(database: Database) -> None:
    with database.transaction() as session:
        for call in (
            lambda: jobs.get(session, 7),
            lambda: jobs.retry(session, 7, START),
            lambda: jobs.finish(session, 7, 1, jobs.DONE, START),
        ):
            with pytest.raises(Refused) as caught:
                call()
            assert caught.value.code == "no-such-job"
        with pytest.raises(Refused) as caught:
            jobs.list_jobs(session, "finished")
        assert caught.value.code == "no-such-state"


def test_a_naive_clock_is_refused(database: Database) -> None:
    with database.transaction() as session, pytest.raises(ValueError, match="naive"):
        jobs.claim(session, "w", datetime(2026, 3, 1), 60)  # noqa: DTZ001

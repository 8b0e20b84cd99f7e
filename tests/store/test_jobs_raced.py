"""Workers and settlers that race for jobs, in threads and in processes that die: none lost, none done twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from at_once import at_once
from ledger import arrive, at, found, labels, queued, result, settled
from sqlmodel import select

from store import findings, jobs, outbox, studies
from store.database import Database
from store.tables import Job


def test_many_threads_never_claim_a_job_twice(database: Database) -> None:
    with database.transaction() as session:
        revision = settled(session)
        for number in range(60):
            queued(session, revision, f"p{number}")
    claimed: list[int] = []

    def work(owner: int) -> None:
        while True:
            with database.transaction() as session:
                job = jobs.claim(session, str(owner), at(1), 600)
            if job is None:
                return
            claimed.append(int(job.id or 0))

    at_once(work, 8)
    assert len(claimed) == 60
    assert max(Counter(claimed).values()) == 1


WORKER = """
import os, sys, time
from datetime import timedelta
from store import jobs
from store.database import Database
database = Database(sys.argv[1])
empty = 0
while empty < 20:
    with database.transaction() as session:
        job = jobs.claim(session, str(os.getpid()), database.now(), 0.5)
    if job is None:
        empty += 1
        time.sleep(0.05)
        continue
    empty = 0
    if (job.id + job.attempt) % 4 == 0 and job.attempt == 1:
        os._exit(9) if sys.argv[2] == "dies" else time.sleep(0.8)
    try:
        with database.transaction() as session:
            jobs.finish(session, job.id, job.attempt, jobs.DONE, database.now())
            print(job.id, flush=True)
    except jobs.Fenced:
        pass
"""


def test_processes_that_die_or_stall_lose_no_job_and_finish_none_twice(
    database: Database, database_url: str
) -> None:
    with database.transaction() as session:
        revision = settled(session)
        for number in range(16):
            queued(session, revision, f"p{number}")
    root = Path(jobs.__file__).parents[1]
    for kind in ("dies", "stalls"):
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, database_url, kind], cwd=root, stdout=subprocess.PIPE
            )
            for _ in range(2)
        ]
        output = [worker.communicate(timeout=120)[0].decode().split() for worker in workers]
        if kind == "dies":
            early = output
    with database.reading() as session:
        assert {job.state for job in jobs.list_jobs(session)} == {"done"}
    with database.reading() as session:
        assert len(session.exec(select(Job)).all()) == 16
    finished = [number for lines in (*early, *output) for number in lines]
    assert max(Counter(finished).values()) == 1


def test_a_revision_that_settles_while_a_job_finishes_is_seen_by_one_of_them(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session))
        job = jobs.claim(session, "w", at(0), 600)
        assert job is not None
        study_pk = arrive(session, 2, seconds=5).study_pk
    states: list[str] = []
    reached = threading.Event()

    def finish() -> None:
        with database.transaction() as session:
            added = outbox.add(session, result(session, job), ["A@h:1"], at(6))
            reached.set()
            states.append(jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(6)))
            assert added == (states[0] == "delivering")

    thread = threading.Thread(target=finish)
    thread.start()
    reached.wait(60)
    with database.transaction() as session:
        assert studies.settle(session, study_pk, now=at(70), forced=False) is not None
    thread.join()
    with database.reading() as session:
        assert jobs.get(session, int(job.id or 0)).state == states[0]


def test_a_worker_that_comes_late_is_fenced_before_it_touches_the_results_of_the_one_that_took_over(
    database: Database,
) -> None:
    with database.transaction() as session:
        queued(session, settled(session))
        late = jobs.claim(session, "late", at(0), 60)
        job = jobs.claim(session, "took over", at(100), 60)
        assert late is not None
        assert job is not None
        findings.save(session, job, found("right"), {}, at(110))
        outbox.add(session, result(session, job), ["A@h:1"], at(110))
        jobs.finish(session, int(job.id or 0), job.attempt, jobs.DELIVERING, at(110))
    with pytest.raises(jobs.Fenced), database.transaction() as session:
        findings.save(session, late, found("late"), {}, at(120))
    with database.reading() as session:
        assert labels(session) == ["right"]

"""The lease of a worker on its job: kept, lost, given back, and what who lost it leaves behind."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from patience import PATIENCE_SECONDS, eventually
from worker_bench import Bench

from node import worker as worker_module
from node.lifeline import mark_of
from plugins.errors import Unavailable
from store import jobs
from store.parking import park_job, unpark_job
from store.tables import Finding, Result


@pytest.fixture
def bench(tmp_path: Path, trouble: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "home", tmp_path / "journal")
    yield made
    made.node.database.dispose()


@pytest.fixture
def queued(bench: Bench, small_study: list[Path]) -> Bench:
    bench.arrive(small_study)
    return bench


def _states(bench: Bench) -> list[str]:
    return [job.state for job in bench.jobs()]


def test_a_worker_that_lost_its_lease_throws_its_result_away(
    queued: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    queued.mode = "wait"
    queued.settle()
    slow = threading.Thread(target=queued.work, kwargs={"lease_seconds": 3600.0})
    slow.start()
    _wait_for(lambda: queued.runs() == 1)
    Path(str(queued.journal) + ".gate").touch()
    with queued.node.database.transaction() as session:  # someone else takes the job, as after a lost lease
        assert jobs.claim(session, "other", queued.now() + timedelta(hours=2), 60) is not None
    slow.join(PATIENCE_SECONDS)
    (job,) = queued.jobs()
    assert (job.state, job.owner, job.attempt) == ("running", "other", 2)
    assert queued.rows(Finding) == []
    assert queued.rows(Result) == []
    assert "action=job-fenced" in caplog.text


def test_a_lost_lease_stops_the_analysis(queued: Bench) -> None:
    queued.mode = "hang"
    queued.settle()
    slow = threading.Thread(target=queued.work, kwargs={"lease_seconds": 2.0})
    slow.start()
    _wait_for(lambda: queued.runs() == 1)
    with queued.node.database.transaction() as session:
        assert jobs.claim(session, "other", queued.now() + timedelta(hours=1), 60) is not None
    slow.join(PATIENCE_SECONDS)
    assert not slow.is_alive()
    assert queued.jobs()[0].owner == "other"


def test_the_lease_is_kept_while_the_analysis_runs(queued: Bench) -> None:
    queued.mode = "wait"
    queued.settle()
    slow = threading.Thread(target=queued.work, kwargs={"lease_seconds": 8.0})
    slow.start()
    _wait_for(lambda: queued.runs() == 1)
    first = queued.jobs()[0].lease_until
    assert first is not None
    _wait_for(lambda: (queued.jobs()[0].lease_until or first) > first)
    assert not queued.work()
    Path(str(queued.journal) + ".gate").touch()
    slow.join(PATIENCE_SECONDS)
    assert _states(queued) == ["delivering"]
    assert queued.jobs()[0].attempt == 1


def test_a_database_that_is_away_for_a_moment_stops_no_analysis(
    queued: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued.mode = "wait"
    queued.settle()
    asked = []

    def away(*_: object) -> bool:
        asked.append(True)
        Path(str(queued.journal) + ".gate").touch()
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(worker_module.jobs, "heartbeat", away)
    queued.work(lease_seconds=20.0)
    assert asked
    assert _states(queued) == ["delivering"]


def test_a_worker_that_is_told_to_stop_gives_its_job_back_unharmed(queued: Bench) -> None:
    queued.mode = "hang"
    queued.settle()
    worker = queued.worker()
    running = threading.Thread(target=worker.tick, args=(queued.now(),))
    running.start()
    _wait_for(lambda: queued.runs() == 1)
    worker.interrupt()
    running.join(PATIENCE_SECONDS)
    assert not running.is_alive()
    (job,) = queued.jobs()
    assert (job.state, job.owner, job.error_code) == ("queued", None, None)
    assert job.run_after <= queued.now()
    assert job.max_attempts - job.attempt == 3
    assert not worker.tick(queued.now())


def test_a_running_analysis_that_is_parked_stops_and_runs_when_it_is_unparked(queued: Bench) -> None:
    queued.mode = "wait"
    queued.settle()
    working = threading.Thread(target=queued.work, kwargs={"lease_seconds": 2.0})
    working.start()
    _wait_for(lambda: queued.runs() == 1)
    with queued.node.database.transaction() as session:
        park_job(session, 1, "ada")
    working.join(PATIENCE_SECONDS)
    assert not working.is_alive()
    assert not queued.work(later=1000)
    assert [(job.state, job.owner, job.error_code) for job in queued.jobs()] == [("parked", "ada", None)]
    with queued.node.database.transaction() as session:
        unpark_job(session, 1, queued.now())
    Path(str(queued.journal) + ".gate").touch()
    queued.work(destinations=())
    assert _states(queued) == ["done"]


def _leave(home: Path, job: int) -> None:
    folder = home / "scratch" / f"job-{job}-x"
    folder.mkdir(parents=True)
    (folder / "child.log").write_text("Patient")


def test_what_a_killed_node_left_is_swept_unless_its_job_runs(queued: Bench) -> None:
    queued.settle()
    for number in (1, 2):
        _leave(queued.node.home, number)
    with queued.node.database.transaction() as session:
        assert jobs.claim(session, "another", queued.now(), 60) is not None
    queued.worker()
    assert [p.name for p in (queued.node.home / "scratch").iterdir()] == ["job-1-x"]


def test_what_an_analysis_of_a_killed_node_started_ends_with_its_folder(queued: Bench) -> None:
    queued.settle()
    folders = [queued.node.home / "scratch" / f"job-{number}-x" for number in (1, 2)]
    strays = [subprocess.Popen(["sleep", "3600"], env=mark_of(folder)) for folder in folders]
    try:
        for number in (1, 2):
            _leave(queued.node.home, number)
        with queued.node.database.transaction() as session:
            assert jobs.claim(session, "killed", queued.now(), 1) is not None
        queued.worker()
        assert strays[1].wait(PATIENCE_SECONDS) == -signal.SIGKILL
        assert strays[0].poll() is None
        assert queued.work(later=2)
        assert strays[0].wait(PATIENCE_SECONDS) == -signal.SIGKILL
    finally:
        for stray in strays:
            stray.kill()
            stray.wait()


def test_what_a_killed_attempt_left_goes_also_when_its_plugin_was_replaced(queued: Bench) -> None:
    queued.settle()
    _leave(queued.node.home, 1)
    with queued.node.database.transaction() as session:
        assert jobs.claim(session, "killed", queued.now(), 1) is not None
    queued.mode = "nothing"
    assert queued.work(later=2)
    assert queued.jobs()[0].error_code == "plugin-changed"
    assert list((queued.node.home / "scratch").iterdir()) == []


def _wait_for(question: Callable[[], bool]) -> None:
    assert eventually(question), "it did not happen in time"

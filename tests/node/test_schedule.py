"""The schedule over restarts: what was missed, who schedules, what is kept in SQL, and the processes that it starts."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger
from node_process import node
from patience import eventually
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from node.schedule import LEASE, Schedule, command_of
from node.schedule_store import Actions, Cron, PlainJobStore
from node.settings import Settings
from plugins.errors import Unavailable
from store import leases
from store.database import Database
from store.model_tables import ScheduledJob
from store.tables import Event

RETRAIN = "retrain nodule_segmenter"


def settings_of(home: Path, **retrain: object) -> Settings:
    families = {"families": ("nodule_segmenter",), "misfire_grace_seconds": 60}
    return Settings(home=home, retrain=families | retrain)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "nadir.sqlite"
    made = Database(f"sqlite:///{path}", sync=False)
    made.upgrade()
    made.dispose()
    return path


@pytest.fixture
def database(tmp_path: Path, template: Path) -> Iterator[Database]:
    shutil.copyfile(template, tmp_path / "nadir.sqlite")
    made = Database(f"sqlite:///{tmp_path / 'nadir.sqlite'}", sync=False)
    yield made
    made.dispose()


class Started:
    """Stands in for processes: remembers what was started, and ends when it is let."""

    def __init__(self, status: int = 0) -> None:
        self.names: list[str] = []
        self.may_end, self._status = threading.Event(), status
        self.may_end.set()

    def __call__(self, name: str, command: Sequence[str]) -> int:
        self.names.append(name)
        self.may_end.wait(60)
        return self._status


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Iterator[Callable[..., Schedule]]:
    made: list[Schedule] = []

    def schedule(start: Started, owner: str = "a", lease_seconds: float = 60, **retrain: object) -> Schedule:
        settings = settings_of(tmp_path, **retrain)
        made.append(Schedule(database, settings, owner=owner, lease_seconds=lease_seconds, start=start))
        return made[-1]

    yield schedule
    for one in made:
        one.interrupt()
        one.close()


def rows(database: Database) -> dict[str, ScheduledJob]:
    with database.reading() as session:
        return {row.id: row for row in session.exec(select(ScheduledJob))}


def due(database: Database, name: str, seconds_ago: float) -> None:
    """Let a job have been due so long ago."""
    with database.transaction() as session:
        session.get_one(ScheduledJob, name).next_run_time = time.time() - seconds_ago


def events(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.exec(select(Event.kind)))


def leave(schedule: Schedule) -> None:
    schedule.interrupt()
    schedule.close()


def test_jobs_and_their_next_times_survive_a_restart_and_follow_the_settings(
    database: Database, make: Callable[..., Schedule]
) -> None:
    start = Started()
    first = make(start)
    first.tick(database.now())
    before = rows(database)
    assert set(before) == {RETRAIN, "drift"}
    assert json.loads(before[RETRAIN].job_state) == {"cron": "0 2 * * 6", "timezone": "UTC"}
    leave(first)
    second = make(start)
    second.tick(database.now())
    assert rows(database) == before
    leave(second)
    third = make(start, cron="30 4 * * 0", families=())
    third.tick(database.now())
    assert set(rows(database)) == {"drift"}
    leave(third)
    make(start, drift_cron="30 4 * * 0", timezone="Europe/Berlin").tick(database.now())
    changed = rows(database)["drift"]
    assert json.loads(changed.job_state) == {"cron": "30 4 * * 0", "timezone": "Europe/Berlin"}
    assert changed.next_run_time != before["drift"].next_run_time
    assert start.names == []


def test_what_was_missed_many_times_within_the_grace_runs_once(
    database: Database, make: Callable[..., Schedule]
) -> None:
    start, every_minute = Started(), {"cron": "* * * * *", "misfire_grace_seconds": 3600}
    first = make(start, **every_minute)
    first.tick(database.now())
    leave(first)
    due(database, RETRAIN, 60 * 20.0)
    make(start, **every_minute).tick(database.now())
    assert eventually(lambda: rows(database)[RETRAIN].next_run_time > time.time())
    assert eventually(lambda: start.names)
    assert start.names == [RETRAIN]


def test_a_run_that_is_too_late_is_skipped_and_said(
    database: Database, make: Callable[..., Schedule]
) -> None:
    start = Started()
    first = make(start)
    first.tick(database.now())
    leave(first)
    due(database, RETRAIN, 61.0)
    make(start).tick(database.now())
    assert eventually(lambda: "schedule-missed" in events(database))
    assert eventually(lambda: rows(database)[RETRAIN].next_run_time > time.time())
    assert start.names == []


def test_a_job_that_still_runs_is_not_started_again_and_a_failure_is_remembered(
    database: Database, make: Callable[..., Schedule]
) -> None:
    start = Started(status=3)
    schedule = make(start)
    schedule.tick(database.now())
    start.may_end.clear()
    for _ in range(2):
        due(database, RETRAIN, 1.0)
        schedule._scheduler.wakeup()
        assert eventually(lambda: rows(database)[RETRAIN].next_run_time > time.time())
    assert eventually(lambda: "schedule-busy" in events(database))
    start.may_end.set()
    assert eventually(lambda: "schedule-failed" in events(database))
    assert start.names == [RETRAIN]


def test_one_of_two_schedules_and_the_other_takes_over_when_the_lease_ends(
    database: Database, make: Callable[..., Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, now = Started(), database.now()
    one, other = make(start, "a"), make(start, "b")
    looked: list[object] = []
    look = PlainJobStore.get_next_run_time
    monkeypatch.setattr(
        PlainJobStore, "get_next_run_time", lambda store: looked.append(found := look(store)) or found
    )
    one.tick(now)
    assert eventually(lambda: looked)  # its thread has found that nothing is due, while it had the lease
    other.tick(now)
    assert (one.is_active, other.is_active) == (True, False)
    with monkeypatch.context() as patch:
        patch.setattr(BackgroundScheduler, "resume", lambda _: None)
        other.tick(now + timedelta(seconds=61))  # nobody has heard of the first one
    assert other.is_active
    due(database, RETRAIN, 1.0)
    one._scheduler._process_jobs()  # it does not know yet that it lost the lease, and leaves what is due all the same
    assert rows(database)[RETRAIN].next_run_time < time.time()
    one.tick(now + timedelta(seconds=62))
    assert not one.is_active
    leave(other)
    one.tick(now + timedelta(seconds=63))
    assert one.is_active
    assert eventually(lambda: start.names == [RETRAIN])


def test_a_clock_that_was_years_ahead_does_not_put_a_job_off_for_years(
    database: Database, make: Callable[..., Schedule]
) -> None:
    first = make(Started())
    first.tick(database.now())
    before = rows(database)
    leave(first)
    due(database, RETRAIN, -4 * 365 * 86400.0)  # as APScheduler wrote it while the clock was wrong
    make(Started()).tick(database.now())
    assert rows(database) == before


def test_a_clock_that_is_set_back_while_the_schedule_runs_puts_no_job_off(
    database: Database, make: Callable[..., Schedule]
) -> None:
    schedule = make(start := Started())
    schedule.tick(database.now())
    before = rows(database)
    due(database, RETRAIN, -30 * 86400.0)  # as it was put by a clock that was ahead
    schedule.tick(database.now())
    assert rows(database) == before
    due(database, RETRAIN, 10)
    schedule.tick(database.now())
    assert eventually(lambda: start.names == [RETRAIN] and rows(database) == before)


def test_a_clock_that_is_put_right_by_some_minutes_runs_nothing_twice(
    database: Database, make: Callable[..., Schedule]
) -> None:
    soon = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=5)
    schedule = make(Started(), cron=f"{soon.minute} {soon.hour} * * *")
    schedule.tick(database.now())
    with database.transaction() as session:  # it ran before the step
        session.get_one(ScheduledJob, RETRAIN).next_run_time = (soon + timedelta(days=1)).timestamp()
    kept = rows(database)
    schedule.tick(database.now())
    assert rows(database) == kept


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_scheduler_whose_thread_a_database_ended_is_begun_anew(
    database: Database, make: Callable[..., Schedule]
) -> None:
    def gone(_: object) -> None:
        raise Unavailable("the database is gone")

    start = Started()
    schedule = make(start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainJobStore, "get_next_run_time", gone)
        schedule.tick(database.now())
        assert eventually(lambda: not schedule._scheduler._thread.is_alive())
    due(database, RETRAIN, 1.0)
    schedule.tick(database.now())
    assert eventually(lambda: start.names == [RETRAIN])


def test_a_full_disk_of_the_database_is_told_as_one_and_the_next_tick_begins(
    database: Database, make: Callable[..., Schedule]
) -> None:
    def full(*_: object) -> None:
        driver = sqlite3.OperationalError("database or disk is full")
        driver.sqlite_errorcode, driver.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
        raise OperationalError("INSERT", {}, driver)

    schedule = make(Started())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainJobStore, "add_job", full)
        with pytest.raises(Unavailable, match=r"disk of the database is full or failing \(SQLITE_FULL\)"):
            schedule.tick(database.now())
    assert not schedule.is_active
    schedule.tick(database.now())
    assert schedule.is_active and RETRAIN in rows(database)


def test_a_schedule_that_is_told_to_end_while_it_begins_ends_without_a_fault(
    database: Database, make: Callable[..., Schedule]
) -> None:
    start = Started()
    schedule = make(start)
    following = Cron.get_next_fire_time

    def ends(cron: Cron, *times: datetime | None) -> datetime:
        schedule.interrupt()
        return following(cron, *times)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cron, "get_next_fire_time", ends)
        assert not schedule.tick(database.now())
    assert not schedule.is_active and start.names == []
    leave(schedule)
    after = make(Started(), owner="b")
    after.tick(database.now())
    assert after.is_active and RETRAIN in rows(database)


def test_a_row_that_somebody_wrote_runs_nothing_and_is_put_right(
    database: Database, make: Callable[..., Schedule], caplog: pytest.LogCaptureFixture
) -> None:
    start = Started()
    first = make(start)
    first.tick(database.now())
    leave(first)
    soon = time.time() - 1
    planted = {
        "retrain /etc/passwd": b'{"cron": "* * * * *", "timezone": "UTC"}',
        "shell": b'{"cron": "* * * * *", "timezone": "UTC"}',
        RETRAIN: b"\x80\x04\x95cposix\nsystem\n.",
        "drift": b'{"cron": "* * * * *", "timezone": "UTC", "func": "os:system", "args": ["id"]}',
    }
    with database.transaction() as session:
        for name, state in planted.items():
            session.merge(ScheduledJob(id=name, next_run_time=soon, job_state=state))
    make(start).tick(database.now())
    assert set(rows(database)) == {RETRAIN, "drift"}
    assert json.loads(rows(database)[RETRAIN].job_state)["cron"] == "0 2 * * 6"
    assert caplog.text.count("schedule-row-refused") == 4
    assert start.names == []


def test_a_job_comes_back_from_sql_as_it_went_in(database: Database) -> None:
    from apscheduler.job import Job
    from apscheduler.jobstores.base import ConflictingIdError, JobLookupError

    ran: list[str] = []
    store = PlainJobStore(
        database.engine,
        Actions(run=ran.append, is_known=bool, may_start=lambda: True, misfire_grace_seconds=5),
    )
    scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": store})
    scheduler.start(paused=True)
    try:
        job = scheduler.add_job(ran.append, Cron("0 2 * * 6", "Asia/Kolkata"), ["drift"], id="drift")
        found = store.lookup_job("drift")
        assert isinstance(found, Job)
        assert (found.trigger.plain, found.next_run_time) == (job.trigger.plain, job.next_run_time)
        assert (found.args, found.coalesce, found.max_instances, found.misfire_grace_time) == (
            ("drift",),
            True,
            1,
            5,
        )
        found.func(*found.args)
        assert ran == ["drift"]
        with pytest.raises(ConflictingIdError):
            store.add_job(job)
        with pytest.raises(ValueError, match="no crontab"):
            scheduler.add_job(ran.append, DateTrigger(datetime(2030, 1, 1)), ["x"], id="x")  # noqa: DTZ001
        scheduler.remove_job("drift")
        assert store.lookup_job("drift") is None
        with pytest.raises(JobLookupError):
            store.update_job(job)
    finally:
        scheduler.shutdown()
    with database.reading() as session:
        assert session.connection().execute(text("SELECT count(*) FROM scheduled_job")).scalar() == 0


def test_a_schedule_that_ends_ticks_nothing_off_that_it_does_not_start(
    database: Database, make: Callable[..., Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BackgroundScheduler, "resume", lambda _: None)
    schedule = make(Started())
    schedule.tick(database.now())
    due(database, RETRAIN, 1.0)
    scheduler = schedule._scheduler
    schedule.interrupt()
    scheduler.state = 1  # as its thread sees it that had begun a round before
    scheduler._process_jobs()
    assert rows(database)[RETRAIN].next_run_time < time.time()
    scheduler.state = 0


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (RETRAIN, ("models", "retrain", "nodule_segmenter")),
        ("drift", ("models", "drift", "--record")),
        ("retrain nodule_segmenter; id", None),
        ("nodule_segmenter", None),
        ("retrain ", None),
    ],
)
def test_only_names_that_are_known_are_commands(name: str, command: tuple[str, ...] | None) -> None:
    assert command_of(name) == command


def test_the_lease_is_given_back_at_the_end(database: Database, make: Callable[..., Schedule]) -> None:
    schedule = make(Started())
    schedule.tick(database.now())
    with database.reading() as session:
        assert leases.holder(session, LEASE, database.now()) == "a"
    leave(schedule)
    with database.reading() as session:
        assert leases.holder(session, LEASE, database.now()) is None


@pytest.mark.long
def test_a_node_that_comes_back_runs_what_it_missed_and_a_second_one_stands_by(
    tmp_path: Path,
) -> None:
    flags = ("--role", "scheduler", "--retrain-setting", 'families=["nodule_segmenter"]')
    with node(tmp_path / "home", *flags) as first:
        first.stop()
        database = Database(f"sqlite:///{tmp_path / 'home' / 'nadir.sqlite'}")
        due(database, RETRAIN, 600.0)
        first.kill()
        first.start()
        with node(tmp_path / "home", *flags) as second:
            deadline = time.monotonic() + 120
            while not (told := first.look("models", "runs"))["runs"] or told["runs"][-1]["ended_at"] is None:
                assert time.monotonic() < deadline, (told, first.log)
                time.sleep(0.5)
            assert [(run["state"], run["family"]) for run in told["runs"]] == [
                ("too-few", "nodule_segmenter")
            ]
            assert {one["job"] for one in told["next"]} == {RETRAIN, "drift"}
            assert not any("schedule-begins" in line for line in second.log)
        assert eventually(lambda: any("schedule-ended" in line for line in first.log), seconds=120)
        assert first.stop() == 0
        database.dispose()

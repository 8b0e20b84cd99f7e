"""What the scheduler will start, kept in the node's database as plain JSON.

APScheduler's own SQL store keeps pickles, so that whoever can write to the database could run code in the scheduler.
This one keeps the name of a job and its times; what a job does is decided by its name alone. A row that says anything
else is told of and taken out; the settings put it back as it has to be.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.job import Job
from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.triggers.base import BaseTrigger
from apscheduler.util import datetime_to_utc_timestamp, utc_timestamp_to_datetime
from sqlalchemy import Engine, and_, delete, select
from sqlalchemy.exc import IntegrityError

from node.crontab import Crontab
from node.logs import line
from store.model_tables import ScheduledJob

LONGEST_BYTES = 4096
"""No row that we write is longer."""
HOURS = 24

log = logging.getLogger(__name__)


class Cron(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """The times of a crontab in a time zone."""

    def __init__(self, cron: str, timezone: str) -> None:
        self.plain = {"cron": cron, "timezone": timezone}
        read, self._zone = Crontab.of(cron), ZoneInfo(timezone)
        self._is_hourly = read.fields[1] == "*" or len(read.fields[1].split(",")) == HOURS
        self._times = read.trigger(self._zone if self._is_hourly else UTC)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the next time after the previous one; None when there is none.

        An hour that comes twice, when clocks are put back, counts once unless every hour is asked for. A time that
        does not come, when they are put forward, is later by what they skip: 02:30 is 03:30.
        """
        if self._is_hourly:
            hourly: datetime | None = self._times.get_next_fire_time(previous_fire_time, now)
            return hourly
        start = (previous_fire_time or now).astimezone(UTC)
        if previous_fire_time is not None:
            start += timedelta(microseconds=1)
        found = self._times.get_next_fire_time(None, self._wall(start))
        while found is not None and self._moment(found) < start:
            found = self._times.get_next_fire_time(found, found)
        return None if found is None else self._moment(found).astimezone(self._zone)

    def _wall(self, moment: datetime) -> datetime:
        """Return what clocks show, written as UTC; for a day after they were changed the earlier of old and new."""
        shown = (at.astimezone(self._zone).utcoffset() for at in (moment, moment - timedelta(days=1)))
        return moment + min(offset for offset in shown if offset is not None)

    def _moment(self, wall: datetime) -> datetime:
        """Return when clocks first show a time, in UTC."""
        return wall.replace(tzinfo=self._zone).astimezone(UTC)


@dataclass(frozen=True, kw_only=True)
class Actions:
    """What jobs do, which is in no row of the database."""

    run: Callable[[str], None]
    """Does what the job of a name is for."""
    is_known: Callable[[str], bool]
    """Whether there is a job of a name."""
    may_start: Callable[[], bool]
    """Whether this is the one who schedules."""
    misfire_grace_seconds: int
    """How late a job may still begin."""


class PlainJobStore(SQLAlchemyJobStore):  # type: ignore[misc]
    """The SQL job store of APScheduler with JSON in place of pickles."""

    def __init__(self, engine: Engine, actions: Actions) -> None:
        super().__init__(engine=engine, tablename=str(ScheduledJob.__tablename__))
        self._actions = actions
        self._is_shut = False

    def shutdown(self) -> None:
        """Give no more jobs; the engine stays open, because it is the node's."""
        self._is_shut = True

    def get_due_jobs(self, now: datetime) -> list[Any]:
        """Return the jobs whose time has come; none when they would be ticked off without being started."""
        return list(super().get_due_jobs(now)) if self._may_start() else []

    def get_next_run_time(self) -> datetime | None:
        """Return when to look again; None for when somebody says so."""
        found: datetime | None = super().get_next_run_time() if self._may_start() else None
        return found

    def _may_start(self) -> bool:
        return not self._is_shut and self._actions.may_start()

    def lookup_job(self, job_id: str) -> Any:
        """Return one job; None when there is none."""
        return next(iter(self._get_jobs(self.jobs_t.c.id == job_id)), None)

    def add_job(self, job: Any) -> None:
        """Keep a new job. Raises ConflictingIdError."""
        try:
            with self.engine.begin() as connection:
                connection.execute(self.jobs_t.insert().values(id=job.id, **_values(job)))
        except IntegrityError as error:
            raise ConflictingIdError(job.id) from error

    def update_job(self, job: Any) -> None:
        """Keep what has changed. Raises JobLookupError."""
        statement = self.jobs_t.update().where(self.jobs_t.c.id == job.id).values(_values(job))
        with self.engine.begin() as connection:
            if not connection.execute(statement).rowcount:
                raise JobLookupError(job.id)

    def _get_jobs(self, *conditions: Any) -> list[Any]:
        """Return jobs by their time; what is no job of ours is told of and taken out."""
        table, found = self.jobs_t, []
        statement = select(table).where(and_(True, *conditions)).order_by(table.c.next_run_time)
        with self.engine.begin() as connection:
            for row in connection.execute(statement).all():
                try:
                    found.append(self._job(row.id, row.next_run_time, row.job_state))
                except (ValueError, KeyError, TypeError) as error:
                    log.error(line("schedule-row-refused", job=row.id, why=error))
                    connection.execute(delete(table).where(table.c.id == row.id))
        return found

    def _job(self, name: str, next_run_time: float | None, state: bytes) -> Any:
        if not self._actions.is_known(name) or len(state) > LONGEST_BYTES:
            raise ValueError("it is no job of this node")
        said = json.loads(state)
        if not isinstance(said, dict) or set(said) != {"cron", "timezone"}:
            raise ValueError("it says other things than times")
        job = Job.__new__(Job)
        job.id = job.name = name
        job.func, job.func_ref, job.args, job.kwargs = self._actions.run, None, (name,), {}
        job.trigger, job.executor = Cron(str(said["cron"]), str(said["timezone"])), "default"
        job.misfire_grace_time = self._actions.misfire_grace_seconds
        job.coalesce, job.max_instances = True, 1
        job.next_run_time = utc_timestamp_to_datetime(next_run_time)
        job._scheduler, job._jobstore_alias = self._scheduler, self._alias
        return job


def _values(job: Any) -> dict[str, Any]:
    """Return the columns of a job's row. Raises ValueError for a trigger that is no crontab."""
    if not isinstance(job.trigger, Cron):
        raise ValueError(f"the times of {job.id} are no crontab")
    state = json.dumps(job.trigger.plain, sort_keys=True).encode()
    return {"next_run_time": datetime_to_utc_timestamp(job.next_run_time), "job_state": state}


__all__ = ["Actions", "Cron", "PlainJobStore"]

"""The role `scheduler`: starts what comes again and again, each in a process of its own; one scheduler at a time.

Of several processes and hosts the one with the lease schedules; another stands by, and takes over when the lease ends.
What is due, and what was missed while nobody was there, is APScheduler's to say; times survive a restart in SQL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from node.logs import line
from node.scheduled import Children
from node.settings import Settings
from store import asked_runs, leases
from store.database import Database
from store.due import AHEAD
from store.tables import Event
from training.recipe import FAMILIES

LEASE = leases.SCHEDULER
LEASE_SECONDS = 60.0
TICK_SECONDS = 15.0
STOP_SECONDS = 10.0
DRIFT = "drift"
RETRAIN = "retrain "

log = logging.getLogger(__name__)


def wanted(settings: Settings) -> dict[str, str]:
    """Return the jobs that the settings ask for, and the crontab of each."""
    retrain = settings.retrain
    jobs = {f"{RETRAIN}{family}": retrain.cron for family in retrain.families} | {DRIFT: retrain.drift_cron}
    return {name: cron for name, cron in jobs.items() if cron != "off"}


def command_of(name: str) -> tuple[str, ...] | None:
    """Return the command line of a job; None for a name that nothing is called by."""
    if name == DRIFT:
        return ("models", "drift", "--record")
    family = name.removeprefix(RETRAIN)
    return ("models", "retrain", family) if name != family and family in FAMILIES else None


class Schedule:
    """Schedules while it holds the lease.

    Parameters
    ----------
    database
        Of the node.
    settings
        Of the node.
    owner
        Host and process, of one kind.
    lease_seconds
        How long the lease outlives a process that was killed.
    start
        Runs the command of a job to its end and returns its exit status.

    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        owner: str,
        lease_seconds: float = LEASE_SECONDS,
        start: Callable[[str, Sequence[str]], int] | None = None,
    ) -> None:
        self._database, self._settings, self._owner = database, settings, owner
        self._lease_seconds = lease_seconds
        self._children = Children(settings)
        self._start = start or self._children.run
        self._scheduler: Any = None
        self._stopped = threading.Event()

    @property
    def is_active(self) -> bool:
        """Return whether this one schedules."""
        return self._scheduler is not None

    def tick(self, now: datetime) -> bool:
        """Take or keep the lease; begin to schedule when it is new, stand by when it is somebody else's.

        A run that a person asked for begins beside the schedule; of two of one family the later ends by itself.
        """
        if self._stopped.is_set():
            return False
        with self._database.transaction() as session:
            is_ours = leases.take(session, LEASE, self._owner, now, self._lease_seconds)
            asked = asked_runs.take(session) if is_ours else ()
        for family in asked:
            threading.Thread(target=self._run, args=(f"{RETRAIN}{family}",), daemon=True).start()
        scheduler = self._scheduler
        thread = getattr(scheduler, "_thread", None)
        if thread is not None and not thread.is_alive():
            self._end()  # APScheduler's thread ends when a database does not answer at the wrong moment
            scheduler = None
        if is_ours and scheduler is None:
            with self._database.translating():
                self._begin()
        elif is_ours:
            with self._database.translating():
                self._agree(scheduler, wanted(self._settings))  # the clock may have been set back
            scheduler.wakeup()  # it may have looked while the lease was in doubt, or the clock was set
        elif scheduler is not None:
            self._end()
            log.warning(line("schedule-lost", text="another process schedules now"))
        return False

    def interrupt(self) -> None:
        """Start nothing more, and tell what runs to stop."""
        self._stopped.set()
        self._end()
        self._children.terminate()

    def close(self) -> None:
        """Wait until what runs has stopped, and give the lease back."""
        self._end()
        self._children.wait(STOP_SECONDS)
        with self._database.transaction() as session:
            leases.give_back(session, LEASE, self._owner)

    def _begin(self) -> None:
        from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler

        from node.schedule_store import Actions, PlainJobStore

        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # what it has to say is said here
        jobs = wanted(self._settings)
        actions = Actions(
            run=self._run,
            is_known=lambda name: command_of(name) is not None,
            may_start=self._may_start,
            misfire_grace_seconds=self._settings.retrain.misfire_grace_seconds,
        )
        scheduler = BackgroundScheduler(
            jobstores={"default": PlainJobStore(self._database.engine, actions)},
            executors={"default": ThreadPoolExecutor(len(FAMILIES) + 1)},
            timezone=UTC,
        )
        scheduler.add_listener(self._tell, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES | EVENT_JOB_ERROR)
        scheduler.start(paused=True)
        self._scheduler = scheduler
        try:
            self._agree(scheduler, jobs)
            scheduler.resume()
        except BaseException:
            self._end()  # half a schedule is none; the next tick begins anew
            if not self._stopped.is_set():  # else it was ended meanwhile, and there is no next one
                raise
            return
        log.info(line("schedule-begins", jobs=", ".join(sorted(jobs)) or "none"))

    def _agree(self, scheduler: Any, jobs: Mapping[str, str]) -> None:
        """Make what is kept what the settings ask for; a job that is as it was keeps its next time."""
        from node.schedule_store import Cron

        zone = self._settings.retrain.timezone
        kept = {job.id: job for job in scheduler.get_jobs()}
        for name in sorted(set(kept) - set(jobs)):
            scheduler.remove_job(name)
            log.info(line("schedule-removed", job=name))
        for name, cron in jobs.items():
            trigger = Cron(cron, zone)
            known, following = kept.get(name), trigger.get_next_fire_time(None, datetime.now(UTC) + AHEAD)
            next_time = known.next_run_time if known and known.trigger.plain == trigger.plain else None
            # Later than that a job was put by a clock that was ahead; one that was put right by minutes repeats none.
            if next_time is None or next_time > following:
                how = {"misfire_grace_time": self._settings.retrain.misfire_grace_seconds, "coalesce": True}
                scheduler.add_job(
                    self._run, trigger, [name], id=name, replace_existing=True, max_instances=1, **how
                )

    def _may_start(self) -> bool:
        """Return whether the lease is ours at this moment: what is due is looked for only then."""
        with self._database.reading() as session:
            return leases.holder(session, LEASE, self._database.now()) == self._owner

    def _end(self) -> None:
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=False)

    def _run(self, name: str) -> None:
        """Do what a job is for."""
        command = command_of(name)
        if command is None or self._stopped.is_set():
            return
        log.info(line("schedule-started", job=name))
        began = time.monotonic()
        status = self._start(name, command)
        seconds = f"{time.monotonic() - began:.1f}"
        if status == 0:
            log.info(line("schedule-ended", job=name, seconds=seconds))
        elif not self._stopped.is_set():
            log.error(line("schedule-failed", job=name, status=status, seconds=seconds))
            self._remember("schedule-failed", name, f"{name} ended with status {status}")

    def _tell(self, event: Any) -> None:
        """Say what APScheduler did not start."""
        from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED

        waits = "it waits for its next time"
        if event.code == EVENT_JOB_MISSED:
            due = event.scheduled_run_time.isoformat(timespec="seconds")
            kind, text = "schedule-missed", f"{event.job_id} was due at {due}, too long ago; {waits}"
        elif event.code == EVENT_JOB_MAX_INSTANCES:
            kind, text = "schedule-busy", f"{event.job_id} was due and still runs; {waits}"
        else:
            kind, text = (
                "schedule-failed",
                f"{event.job_id} could not be started ({type(event.exception).__name__})",
            )
        log.warning(line(kind, job=event.job_id, text=text))
        self._remember(kind, event.job_id, text)

    def _remember(self, kind: str, name: str, text: str) -> None:
        with self._database.transaction() as session:
            session.add(Event(at=self._database.now(), kind=kind, subject=name, text=text))


__all__ = ["LEASE", "TICK_SECONDS", "Schedule", "command_of", "wanted"]

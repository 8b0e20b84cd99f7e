"""What watches a node asks of SQL: counts, sums, ages and durations, each by few rows or by an index.

A restart loses and doubles nothing of it. Durations are those of the latest rows, found by their key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session, col, func, select

from store import audit, jobs, outbox
from store.audit_tables import AuditRecord, AuditSink
from store.instances import by_dicom, still_open
from store.model_tables import DriftAlarm, Lease, ScheduledJob, TrainingRun
from store.tables import Association, Delivery, Instance, Job, Pull, Result, Revision, Study

LATEST = 500
"""How many of the latest rows durations are taken from."""
UNSETTLED = 10_000
"""So many of the newest rows are counted anew each time: of two transactions the later number may be written first."""
STEPS = 1000
QUANTILES = (0.5, 0.95)
OPEN = (outbox.PENDING, outbox.SENDING)


@dataclass
class Received:
    """Objects held and their bytes, by whether they are ours; counts on from where it was, instead of all again."""

    _settled_pk: int = 0
    _settled: dict[bool, tuple[int, int]] = field(default_factory=dict)

    def count(self, session: Session) -> dict[bool, tuple[int, int]]:
        """Return (objects, bytes) of what came from others and of what is our own."""
        newest = int(session.exec(select(func.max(Instance.id))).one() or 0)
        if newest - UNSETTLED > self._settled_pk:
            grown = self._between(session, self._settled_pk, newest - UNSETTLED)
            self._settled = _sum(self._settled, grown)
            self._settled_pk = newest - UNSETTLED
        return _sum(self._settled, self._between(session, self._settled_pk, newest))

    def _between(self, session: Session, after_pk: int, last_pk: int) -> dict[bool, tuple[int, int]]:
        own = col(Instance.own)
        statement = (
            select(own, func.count(), func.sum(Instance.size_bytes))
            .where(col(Instance.id) > after_pk, col(Instance.id) <= last_pk)
            .group_by(own)
        )
        return {bool(ours): (int(count), int(size)) for ours, count, size in session.exec(statement)}


def _sum(*counted: dict[bool, tuple[int, int]]) -> dict[bool, tuple[int, int]]:
    return {
        own: (
            sum(one.get(own, (0, 0))[0] for one in counted),
            sum(one.get(own, (0, 0))[1] for one in counted),
        )
        for own in (False, True)
    }


@dataclass
class AuditWalk:
    """A walk along the audit trail, a few rows at a time, and again from the beginning once it is at the end."""

    is_intact: bool = True
    """False once a row was met that does not follow from the one before; True again after a whole walk without."""
    _after_pk: int = 0
    _sha256: str = audit.BEGINNING
    _was_broken: bool = False

    def step(self, session: Session, rows: int = STEPS) -> bool:
        """Look at the next rows and return whether the trail is intact as far as is known."""
        seen = 0
        for row in audit.records(session, after_pk=self._after_pk, limit=rows):
            seen += 1
            if not audit.follows(row, self._sha256):
                self.is_intact, self._was_broken = False, True
            self._after_pk, self._sha256 = row.id or 0, row.sha256
        if seen < rows:
            self.is_intact, self._was_broken = not self._was_broken, False
            self._after_pk, self._sha256 = 0, audit.BEGINNING
        return self.is_intact


def grouped(session: Session, *columns: Any) -> Sequence[tuple[Any, ...]]:
    """Return how many rows there are of each combination of these columns of one table, the count last."""
    wanted = [col(column) for column in columns]
    return [tuple(row) for row in session.exec(select(*wanted, func.count()).group_by(*wanted))]  # type: ignore[call-overload]


def associations(session: Session, now: datetime) -> tuple[int, int]:
    """Return how many DICOM associations that brought something are open, and how many there ever were."""
    ever = select(func.count(col(Association.id))).where(by_dicom())
    is_open = ever.where(still_open(now))
    return int(session.exec(is_open).one()), int(session.exec(ever).one())


def last_arrival(session: Session) -> datetime | None:
    """Return when new content last came, from wherever; None before the first."""
    return session.exec(select(func.max(Study.last_arrival_at))).one()


def oldest_due(session: Session, now: datetime) -> float:
    """Return for how many seconds the job that waits longest could have run; 0 when none waits."""
    waiting = select(func.min(Job.run_after)).where(Job.state == jobs.QUEUED, col(Job.run_after) <= now)
    return _age(session.exec(waiting).one(), now)


def overdue_leases(session: Session, now: datetime) -> int:
    """Return how many running jobs no worker has given a sign of for longer than their lease."""
    lost = select(func.count()).where(Job.state == jobs.RUNNING, col(Job.lease_until) < now)
    return int(session.exec(lost).one())


def oldest_pull(session: Session, now: datetime) -> float:
    """Return for how many seconds the study that waits longest has been waiting to be pulled."""
    return _age(session.exec(select(func.min(Pull.requested_at)).where(Pull.state == "waiting")).one(), now)


def oldest_deliveries(session: Session, now: datetime) -> dict[str, float]:
    """Return for how many seconds the oldest result that is not delivered waits, by destination."""
    statement = (
        select(Delivery.destination, func.min(Delivery.created_at))
        .where(col(Delivery.state).in_(OPEN))
        .group_by(col(Delivery.destination))
    )
    return {destination: _age(oldest, now) for destination, oldest in session.exec(statement)}


def oldest_unconfirmed(session: Session, now: datetime) -> dict[str, float]:
    """Return for how many seconds the oldest delivered result waits to be confirmed, by destination."""
    statement = (
        select(Delivery.destination, func.min(Delivery.delivered_at))
        .where(Delivery.state == outbox.DELIVERED, col(Delivery.confirm_after).is_not(None))
        .group_by(col(Delivery.destination))
    )
    return {destination: _age(oldest, now) for destination, oldest in session.exec(statement)}


def settle_seconds(session: Session) -> list[float]:
    """Return how long after their last image the latest studies settled, of those that settled once."""
    statement = (
        select(Revision.settled_at, Study.last_arrival_at)
        .join(Study, col(Revision.study_pk) == col(Study.id))
        .where(col(Revision.number) == col(Study.revision))
        .order_by(col(Revision.id).desc())
        .limit(LATEST)
    )
    return [max(0.0, (settled - last).total_seconds()) for settled, last in session.exec(statement)]


def run_seconds(session: Session) -> dict[tuple[str, str], list[float]]:
    """Return how long the latest jobs ran, by analysis and state."""
    statement = (
        select(Job.plugin, Job.state, Job.started_at, Job.finished_at)
        .where(col(Job.finished_at).is_not(None), col(Job.started_at).is_not(None))
        .order_by(col(Job.id).desc())
        .limit(LATEST)
    )
    found: dict[tuple[str, str], list[float]] = {}
    for plugin, state, started, finished in session.exec(statement):
        if started is not None and finished is not None:
            found.setdefault((plugin, state), []).append(max(0.0, (finished - started).total_seconds()))
    return found


def delivery_seconds(session: Session) -> dict[str, list[float]]:
    """Return how long after they were made the latest results were delivered, by destination."""
    statement = (
        select(Delivery.destination, Delivery.created_at, Delivery.delivered_at)
        .where(col(Delivery.delivered_at).is_not(None))
        .order_by(col(Delivery.id).desc())
        .limit(LATEST)
    )
    found: dict[str, list[float]] = {}
    for destination, created, at in session.exec(statement):
        if at is not None:
            found.setdefault(destination, []).append((at - created).total_seconds())
    return found


def resends(session: Session) -> dict[str, int]:
    """Return how often results were sent again because they were not kept, by destination."""
    statement = select(Delivery.destination, func.sum(Delivery.resends)).group_by(col(Delivery.destination))
    return {destination: int(count) for destination, count in session.exec(statement)}


def results(session: Session) -> Sequence[tuple[str, int, int]]:
    """Return kind, count and bytes of the objects that were made."""
    statement = select(Result.kind, func.count(), func.sum(Result.size_bytes)).group_by(col(Result.kind))
    return [(kind, int(count), int(size)) for kind, count, size in session.exec(statement)]


def quantiles(values: Iterable[float]) -> dict[float, float]:
    """Return the quantiles of these numbers, each one that occurs; nothing of none."""
    ordered = sorted(values)
    return {q: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in QUANTILES} if ordered else {}


def audit_unsent(session: Session) -> tuple[int, dict[str, int]]:
    """Return how many rows the audit trail has, and how many of them each sink was not given yet."""
    last = int(session.exec(select(func.max(AuditRecord.id))).one() or 0)
    sinks = session.exec(select(AuditSink.name, AuditSink.sent_pk))
    return last, {name: max(0, last - sent) for name, sent in sinks}


def last_drift(session: Session) -> dict[str, datetime]:
    """Return when the last alarm of drift was, by analysis."""
    statement = select(DriftAlarm.plugin, func.max(DriftAlarm.at)).group_by(col(DriftAlarm.plugin))
    return dict(session.exec(statement).all())


def schedule(session: Session) -> tuple[datetime | None, dict[str, float]]:
    """Return until when a scheduler holds the lease, and when each job comes next, POSIX seconds."""
    until = session.exec(select(Lease.until).where(Lease.name == "scheduler")).first()
    rows = session.exec(select(ScheduledJob.id, ScheduledJob.next_run_time))
    return until, {name: at for name, at in rows if at is not None}


def training_runs(session: Session) -> Sequence[tuple[Any, ...]]:
    """Return family, state and count of the runs of retraining."""
    return grouped(session, TrainingRun.family, TrainingRun.state)


def database_bytes(session: Session) -> int:
    """Return how large the database is."""
    if session.get_bind().dialect.name == "postgresql":
        return int(session.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    pages = session.execute(text("PRAGMA page_count")).scalar_one()
    return int(pages) * int(session.execute(text("PRAGMA page_size")).scalar_one())


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())

"""How the node does: the outbox by destination, the queue, what went through in each hour, what it was told of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, cast, extract
from sqlalchemy import select as rows_of
from sqlmodel import Session, col, func, select

from store.audit_tables import AuditRecord
from store.database import aware_utc
from store.instances import by_dicom, still_open
from store.model_tables import ScheduledJob
from store.prior_tables import Prior, PriorSearch
from store.tables import Association, Delivery, Event, Instance, Job, Result, Revision, Study

HOURS = 24
OPEN = ("pending", "sending")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The outbox of one destination."""

    name: str
    """Its address, without password."""
    counts: dict[str, int]
    """Deliveries by state, of those in which there are some."""
    oldest_at: datetime | None
    """Since when the oldest one waits."""
    next_at: datetime | None
    """When the next one is tried."""
    error: str
    """Why the newest that failed did; empty when none that waits or is parked failed."""
    delivered_at: datetime | None
    """When it last took something."""

    @property
    def waiting(self) -> int:
        """Return how many are on their way."""
        return sum(self.counts.get(state, 0) for state in OPEN)


@dataclass(frozen=True, kw_only=True)
class Hour:
    """What went through in one hour."""

    at: datetime
    """When it began."""
    studies: int
    """Revisions that settled."""
    jobs: int
    """Jobs that ended."""
    images: int
    """Objects that came."""


@dataclass(frozen=True, kw_only=True)
class PriorsOf:
    """What is asked of one source of earlier studies."""

    source: str
    """Its address, without password."""
    counts: dict[str, int]
    """Searches and studies by state."""
    error: str
    """Why the newest one failed; empty when none did."""


def destinations(session: Session, known: tuple[str, ...]) -> tuple[Destination, ...]:
    """Return the outbox of each destination: the known ones first, then those that something was ever written for."""
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    counted = rows_of(col(Delivery.destination), col(Delivery.state), func.count())
    for name, state, count in session.execute(
        counted.group_by(col(Delivery.destination), col(Delivery.state))
    ):
        counts[name][state] = count
    names = [*dict.fromkeys(known), *sorted(set(counts) - set(known))]
    return tuple(_destination(session, name, counts.get(name, {})) for name in names)


def _destination(session: Session, name: str, counts: dict[str, int]) -> Destination:
    of = col(Delivery.destination) == name
    oldest, following = session.execute(
        rows_of(func.min(col(Delivery.created_at)), func.min(col(Delivery.run_after))).where(
            of, col(Delivery.state).in_(OPEN)
        )
    ).one()
    failed = (
        select(Delivery.last_error)
        .where(of, col(Delivery.state).in_((*OPEN, "parked")), col(Delivery.last_error).is_not(None))
        .order_by(col(Delivery.id).desc())
        .limit(1)
    )
    taken = (
        select(Delivery.delivered_at)
        .where(of, col(Delivery.state).in_(("delivered", "confirmed")))
        .order_by(col(Delivery.id).desc())
        .limit(1)
    )
    return Destination(
        name=name,
        counts=counts,
        oldest_at=oldest,
        next_at=following,
        error=session.exec(failed).first() or "" if counts else "",
        delivered_at=session.exec(taken).first() if counts else None,
    )


def states(session: Session, column: Any) -> dict[str, int]:
    """Return how many rows have which value of a column."""
    counted = rows_of(col(column), func.count()).group_by(col(column))
    return {value: count for value, count in session.execute(counted)}


def running(session: Session) -> tuple[Job, ...]:
    """Return the jobs that run, the longest running first."""
    statement = select(Job).where(col(Job.state) == "running").order_by(col(Job.started_at))
    return tuple(session.exec(statement))


def hours(session: Session, now: datetime) -> tuple[Hour, ...]:
    """Return what went through in the last 24 hours, the oldest first; each begins where the one before ends."""
    since = aware_utc(now) - timedelta(hours=HOURS)
    # Rows are numbered as they come: of millions of images only those of the last day are looked at.
    new = col(Instance.id) >= _first_since(session, Instance, Instance.received_at, since)
    images = _hourly(session, Instance.received_at, since, new)
    jobs = _hourly(session, Job.finished_at, since)
    studies = _hourly(session, Revision.settled_at, since)
    return tuple(
        Hour(
            at=since + timedelta(hours=n),
            studies=studies.get(n, 0),
            jobs=jobs.get(n, 0),
            images=images.get(n, 0),
        )
        for n in range(HOURS)
    )


def _hourly(session: Session, column: Any, since: datetime, *conditions: Any) -> dict[int, int]:
    hour = (cast(extract("epoch", col(column)), BigInteger) - int(since.timestamp())) // 3600
    statement = rows_of(hour.label("hour"), func.count()).where(col(column) >= since, *conditions)
    return {int(number): count for number, count in session.execute(statement.group_by("hour"))}


def _first_since(session: Session, table: Any, column: Any, since: datetime) -> int:
    """Return the number of the first row that is not older, where rows are numbered as they come: found by halving."""
    low, high = 0, (session.execute(rows_of(func.max(table.id))).scalar() or 0) + 1
    while low < high:
        middle = (low + high) // 2
        statement = rows_of(table.id, col(column)).where(table.id >= middle).order_by(table.id).limit(1)
        found = session.execute(statement).first()
        if found is None or found[1] >= since:
            high = middle
        else:
            low = found[0] + 1
    return low


def associations(session: Session, now: datetime) -> tuple[Association, ...]:
    """Return who is connected to the DICOM port and sent something."""
    return tuple(
        session.exec(select(Association).where(still_open(now), by_dicom()).order_by(col(Association.id)))
    )


def prior_sources(session: Session, known: tuple[str, ...]) -> tuple[PriorsOf, ...]:
    """Return what is asked of each source of earlier studies."""
    counts: defaultdict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for statement in (
        rows_of(col(PriorSearch.source), col(PriorSearch.state), func.count()).group_by(
            col(PriorSearch.source), col(PriorSearch.state)
        ),
        rows_of(col(PriorSearch.source), col(Prior.state), func.count())
        .join(PriorSearch, col(PriorSearch.id) == col(Prior.search_pk))
        .group_by(col(PriorSearch.source), col(Prior.state)),
    ):
        for source, state, count in session.execute(statement):
            counts[source][state] += count
    errors = {
        source: error
        for source, error in session.exec(
            select(PriorSearch.source, PriorSearch.error_text)
            .where(col(PriorSearch.error_text).is_not(None), col(PriorSearch.state) != "done")
            .order_by(col(PriorSearch.id))
        )
    }
    names = [*dict.fromkeys(known), *sorted(set(counts) - set(known))]
    return tuple(
        PriorsOf(source=name, counts=dict(counts[name]), error=errors.get(name) or "") for name in names
    )


def scheduled(session: Session) -> tuple[ScheduledJob, ...]:
    """Return what the scheduler starts, what comes next first."""
    return tuple(session.exec(select(ScheduledJob).order_by(col(ScheduledJob.next_run_time))))


def events(
    session: Session, *, kind: str = "", before: int | None = None, limit: int = 50
) -> tuple[int, tuple[Event, ...]]:
    """Return how many events there are, of one kind or of all, and a page of them, the newest first."""
    wanted = [col(Event.kind) == kind] if kind else []
    total = session.exec(select(func.count()).select_from(Event).where(*wanted)).one()
    older = [] if before is None else [col(Event.id) < before]
    rows = session.exec(select(Event).where(*wanted, *older).order_by(col(Event.id).desc()).limit(limit))
    return total, tuple(rows)


def trail(
    session: Session, *, words: str = "", before: int | None = None, limit: int = 50
) -> tuple[int, tuple[AuditRecord, ...]]:
    """Return how many records of the audit trail hold all of the words, and a page of them, the newest first."""
    text = col(AuditRecord.message)
    wanted = [func.lower(text).contains(word, autoescape=True) for word in words.lower().split()[:6]]
    total = session.exec(select(func.count()).select_from(AuditRecord).where(*wanted)).one()
    older = [] if before is None else [col(AuditRecord.id) < before]
    statement = select(AuditRecord).where(*wanted, *older).order_by(col(AuditRecord.id).desc()).limit(limit)
    return total, tuple(session.exec(statement))


def stored_bytes(session: Session) -> int:
    """Return what the objects that were received and made fill, by their rows; takes a while on a large node."""
    sums = (rows_of(func.coalesce(func.sum(col(table.size_bytes)), 0)) for table in (Instance, Result))
    return sum(int(session.execute(statement).scalar_one()) for statement in sums)


def newest_analyses(session: Session) -> dict[str, tuple[str, str]]:
    """Return of each analysis that ever ran the version and the model's hash of its newest job."""
    newest = select(func.max(Job.id)).group_by(col(Job.plugin))
    rows = session.exec(select(Job).where(col(Job.id).in_(newest)).order_by(col(Job.plugin)))
    return {job.plugin: (job.plugin_version, job.model_sha256) for job in rows}


def waiting_longest(session: Session) -> datetime | None:
    """Return since when the oldest job waits that may run."""
    return session.exec(select(func.min(Job.created_at)).where(col(Job.state) == "queued")).one()


def parked_studies(session: Session) -> int:
    """Return how many studies people have parked."""
    statement = select(func.count()).select_from(Study).where(col(Study.parked_at).is_not(None))
    return session.exec(statement).one()


__all__ = [
    "Destination",
    "Hour",
    "PriorsOf",
    "associations",
    "destinations",
    "events",
    "hours",
    "newest_analyses",
    "parked_studies",
    "prior_sources",
    "running",
    "scheduled",
    "states",
    "stored_bytes",
    "trail",
    "waiting_longest",
]

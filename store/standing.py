"""Where studies stand on the whole path, for a page of them: what came, what runs or waits and why, what went out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, and_, col, func, select

from store.database import aware_utc
from store.instances import still_open
from store.prior_tables import Prior, PriorSearch
from store.tables import (
    Association,
    AssociationStudy,
    Delivery,
    Finding,
    Instance,
    Job,
    Pull,
    Refusal,
    Result,
    Revision,
    RevisionInstance,
    Series,
    Study,
)
from store.turn import reasons

USUAL_OF = 30
"""The usual duration of an analysis is the median of so many that ended last."""
LONGEST_QUEUE = 2000
"""Of a longer queue the place is not counted."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """How far the results of one job are on the way to one destination."""

    destination: str
    """Its address, without password."""
    total: int
    """Results that go there."""
    delivered: int
    """Of them those that it took."""
    confirmed: int
    """Of these those that it is proved to keep."""
    parked: int
    """Those that a person has to look after."""
    abandoned: int
    """Those that were given up."""
    error: str
    """Why one of them is not there yet; empty when nothing failed."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The newest job of one analysis on the newest revision of a study."""

    job: Job
    """Its row."""
    position: int | None
    """Its place in the queue, from 1; None when it is not due or the queue is long."""
    held_by: tuple[str, ...]
    """Names of `store.turn.reasons` that keep it from beginning."""
    usual_seconds: float | None
    """How long this analysis usually takes on this node; None before it ever ended, and for one that does not run."""
    findings: int
    """How many findings of it count."""
    refused: tuple[tuple[str, str], ...]
    """Codes and sentences of what it did not accept."""
    sent: tuple[Sent, ...]
    """Where its results go."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where one study stands."""

    images: int
    """Objects that others sent: so far while it is received, else of the newest revision."""
    modalities: tuple[str, ...]
    """Its modalities."""
    is_open: bool
    """Whether somebody who sent of it is still connected."""
    tasks: tuple[Task, ...]
    """Its analyses, in the order they were asked for."""
    priors_waiting: int
    """Searches for earlier studies, and earlier studies that were found, that are still to come."""
    priors_parked: tuple[str, ...]
    """Why earlier studies were given up."""
    pull: Pull | None
    """What the PACS told of and is not here yet, or was given up."""


def standings(
    session: Session, studies: Sequence[Study], now: datetime, priors_wait_seconds: float
) -> dict[int, Standing]:
    """Return where these studies stand, by row; a dozen questions however many they are."""
    now = aware_utc(now)
    pks = [int(study.id or 0) for study in studies]
    uids = {study.study_instance_uid: int(study.id or 0) for study in studies}
    modalities = defaultdict(list)
    series = select(Series.study_pk, Series.modality).where(col(Series.study_pk).in_(pks)).distinct()
    for study_pk, modality in session.exec(series.order_by(col(Series.modality))):
        modalities[study_pk].append(modality)
    pulls = session.exec(
        select(Pull).where(col(Pull.study_instance_uid).in_(uids), col(Pull.state) != "pulled")
    )
    pulled = {uids[pull.study_instance_uid]: pull for pull in pulls}
    images, is_open = _images(session, studies), _open(session, pks, now)
    tasks = _tasks(session, pks, now, priors_wait_seconds)
    waiting, parked = _priors(session, pks)
    return {
        pk: Standing(
            images=images.get(pk, 0),
            modalities=tuple(modalities[pk]),
            is_open=pk in is_open,
            tasks=tuple(tasks[pk]),
            priors_waiting=waiting[pk],
            priors_parked=tuple(parked[pk]),
            pull=pulled.get(pk),
        )
        for pk in pks
    }


def usual_seconds(session: Session, plugin: str) -> float | None:
    """Return how long an analysis usually takes: the median of those that ended last, from claim to results.

    None before one ended with results. What waited for a destination is not in it.
    """
    ended = (
        select(col(Job.started_at), func.min(col(Result.created_at)))
        .join(Result, col(Result.job_pk) == col(Job.id))
        .where(col(Job.plugin) == plugin, col(Job.state).in_(("delivering", "done")))
        .group_by(col(Job.id), col(Job.started_at))
        .order_by(col(Job.id).desc())
        .limit(USUAL_OF)
    )
    seconds = [(end - begun).total_seconds() for begun, end in session.exec(ended) if begun is not None]
    return median(seconds) if seconds else None


def _images(session: Session, studies: Iterable[Study]) -> dict[int, int]:
    """Return how many objects of others each study holds; of a settled one by its manifest, which is quick."""
    arriving = [s.id for s in studies if s.state == "receiving" or not s.revision]
    held = (
        select(col(Series.study_pk), func.count(col(Instance.id)))
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .where(col(Series.study_pk).in_(arriving), col(Instance.current), ~col(Instance.own))
        .group_by(col(Series.study_pk))
    )
    settled = (
        select(col(Revision.study_pk), func.count())
        .join(Study, _newest())
        .join(RevisionInstance, col(RevisionInstance.revision_pk) == col(Revision.id))
        .where(col(Study.id).in_([s.id for s in studies if s.id not in arriving]))
        .group_by(col(Revision.study_pk))
    )
    return {pk: count for statement in (held, settled) for pk, count in session.exec(statement)}


def _newest() -> Any:
    return and_(col(Revision.study_pk) == col(Study.id), col(Revision.number) == col(Study.revision))


def _open(session: Session, pks: list[int], now: datetime) -> set[int]:
    statement = (
        select(AssociationStudy.study_pk)
        .join(Association, col(Association.id) == col(AssociationStudy.association_pk))
        .where(col(AssociationStudy.study_pk).in_(pks), still_open(now))
    )
    return set(session.exec(statement))


def _tasks(
    session: Session, pks: list[int], now: datetime, priors_wait_seconds: float
) -> defaultdict[int, list[Task]]:
    statement = (
        select(Revision.study_pk, Job)
        .join(Study, _newest())
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .where(col(Study.id).in_(pks))
        .order_by(col(Job.id))
    )
    newest: dict[tuple[int, str], Job] = {}
    for study_pk, job in session.exec(statement):
        known = newest.get((study_pk, job.plugin))
        if known is None or job.state != "superseded" or known.state == "superseded":
            newest[study_pk, job.plugin] = job
    jobs = [int(job.id or 0) for job in newest.values()]
    queued = [int(job.id or 0) for job in newest.values() if job.state == "queued"]
    running = {job.plugin for job in newest.values() if job.state == "running"}
    position, held = _queue(session, now) if queued else {}, _held(session, queued, now, priors_wait_seconds)
    usual = {plugin: usual_seconds(session, plugin) for plugin in running}
    refused, sent, found = _refused(session, jobs), _sent(session, jobs), _found(session, jobs)
    tasks: defaultdict[int, list[Task]] = defaultdict(list)
    for (study_pk, plugin), job in newest.items():
        pk = int(job.id or 0)
        tasks[study_pk].append(
            Task(
                job=job,
                position=position.get(pk),
                held_by=held.get(pk, ()),
                usual_seconds=usual.get(plugin),
                findings=found.get(pk, 0),
                refused=tuple(refused[pk]),
                sent=tuple(sent[pk]),
            )
        )
    return tasks


def _queue(session: Session, now: datetime) -> dict[int, int]:
    """Return the place of each job that may run now."""
    due = select(col(Job.id)).where(col(Job.state) == "queued", col(Job.run_after) <= now)
    found = session.exec(due.order_by(col(Job.id)).limit(LONGEST_QUEUE))
    return {int(pk or 0): place for place, pk in enumerate(found, start=1)}


def _held(
    session: Session, queued: list[int], now: datetime, priors_wait_seconds: float
) -> dict[int, tuple[str, ...]]:
    if not queued:
        return {}
    why = reasons(now, priors_wait_seconds)
    statement = select(col(Job.id), *(condition.label(name) for name, condition in why.items()))
    rows: Iterable[sa.Row[Any]] = session.execute(statement.where(col(Job.id).in_(queued)))
    return {row[0]: tuple(name for name in why if row._mapping[name]) for row in rows}


def _refused(session: Session, jobs: Collection[int]) -> defaultdict[int, list[tuple[str, str]]]:
    statement = (
        select(Refusal.job_pk, Refusal.code, Refusal.sentence)
        .where(col(Refusal.job_pk).in_(jobs), col(Refusal.refused))
        .distinct()
    )
    found: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    for job_pk, code, sentence in session.exec(statement):
        found[job_pk].append((code, sentence))
    return found


def _found(session: Session, jobs: Collection[int]) -> dict[int, int]:
    statement = (
        select(col(Finding.job_pk), func.count())
        .where(col(Finding.job_pk).in_(jobs), ~col(Finding.superseded))
        .group_by(col(Finding.job_pk))
    )
    return dict(session.exec(statement).all())


def _sent(session: Session, jobs: Collection[int]) -> defaultdict[int, list[Sent]]:
    statement = (
        sa.select(
            col(Delivery.job_pk),
            col(Delivery.destination),
            col(Delivery.state),
            func.count(),
            func.max(col(Delivery.last_error)),
        )
        .where(col(Delivery.job_pk).in_(jobs), col(Delivery.state) != "superseded")
        .group_by(col(Delivery.job_pk), col(Delivery.destination), col(Delivery.state))
        .order_by(col(Delivery.destination))
    )
    counts: defaultdict[tuple[int, str], dict[str, int]] = defaultdict(dict)
    errors: dict[tuple[int, str], str] = {}
    for job_pk, destination, state, count, error in session.execute(statement):
        counts[job_pk, destination][state] = count
        if error and state in ("pending", "sending", "parked"):
            errors[job_pk, destination] = error
    found: defaultdict[int, list[Sent]] = defaultdict(list)
    for (job_pk, destination), of in counts.items():
        confirmed = of.get("confirmed", 0)
        found[job_pk].append(
            Sent(
                destination=destination,
                total=sum(of.values()),
                delivered=of.get("delivered", 0) + confirmed,
                confirmed=confirmed,
                parked=of.get("parked", 0),
                abandoned=of.get("abandoned", 0),
                error=errors.get((job_pk, destination), ""),
            )
        )
    return found


def _priors(session: Session, pks: list[int]) -> tuple[defaultdict[int, int], defaultdict[int, list[str]]]:
    searches = select(PriorSearch.study_pk, PriorSearch.state, PriorSearch.source, PriorSearch.error_text)
    found = select(PriorSearch.study_pk, Prior.state, PriorSearch.source, Prior.error_text).join(
        Prior, col(Prior.search_pk) == col(PriorSearch.id)
    )
    waiting: defaultdict[int, int] = defaultdict(int)
    parked: defaultdict[int, list[str]] = defaultdict(list)
    for statement, table in ((searches, PriorSearch), (found, Prior)):
        rows = statement.where(col(PriorSearch.study_pk).in_(pks), col(table.state) != "done")
        for study_pk, state, source, error in session.exec(rows):
            if state == "waiting":
                waiting[study_pk] += 1
            else:
                parked[study_pk].append(f"{source}: {error or 'given up'}")
    return waiting, parked


__all__ = ["Sent", "Standing", "Task", "standings", "usual_seconds"]

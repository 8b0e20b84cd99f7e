"""What drift is seen in, read from the rows of facts and findings, and the alarms. Only this file writes DriftAlarm."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, func, literal, select, union_all
from sqlmodel import Session, col

from plugins import codes
from store import jobs
from store.charset import storable
from store.database import aware_utc, insert_new
from store.facts import Observed
from store.model_tables import DriftAlarm, FindingDoubt, Promotion, SeriesFact
from store.tables import Finding, Job, Measurement, Revision

MEASURED: Final = ("volume", "long_axis", "suv_max", "laa_950")
"""Measurements that are watched."""
DOUBTS: Final = ("entropy", "disagreement")
"""Uncertainties that are watched."""
CATEGORIES: Final = ("modality", "manufacturer", "manufacturer_model_name", "convolution_kernel")
"""Columns of SeriesFact that are watched as they are."""
AHEAD: Final = timedelta(days=1)
"""What is dated further ahead of now than this was written by a clock that ran ahead."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """That something of a week is not as it was."""

    week: str
    """ISO week: 2026-W47."""
    what: str
    """The quantity."""
    statistic: str
    """PSI or KS."""
    value: float
    """What it was."""
    limit: float
    """What it may be."""
    sentence: str
    """For people; names no patient."""


def watched(session: Session) -> tuple[str, ...]:
    """Return the analyses of which there are facts, by name."""
    rows = session.execute(select(col(SeriesFact.plugin)).distinct().order_by(col(SeriesFact.plugin)))
    return tuple(rows.scalars())


def promoted_at(session: Session, families: Iterable[str], now: datetime) -> datetime | None:
    """Return when one of these families was last given another model by a person; None when never.

    What is dated ahead of now does not count: the studies since the one before it are told apart by their model.
    """
    newest = select(func.max(col(Promotion.at))).where(
        col(Promotion.family).in_(list(families)), col(Promotion.at) <= aware_utc(now) + AHEAD
    )
    found: datetime | None = session.execute(newest).scalar()
    return None if found is None else aware_utc(found)


def observed(
    session: Session, plugin: str, now: datetime, since: datetime | None = None
) -> tuple[Observed, ...]:
    """Return every study that an analysis looked at with the model of its newest results, by time.

    Of each study the newest results count, those kept before `since` or dated ahead of now not at all; results without
    a study of facts (an analysis that declined) are none.
    """
    facts = [fact for fact in _facts(session, plugin, since) if fact.at <= aware_utc(now) + AHEAD]
    if not facts:
        return ()
    model = facts[-1].model_sha256
    of_study = {fact.study_pk: fact for fact in facts if fact.model_sha256 == model}
    numbers = _numbers(session, plugin)
    return tuple(
        Observed(
            at=fact.at,
            categories={name: getattr(fact, name) for name in CATEGORIES},
            spacings_mm={"slice_distance": fact.slice_distance_mm, "pixel_spacing": fact.pixel_spacing_mm},
            histograms={fact.unit: tuple(shares)} if (shares := json.loads(fact.histogram)) else {},
            numbers={"findings": 0.0, **numbers.get(fact.job_pk, {})},
        )
        for fact in sorted(of_study.values(), key=lambda fact: (fact.at, fact.job_pk))
    )


def dated_ahead(session: Session, plugin: str, now: datetime) -> int:
    """Return how many studies an analysis looked at whose results are dated ahead of now."""
    return len({fact.study_pk for fact in _facts(session, plugin, aware_utc(now) + AHEAD)})


def _facts(session: Session, plugin: str, since: datetime | None) -> Sequence[Any]:
    """Return of each job the first series that it looked at, in the order in which results were kept."""
    first = (
        select(func.min(col(SeriesFact.id)))
        .join(Job, col(Job.id) == col(SeriesFact.job_pk))
        .where(col(SeriesFact.plugin) == plugin, col(Job.state).in_((jobs.DELIVERING, jobs.DONE)))
        .group_by(col(SeriesFact.job_pk))
    )
    table = SeriesFact.__table__  # type: ignore[attr-defined]
    statement = (
        select(*table.c, col(Revision.study_pk))
        .join(Job, col(Job.id) == table.c.job_pk)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(table.c.id.in_(first))
        .order_by(table.c.id)
    )
    if since is not None:
        statement = statement.where(table.c.at >= since)
    return session.execute(statement).all()


def _numbers(session: Session, plugin: str) -> dict[int, dict[str, float]]:
    """Return, by job, how much was found and the median of each quantity of its findings."""
    lesions = (
        select(col(Finding.id), col(Finding.job_pk), col(Finding.confidence))
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .where(col(Job.plugin) == plugin, col(Finding.type_value) != codes.REFERENCE_REGION.value)
        .subquery()
    )
    values = union_all(
        select(lesions.c.job_pk, col(Measurement.name).label("name"), col(Measurement.value).label("value"))
        .join(lesions, lesions.c.id == col(Measurement.finding_pk))
        .where(col(Measurement.name).in_(MEASURED)),
        select(lesions.c.job_pk, col(FindingDoubt.name), col(FindingDoubt.value))
        .join(lesions, lesions.c.id == col(FindingDoubt.finding_pk))
        .where(col(FindingDoubt.name).in_(DOUBTS)),
        select(lesions.c.job_pk, literal("confidence"), lesions.c.confidence).where(
            lesions.c.confidence.is_not(None)
        ),
    ).subquery()
    counted = select(lesions.c.job_pk, literal("findings"), func.count()).group_by(lesions.c.job_pk)
    found: dict[int, dict[str, float]] = {}
    for statement in (counted, _medians(values)):
        for job_pk, name, value in session.execute(statement):
            found.setdefault(job_pk, {})[name] = float(value)
    return found


def _medians(values: Any) -> Select[Any]:
    """Return the median of each name of each job: the middle value, or the mean of both in the middle."""
    group = (values.c.job_pk, values.c.name)
    ranked = select(
        *group,
        values.c.value,
        func.row_number().over(partition_by=group, order_by=values.c.value).label("rank"),
        func.count().over(partition_by=group).label("n"),
    ).subquery()
    in_the_middle = (2 * ranked.c.rank).between(ranked.c.n, ranked.c.n + 2)
    return (
        select(ranked.c.job_pk, ranked.c.name, func.avg(ranked.c.value))
        .where(in_the_middle)
        .group_by(ranked.c.job_pk, ranked.c.name)
    )


def record(session: Session, plugin: str, alarms: Iterable[Alarm], now: datetime) -> tuple[Alarm, ...]:
    """Keep alarms of an analysis and return those that are new: each quantity once a week."""
    return tuple(
        alarm
        for alarm in alarms
        if insert_new(session, DriftAlarm, _row(plugin, alarm, aware_utc(now))) is not None
    )


def recorded(session: Session, plugins: Iterable[str], since: datetime) -> tuple[DriftAlarm, ...]:
    """Return of each quantity of these analyses the alarm of the newest week, of those kept since then."""
    statement = (
        select(DriftAlarm)
        .where(col(DriftAlarm.plugin).in_(list(plugins)), col(DriftAlarm.at) >= aware_utc(since))
        .order_by(col(DriftAlarm.week), col(DriftAlarm.id))
    )
    newest = {(alarm.plugin, alarm.what): alarm for alarm in session.execute(statement).scalars()}
    return tuple(newest.values())


def _row(plugin: str, alarm: Alarm, now: datetime) -> Mapping[str, object]:
    return {**asdict(alarm), "plugin": plugin, "sentence": storable(alarm.sentence), "at": now}


__all__ = ["Alarm", "dated_ahead", "observed", "promoted_at", "record", "recorded", "watched"]

"""One study as people look at it: where it stands and why, its series, its analyses, what became of the results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, func, select

from plugins.flag_codes import INTERVAL
from store.model_tables import SeriesFact
from store.sightings import COUNTING
from store.study_head import StudyHead, study_head
from store.tables import Delivery, Finding, Instance, Job, Refusal, Result, Revision, Series

MOVING = frozenset({"receiving", "queued", "running", "delivering"})
"""Stages that end by themselves."""


@dataclass(frozen=True, kw_only=True)
class SaidOfSeries:
    """What was refused, or doubted, and by which analysis."""

    plugin: str
    """Analysis that said it."""
    code: str
    """For programs."""
    sentence: str
    """For people."""
    is_refused: bool
    """True when it was refused, False when it is a doubt about something accepted."""
    series_instance_uid: str | None = None
    """The series that it speaks of, if one."""


@dataclass(frozen=True, kw_only=True)
class SeriesView:
    """A series of the study."""

    series_instance_uid: str
    """Series Instance UID."""
    modality: str
    """Modality."""
    series_number: int | None
    """SeriesNumber."""
    series_description: str
    """SeriesDescription."""
    instances: int
    """Objects that are current."""
    used_by: tuple[str, ...]
    """Analyses that looked at it, of those that count."""
    said: tuple[SaidOfSeries, ...]
    """What was refused of it, or doubted."""


@dataclass(frozen=True, kw_only=True)
class DeliveryView:
    """One result on its way to one destination."""

    destination: str
    """Where to."""
    state: str
    """A state of `store.outbox`."""
    attempt: int
    """How often it was tried."""
    delivered_at: datetime | None
    """When the destination took it."""
    confirmed_at: datetime | None
    """When the destination said that it keeps it."""
    confirmed_by: str | None
    """`commitment` or `query`."""
    error: str
    """What went wrong last; empty when nothing did."""


@dataclass(frozen=True, kw_only=True)
class ResultView:
    """A DICOM object that was written."""

    result_pk: int
    """Row."""
    kind: str
    """`seg`, `sr-volumetric`, `sr-planar`, `capture`, `pdf`, `sr-response`, `pdf-response`."""
    sop_instance_uid: str
    """SOP Instance UID."""
    series_instance_uid: str
    """Series Instance UID."""
    size_bytes: int
    """Length of the file."""
    created_at: datetime
    """When it was written."""
    deliveries: tuple[DeliveryView, ...]
    """Where it goes."""


@dataclass(frozen=True, kw_only=True)
class AnalysisView:
    """One analysis of one revision of the study."""

    job_pk: int
    """Row of the job."""
    plugin: str
    """Analysis."""
    plugin_version: str
    """Its version."""
    model_sha256: str
    """Hash of its model; empty when it has none."""
    revision: int
    """Revision of the study that it looked at."""
    state: str
    """A state of `store.jobs`."""
    attempt: int
    """Attempts so far."""
    max_attempts: int
    """Attempts before it is dead."""
    started_at: datetime | None
    """When the last attempt began."""
    finished_at: datetime | None
    """When it ended."""
    error_code: str | None
    """Why the last attempt failed, for programs."""
    error_text: str | None
    """Why the last attempt failed, for people."""
    is_superseded: bool
    """Whether a newer analysis counts instead."""
    findings: int
    """What it found."""
    said: tuple[SaidOfSeries, ...]
    """What it refused or doubted."""
    results: tuple[ResultView, ...]
    """What it wrote, in the order of sending."""


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """A study with all that was done of it, but for the findings themselves."""

    head: StudyHead
    """Whose, and where it stands."""
    series: tuple[SeriesView, ...]
    """By number."""
    analyses: tuple[AnalysisView, ...]
    """Those that count first, then by analysis and age."""

    @property
    def is_moving(self) -> bool:
        """Return whether something of it will change by itself."""
        return self.head.state in MOVING or any(one.state in MOVING for one in self.analyses)


def study_view(session: Session, study_instance_uid: str) -> StudyView:
    """Return a study with its series and analyses. Refuses `no-such-study`."""
    head = study_head(session, study_instance_uid)
    analyses = _analyses(session, head)
    return StudyView(head=head, series=_series(session, head.study_pk, analyses), analyses=analyses)


def sop_classes(session: Session, study_pk: int) -> dict[str, int]:
    """Return how many current objects of which SOP Class a study holds."""
    statement = (
        select(Instance.sop_class_uid, func.count())
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Series.study_pk) == study_pk, col(Instance.current))
        .group_by(col(Instance.sop_class_uid))
    )
    return dict(session.exec(statement).all())


def _analyses(session: Session, head: StudyHead) -> tuple[AnalysisView, ...]:
    rows = session.exec(
        select(Job, Revision.number)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk) == head.study_pk)
        .order_by(col(Job.id))
    ).all()
    job_pks = [int(job.id or 0) for job, _ in rows]
    counting = _counting(rows, head.revision)
    found = dict(
        session.exec(
            select(Finding.job_pk, func.count())
            .where(col(Finding.job_pk).in_(job_pks))
            .group_by(col(Finding.job_pk))
        ).all()
    )
    said = _said(session, rows)
    results = _results(session, job_pks)
    views = [
        AnalysisView(
            job_pk=(pk := int(job.id or 0)),
            plugin=job.plugin,
            plugin_version=job.plugin_version,
            model_sha256=job.model_sha256,
            revision=number,
            state=job.state,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            started_at=job.started_at,
            finished_at=job.finished_at,
            error_code=job.error_code,
            error_text=job.error_text,
            is_superseded=pk not in counting,
            findings=found.get(pk, 0),
            said=tuple(said[pk]),
            results=tuple(results[pk]),
        )
        for job, number in rows
    ]
    return tuple(sorted(views, key=lambda one: (one.is_superseded, one.plugin, -one.job_pk)))


def _counting(rows: Sequence[tuple[Job, int]], revision: int) -> set[int]:
    """Return the jobs that count: of each analysis the newest with results, and one that is on its way to some.

    What is not run on the newest revision any more counts no longer (`store.jobs.retire`).
    """
    run_now = {job.plugin for job, number in rows if number == revision}
    newest = {job.plugin: job for job, _ in rows if job.state != "superseded"}
    gave = {job.plugin: job for job, _ in rows if job.state in COUNTING}
    kept = [*newest.values(), *gave.values()]
    return {int(job.id or 0) for job in kept if not run_now or job.plugin in run_now}


def _said(session: Session, rows: Sequence[tuple[Job, int]]) -> dict[int, list[SaidOfSeries]]:
    plugins = {int(job.id or 0): job.plugin for job, _ in rows}
    said: defaultdict[int, list[SaidOfSeries]] = defaultdict(list)
    statement = select(Refusal).where(col(Refusal.job_pk).in_(plugins)).order_by(col(Refusal.id))
    for row in session.exec(statement):
        said[row.job_pk].append(
            SaidOfSeries(
                plugin=plugins[row.job_pk],
                code=row.code,
                sentence=row.sentence,
                is_refused=row.refused,
                series_instance_uid=row.series_instance_uid,
            )
        )
    return said


def _results(session: Session, job_pks: Sequence[int]) -> dict[int, list[ResultView]]:
    sent: defaultdict[int, list[DeliveryView]] = defaultdict(list)
    statement = select(Delivery).where(col(Delivery.job_pk).in_(job_pks)).order_by(col(Delivery.id))
    for row in session.exec(statement):
        is_there = row.state in ("delivered", "confirmed")
        error = (row.confirm_error if is_there else row.last_error) or ""
        sent[row.result_pk].append(
            DeliveryView(
                destination=row.destination,
                state=row.state,
                attempt=row.attempt,
                delivered_at=row.delivered_at,
                confirmed_at=row.confirmed_at,
                confirmed_by=row.confirmed_by,
                error=error,
            )
        )
    found: defaultdict[int, list[ResultView]] = defaultdict(list)
    of_jobs = select(Result).where(col(Result.job_pk).in_(job_pks)).order_by(col(Result.id))
    for result in session.exec(of_jobs):
        found[result.job_pk].append(
            ResultView(
                result_pk=int(result.id or 0),
                kind=result.kind,
                sop_instance_uid=result.sop_instance_uid,
                series_instance_uid=result.series_instance_uid,
                size_bytes=result.size_bytes,
                created_at=result.created_at,
                deliveries=tuple(sent[int(result.id or 0)]),
            )
        )
    return found


def _series(session: Session, study_pk: int, analyses: Sequence[AnalysisView]) -> tuple[SeriesView, ...]:
    counting = {one.job_pk: one.plugin for one in analyses if not one.is_superseded}
    looked = select(SeriesFact.series_instance_uid, SeriesFact.job_pk)
    drew = select(Finding.series_instance_uid, Finding.job_pk).distinct()
    used: defaultdict[str, set[str]] = defaultdict(set)
    for statement, table in ((looked, SeriesFact), (drew, Finding)):
        for uid, job_pk in session.exec(statement.where(col(table.job_pk).in_(counting))):
            used[uid].add(counting[job_pk])
    said: defaultdict[str, dict[tuple[str, str], SaidOfSeries]] = defaultdict(dict)
    for analysis in analyses:
        if not analysis.is_superseded:
            for one in analysis.said:
                if one.series_instance_uid and one.code != INTERVAL:
                    said[one.series_instance_uid].setdefault((one.code, one.sentence), one)
    counts = dict(
        session.exec(
            select(Instance.series_pk, func.count())
            .join(Series, col(Series.id) == col(Instance.series_pk))
            .where(col(Series.study_pk) == study_pk, col(Instance.current))
            .group_by(col(Instance.series_pk))
        ).all()
    )
    rows = session.exec(
        select(Series)
        .where(col(Series.study_pk) == study_pk)
        .order_by(col(Series.series_number), col(Series.series_instance_uid))
    )
    return tuple(
        SeriesView(
            series_instance_uid=row.series_instance_uid,
            modality=row.modality,
            series_number=row.series_number,
            series_description=row.series_description,
            instances=counts.get(int(row.id or 0), 0),
            used_by=tuple(sorted(used[row.series_instance_uid])),
            said=tuple(said[row.series_instance_uid].values()),
        )
        for row in rows
    )


__all__ = [
    "AnalysisView", "DeliveryView", "ResultView", "SaidOfSeries", "SeriesView", "StudyView", "sop_classes",
    "study_view",
]  # fmt: skip

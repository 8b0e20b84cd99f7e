"""What the ledger says of the work that a workitem asks for: which analyses wait, run, are done, and what they made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlmodel import Session, col, select

from store import jobs, outbox
from store.instances import SETTLED
from store.tables import Delivery, Instance, Job, Refusal, Result, Revision, RevisionInstance, Series, Study
from store.workitems import ANALYSING, Workitem

THERE = (outbox.DELIVERED, outbox.CONFIRMED)
ON_THE_WAY = (outbox.PENDING, outbox.SENDING)


@dataclass(frozen=True, kw_only=True)
class Output:
    """One DICOM object that was made."""

    kind: str
    """Kind of result."""
    sop_class_uid: str
    """SOP Class UID."""
    sop_instance_uid: str
    """SOP Instance UID."""
    series_instance_uid: str
    """Series Instance UID."""
    places: tuple[str, ...] = ()
    """Destinations that took it with success, as the outbox names them."""
    is_on_the_way: bool = False
    """True while a destination is still to get it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How the analyses that were asked for stand on the newest revision of a study."""

    study_pk: int | None
    """The study; None when nothing of it is here."""
    is_settled: bool
    """True when what is here was judged to be whole, and can be analysed."""
    states: Mapping[str, str]
    """State of the job of each analysis; analyses without a job that counts are missing."""
    job_pks: Mapping[str, int]
    """The jobs, by analysis."""
    failures: Mapping[str, str]
    """Why an analysis has no result and will have none, by analysis: dead, or nothing but a refusal."""
    told: tuple[str, ...]
    """What analyses refused or doubted beside their results."""
    outputs: tuple[Output, ...]
    """Everything that was made, in the order of making."""
    more_series: int
    """How many series were looked at that the workitem did not name; 0 when it named none."""


@dataclass(frozen=True, kw_only=True)
class Unserved:
    """An analysis that a workitem asks for, and that nobody is about to do."""

    workitem_pk: int
    """The workitem."""
    revision_pk: int
    """What the study holds now."""
    plugin: str
    """Name of the analysis."""
    dead_job_pk: int | None = None
    """Its job that failed for good before the workitem came: it is tried once more; None when there is no job."""


def unserved(session: Session) -> tuple[Unserved, ...]:
    """Return what workitems ask for of studies that are settled, and that has no job which counts."""
    found = []
    for row in session.exec(select(Workitem).where(Workitem.state == ANALYSING)):
        uid = row.study_instance_uid
        statement = (
            select(Study, Revision)
            .join(Revision, col(Revision.study_pk) == col(Study.id))
            .where(Study.study_instance_uid == uid, Study.state == SETTLED)
            .where(col(Revision.number) == col(Study.revision))
        )
        if (settled := session.exec(statement).first()) is None:
            continue
        study, revision = settled
        pks = {"workitem_pk": int(row.id or 0), "revision_pk": int(revision.id or 0)}
        known = _jobs(session, study, row.plugins)
        for plugin in sorted(row.plugins):
            job = known.get(plugin)
            if job is None:
                found.append(Unserved(**pks, plugin=plugin))
            elif (
                job.state == jobs.DEAD
                and row.claimed_at
                and (job.finished_at or job.created_at) < row.claimed_at
            ):
                found.append(Unserved(**pks, plugin=plugin, dead_job_pk=int(job.id or 0)))
    return tuple(found)


def standing(
    session: Session, study_instance_uid: str, plugins: Collection[str], series: Collection[str]
) -> Asked:
    """Return how the asked analyses of a study stand; `series` are those that were asked for by name."""
    study = session.exec(select(Study).where(Study.study_instance_uid == study_instance_uid)).first()
    if study is None:
        return Asked(
            study_pk=None,
            is_settled=False,
            states={},
            job_pks={},
            failures={},
            told=(),
            outputs=(),
            more_series=0,
        )
    found = _jobs(session, study, plugins)
    results = _results(session, [int(job.id or 0) for job in found.values()])
    refusals = _refusals(session, [int(job.id or 0) for job in found.values()])
    failures = {}
    for plugin, job in found.items():
        pk = int(job.id or 0)
        if job.state == jobs.DEAD:
            failures[plugin] = job.error_text or job.error_code or "it failed"
        elif job.state == jobs.DONE and not results[pk] and refusals[pk]:
            failures[plugin] = " ".join(refusals[pk])
    told = [s for p, job in found.items() if p not in failures for s in refusals[int(job.id or 0)]]
    return Asked(
        study_pk=study.id,
        is_settled=study.state == SETTLED and study.revision > 0,
        states={plugin: job.state for plugin, job in found.items()},
        job_pks={plugin: int(job.id or 0) for plugin, job in found.items()},
        failures=failures,
        told=tuple(dict.fromkeys(told)),
        outputs=tuple(one for job in found.values() for one in results[int(job.id or 0)]),
        more_series=_more_series(session, study, series),
    )


def _jobs(session: Session, study: Study, plugins: Collection[str]) -> dict[str, Job]:
    """Return the newest job that counts of each analysis on the newest revision of a study."""
    statement = (
        select(Job)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(Revision.study_pk == study.id, Revision.number == study.revision)
        .where(col(Job.plugin).in_(list(plugins)), col(Job.state) != jobs.SUPERSEDED)
        .order_by(col(Job.id))
    )
    return {job.plugin: job for job in session.exec(statement)}


def _results(session: Session, job_pks: Collection[int]) -> defaultdict[int, list[Output]]:
    statement = select(Delivery).where(col(Delivery.job_pk).in_(list(job_pks))).order_by(col(Delivery.id))
    deliveries: defaultdict[int, list[Delivery]] = defaultdict(list)
    for delivery in session.exec(statement):
        deliveries[delivery.result_pk].append(delivery)
    found: defaultdict[int, list[Output]] = defaultdict(list)
    for row in session.exec(
        select(Result).where(col(Result.job_pk).in_(list(job_pks))).order_by(col(Result.id))
    ):
        of_it = deliveries[int(row.id or 0)]
        found[row.job_pk].append(
            Output(
                kind=row.kind,
                sop_class_uid=row.sop_class_uid,
                sop_instance_uid=row.sop_instance_uid,
                series_instance_uid=row.series_instance_uid,
                places=tuple(one.destination for one in of_it if one.state in THERE),
                is_on_the_way=any(one.state in ON_THE_WAY for one in of_it),
            )
        )
    return found


def _refusals(session: Session, job_pks: Collection[int]) -> defaultdict[int, list[str]]:
    statement = select(Refusal).where(col(Refusal.job_pk).in_(list(job_pks)), Refusal.refused)
    found: defaultdict[int, list[str]] = defaultdict(list)
    for row in session.exec(statement.order_by(col(Refusal.id))):
        if row.sentence not in found[row.job_pk]:
            found[row.job_pk].append(row.sentence)
    return found


def _more_series(session: Session, study: Study, named: Collection[str]) -> int:
    if not named:
        return 0
    statement = (
        select(Series.series_instance_uid)
        .distinct()
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .join(RevisionInstance, col(RevisionInstance.instance_pk) == col(Instance.id))
        .join(Revision, col(Revision.id) == col(RevisionInstance.revision_pk))
        .where(Revision.study_pk == study.id, Revision.number == study.revision)
    )
    return len(set(session.exec(statement)) - set(named))


__all__ = ["Asked", "Output", "Unserved", "standing", "unserved"]

"""Studies to be tracked again: something of an earlier date came after they were analysed.

Identity goes with the dates. When an earlier study is analysed late, or comes late with results of another node, each
later one that did not know it is analysed once more; `store.turn` keeps the order of the dates among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, func, or_, select

from plugins.errors import Refused
from store.order import Order, order_of
from store.patients import merged, same_person
from store.rerun import rerun
from store.sightings import COUNTING
from store.strangers import apart, of_others
from store.tables import Finding, Instance, Job, Result, Revision, Series, Study
from store.turn import REPORT

SEG = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One analysis of one study that gave a result."""

    job_pk: int
    """Row of the job."""
    patient_pk: int
    """Row of the patient."""
    order: Order
    """When the study was made."""
    began_at: datetime
    """When it read the patient's past."""
    told_at: datetime
    """When its results were kept."""
    names: frozenset[str]
    """Tracking UIDs of what it found, before any relink."""


@dataclass(frozen=True, kw_only=True)
class Passed:
    """What came of a patient, and when."""

    runs: Mapping[tuple[int, str], Sequence[Run]]
    """Analyses by row of the study and name, the newest last."""
    elsewhere: Sequence[tuple[Order, datetime]] = ()
    """When each study was made that only other nodes analysed, and when the last object of it came here."""
    merged_at: datetime | None = None
    """When the patient's rows were last declared to be one person."""

    def run_of(self, job_pk: int) -> Run | None:
        """Return an analysis; None when it gave no result, or its study has no date."""
        return next((run for runs in self.runs.values() for run in runs if run.job_pk == job_pk), None)

    def news(self, plugin: str, since: Run) -> datetime | None:
        """Return when something of an earlier date last came that a run could not know; None when nothing did.

        That is another set of findings of the same analysis, or a study with results of other nodes alone.
        """
        came = [at for on, at in self.elsewhere if on < since.order and at > since.began_at]
        for (_, name), runs in self.runs.items():
            newest = runs[-1]
            if (
                name == plugin
                and newest.order < since.order
                and self._known_at(newest, since) > since.began_at
            ):
                known = [run.names for run in runs if self._known_at(run, since) <= since.began_at]
                if newest.names != (known[-1] if known else frozenset()):
                    came.append(self._known_at(newest, since))
        return max(came, default=None)

    def _known_at(self, run: Run, other: Run) -> datetime:
        """Return since when a run is known to another one: of another row of the patient not before both were one."""
        if run.patient_pk == other.patient_pk or self.merged_at is None:
            return run.told_at
        return max(run.told_at, self.merged_at)


def retrack(session: Session, patient_pk: int, now: datetime, max_attempts: int = 5) -> list[Job]:
    """Ask once more for each analysis that began before something of an earlier date came; return the jobs.

    And for each that names lesions of a patient, or compared with studies of his, who was parted from this one. Once
    for each such thing, whatever becomes of the job. To be called in the transaction that ends an analysis, when an
    earlier study was fetched, and when two patients turned out to be one, or to be two.
    """
    members = same_person(session, patient_pk)
    known, left = passed(session, members), apart(session, members)
    asked: list[Job] = []
    for (study_pk, plugin), runs in sorted(known.runs.items(), key=lambda one: one[1][-1].order):
        came_at = known.news(plugin, runs[-1])
        if runs[-1].job_pk in left.jobs and left.since is not None:
            came_at = max(came_at or left.since, left.since)
        if came_at is None or _is_asked(session, study_pk, plugin, came_at):
            continue
        asked += again(session, runs[-1].job_pk, now, max_attempts)
    return asked


def again(session: Session, job_pk: int, now: datetime, max_attempts: int) -> list[Job]:
    """Ask once more for what a job did; returns the new one, none where that cannot be or was asked for already."""
    try:
        return [rerun(session, job_pk, now, max_attempts)]
    except Refused:  # of newer content, or asked for already: who does that looks at the past anew
        return []


def passed(session: Session, members: Sequence[int]) -> Passed:
    """Return what came of a patient, who is these rows."""
    statement = (
        select(Job, Study, func.min(Result.created_at))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Study, col(Study.id) == col(Revision.study_pk))
        .join(Result, col(Result.job_pk) == col(Job.id))
        .where(col(Study.patient_pk).in_(members), col(Study.study_date).is_not(None))
        .where(col(Job.state).in_(COUNTING), col(Job.plugin) != REPORT, ~of_others(members))
        .group_by(col(Job.id), col(Study.id), col(Revision.number))
        .order_by(col(Revision.number), col(Job.id))
    )
    rows = session.exec(statement).all()
    names: defaultdict[int, set[str]] = defaultdict(set)
    found = select(Finding.job_pk, Finding.tracking_uid, Finding.before_uid)
    for pk, uid, before in session.exec(found.where(col(Finding.job_pk).in_([job.id for job, *_ in rows]))):
        names[pk].add(before or uid)
    runs: defaultdict[tuple[int, str], list[Run]] = defaultdict(list)
    for job, study, told_at in rows:
        pk = int(job.id or 0)
        runs[int(study.id or 0), job.plugin].append(
            Run(
                job_pk=pk,
                patient_pk=study.patient_pk,
                order=order_of(study),
                began_at=job.started_at or job.created_at,
                told_at=told_at,
                names=frozenset(names[pk]),
            )
        )
    return Passed(
        runs=runs,
        elsewhere=_elsewhere(session, members, {pk for pk, _ in runs}),
        merged_at=max((one.at for one in merged(session, members)), default=None),
    )


def _elsewhere(session: Session, members: Sequence[int], here: set[int]) -> list[tuple[Order, datetime]]:
    with_results = (
        select(Series.study_pk)
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .where(col(Instance.own), col(Instance.current), col(Instance.sop_class_uid) == SEG)
    )
    statement = (
        select(Study, func.max(Instance.received_at))
        .join(Series, col(Series.study_pk) == col(Study.id))
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .where(col(Study.patient_pk).in_(members), col(Study.id).in_(with_results))
        .where(col(Study.study_date).is_not(None), col(Study.id).not_in(here))
        .group_by(col(Study.id))
    )
    return [(order_of(study), at) for study, at in session.exec(statement)]


def _is_asked(session: Session, study_pk: int, plugin: str, since: datetime) -> bool:
    """Return whether an analysis of a study was asked for, or began, at a time or later."""
    statement = (
        select(Job.id)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk) == study_pk, col(Job.plugin) == plugin)
        .where(or_(col(Job.created_at) >= since, col(Job.started_at) >= since))
    )
    return session.exec(statement.limit(1)).first() is not None


__all__ = ["Passed", "Run", "again", "passed", "retrack"]

"""The invariants as questions to the rows, in one snapshot; nothing is changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select, text
from sqlalchemy.orm import aliased
from sqlmodel import Session, SQLModel, col

import store.model_tables  # noqa: F401  # the import fills the metadata
from store import jobs, outbox
from store.fsck.fault import REPAIR, RESTORE, Fault, database_damaged
from store.instances import RECEIVING, SETTLED
from store.keys import job_key
from store.studies import manifest_hash
from store.tables import (
    Delivery,
    Finding,
    Instance,
    Job,
    Result,
    Revision,
    RevisionInstance,
    Series,
    Study,
)

STUCK = timedelta(hours=1)
"""A lease that was over for this long, and nobody took it: no worker is there to do so, or none can."""
ARRIVED, OPEN = ("delivered", "confirmed"), ("pending", "sending", "parked")


def check_rows(session: Session, now: datetime, *, quick: bool = False) -> list[Fault]:
    """Return every fault of the rows. `quick` leaves out the full integrity check of the database file."""
    return [
        *_database(session, quick=quick),
        *_job_keys(session),
        *_answers(session),
        *_deliveries(session),
        *_undelivered(session),
        *_currents(session),
        *_studies(session),
        *_manifests(session),
        *_findings(session),
        *_ledger(session, now),
    ]


def _database(session: Session, *, quick: bool) -> Iterator[Fault]:
    if session.get_bind().dialect.name == "sqlite":
        pragma = "PRAGMA quick_check(20)" if quick else "PRAGMA integrity_check(20)"
        for (said,) in session.execute(text(pragma)).all():
            if said != "ok":
                yield database_damaged(f"SQLite says: {said}.")
        for table, row, parent, _ in session.execute(text("PRAGMA foreign_key_check")).all():
            yield _dangling(f"{table} {row}", parent)
        return
    for table in SQLModel.metadata.sorted_tables:
        for constraint in table.foreign_keys:
            child, parent = constraint.parent, constraint.column
            lost = select(child).where(child.is_not(None), ~exists().where(parent == child).correlate(table))
            for (value,) in session.execute(lost.limit(20)):
                yield _dangling(f"{table.name}.{child.name} {value}", parent.table.name)


def _dangling(subject: str, parent: str) -> Fault:
    sentence = f"The row points to a row of '{parent}' that is not there."
    return Fault(invariant="database", code="reference", subject=subject, sentence=sentence, todo=RESTORE)


def _job_keys(session: Session) -> Iterator[Fault]:
    """I2: the key is the hash of what a job is; two jobs of one key would be two results."""
    rows = session.execute(
        select(
            col(Job.id),
            col(Job.key),
            col(Revision.manifest_sha256),
            col(Job.plugin),
            col(Job.plugin_version),
            col(Job.model_sha256),
            col(Job.config_sha256),
            col(Job.run),
        )
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .order_by(col(Job.id))
    )
    known: dict[str, int] = {}
    for pk, key, *parts in rows:
        right = job_key(*parts)
        if key != right:
            yield Fault(
                invariant="I2",
                code="job-key",
                subject=f"job {pk}",
                sentence="The key of the job is not the hash of its manifest, plugin, model and settings.",
                todo=RESTORE,
            )
        if right in known:
            yield Fault(
                invariant="I2",
                code="result-twice",
                subject=f"job {pk}",
                sentence=f"The job does the same work as job {known[right]}.",
                todo="keep the results of one of them, and take the other's back from the PACS",
            )
        known.setdefault(right, pk)


def _answers(session: Session) -> Iterator[Fault]:
    """I2 as people see it: of one analysis of one study, the findings of one job count."""
    rows = session.execute(
        select(col(Finding.study_pk), col(Job.plugin))
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .where(~col(Finding.superseded), col(Job.state).in_((jobs.DELIVERING, jobs.DONE)))
        .group_by(col(Finding.study_pk), col(Job.plugin))
        .having(func.count(func.distinct(col(Finding.job_pk))) > 1)
    )
    for study_pk, plugin in rows:
        yield Fault(
            invariant="I2",
            code="two-answers",
            subject=f"study {study_pk}",
            sentence=f"The findings of two jobs of '{plugin}' count at once.",
            todo=RESTORE,
        )


def _deliveries(session: Session) -> Iterator[Fault]:
    """I3."""
    doubled = (
        select(col(Delivery.result_pk), col(Delivery.destination), func.min(col(Delivery.id)))
        .group_by(col(Delivery.result_pk), col(Delivery.destination))
        .having(func.count() > 1)
    )
    for result_pk, _, first in session.execute(doubled):
        yield _delivery(
            first, "delivery-twice", f"Result {result_pk} has two deliveries to one destination.", RESTORE
        )
    silent = (
        select(col(Delivery.id))
        .where(col(Delivery.state).in_(ARRIVED))
        .where(or_(col(Delivery.last_status).is_(None), col(Delivery.delivered_at).is_(None)))
    )
    for pk in session.scalars(silent):
        sentence = "The delivery is said to be done and has no status or no time."
        yield _delivery(
            pk, "delivered-without-status", sentence, "ask the destination whether it has the result"
        )
    foreign = (
        select(col(Delivery.id))
        .join(Result, col(Result.id) == col(Delivery.result_pk))
        .where(col(Result.job_pk) != col(Delivery.job_pk))
    )
    for pk in session.scalars(foreign):
        yield _delivery(
            pk, "delivery-of-another-job", "The delivery and its result are of two jobs.", RESTORE
        )
    early = (
        select(col(Delivery.id))
        .join(Job, col(Job.id) == col(Delivery.job_pk))
        .where(col(Job.state).in_((jobs.QUEUED, jobs.RUNNING, jobs.DEAD, jobs.PARKED)))
    )
    for pk in session.scalars(early):
        yield _delivery(pk, "delivered-early", "The job of the delivery has not ended well.", RESTORE)


def _unsent() -> ColumnElement[bool]:
    """Return the condition that a job has results, of which no delivery is there: they are made with one another."""
    return and_(
        exists().where(col(Result.job_pk) == col(Job.id)),
        ~exists().where(col(Delivery.job_pk) == col(Job.id)),
    )


def _undelivered(session: Session) -> Iterator[Fault]:
    """I3: nobody knows where the results of a job are to go, and whether they went."""
    for pk in session.scalars(select(col(Job.id)).where(col(Job.state) == jobs.DELIVERING, _unsent())):
        yield Fault(
            invariant="I3",
            code="deliveries-gone",
            subject=f"job {pk}",
            sentence="The job delivers its results, and no delivery of them is there.",
            todo=f"{RESTORE}, or make and send them again: nadir jobs rerun {pk}",
        )


def _delivery(pk: int | None, code: str, sentence: str, todo: str) -> Fault:
    return Fault(invariant="I3", code=code, subject=f"delivery {pk}", sentence=sentence, todo=todo)


def _currents(session: Session) -> Iterator[Fault]:
    """I5: one current instance per SOP Instance UID, all of them in one study."""
    currents = func.sum(case((col(Instance.current), 1), else_=0))
    studies = func.count(func.distinct(col(Series.study_pk)))
    rows = session.execute(
        select(func.max(col(Instance.id)), currents, studies)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .group_by(col(Instance.sop_instance_uid))
        .having(or_(currents != 1, studies != 1))
    )
    for pk, count, in_studies in rows:
        if in_studies != 1:
            yield Fault(
                invariant="I6",
                code="uid-in-two-studies",
                subject=f"instance {pk}",
                sentence="Instances of one SOP Instance UID are in two studies.",
                todo="find out which study it belongs to, and send that study again",
            )
        if count != 1:
            yield Fault(
                invariant="I5",
                code="not-one-current",
                subject=f"instance {pk}",
                sentence=f"Of the instances of its SOP Instance UID {count} are current.",
                todo=REPAIR,
            )


def _studies(session: Session) -> Iterator[Fault]:
    """I5: what a settled study holds is in its latest revision, or nobody will ever analyse it."""
    latest = aliased(Revision)
    in_latest = exists().where(
        col(latest.study_pk) == col(Study.id),
        col(latest.number) == col(Study.revision),
        col(RevisionInstance.revision_pk) == col(latest.id),
        col(RevisionInstance.instance_pk) == col(Instance.id),
    )
    rows = session.execute(
        select(col(Study.id), func.count())
        .join(Series, col(Series.study_pk) == col(Study.id))
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .where(col(Study.state) == SETTLED, ~col(Study.prior), ~col(Instance.own))
        .where(col(Instance.current) != in_latest)
        .group_by(col(Study.id))
    )
    for pk, count in rows:
        yield Fault(
            invariant="I5",
            code="content-not-analysed",
            subject=f"study {pk}",
            sentence=f"The study is settled and its latest revision differs from it by {count} instances.",
            todo=REPAIR,
        )
    odd = select(col(Study.id)).where(col(Study.state).not_in((RECEIVING, SETTLED)))
    for pk in session.scalars(odd):
        yield Fault(
            invariant="ledger",
            code="study-state",
            subject=f"study {pk}",
            sentence="The study is in a state that there is not.",
            todo=REPAIR,
        )


def _manifests(session: Session) -> Iterator[Fault]:
    """I6: a manifest hashes to what its revision says, and all of it is of the revision's study."""
    rows = session.execute(
        select(
            col(Revision.id),
            col(Revision.number),
            col(Revision.manifest_sha256),
            col(Instance.sop_instance_uid),
            col(Instance.sha256),
            and_(col(Series.study_pk) == col(Revision.study_pk), ~col(Instance.own)),
        )
        .join(RevisionInstance, col(RevisionInstance.revision_pk) == col(Revision.id), isouter=True)
        .join(Instance, col(Instance.id) == col(RevisionInstance.instance_pk), isouter=True)
        .join(Series, col(Series.id) == col(Instance.series_pk), isouter=True)
        .order_by(col(Revision.id))
    )
    for (pk, number, said), group in itertools.groupby(rows, key=lambda row: (row[0], row[1], row[2])):
        found = list(group)
        lines = [(row[3], row[4]) for row in found if row[3] is not None]
        # A study that went back to earlier content: see `store.studies`.
        if said not in (manifest_hash(lines), manifest_hash([*lines, ("revision", str(number))])):
            yield _manifest(
                pk, "manifest-changed", "The manifest is not the one that the revision was made with."
            )
        if not all(row[5] for row in found if row[3] is not None):
            sentence = "The manifest holds an instance of another study, or a result of Nadir."
            yield _manifest(pk, "manifest-of-two-studies", sentence)


def _manifest(pk: int, code: str, sentence: str) -> Fault:
    todo = "take its results back from the PACS, and send the study again"
    return Fault(invariant="I6", code=code, subject=f"revision {pk}", sentence=sentence, todo=todo)


def _findings(session: Session) -> Iterator[Fault]:
    foreign = (
        select(col(Finding.id))
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk) != col(Finding.study_pk))
    )
    for pk in session.scalars(foreign):
        yield Fault(
            invariant="I6",
            code="finding-of-another-study",
            subject=f"finding {pk}",
            sentence="The finding is said to be of another study than its job worked on.",
            todo=RESTORE,
        )


def _ledger(session: Session, now: datetime) -> Iterator[Fault]:
    """Return what waits for something that will not come."""
    over = now - STUCK
    stuck_jobs = select(col(Job.id)).where(
        col(Job.state) == jobs.RUNNING, or_(col(Job.lease_until).is_(None), col(Job.lease_until) < over)
    )
    for pk in session.scalars(stuck_jobs):
        yield _stuck(f"job {pk}", "job-stuck", "The job is said to run, and nobody has held it for an hour.")
    open_delivery = exists().where(col(Delivery.job_pk) == col(Job.id), col(Delivery.state).in_(OPEN))
    finished = select(col(Job.id)).where(col(Job.state) == jobs.DELIVERING, ~open_delivery, ~_unsent())
    for pk in session.scalars(finished):
        yield _stuck(f"job {pk}", "job-not-ended", "The job waits for deliveries, and none of them is open.")
    stuck = select(col(Delivery.id)).where(
        col(Delivery.state) == outbox.SENDING,
        or_(col(Delivery.lease_until).is_(None), col(Delivery.lease_until) < over),
    )
    for pk in session.scalars(stuck):
        sentence = "The delivery is said to be under way, and nobody has held it for an hour."
        yield _stuck(f"delivery {pk}", "delivery-stuck", sentence)
    for table, states in ((Job, jobs.STATES), (Delivery, outbox.STATES)):
        odd = select(col(table.id)).where(col(table.state).not_in(states))
        for pk in session.scalars(odd):
            yield Fault(
                invariant="ledger",
                code="unknown-state",
                subject=f"{table.__tablename__} {pk}",
                sentence="The row is in a state that there is not.",
                todo=RESTORE,
            )


def _stuck(subject: str, code: str, sentence: str) -> Fault:
    return Fault(invariant="ledger", code=code, subject=subject, sentence=sentence, todo=REPAIR)


__all__ = ["check_rows"]

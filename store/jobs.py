"""The job ledger: one plugin on one study revision, leased to a worker, fenced by its attempt.

The same SQL serves SQLite and PostgreSQL. Besides this file only `store.parking` and `store.succession` write the `job`
table.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, and_, or_
from sqlmodel import Session, col, exists, func, select, update

from plugins.errors import Refused
from store.charset import storable
from store.database import aware_utc, insert_new
from store.due import has_come
from store.keys import job_key
from store.succession import change, supersede_results, supersede_rows
from store.tables import Delivery, Job, Result, Revision, Study
from store.turn import held_back

QUEUED, RUNNING, DELIVERING = "queued", "running", "delivering"
DONE, DEAD, SUPERSEDED, PARKED = "done", "dead", "superseded", "parked"
STATES = (QUEUED, RUNNING, DELIVERING, DONE, DEAD, SUPERSEDED, PARKED)
TRANSITIONS: frozenset[tuple[str, str]] = frozenset(
    {
        (QUEUED, RUNNING),  # claimed
        (QUEUED, SUPERSEDED),  # a newer revision came before it began
        (RUNNING, RUNNING),  # its lease ran out and another worker took it
        (RUNNING, QUEUED),  # failed and will be tried again, or given back
        (RUNNING, DELIVERING),
        (RUNNING, DONE),
        (RUNNING, DEAD),
        (RUNNING, SUPERSEDED),  # a newer revision came meanwhile
        (DELIVERING, DONE),
        (DONE, DELIVERING),  # a destination no longer holds what it took: it is sent again
        (DELIVERING, SUPERSEDED),  # results of a newer revision came before any of these went out
        (DEAD, QUEUED),  # a person retries it
        (DEAD, SUPERSEDED),
        (SUPERSEDED, QUEUED),  # what had taken its place is no longer what is wanted: a model was rolled back
        (QUEUED, PARKED),  # a person wants it not to run now
        (RUNNING, PARKED),
        (DEAD, PARKED),  # a person retries it while its study is parked
        (SUPERSEDED, PARKED),
        (PARKED, QUEUED),
        (PARKED, SUPERSEDED),  # a newer revision came
    }
)
BACKOFF_SECONDS = 30.0
BACKOFF_CAP_SECONDS = 900.0
TEXT_LIMIT = 4000
WORKER_LOST = "The worker stopped without a word at its last attempt; the study may crash a decoder."


class Fenced(Refused):
    """The lease went to someone else: what this worker did is to be thrown away."""

    def __init__(self) -> None:
        super().__init__("fenced", "Another worker has the job now; what was done here is thrown away.")


def enqueue(
    session: Session,
    revision: Revision,
    *,
    plugin: str,
    plugin_version: str,
    model_sha256: str,
    config_sha256: str,
    now: datetime,
    max_attempts: int = 5,
    run: int = 0,
) -> Job | None:
    """Return the new job, or None when the same work is already in the ledger; it is parked when its study is."""
    now = aware_utc(now)
    values: dict[str, Any] = {
        "revision_pk": _pk(revision),
        "key": job_key(revision.manifest_sha256, plugin, plugin_version, model_sha256, config_sha256, run),
        "run": run,
        "plugin": plugin,
        "plugin_version": plugin_version,
        "model_sha256": model_sha256,
        "config_sha256": config_sha256,
        **_entering(session, _pk(revision)),
        "max_attempts": max_attempts,
        "run_after": now,
        "created_at": now,
    }
    job_id = insert_new(session, Job, values)
    return None if job_id is None else get(session, job_id)


def claim(
    session: Session, owner: str, now: datetime, lease_seconds: float, priors_wait_seconds: float = 0.0
) -> Job | None:
    """Return a job that is now leased to `owner`, or None when nothing is due.

    Due are queued jobs whose time has come and that need not wait for the patient's past (`store.turn`), and running
    ones whose lease ran out. The attempt counts here, so a study that kills its worker is dead after `max_attempts`.
    """
    now = aware_utc(now)
    lease = timedelta(seconds=lease_seconds)
    has_ended = and_(col(Job.state) == RUNNING, has_come(Job.lease_until, now, lease))
    _bury(session, now, has_ended)
    waits = and_(col(Job.state) == QUEUED, has_come(Job.run_after, now), ~held_back(now, priors_wait_seconds))
    due = or_(waits, has_ended)
    values = {
        "state": RUNNING,
        "attempt": col(Job.attempt) + 1,
        "owner": owner,
        "lease_until": now + lease,
        "started_at": now,
        "finished_at": None,
    }
    statement = update(Job).where(col(Job.id) == _first(due)).values(values).returning(col(Job.id))
    row = session.exec(statement, execution_options={"synchronize_session": False}).first()
    if row is None:
        return None
    job = get(session, row[0])
    # The worker holds what it was given, also when someone else claims the job through this session.
    session.expunge(job)
    return job


def heartbeat(session: Session, job_id: int, attempt: int, now: datetime, lease_seconds: float) -> bool:
    """Lengthen the lease; return False when the job is no longer this attempt's."""
    until = aware_utc(now) + timedelta(seconds=lease_seconds)
    return change(session, _held(job_id, attempt), {"lease_until": until}) == 1


def require_held(session: Session, job_id: int, attempt: int) -> None:
    """Lock a running job until the transaction ends. Raises Fenced when the lease went to someone else."""
    statement = select(Job.id).where(_held(job_id, attempt)).with_for_update(key_share=True)
    if session.exec(statement).first() is None:
        raise Fenced


def finish(session: Session, job_id: int, attempt: int, state: str, now: datetime) -> str:
    """End a running job and return the state it is in then.

    To be called in the transaction that saves its findings and adds its deliveries. `state` is `delivering` or
    `done`. A job without open deliveries is done at once; a job of a superseded revision is `superseded`.
    Findings of earlier jobs of the same plugin on this study are superseded. Raises Fenced when the lease went to
    someone else: let it leave the transaction, which then keeps nothing. Refuses `illegal-transition`.
    """
    now = aware_utc(now)
    if state not in (DELIVERING, DONE):
        raise Refused("illegal-transition", f"A running job does not finish as '{state}'.")
    if is_superseded(session, job_id):
        state = SUPERSEDED
    elif state == DELIVERING and not _has_open_deliveries(session, job_id):
        state = DONE
    _leave(session, job_id, attempt, state, {"finished_at": now, "error_code": None, "error_text": None})
    supersede_results(session, job_id)
    return state


def fail(
    session: Session,
    job_id: int,
    attempt: int,
    code: str,
    text: str,
    now: datetime,
    permanent: bool = False,
    is_counted: bool = True,
) -> str:
    """Record why an attempt failed and return the new state: `queued` again after a pause, `dead` or `superseded`.

    In place of queued it is `parked` when its study is. Dead when `permanent` or when the attempts are used up; when
    the machine failed, the attempt is not counted. Raises Fenced when the lease went to someone else.
    """
    now = aware_utc(now)
    values: dict[str, Any] = {"error_code": storable(code), "error_text": storable(text)[:TEXT_LIMIT]}
    job = get(session, job_id)
    if is_superseded(session, job_id):
        state = SUPERSEDED
    elif permanent or (is_counted and attempt >= job.max_attempts):
        state = DEAD
    else:
        values |= _entering(session, job.revision_pk)
        state = values["state"]
        pause = min(BACKOFF_CAP_SECONDS, BACKOFF_SECONDS * 2 ** min(attempt - 1, 10))
        values["run_after"] = now + timedelta(seconds=pause)
        values["max_attempts"] = job.max_attempts + (not is_counted)
    if state in (DEAD, SUPERSEDED):
        values["finished_at"] = now
    _leave(session, job_id, attempt, state, values)
    return state


def release(session: Session, job_id: int, attempt: int, now: datetime) -> None:
    """Give a job back unharmed, for a worker that is told to stop; the attempt is not held against it."""
    values: dict[str, Any] = {"run_after": aware_utc(now), "max_attempts": col(Job.max_attempts) + 1}
    if is_superseded(session, job_id):
        _leave(session, job_id, attempt, SUPERSEDED, values)
    else:
        values |= _entering(session, get(session, job_id).revision_pk)
        _leave(session, job_id, attempt, values["state"], values)


def retry(session: Session, job_id: int, now: datetime, more_attempts: int = 5) -> Job:
    """Put a dead job back into the queue and return it. Refuses `no-such-job` and `illegal-transition`."""
    job = get(session, job_id)
    # The attempt number goes on counting: it is the fence against a worker of long ago.
    values = {
        **_entering(session, job.revision_pk),
        "run_after": aware_utc(now),
        "max_attempts": col(Job.attempt) + more_attempts,
        "finished_at": None,
    }
    if change(session, and_(col(Job.id) == job_id, col(Job.state) == DEAD), values) != 1:
        sentence = (
            f"Job {job_id} is {job.state}; only a dead job, or one with parked deliveries, can be retried."
        )
        raise Refused("illegal-transition", sentence)
    return get(session, job_id)


def supersede(session: Session, study_pk: int, before_revision: int, now: datetime) -> int:
    """Take jobs of earlier revisions that have not begun, or are dead, off the list; return how many.

    A running one goes on: its lease holder finds out when it finishes, its results are stored and not sent.
    """
    older = select(Revision.id).where(
        col(Revision.study_pk) == study_pk, col(Revision.number) < before_revision
    )
    condition = and_(col(Job.revision_pk).in_(older), col(Job.state).in_((QUEUED, DEAD, PARKED)))
    return change(session, condition, {"state": SUPERSEDED, "finished_at": aware_utc(now)})


def take_off(session: Session, plugin: str, study_pks: Sequence[int], but_job_id: int, now: datetime) -> int:
    """Take jobs of an analysis on these studies that have not begun off the list, but for one; return how many."""
    revisions = select(Revision.id).where(col(Revision.study_pk).in_(study_pks))
    condition = and_(
        col(Job.revision_pk).in_(revisions),
        col(Job.plugin) == plugin,
        col(Job.state) == QUEUED,
        col(Job.id) != but_job_id,
    )
    return change(session, condition, {"state": SUPERSEDED, "finished_at": aware_utc(now)})


def overtake(
    session: Session, job_id: int, attempt: int, now: datetime, code: str = "", text: str = ""
) -> None:
    """End a running job whose work another one does, from newer input or in another way. Raises Fenced."""
    why = {"error_code": code or None, "error_text": text or None}
    _leave(session, job_id, attempt, SUPERSEDED, {"finished_at": aware_utc(now), **why})


def take_up(session: Session, key: str, now: datetime) -> bool:
    """Put a job back into the queue whose place another one took before it had a result; return whether it was."""
    has_result = exists().where(col(Result.job_pk) == col(Job.id))
    condition = and_(col(Job.key) == key, col(Job.state) == SUPERSEDED, ~has_result)
    revision_pk = session.exec(select(Job.revision_pk).where(condition)).first()
    if revision_pk is None:
        return False
    attempts = {"max_attempts": col(Job.max_attempts) + 1, "finished_at": None}
    values = {**_entering(session, revision_pk), "run_after": aware_utc(now), **attempts}
    return change(session, condition, values) == 1


def retire(session: Session, revision: Revision, plugins: Sequence[str]) -> int:
    """Supersede what plugins that are not run on this revision found in earlier ones; return how many findings.

    For an analysis that was switched off, or that no longer applies to what the study holds now.
    """
    older = (
        select(Job.id)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk) == revision.study_pk, col(Revision.number) < revision.number)
        .where(col(Job.plugin).not_in(plugins))
    )
    return supersede_rows(session, col(Job.id).in_(older))


def is_superseded(session: Session, job_id: int) -> bool:
    """Return True when the study has a newer revision than the job's.

    The study's row stays locked until the transaction ends, so that no revision can come in between.
    """
    statement = (
        select(Study.revision, Revision.number)
        .join(Revision, col(Revision.study_pk) == col(Study.id))
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .where(col(Job.id) == job_id)
        .with_for_update(of=Study, key_share=True)
    )
    row = session.exec(statement).first()
    if row is None:
        raise Refused("no-such-job", f"There is no job {job_id}.")
    return bool(row[1] < row[0])


def list_jobs(session: Session, state: str | None = None) -> list[Job]:
    """Return the jobs, oldest first. Refuses `no-such-state`."""
    return list(session.exec(select(Job).where(*_in_state(state)).order_by(col(Job.id))))


def page(session: Session, *, state: str | None, after: int, limit: int) -> tuple[list[Job], int]:
    """Return the jobs after a number, oldest first, and how many there are in all. Refuses `no-such-state`."""
    wanted = _in_state(state)
    rows = select(Job).where(*wanted, col(Job.id) > after).order_by(col(Job.id)).limit(limit)
    total = session.exec(select(func.count()).select_from(Job).where(*wanted)).one()
    return list(session.exec(rows)), total


def _in_state(state: str | None) -> tuple[ColumnElement[bool], ...]:
    if state is not None and state not in STATES:
        raise Refused("no-such-state", f"'{state}' is not a job state; use one of {', '.join(STATES)}.")
    return () if state is None else (col(Job.state) == state,)


def get(session: Session, job_id: int) -> Job:
    """Return one job as it is in the database now. Refuses `no-such-job`."""
    job = session.get(Job, job_id, populate_existing=True)
    if job is None:
        raise Refused("no-such-job", f"There is no job {job_id}.")
    return job


def close_delivered(session: Session, job_id: int, now: datetime) -> bool:
    """End a delivering job when none of its deliveries is open; return True when it ended. For `store.outbox`."""
    if _has_open_deliveries(session, job_id):
        return False
    condition = and_(col(Job.id) == job_id, col(Job.state) == DELIVERING)
    return change(session, condition, {"state": DONE, "finished_at": aware_utc(now)}) == 1


def reopen(session: Session, job_id: int) -> None:
    """Let a done job deliver again, because a destination lost what it had taken. For `store.confirmation`."""
    condition = and_(col(Job.id) == job_id, col(Job.state) == DONE)
    change(session, condition, {"state": DELIVERING, "finished_at": None})


def _entering(session: Session, revision_pk: int) -> dict[str, Any]:
    """Return the state of a job that comes to the ledger, or comes back; the study's row stays locked."""
    statement = select(Study.parked_at, Study.parked_by).join(
        Revision, col(Revision.study_pk) == col(Study.id)
    )
    statement = statement.where(col(Revision.id) == revision_pk).with_for_update(of=Study, key_share=True)
    parked_at, parked_by = session.exec(statement).one()
    return {"state": QUEUED, "owner": None} if parked_at is None else {"state": PARKED, "owner": parked_by}


def _bury(session: Session, now: datetime, expired: ColumnElement[bool]) -> None:
    """End expired jobs that are not to run again: no attempts left, or a newer revision is there."""
    newer = exists().where(
        col(Revision.id) == col(Job.revision_pk),
        col(Study.id) == col(Revision.study_pk),
        col(Study.revision) > col(Revision.number),
    )
    change(session, col(Job.id).in_(_locked(and_(expired, newer))), {"state": SUPERSEDED, "finished_at": now})
    lost = {
        "state": DEAD,
        "finished_at": now,
        "error_code": "worker-lost",
        "error_text": func.coalesce(f"{WORKER_LOST} Earlier: " + col(Job.error_text), WORKER_LOST),
    }
    used_up = and_(expired, col(Job.attempt) >= col(Job.max_attempts))
    change(session, col(Job.id).in_(_locked(used_up)), lost)


def _first(condition: ColumnElement[bool]) -> ScalarSelect[Any]:
    statement = select(col(Job.id)).where(condition).order_by(col(Job.id)).limit(1)
    return statement.with_for_update(skip_locked=True).scalar_subquery()


def _locked(condition: ColumnElement[bool]) -> Any:
    return select(col(Job.id)).where(condition).with_for_update(skip_locked=True, of=Job)


def _held(job_id: int, attempt: int) -> ColumnElement[bool]:
    return and_(col(Job.id) == job_id, col(Job.attempt) == attempt, col(Job.state) == RUNNING)


def _leave(session: Session, job_id: int, attempt: int, state: str, values: dict[str, Any]) -> None:
    if (RUNNING, state) not in TRANSITIONS:
        raise Refused("illegal-transition", f"A running job does not become '{state}'.")
    values = {"owner": None, **values, "state": state, "lease_until": None}
    if change(session, _held(job_id, attempt), values) != 1:
        raise Fenced


def _has_open_deliveries(session: Session, job_id: int) -> bool:
    statement = select(Delivery.id).where(
        col(Delivery.job_pk) == job_id, col(Delivery.state).in_(("pending", "sending", "parked"))
    )
    return session.exec(statement.limit(1)).first() is not None


def _pk(row: Any) -> int:
    if row.id is None:
        raise Refused("not-saved", "The row has no identity yet; flush it first.")
    return int(row.id)

"""The job ledger as people read it: each job with its study, its reasons, its results and where they went."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import Select

from plugins.errors import Refused
from store.jobs import STATES
from store.outbox import list_deliveries
from store.tables import Finding, Job, Patient, Refusal, Result, Revision, Study


def overview(session: Session, state: str | None = None, newest: int | None = None) -> list[dict[str, Any]]:
    """Return the jobs, or only so many of the newest, as plain data, each with patient, study and revision.

    The oldest comes first. Refuses `no-such-state`.
    """
    statement = _jobs().where(*_in_state(state)).order_by(col(Job.id).desc()).limit(newest)
    return [_row(*found) for found in session.exec(statement).all()][::-1]


def how_many(session: Session, state: str | None = None) -> int:
    """Return how many jobs there are. Refuses `no-such-state`."""
    return int(session.exec(select(func.count()).select_from(Job).where(*_in_state(state))).one())


def _in_state(state: str | None) -> tuple[ColumnElement[bool], ...]:
    if state is not None and state not in STATES:
        raise Refused("no-such-state", f"'{state}' is not a job state; use one of {', '.join(STATES)}.")
    return () if state is None else (col(Job.state) == state,)


def details(session: Session, job_id: int) -> dict[str, Any]:
    """Return one job as `overview` does, with its `findings` (how many), `refusals`, `results` and `deliveries`.

    Refuses `no-such-job`.
    """
    found = session.exec(_jobs().where(col(Job.id) == job_id)).first()
    if found is None:
        raise Refused("no-such-job", f"There is no job {job_id}.")
    count = len(session.exec(select(Finding.id).where(col(Finding.job_pk) == job_id)).all())
    told = session.exec(select(Refusal).where(col(Refusal.job_pk) == job_id).order_by(col(Refusal.id)))
    results = session.exec(select(Result).where(col(Result.job_pk) == job_id).order_by(col(Result.id)))
    return {
        **_row(*found),
        "findings": count,
        "refusals": [
            row.model_dump(mode="json", include={"code", "sentence", "series_instance_uid", "refused"})
            for row in told
        ],
        "results": [row.model_dump(mode="json", exclude={"job_pk"}) for row in results],
        "deliveries": [
            row.model_dump(mode="json", exclude={"job_pk"}) for row in list_deliveries(session, job_pk=job_id)
        ],
    }


def _jobs() -> Select[Job, Patient, Study, Revision]:
    return (
        select(Job, Patient, Study, Revision)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Study, col(Study.id) == col(Revision.study_pk))
        .join(Patient, col(Patient.id) == col(Study.patient_pk))
    )


def _row(job: Job, patient: Patient, study: Study, revision: Revision) -> dict[str, Any]:
    return {
        **job.model_dump(mode="json"),
        "patient_id": patient.patient_id,
        "study_instance_uid": study.study_instance_uid,
        "study_date": study.study_date.isoformat() if study.study_date else None,
        "revision": revision.number,
    }

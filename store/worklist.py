"""The worklist: a page of studies, the newest first, each with where it stands; searched and filtered by SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement
from sqlmodel import Session, and_, col, exists, func, or_, select

from store.standing import Standing, standings
from store.tables import Delivery, Job, Patient, Pull, Refusal, Revision, Study

MOST_WORDS = 6
MOST_PULLS = 100


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One study of the list."""

    study: Study
    """Its row."""
    patient: Patient
    """Whose it is."""
    standing: Standing
    """Where it stands."""


@dataclass(frozen=True, kw_only=True)
class Worklist:
    """One page."""

    rows: tuple[Listed, ...]
    """Its studies."""
    total: int
    """How many studies match in all."""
    has_more: bool
    """Whether there are more after these."""


def worklist(
    session: Session,
    now: datetime,
    *,
    words: str = "",
    stage: str = "",
    limit: int = 40,
    offset: int = 0,
    after: tuple[datetime, int] | None = None,
    priors_wait_seconds: float = 0.0,
) -> Worklist:
    """Return a page of studies, the one with the latest new content first.

    Each of the `words` is a part of PatientID, name, accession number or description; `stage` is one of `STAGES`, empty
    for all. A page begins at `offset`, or after the last row of another one (its latest arrival and row number).
    """
    wanted = _wanted(words, stage)
    total = session.exec(
        select(func.count())
        .select_from(Study)
        .join(Patient, col(Patient.id) == col(Study.patient_pk))
        .where(*wanted)
        if words
        else select(func.count()).select_from(Study).where(*wanted)
    ).one()
    statement = select(Study, Patient).join(Patient, col(Patient.id) == col(Study.patient_pk)).where(*wanted)
    if after is not None:
        at, pk = after
        earlier = and_(col(Study.last_arrival_at) == at, col(Study.id) < pk)
        statement = statement.where(or_(col(Study.last_arrival_at) < at, earlier))
    statement = statement.order_by(col(Study.last_arrival_at).desc(), col(Study.id).desc())
    rows = session.exec(statement.offset(offset).limit(limit + 1)).all()
    shown = rows[:limit]
    stand = standings(session, [study for study, _ in shown], now, priors_wait_seconds)
    return Worklist(
        rows=tuple(
            Listed(study=study, patient=patient, standing=stand[int(study.id or 0)])
            for study, patient in shown
        ),
        total=total,
        has_more=len(rows) > limit,
    )


def counts(session: Session) -> dict[str, int]:
    """Return how many studies there are of each of `STAGES`; one study may be in several."""
    return {
        name: session.exec(select(func.count()).select_from(Study).where(condition())).one()
        for name, condition in STAGES.items()
    }


def not_here(session: Session) -> tuple[int, tuple[Pull, ...]]:
    """Return how many studies the PACS told of that nothing came of yet, and those that were told of last."""
    here = exists().where(col(Study.study_instance_uid) == col(Pull.study_instance_uid))
    missing = (col(Pull.state) != "pulled", ~here)
    total = session.exec(select(func.count()).select_from(Pull).where(*missing)).one()
    rows = session.exec(
        select(Pull).where(*missing).order_by(col(Pull.requested_at).desc()).limit(MOST_PULLS)
    )
    return total, tuple(rows)


def _wanted(words: str, stage: str) -> list[ColumnElement[bool]]:
    wanted = [STAGES[stage]()] if stage in STAGES else []
    fields = (Patient.patient_id, Patient.patient_name, Study.accession_number, Study.study_description)
    for word in words.lower().replace("^", " ").split()[:MOST_WORDS]:
        wanted.append(or_(*(func.lower(col(field)).contains(word, autoescape=True) for field in fields)))
    return wanted


def _with_job(*states: str) -> ColumnElement[bool]:
    return col(Study.id).in_(_of(col(Job.state).in_(states)))


def _of(*conditions: ColumnElement[bool]) -> Any:
    """Return the studies whose newest revision has a job of these conditions."""
    newest = and_(col(Revision.study_pk) == col(Study.id), col(Revision.number) == col(Study.revision))
    return (
        select(col(Study.id))
        .join(Revision, newest)
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .where(*conditions)
        .correlate(None)
    )


def _stuck() -> ColumnElement[bool]:
    parked = select(col(Delivery.job_pk)).where(col(Delivery.state) == "parked")
    return col(Study.id).in_(_of(col(Job.id).in_(parked)))


def _refused() -> ColumnElement[bool]:
    refusals = select(col(Refusal.job_pk)).where(col(Refusal.refused))
    return col(Study.id).in_(_of(col(Job.id).in_(refusals)))


def _done() -> ColumnElement[bool]:
    open_job = _with_job("queued", "running", "delivering", "dead", "parked")
    return and_(col(Study.state) == "settled", ~col(Study.prior), ~open_job)


STAGES: dict[str, Callable[[], ColumnElement[bool]]] = {
    "receiving": lambda: and_(col(Study.state) == "receiving", ~col(Study.prior)),
    "waiting": lambda: _with_job("queued"),
    "running": lambda: _with_job("running"),
    "delivering": lambda: _with_job("delivering"),
    "failed": lambda: or_(_with_job("dead"), _stuck()),
    "refused": _refused,
    "parked": lambda: or_(col(Study.parked_at).is_not(None), _with_job("parked")),
    "done": _done,
    "earlier": lambda: and_(col(Study.prior)),
}
"""What studies are filtered by; a study with one analysis that failed and one that runs is of both."""


__all__ = ["STAGES", "Listed", "Worklist", "counts", "not_here", "worklist"]

"""Studies to be tracked again because another one moved: to another date, or to another patient."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, select

from store.order import Order, order_of
from store.patients import same_person
from store.retrack import again, passed
from store.sightings import COUNTING
from store.tables import Job, Revision, Study


def displaced(
    session: Session, study: Study, patient_pk: int, before: Order, now: datetime, max_attempts: int = 5
) -> list[Job]:
    """Ask once more for each analysis that a study was earlier than and is no more, or is now; return the jobs.

    `patient_pk` and `before` are whose it was and where it stood. Only analyses that the study had count, in other
    studies of that patient. To be called in the transaction that moves the study.
    """
    ran = select(Job.plugin).join(Revision, col(Revision.id) == col(Job.revision_pk))
    plugins = set(session.exec(ran.where(col(Revision.study_pk) == study.id, col(Job.state).in_(COUNTING))))
    members = same_person(session, patient_pk)
    is_theirs, stands = study.patient_pk in members, order_of(study)
    asked: list[Job] = []
    for (pk, plugin), runs in sorted(passed(session, members).runs.items(), key=lambda one: one[1][-1].order):
        if pk == study.id or plugin not in plugins:
            continue
        was_earlier = bool(before[0]) and before < runs[-1].order
        if was_earlier == (is_theirs and stands < runs[-1].order):
            continue
        asked += again(session, runs[-1].job_pk, now, max_attempts)
    return asked


__all__ = ["displaced"]

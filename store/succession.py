"""Which of several jobs of one analysis of one study counts: the newest that finished. For `store.jobs`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, or_
from sqlmodel import Session, SQLModel, col, select, update

from store.tables import Delivery, Finding, Job, LesionLink, Revision


def supersede_results(session: Session, job_id: int) -> None:
    """Let only the newest finished job of a plugin on a study count, whichever of them ends last."""
    row = session.exec(
        select(Job.plugin, Job.state, Revision.study_pk, Revision.number)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Job.id) == job_id)
    ).one()
    plugin, state, study_pk, number = row
    same = (
        select(col(Job.id))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk) == study_pk, col(Job.plugin) == plugin)
    )
    is_older = or_(col(Revision.number) < number, and_(col(Revision.number) == number, col(Job.id) < job_id))
    is_newer = or_(col(Revision.number) > number, and_(col(Revision.number) == number, col(Job.id) > job_id))
    supersede_rows(session, col(Job.id).in_(same.where(is_older)))
    newer = same.where(is_newer, col(Job.state).in_(("delivering", "done")))
    if session.exec(newer.limit(1)).first() is not None:
        supersede_rows(session, col(Job.id) == job_id)
    if state != "superseded":
        for older in session.exec(
            same.where(is_older, col(Job.state) == "delivering").order_by(col(Job.id))
        ).all():
            _withdraw(session, int(older or 0))


def supersede_rows(session: Session, which: ColumnElement[bool]) -> int:
    """Supersede what jobs found and linked; return how many findings."""
    jobs = select(col(Job.id)).where(which)
    change(session, col(LesionLink.job_pk).in_(jobs), {"superseded": True}, LesionLink)
    return change(session, col(Finding.job_pk).in_(jobs), {"superseded": True}, Finding)


def change(
    session: Session, condition: ColumnElement[bool], values: dict[str, Any], table: type[SQLModel] = Job
) -> int:
    """Change the rows of a table, jobs by default, and return how many there were."""
    session.flush()
    statement = update(table).where(condition).values(values)
    return int(session.exec(statement, execution_options={"synchronize_session": False}).rowcount)


def _withdraw(session: Session, job_id: int) -> None:
    """Take back the deliveries of a job of which nothing went out yet; a half delivered one goes on."""
    deliveries = session.exec(select(Delivery).where(col(Delivery.job_pk) == job_id).with_for_update()).all()
    if any(delivery.delivered_at is not None or delivery.state == "sending" for delivery in deliveries):
        return
    change(session, col(Delivery.job_pk) == job_id, {"state": "superseded"}, Delivery)
    change(session, and_(col(Job.id) == job_id, col(Job.state) == "delivering"), {"state": "superseded"})


__all__ = ["change", "supersede_results", "supersede_rows"]

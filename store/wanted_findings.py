"""Which findings a question is about."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from store.tables import Finding, Job, Patient, Study


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which findings are asked for; empty for all."""

    patient_id: str | None = None
    """PatientID as received."""
    study_instance_uid: str = ""
    """Study."""
    tracking_uid: str = ""
    """Tracking UID as it is written in SEG and SR."""
    plugin: str = ""
    """Analysis."""
    superseded: bool = False
    """True for those of superseded revisions too."""
    newest: int | None = None
    """Only so many of these, those that were found last; None for all."""


def wanted_findings(wanted: Wanted) -> list[ColumnElement[bool]]:
    """Return what a question for findings has to hold them to."""
    clauses: list[ColumnElement[bool]] = [] if wanted.superseded else [~col(Finding.superseded)]
    if wanted.patient_id is not None:
        patients = select(Patient.id).where(col(Patient.patient_id) == wanted.patient_id)
        clauses.append(col(Finding.patient_pk).in_(patients))
    if wanted.study_instance_uid:
        studies = select(Study.id).where(col(Study.study_instance_uid) == wanted.study_instance_uid)
        clauses.append(col(Finding.study_pk).in_(studies))
    if wanted.tracking_uid:
        clauses.append(col(Finding.tracking_uid) == wanted.tracking_uid)
    if wanted.plugin:
        clauses.append(col(Finding.job_pk).in_(select(Job.id).where(col(Job.plugin) == wanted.plugin)))
    if wanted.newest is not None:
        last = select(Finding.id).where(*clauses).order_by(col(Finding.id).desc()).limit(wanted.newest)
        clauses.append(col(Finding.id).in_(last))
    return clauses


def how_many(session: Session, wanted: Wanted) -> int:
    """Return how many findings are asked for."""
    return session.exec(select(func.count()).select_from(Finding).where(*wanted_findings(wanted))).one()


__all__ = ["Wanted", "how_many", "wanted_findings"]

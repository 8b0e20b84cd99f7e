"""Every study of the node with where it stands, what was found in it, and how much of that a person looked at."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from sqlalchemy import func, select
from sqlmodel import Session, col

from store.candidates import looked_at
from store.labels import labels
from store.objects import ObjectStore
from store.tables import Finding, Patient, Study

NEWEST = (col(Study.study_date).is_(None), col(Study.study_date).desc(), col(Study.study_instance_uid))


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One study."""

    patient_id: str
    """PatientID."""
    issuer: str
    """IssuerOfPatientID."""
    study_instance_uid: str
    """Study Instance UID."""
    study_date: date | None
    """Its date."""
    study_description: str
    """StudyDescription."""
    state: str
    """`receiving`, `settled`, or `prior` for one that is here only as an earlier study."""
    findings: int
    """Findings that stand, of all analyses."""
    lesions: int
    """How many of them are lesions that Nadir drew, for a person to look at."""
    reviewed: int
    """How many of these a person looked at."""
    is_reviewed: bool
    """Whether a person looked at all of these, or drew what was not found."""


def study_pks(session: Session) -> list[int]:
    """Return every study by its row, the newest first; those without a date last."""
    return list(session.execute(select(col(Study.id)).order_by(*NEWEST)).scalars())


def study_list(session: Session, objects: ObjectStore, pks: Collection[int]) -> tuple[Listed, ...]:
    """Return these studies, in the order of `study_pks`; nothing is read of others."""
    counts = select(col(Finding.study_pk), func.count()).where(
        ~col(Finding.superseded), col(Finding.study_pk).in_(pks)
    )
    rows = session.execute(counts.group_by(col(Finding.study_pk)))
    standing = {study_pk: count for study_pk, count in rows}
    looked = looked_at(session, labels(session, objects, pks), pks)
    statement = (
        select(
            col(Patient.patient_id),
            col(Patient.issuer),
            col(Study.id),
            col(Study.study_instance_uid),
            col(Study.study_date),
            col(Study.study_description),
            col(Study.state),
            col(Study.prior),
        )
        .join(Patient, col(Patient.id) == col(Study.patient_pk))
        .where(col(Study.id).in_(pks))
        .order_by(*NEWEST)
    )
    found = []
    for patient_id, issuer, pk, uid, on, description, state, prior in session.execute(statement):
        lesions, is_looked_at = looked.get(uid, ((), False))
        found.append(
            Listed(
                patient_id=patient_id,
                issuer=issuer,
                study_instance_uid=uid,
                study_date=on,
                study_description=description,
                state="prior" if prior else state,
                findings=standing.get(pk, 0),
                lesions=len(lesions),
                reviewed=sum(lesions),
                is_reviewed=is_looked_at and all(lesions),
            )
        )
    return tuple(found)


__all__ = ["Listed", "study_list", "study_pks"]

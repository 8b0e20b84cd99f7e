"""Every study of the node with where it stands, what was found in it, and how much of that a person looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date

from sqlalchemy import func, select
from sqlmodel import Session, col

from store.candidates import Candidates
from store.tables import Finding, Patient, Study


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


def study_list(session: Session, known: Candidates) -> tuple[Listed, ...]:
    """Return every study, the newest first; those without a date last."""
    counts = select(col(Finding.study_pk), func.count()).where(~col(Finding.superseded))
    rows = session.execute(counts.group_by(col(Finding.study_pk)))
    standing = {study_pk: count for study_pk, count in rows}
    lesions = Counter(c.study_instance_uid for c in known.found if c.label)
    reviewed = Counter(c.study_instance_uid for c in known.found if c.label and c.is_reviewed)
    looked_at = {c.study_instance_uid for c in known.found if c.is_reviewed}
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
        .order_by(
            col(Study.study_date).is_(None), col(Study.study_date).desc(), col(Study.study_instance_uid)
        )
    )
    return tuple(
        Listed(
            patient_id=patient_id,
            issuer=issuer,
            study_instance_uid=uid,
            study_date=on,
            study_description=description,
            state="prior" if prior else state,
            findings=standing.get(pk, 0),
            lesions=lesions[uid],
            reviewed=reviewed[uid],
            is_reviewed=uid in looked_at and reviewed[uid] == lesions[uid],
        )
        for patient_id, issuer, pk, uid, on, description, state, prior in session.execute(statement)
    )


__all__ = ["Listed", "study_list"]

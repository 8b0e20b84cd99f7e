"""Whose a study is and where it stands: what every page, document and choice of a study begins with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from sqlmodel import Session, col, select

from plugins.errors import Refused
from store.patients import same_person
from store.tables import Patient, Revision, Study


@dataclass(frozen=True, kw_only=True)
class StudyHead:
    """Whose study it is, and where it stands."""

    study_pk: int
    """Row of the study."""
    study_instance_uid: str
    """Study Instance UID."""
    patient_pk: int
    """Row that speaks for the patient."""
    patient_id: str
    """PatientID."""
    issuer: str
    """IssuerOfPatientID, or empty."""
    patient_name: str
    """PatientName."""
    patient_sex: str
    """PatientSex."""
    patient_birth_date: date | None
    """PatientBirthDate."""
    study_date: date | None
    """StudyDate."""
    study_description: str
    """StudyDescription."""
    accession_number: str
    """AccessionNumber."""
    state: str
    """`receiving`, `settled`, or `prior` for one that is here only as an earlier study."""
    revision: int
    """Number of the latest settled revision; 0 before the first."""
    is_forced: bool
    """Whether that revision settled by the hard cap, perhaps incomplete."""
    first_arrival_at: datetime
    """First new content since it last settled."""
    last_arrival_at: datetime
    """Latest new content."""
    settled_at: datetime | None
    """When the latest revision settled."""
    parked_at: datetime | None
    """Since when a person wants nothing of it analysed."""
    parked_by: str
    """Who; empty for nobody."""


def study_head(session: Session, study_instance_uid: str) -> StudyHead:
    """Return whose study it is and where it stands. Refuses `no-such-study`."""
    row = session.exec(
        select(Study, Patient)
        .join(Patient, col(Patient.id) == col(Study.patient_pk))
        .where(col(Study.study_instance_uid) == study_instance_uid)
    ).first()
    if row is None:
        raise Refused("no-such-study", "there is no such study on this node")
    study, patient = row
    latest = session.exec(
        select(Revision).where(col(Revision.study_pk) == study.id, col(Revision.number) == study.revision)
    ).first()
    return StudyHead(
        study_pk=int(study.id or 0),
        study_instance_uid=study.study_instance_uid,
        patient_pk=same_person(session, int(patient.id or 0))[0],
        patient_id=patient.patient_id,
        issuer=patient.issuer,
        patient_name=patient.patient_name,
        patient_sex=patient.patient_sex,
        patient_birth_date=patient.patient_birth_date,
        study_date=study.study_date,
        study_description=study.study_description,
        accession_number=study.accession_number,
        state="prior" if study.prior else study.state,
        revision=study.revision,
        is_forced=latest is not None and latest.forced,
        first_arrival_at=study.first_arrival_at,
        last_arrival_at=study.last_arrival_at,
        settled_at=None if latest is None else latest.settled_at,
        parked_at=study.parked_at,
        parked_by=study.parked_by or "",
    )


__all__ = ["StudyHead", "study_head"]

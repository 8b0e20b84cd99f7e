"""The course of a patient: what was seen of each lesion at each visit, with what people decided, out of SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlmodel import Session, col, select

from plugins.errors import Refused
from store.sighting import Sighting
from store.sightings import found_here, studies_of
from store.tables import Patient


@dataclass(frozen=True, kw_only=True)
class CoursePatient:
    """Whose course it is."""

    pk: int
    """Row of the patient."""
    patient_id: str
    """PatientID."""
    issuer: str = ""
    """IssuerOfPatientID, or empty."""
    name: str = ""
    """PatientName."""
    sex: str = ""
    """PatientSex."""
    birth_date: date | None = None
    """PatientBirthDate."""


@dataclass(frozen=True, kw_only=True)
class CourseVisit:
    """One study of the patient; studies of one date are one time point."""

    study_pk: int
    """Row of the study."""
    study_instance_uid: str
    """Study Instance UID."""
    study_date: date
    """Study Date."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is known of a patient's lesions over time."""

    patient: CoursePatient
    """Whose."""
    visits: tuple[CourseVisit, ...]
    """Studies with a date, oldest first."""
    sightings: tuple[Sighting, ...]
    """By date, then study, then as they were found."""

    @property
    def lesions(self) -> tuple[str, ...]:
        """Return the lesions by their Tracking UIDs, in the order in which they were first seen."""
        return tuple(dict.fromkeys(one.lesion for one in self.sightings))


def course(session: Session, patient_pk: int) -> Course:
    """Return the course of one patient. Refuses `no-such-patient`."""
    patient = session.get(Patient, patient_pk)
    if patient is None:
        raise Refused("no-such-patient", f"there is no patient with the number {patient_pk}")
    studies = studies_of(session, [patient_pk])
    return Course(
        patient=CoursePatient(
            pk=patient_pk,
            patient_id=patient.patient_id,
            issuer=patient.issuer,
            name=patient.patient_name,
            sex=patient.patient_sex,
            birth_date=patient.patient_birth_date,
        ),
        visits=tuple(
            CourseVisit(study_pk=pk, study_instance_uid=uid, study_date=on) for pk, uid, on in studies
        ),
        sightings=found_here(session, studies),
    )


def courses(session: Session) -> tuple[Course, ...]:
    """Return the courses of all patients, by issuer and PatientID."""
    order = (col(Patient.issuer), col(Patient.patient_id))
    return tuple(course(session, int(pk or 0)) for pk in session.exec(select(Patient.id).order_by(*order)))


__all__ = ["Course", "CoursePatient", "CourseVisit", "course", "courses"]

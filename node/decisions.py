"""What follows from a choice of a person, or when a study left a patient: new SEG and SR, the response, the audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlmodel import Session

from node import audit_events
from node.audit import patients_of
from node.audit_message import AuditMessage
from node.settings import Settings
from store.objects import ObjectStore
from store.reissue import reissue
from store.response_jobs import ask
from store.sighting import Decision
from store.tables import Patient


def ask_anew(session: Session, settings: Settings, patient_pk: int, now: datetime) -> None:
    """Have the patient's response told anew, when it is told at all."""
    if settings.response_criteria != "off":
        objects = ObjectStore(settings.home / "store")
        attempts, criteria = settings.max_attempts, settings.response_criteria
        ask(session, patient_pk, now, objects=objects, criteria=criteria, max_attempts=attempts)


def left(settings: Settings) -> Callable[[Session, int, datetime], None]:
    """Return what has written and told anew what counts of a patient whom a study left."""

    def told(session: Session, patient_pk: int, now: datetime) -> None:
        reissue(session, patient_pk, now, settings.max_attempts)
        ask_anew(session, settings, patient_pk, now)

    return told


def decided(
    session: Session,
    settings: Settings,
    patient_pk: int,
    made: Sequence[Decision],
    now: datetime,
    *,
    address: str = "",
) -> AuditMessage:
    """Have written and told anew what choices of one person changed; return what the audit trail is to be told.

    To be called in the transaction that keeps the choices.
    """
    reissue(session, patient_pk, now, settings.max_attempts)
    ask_anew(session, settings, patient_pk, now)
    patient = session.get_one(Patient, patient_pk)
    subject = patients_of(settings).subject(patient.issuer, patient.patient_id, patient.patient_name)
    choices = [(one.number, one.kind) for one in made]
    return audit_events.lesion_chosen(made[0].author, address, subject, choices)


__all__ = ["ask_anew", "decided", "left"]

"""Patients as a list: one row a person, searched by identifier or name, with how much is here of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlmodel import Session, col, func, or_, select

from store.patients import members_of
from store.tables import Finding, Patient, Study


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One person."""

    patient_pk: int
    """Row of the patient that speaks for the person."""
    patient_id: str
    """PatientID."""
    issuer: str
    """IssuerOfPatientID, or empty."""
    name: str
    """PatientName."""
    sex: str
    """PatientSex."""
    birth_date: date | None
    """PatientBirthDate."""
    studies: int
    """Studies that are here."""
    first: date | None
    """First Study Date."""
    last: date | None
    """Last Study Date."""
    findings: int
    """Findings that count."""
    others: tuple[str, ...]
    """PatientIDs that were declared to be the same person."""


def listed(
    session: Session, search: str = "", *, after_pk: int = 0, limit: int = 100
) -> tuple[int, tuple[Listed, ...]]:
    """Return how many persons there are, and some of them after a row, in the order of the rows.

    `search` is found anywhere in PatientID or PatientName, of any of the rows that are one person, upper or lower case.
    """
    members = members_of(session)
    if search:
        pattern = _anything(search)
        matching = or_(
            col(Patient.patient_id).ilike(pattern, escape="\\"),
            col(Patient.patient_name).ilike(pattern, escape="\\"),
        )
        found = set(session.exec(select(Patient.id).where(matching)))
        members = {head: own for head, own in members.items() if found & set(own)}
    heads = sorted(members)
    shown = [head for head in heads if head > after_pk][:limit]
    return len(heads), tuple(_rows(session, {head: members[head] for head in shown}))


def _rows(session: Session, members: dict[int, tuple[int, ...]]) -> list[Listed]:
    pks = [pk for own in members.values() for pk in own]
    patients = {p.id: p for p in session.exec(select(Patient).where(col(Patient.id).in_(pks)))}
    dated = select(Study.patient_pk, func.count(), func.min(Study.study_date), func.max(Study.study_date))
    dated = dated.where(col(Study.patient_pk).in_(pks)).group_by(col(Study.patient_pk))
    studies: dict[int, Any] = {pk: rest for pk, *rest in session.exec(dated)}
    counted = select(Finding.patient_pk, func.count()).where(
        col(Finding.patient_pk).in_(pks), ~col(Finding.superseded)
    )
    findings = dict(session.exec(counted.group_by(col(Finding.patient_pk))).all())
    rows = []
    for head, own in members.items():
        patient = patients[head]
        here = [studies[pk] for pk in own if pk in studies]
        rows.append(
            Listed(
                patient_pk=head,
                patient_id=patient.patient_id,
                issuer=patient.issuer,
                name=patient.patient_name,
                sex=patient.patient_sex,
                birth_date=patient.patient_birth_date,
                studies=sum(count for count, _, _ in here),
                first=min((first for _, first, _ in here if first), default=None),
                last=max((last for _, _, last in here if last), default=None),
                findings=sum(findings.get(pk, 0) for pk in own),
                others=_ids(patients, own[1:]),
            )
        )
    return rows


def _ids(patients: dict[int | None, Patient], pks: Sequence[int]) -> tuple[str, ...]:
    return tuple(patients[pk].patient_id for pk in pks)


def _anything(text: str) -> str:
    for sign in ("\\", "%", "_"):
        text = text.replace(sign, f"\\{sign}")
    return f"%{text}%"


__all__ = ["Listed", "listed"]

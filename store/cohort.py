"""The courses of many patients in short, as a cohort shows them: chosen by SQL, sorted, and a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlmodel import Session, col, select

from store.cohort_rows import CohortRow, Short, short_of
from store.measured import Chosen, of_rows, patients_with
from store.tables import Patient

Order = Literal["change", "time", "patient"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One person of a cohort."""

    patient_id: str
    """PatientID."""
    issuer: str
    """IssuerOfPatientID, or empty."""
    short: Short
    """The course."""


def members(session: Session, chosen: Chosen, order: Order = "change") -> tuple[Member, ...]:
    """Return the persons that are meant, as far as their courses are reckoned.

    By `change` from the largest growth to the largest shrinkage, those without a change last; by `time` those followed
    longest first; or by issuer and PatientID.
    """
    statement = (
        select(CohortRow, Patient.patient_id, Patient.issuer)
        .join(Patient, col(Patient.id) == col(CohortRow.patient_pk))
        .where(*of_rows(chosen))
        .order_by(col(Patient.issuer), col(Patient.patient_id))
    )
    wanted = patients_with(session, chosen)
    found = [
        Member(patient_id=patient_id, issuer=issuer, short=short_of(row))
        for row, patient_id, issuer in session.exec(statement)
        if row.patient_pk in wanted
    ]
    if order == "change":
        found.sort(key=_change)
    elif order == "time":
        found.sort(key=lambda one: -one.short.days)
    return tuple(found)


def _change(one: Member) -> tuple[bool, float]:
    change = one.short.best_percent
    return (change is None, -(change or 0.0))


__all__ = ["Member", "Order", "members"]

"""A few patients with several visits each, written into a database: responses that differ, hostile names, a merge."""

from __future__ import annotations

from datetime import date, timedelta

from course_rows import Clock, lesion, patient_pk, visit
from sqlmodel import Session

START = date(2024, 1, 10)
LENGTHS = {
    "SHRINKS": (40.0, 20.0, 18.0),
    "GROWS": (20.0, 30.0),
    "STAYS": (20.0, 21.0),
    "ONCE": (15.0,),
    "=HYPERLINK(1)": (30.0, 31.0),
}
"""Long axis of the one lesion of each patient, by visit, every 56 days."""


def write_cohort(session: Session) -> dict[str, int]:
    """Write them, and return the row of each patient by PatientID."""
    clock = Clock()
    for number, (patient_id, lengths) in enumerate(LENGTHS.items()):
        whose = {"patient_id": patient_id, "patient_name": f"Secret^Name{number}"}
        for n, length in enumerate(lengths):
            found = lesion(
                f"2.25.{number}01", length, label=f"Nodule of Secret^Name{number}", volume=length / 10
            )
            visit(session, clock, START + timedelta(days=56 * n + number), [found], patient=whose)
    return {name: patient_pk(session, name) for name in LENGTHS}


__all__ = ["LENGTHS", "START", "write_cohort"]

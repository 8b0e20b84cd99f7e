"""The ledger with a backlog: many patients wait for their analysis."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from course_rows import Clock, visit
from empty_database import empty_database
from ledger import at
from many_rows import counted_steps, multiply
from sqlmodel import col, update

from store import jobs
from store.tables import Job

COLUMNS = {
    "patient": {"patient_id": "'P' || n.i"},
    "study": {"study_instance_uid": "'1.2.' || n.i", "patient_pk": "n.i"},
    "revision": {"study_pk": "n.i"},
    "job": {"revision_pk": "n.i", "key": "'key' || n.i"},
}
"""What differs between the rows of two patients, besides `id`."""


def steps_of_a_claim(folder: Path, patients: int) -> int:
    """Return how many steps of its machine SQLite takes to claim a job while so many patients wait."""
    database = empty_database(folder)
    with database.transaction() as session:
        visit(session, Clock(), date(2026, 1, 10))
        session.exec(update(Job).values(state=jobs.QUEUED, attempt=0).where(col(Job.id) == 1))
        for table, differs in COLUMNS.items():
            multiply(session, table, differs, patients)
    with database.transaction() as session, counted_steps(session) as steps:
        claimed = jobs.claim(session, "worker", at(1000), 60, 120)
    assert claimed is not None and claimed.id == 1
    database.dispose()
    return len(steps)


def test_four_times_as_many_waiting_patients_make_a_claim_four_times_as_much_work(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    few, many = steps_of_a_claim(tmp_path / "few", 200), steps_of_a_claim(tmp_path / "many", 800)
    assert few < many < 6 * few

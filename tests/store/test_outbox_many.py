"""The outbox of a retrospective run: thousands of studies wait for one destination."""

from __future__ import annotations

from pathlib import Path

from empty_database import empty_database
from many_rows import counted_steps, multiply
from outbox_rows import waiting_results

from store import outbox
from store.objects import ObjectStore

DESTINATION = "PACS@host:104"
COLUMNS = {
    "study": {"study_instance_uid": "'1.2.' || n.i"},
    "revision": {"study_pk": "n.i"},
    "job": {"revision_pk": "n.i", "key": "'key' || n.i"},
    "result": {"job_pk": "n.i", "sop_instance_uid": "'1.3.' || n.i"},
    "delivery": {"job_pk": "n.i", "result_pk": "n.i"},
}
"""What differs between the rows of two studies, besides `id`."""


def steps_of_a_claim(folder: Path, studies: int) -> int:
    """Return how many steps of its machine SQLite takes to claim a delivery while so many studies wait."""
    database = empty_database(folder)
    waiting_results(database, ObjectStore(folder / "store", sync=False), folder, [DESTINATION], count=1)
    with database.transaction() as session:
        for table, differs in COLUMNS.items():
            multiply(session, table, differs, studies)
    with database.transaction() as session, counted_steps(session) as steps:
        assert outbox.claim(session, DESTINATION, "sender", database.now(), 30) is not None
    database.dispose()
    return len(steps)


def test_four_times_as_many_waiting_studies_make_a_claim_four_times_as_much_work(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    few, many = steps_of_a_claim(tmp_path / "few", 100), steps_of_a_claim(tmp_path / "many", 400)
    assert few < many < 6 * few

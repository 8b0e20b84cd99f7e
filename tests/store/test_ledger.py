"""The ledger as people read it, on both engines."""

from __future__ import annotations

import pytest
from ledger import at, queued, result, settled

from plugins.errors import Refused
from store import jobs, outbox
from store.database import Database
from store.ledger import details, overview
from store.tables import Refusal


def test_the_overview_names_patient_study_and_revision(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session), "contours")
        queued(session, settled(session, number=2, seconds=60), "emphysema")
    with database.reading() as session:
        rows = overview(session)
        assert [(r["id"], r["plugin"], r["state"], r["revision"]) for r in rows] == [
            (1, "contours", "superseded", 1),
            (2, "emphysema", "queued", 2),
        ]
        assert {r["patient_id"] for r in rows} == {"P1"}
        assert {r["study_instance_uid"] for r in rows} == {"1.2.3"}
        assert [r["id"] for r in overview(session, state="queued")] == [2]
        with pytest.raises(Refused, match="no-such-state"):
            overview(session, state="asleep")


def test_the_details_hold_reasons_results_and_deliveries(database: Database) -> None:
    with database.transaction() as session:
        job = queued(session, settled(session))
        assert job.id is not None
        assert jobs.claim(session, "worker", at(1), 60) is not None
        told = {"code": "thick-slices", "sentence": "The slices are thick.", "refused": False}
        session.add(Refusal(job_pk=job.id, **told))
        row = result(session, job)
        outbox.add(session, row, ["PACS@host:104"], at(2))
        jobs.finish(session, job.id, 1, jobs.DELIVERING, at(3))
    with database.reading() as session:
        found = details(session, job.id)
        with pytest.raises(Refused, match="no-such-job"):
            details(session, 99)
    assert (found["id"], found["state"], found["findings"]) == (job.id, "delivering", 0)
    assert found["refusals"] == [{**told, "series_instance_uid": None}]
    assert [r["sop_instance_uid"] for r in found["results"]] == [row.sop_instance_uid]
    assert [(d["destination"], d["state"], d["attempt"]) for d in found["deliveries"]] == [
        ("PACS@host:104", "pending", 0)
    ]


def test_a_database_is_current_once_it_was_upgraded(empty_url: str) -> None:
    database = Database(empty_url)
    assert not database.is_current()
    database.upgrade()
    assert database.is_current()
    database.dispose()

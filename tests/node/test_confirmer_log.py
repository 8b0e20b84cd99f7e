"""The log of confirmations names the study by its number, whatever became of the deliveries."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger import at, queued, result, settled
from small_node import SmallNode

from node.confirmer import Confirmer
from node.deliveries import DeliverySettings
from store import confirmation, jobs, outbox

PACS = "PACS@10.0.0.1:104"


@pytest.fixture
def small(tmp_path: Path) -> SmallNode:
    """Return a node with one result that was delivered and is to be asked for."""
    made = SmallNode.make(tmp_path / "home")
    with made.database.transaction() as session:
        queued(session, settled(session), plugin="a")
        job = jobs.claim(session, "w", at(0), 60)
        assert job is not None
        outbox.add(session, result(session, job, 0), [PACS], at(0))
        jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(0))
        held = outbox.claim(session, PACS, "s", at(0), 60)
        assert held is not None and held.id is not None
        outbox.delivered(session, held.id, held.attempt, "0x0000", at(0), confirm_after=at(0))
    return made


@pytest.mark.parametrize(
    ("is_found", "counts"), [(True, "confirmed=1 missing=0"), (False, "confirmed=0 missing=1")]
)
def test_a_query_is_told_with_the_study(
    small: SmallNode, caplog: pytest.LogCaptureFixture, is_found: bool, counts: str
) -> None:
    caplog.set_level("INFO")
    confirmer = Confirmer(
        small.database,
        PACS,
        DeliverySettings(),
        peer=None,
        query=lambda rows: frozenset(row.sop_instance_uid for row in rows if is_found),
    )
    confirmer.tick(at(10))
    assert f"action=queried destination={PACS} study=1 {counts} again=0 parked=0" in caplog.messages


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_report_names_the_study(small: SmallNode, is_kept: bool) -> None:
    with small.database.transaction() as session:
        (due,) = confirmation.due(session, PACS, at(10))
        confirmation.asked(session, [due.delivery_pk], "1.2.9", at(10))
        lost = {} if is_kept else {due.sop_instance_uid: 0x0112}
        changed = confirmation.report(session, "1.2.9", {due.sop_instance_uid}, lost, at(20))
    assert (changed.studies, changed.confirmed, changed.again) == ((1,), int(is_kept), int(not is_kept))

"""What a destination took and does not keep: sent again three times, then parked, and a person is told."""

from __future__ import annotations

import pytest
from ledger import at, queued, result, settled
from sqlmodel import Session, select

from store import confirmation, jobs, outbox
from store.confirmation import Reported
from store.database import Database
from store.tables import Delivery, Event

PACS = "PACS@10.0.0.1:104"


def queue(session: Session) -> int:
    """Put one result into the outbox, and return the row of its delivery."""
    queued(session, settled(session), plugin="a")
    job = jobs.claim(session, "w", at(0), 60)
    assert job is not None
    outbox.add(session, result(session, job, 0), [PACS], at(0))
    jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(0))
    return int(session.exec(select(Delivery)).one().id or 0)


def deliver(session: Session, seconds: float) -> str:
    """Deliver it, and return its SOP Instance UID."""
    held = outbox.claim(session, PACS, "s", at(seconds), 60)
    assert held is not None and held.id is not None
    outbox.delivered(session, held.id, held.attempt, "0x0000", at(seconds), confirm_after=at(seconds))
    (due,) = confirmation.due(session, PACS, at(seconds))
    return due.sop_instance_uid


def lose(session: Session, pk: int, uid: str, how: str, seconds: float) -> Reported:
    """Report that it is not kept, or miss it by three queries."""
    if how == "commitment":
        confirmation.asked(session, [pk], f"1.2.{seconds:.0f}", at(seconds))
        return confirmation.report(session, f"1.2.{seconds:.0f}", (), {uid: 0x0110}, at(seconds))
    return [confirmation.missing(session, [pk], at(seconds + 700 * n)) for n in range(3)][-1]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("commitment", "storage commitment failed with reason 0x0110"),
        ("query", "a query does not find it, though it was taken with success"),
    ],
)
def test_what_is_lost_again_and_again_is_parked_and_a_person_is_told(
    database: Database, how: str, why: str
) -> None:
    with database.transaction() as session:
        pk, lost = queue(session), []
        for number in range(4):
            uid = deliver(session, 10_000 * number)
            assert session.exec(select(Event)).all() == []
            lost.append(lose(session, pk, uid, how, 10_000 * number))
        assert [(one.again, one.parked) for one in lost] == [(1, 0)] * 3 + [(0, 1)]
        assert outbox.get(session, pk).state == "parked"
        (event,) = session.exec(select(Event)).all()
        assert (event.kind, event.subject) == ("delivery-parked", PACS)
        assert event.text == f"a person must look at delivery {pk}: {why}; sent 4 times"

"""Delivered is not confirmed: what is asked for and when, and what each answer makes of a delivery."""

from __future__ import annotations

import pytest
from ledger import at, queued, result, settled
from sqlmodel import Session

from store import confirmation, jobs, outbox
from store.database import Database
from store.tables import Delivery

PACS = "PACS@10.0.0.1:104"
DAY = 86400.0


def delivered(session: Session, results: int = 2, study: str = "1.2.3") -> list[Delivery]:
    """Return deliveries that were made at 0 s and are to be asked for from 10 s on."""
    queued(session, settled(session, study=study), plugin="a")
    job = jobs.claim(session, "w", at(0), 60)
    assert job is not None
    for number in range(results):
        outbox.add(session, result(session, job, number), [PACS], at(0))
    jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(0))
    return [again(session, 0) for _ in range(results)]


def again(session: Session, seconds: float) -> Delivery:
    """Deliver what is due, and return it."""
    held = outbox.claim(session, PACS, "s", at(seconds), 60)
    assert held is not None and held.id is not None
    outbox.delivered(session, held.id, held.attempt, "0x0000", at(seconds), confirm_after=at(seconds + 10))
    return outbox.get(session, held.id)


def states(session: Session) -> list[str]:
    session.expire_all()
    return [row.state for row in outbox.list_deliveries(session)]


def uids(session: Session) -> list[str]:
    return [row.sop_instance_uid for row in confirmation.due(session, PACS, at(10))]


def pks(rows: list[Delivery]) -> list[int]:
    return [int(row.id or 0) for row in rows]


def test_what_was_delivered_is_asked_for_after_a_moment_and_once(database: Database) -> None:
    with database.transaction() as session:
        rows = delivered(session)
        assert confirmation.due(session, PACS, at(9)) == []
        due = confirmation.due(session, PACS, at(10))
        assert [(d.study_instance_uid, d.is_unanswered) for d in due] == [("1.2.3", False)] * 2
        confirmation.asked(session, pks(rows), "1.2.9", at(10))
        assert confirmation.due(session, PACS, at(DAY)) == []
        assert [d.is_unanswered for d in confirmation.due(session, PACS, at(DAY + 10))] == [True, True]
        assert confirmation.known(session, "1.2.9") == PACS
        assert confirmation.known(session, "1.2.8") is None


def test_a_report_confirms_what_is_kept_and_sends_again_what_is_not(database: Database) -> None:
    with database.transaction() as session:
        rows = delivered(session, results=3)
        first, second, third = uids(session)
        confirmation.asked(session, pks(rows), "1.2.9", at(10))
        changed = confirmation.report(session, "1.2.9", {first, "1.2.77"}, {second: 0x0112}, at(20))
        assert (changed.confirmed, changed.again) == (1, 1)
        assert states(session) == ["confirmed", "pending", "delivered"]
        kept, lost, silent = outbox.list_deliveries(session)
        assert (kept.confirmed_by, kept.confirmed_at, kept.delivered_at) == ("commitment", at(20), at(0))
        assert (lost.run_after, lost.resends, lost.last_status) == (at(20), 1, None)
        assert silent.confirm_error == "asked by storage commitment; no answer yet"
        assert jobs.get(session, kept.job_pk).state == "delivering"
        assert confirmation.report(session, "1.2.9", {first}, {second: 0x0112}, at(21)).again == 0
        assert confirmation.report(session, "1.2.9", {third}, {}, at(22)).confirmed == 1
        again(session, 30)
        assert states(session) == ["confirmed", "delivered", "confirmed"]
        assert jobs.get(session, kept.job_pk).state == "done"


def test_what_is_lost_again_and_again_is_parked_for_a_person(database: Database) -> None:
    with database.transaction() as session:
        (row,) = delivered(session, results=1)
        now = 10.0
        for number in range(4):
            confirmation.asked(session, pks([row]), f"1.2.{number}", at(now))
            (due,) = [d.sop_instance_uid for d in confirmation.due(session, PACS, at(now + DAY))]
            confirmation.report(session, f"1.2.{number}", (), {due: 0x0110}, at(now))
            if states(session) == ["parked"]:
                break
            now += 2000
            again(session, now)
        assert number == 3
        assert "sent 4 times" in str(outbox.get(session, pks([row])[0]).last_error)
        assert outbox.retry_parked(session, at(now)) == 1


def test_a_transaction_uid_that_was_used_before_is_no_loss(database: Database) -> None:
    with database.transaction() as session:
        (row,) = delivered(session, results=1)
        (uid,) = uids(session)
        confirmation.asked(session, pks([row]), "1.2.9", at(10))
        assert confirmation.report(session, "1.2.9", (), {uid: 0x0131}, at(20)).again == 0
        assert states(session) == ["delivered"]
        assert confirmation.due(session, PACS, at(20 + 300)) == []
        assert [d.is_unanswered for d in confirmation.due(session, PACS, at(20 + 600))] == [False]


def test_what_a_query_misses_three_times_is_sent_again(database: Database) -> None:
    with database.transaction() as session:
        rows = delivered(session)
        now, counts = 10.0, []
        for _ in range(3):
            assert len(confirmation.due(session, PACS, at(now))) == 2 - (len(counts) > 0)
            confirmation.confirmed(session, pks(rows[:1]), "query", at(now))
            counts.append(confirmation.missing(session, pks(rows[1:]), at(now)).again)
            now += 700
        assert counts == [0, 0, 1]
        assert states(session) == ["confirmed", "pending"]


def test_no_answer_is_never_an_error_and_is_asked_for_a_week(database: Database) -> None:
    with database.transaction() as session:
        (row,) = delivered(session, results=1)
        now, asked = 10.0, 0
        while now < 30 * DAY:
            if confirmation.due(session, PACS, at(now)):
                asked += 1
                confirmation.postpone(session, pks([row]), "offers neither", at(now))
            now += 300
        assert 10 < asked < 20
        left = outbox.get(session, pks([row])[0])
        assert (left.state, left.confirm_after, left.confirm_error) == ("delivered", None, "offers neither")
        assert jobs.get(session, left.job_pk).state == "done"


def test_a_week_in_which_the_node_was_off_is_no_part_of_the_week_of_asking(database: Database) -> None:
    with database.transaction() as session:
        (row,) = delivered(session, results=1)
        now, asked = 8 * DAY, []
        while now < 30 * DAY:
            if confirmation.due(session, PACS, at(now)):
                asked.append(now / DAY)
                confirmation.postpone(session, pks([row]), "it does not answer", at(now))
            now += 300
        assert asked[0] == 8
        assert 14 < asked[-1] < 16.1
        left = outbox.get(session, pks([row])[0])
        assert (left.state, left.confirm_after, left.delivered_at) == ("delivered", None, at(0))


@pytest.mark.parametrize("how", ["commitment", "query"])
def test_what_is_confirmed_stays_so(database: Database, how: str) -> None:
    with database.transaction() as session:
        (row,) = delivered(session, results=1)
        (uid,) = uids(session)
        confirmation.asked(session, pks([row]), "1.2.9", at(10))
        assert confirmation.confirmed(session, pks([row]), how, at(11)) == 1
        assert confirmation.report(session, "1.2.9", (), {uid: 0x0112}, at(12)).again == 0
        confirmation.postpone(session, pks([row]), "late", at(13))
        assert confirmation.missing(session, pks([row]), at(14)).again == 0
        kept = outbox.get(session, pks([row])[0])
        assert (kept.state, kept.confirmed_by, kept.confirm_error) == ("confirmed", how, None)

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from at_once import at_once
from ledger import START, at, queued, result, settled
from sqlmodel import Session

from plugins.errors import Refused
from store import jobs, outbox
from store.database import Database
from store.tables import Delivery, Job

PACS, ARCHIVE = "PACS@10.0.0.1:104", "http://archive/dicom-web"


def delivering(
    session: Session, study: str = "1.2.3", results: int = 2, to: tuple[str, ...] = (PACS,)
) -> Job:
    """Return a job whose results wait to be sent."""
    queued(session, settled(session, study=study), plugin="a")
    job = jobs.claim(session, "w", at(0), 60)
    assert job is not None
    for number in range(results):
        assert outbox.add(session, result(session, job, number), to, at(0)) == len(to)
    assert jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(0)) == "delivering"
    return job


def claim(session: Session, seconds: float, to: str = PACS) -> Delivery:
    delivery = outbox.claim(session, to, "s", at(seconds), 60)
    assert delivery is not None
    return delivery


def test_a_result_is_added_once_for_each_destination(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session))
        job = jobs.claim(session, "w", at(0), 60)
        assert job is not None
        row = result(session, job)
        assert outbox.add(session, row, [PACS, ARCHIVE], START) == 2
        assert outbox.add(session, row, [PACS, ARCHIVE, "B@h:1"], START) == 1
        assert [d.destination for d in outbox.list_deliveries(session)] == [PACS, ARCHIVE, "B@h:1"]


def test_the_results_of_a_study_go_out_in_the_order_they_were_written(database: Database) -> None:
    with database.transaction() as session:
        delivering(session, results=3)
        first = claim(session, 1)
        assert outbox.claim(session, PACS, "other", at(1), 60) is None
        outbox.failed(session, int(first.id or 0), 1, None, "no answer", at(1))
        assert outbox.claim(session, PACS, "other", at(2), 60) is None
        order = []
        for seconds in (100, 101, 102):
            delivery = claim(session, seconds)
            order.append(delivery.result_pk)
            outbox.delivered(session, int(delivery.id or 0), delivery.attempt, "0000", at(seconds))
        assert order == sorted(order)


def test_another_study_and_another_destination_do_not_wait(database: Database) -> None:
    with database.transaction() as session:
        delivering(session, to=(PACS, ARCHIVE))
        other = delivering(session, study="1.2.4")
        claim(session, 1)
        assert claim(session, 1).job_pk == other.id
        assert outbox.claim(session, PACS, "s", at(1), 60) is None
        assert claim(session, 1, ARCHIVE).destination == ARCHIVE


def test_a_job_is_done_with_its_last_delivery(database: Database) -> None:
    with database.transaction() as session:
        job = delivering(session, to=(PACS, ARCHIVE))
        states = []
        for to in (PACS, ARCHIVE, PACS, ARCHIVE):
            delivery = claim(session, 1, to)
            states.append(outbox.delivered(session, int(delivery.id or 0), 1, "B000", at(1)))
        assert states == ["delivering", "delivering", "delivering", "done"]
        assert jobs.get(session, int(job.id or 0)).finished_at == at(1)
        assert {(d.state, d.last_status) for d in outbox.list_deliveries(session)} == {("delivered", "B000")}


def test_the_pause_doubles_up_to_a_quarter_of_an_hour_and_never_by_more_than_a_fifth_more_or_less() -> None:
    for delivery_id in range(1, 40):
        for attempt in range(1, 60):
            nominal = min(900.0, 30.0 * 2 ** (attempt - 1))
            pause = outbox.backoff(delivery_id, attempt).total_seconds()
            assert 0.8 * nominal - 1e-5 <= pause <= 1.2 * nominal + 1e-5
    assert len({outbox.backoff(i, 3) for i in range(40)}) > 30


def test_a_transient_failure_waits_and_is_tried_again(database: Database) -> None:
    with database.transaction() as session:
        delivering(session, results=1)
        delivery = claim(session, 0)
        assert (
            outbox.failed(session, int(delivery.id or 0), 1, "A700", "out of resources", at(0)) == "pending"
        )
        kept = outbox.get(session, int(delivery.id or 0))
        assert (kept.last_status, kept.last_error) == ("A700", "out of resources")
        assert (kept.owner, kept.lease_until) == (None, None)
        assert kept.run_after == at(0) + outbox.backoff(int(kept.id or 0), 1)
        assert outbox.claim(session, PACS, "s", at(20), 60) is None
        assert claim(session, 40).attempt == 2


def test_three_refusals_in_a_row_park_a_delivery_and_a_person_can_retry_it(database: Database) -> None:
    with database.transaction() as session:
        job = delivering(session, results=1)
        states, now = [], 0.0
        for permanent in (True, True, False, True, True, True):
            delivery = claim(session, now)
            states.append(
                outbox.failed(
                    session, int(delivery.id or 0), delivery.attempt, "A900", "no", at(now), permanent
                )
            )
            now += 2000
        assert states == ["pending"] * 5 + ["parked"]
        assert outbox.claim(session, PACS, "s", at(now), 60) is None
        assert jobs.get(session, int(job.id or 0)).state == "delivering"
        assert outbox.retry_parked(session, at(now), destination=ARCHIVE) == 0
        assert outbox.retry_parked(session, at(now), job_pk=job.id) == 1
        again = claim(session, now)
        assert outbox.delivered(session, int(again.id or 0), again.attempt, "0000", at(now)) == "done"


def test_a_parked_object_does_not_hold_back_the_others_of_its_study(database: Database) -> None:
    with database.transaction() as session:
        delivering(session, results=2)
        now = 0.0
        for _ in range(3):
            first = claim(session, now)
            outbox.failed(
                session, int(first.id or 0), first.attempt, "0122", "no SEG here", at(now), permanent=True
            )
            now += 2000
        assert claim(session, now).id != first.id


def fail_until(session: Session, begin: float, end: float) -> float:
    """Let one delivery fail from `begin` on whenever it is due, until `end` (s) or until it is parked; return when."""
    now = begin
    while now <= end:
        delivery = claim(session, now)
        pk = int(delivery.id or 0)
        if outbox.failed(session, pk, delivery.attempt, None, "down", at(now)) == "parked":
            return now
        now = (outbox.get(session, pk).run_after - at(0)).total_seconds() + 1
    return now


TERM = 6 * 3600.0


@pytest.fixture
def short_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the seven days be six hours: a test cannot fail once in each quarter of an hour of a week."""
    assert timedelta(days=7) == outbox.GIVE_UP
    monkeypatch.setattr(outbox, "GIVE_UP", timedelta(seconds=TERM))


@pytest.mark.usefixtures("short_term")
def test_nothing_is_given_up_before_seven_days_and_everything_after(sqlite: Database) -> None:
    with sqlite.transaction() as session:
        delivering(session, results=1)
        parked = fail_until(session, 0, 2 * TERM)
        assert TERM <= parked <= TERM + 1200
        assert outbox.retry_parked(session, at(parked)) == 1
        assert TERM <= fail_until(session, parked, parked + 2 * TERM) - parked <= TERM + 1200


@pytest.mark.usefixtures("short_term")
@pytest.mark.parametrize("tried", [0.0, 3600.0, TERM - 3600])
def test_a_time_in_which_nobody_tried_is_no_part_of_the_seven_days(sqlite: Database, tried: float) -> None:
    away = 8 * 86400
    with sqlite.transaction() as session:
        delivering(session, results=1)
        off = fail_until(session, 0, tried) if tried else 0.0
        assert off <= tried + 1200
        parked = fail_until(session, off + away, off + away + 2 * TERM)
        assert TERM + away <= parked <= TERM + away + 1200


def test_a_sender_that_died_is_replaced_and_cannot_report_any_more(database: Database) -> None:
    with database.transaction() as session:
        delivering(session, results=1)
        slow = claim(session, 0)
        assert outbox.heartbeat(session, int(slow.id or 0), 1, at(50), 60)
        assert outbox.claim(session, PACS, "s", at(100), 60) is None
        fast = claim(session, 110)
        assert (fast.id, fast.attempt) == (slow.id, 2)
        assert not outbox.heartbeat(session, int(slow.id or 0), 1, at(111), 60)
        for call in (outbox.delivered, outbox.failed):
            with pytest.raises(jobs.Fenced):
                call(
                    session,
                    int(slow.id or 0),
                    1,
                    "0000",
                    *(["late"] if call is outbox.failed else []),
                    at(112),
                )
        assert outbox.get(session, int(slow.id or 0)).state == "sending"


def test_a_destination_that_answers_again_gets_at_once_what_waits_but_not_what_it_refused(
    database: Database,
) -> None:
    with database.transaction() as session:
        for study in ("1.2.1", "1.2.2", "1.2.3"):
            delivering(session, study=study, results=1)
        waiting, refused, sent = (claim(session, 0) for _ in range(3))
        outbox.failed(session, int(waiting.id or 0), 1, None, "down", at(0))
        outbox.failed(session, int(refused.id or 0), 1, "A900", "no", at(0), permanent=True)
        outbox.delivered(session, int(sent.id or 0), 1, "0000", at(5))
        assert claim(session, 5).id == waiting.id
        assert outbox.claim(session, PACS, "s", at(5), 60) is None


def test_what_a_destination_did_not_take_goes_after_what_it_was_not_shown_yet(database: Database) -> None:
    with database.transaction() as session:
        for study in ("1.2.1", "1.2.2", "1.2.3"):
            delivering(session, study=study, results=1)
        bad, away = claim(session, 0), claim(session, 0)
        outbox.failed(session, int(bad.id or 0), 1, "0xA700", "full", at(0))
        outbox.failed(session, int(away.id or 0), 1, outbox.UNREACHABLE, "down", at(0))
        new = claim(session, 900)
        assert new.attempt == 1
        assert [claim(session, 900).id, claim(session, 900).id] == [away.id, bad.id]


@pytest.mark.parametrize(
    ("status", "tries", "quiet_seconds", "goes"),
    [
        ("0xA700", 3, 60, False),
        ("0xA700", 3, 120, True),
        ("unreachable", 3, 60, True),
        ("0xA700", 1, 0, True),
    ],
)
def test_what_failed_while_a_destination_took_others_keeps_its_pause(
    database: Database, status: str, tries: int, quiet_seconds: float, goes: bool
) -> None:
    now = 0.0
    with database.transaction() as session:
        delivering(session, study="1.2.1", results=1)
        for _ in range(tries):
            bad = claim(session, now)
            outbox.failed(session, int(bad.id or 0), bad.attempt, status, "no", at(now))
            now = (outbox.get(session, int(bad.id or 0)).run_after - at(0)).total_seconds() + 1
        now -= 2
        delivering(session, study="1.2.2", results=1)
        sent = claim(session, now)
        quiet = timedelta(seconds=quiet_seconds)
        outbox.delivered(session, int(sent.id or 0), 1, "0x0000", at(now), quiet=quiet)
        assert (outbox.claim(session, PACS, "s", at(now), 60) is not None) == goes


def test_after_twelve_hours_of_outage_forty_results_are_delivered_within_ten_minutes(
    tmp_path: Path, sqlite_template: Path
) -> None:
    (tmp_path / "x.sqlite").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite'}")
    outage = 12 * 3600
    with database.transaction() as session:
        for number in range(20):
            delivering(session, study=f"1.2.{number}", results=2)
        now, sent = 0.0, []
        while len(sent) < 40 and now < outage + 3600:
            while (delivery := outbox.claim(session, PACS, "s", at(now), 60)) is not None:
                if now < outage:
                    outbox.failed(session, int(delivery.id or 0), delivery.attempt, None, "refused", at(now))
                else:
                    outbox.delivered(session, int(delivery.id or 0), delivery.attempt, "0000", at(now))
                    sent.append(delivery)
            now += 60.0
    database.dispose()
    assert len({delivery.id for delivery in sent}) == 40
    assert now - outage <= 600
    assert max(delivery.attempt for delivery in sent) <= 80


def test_two_senders_that_end_the_last_two_deliveries_end_the_job(database: Database) -> None:
    for round_number in range(5):
        with database.transaction() as session:
            job = delivering(session, study=f"1.2.{round_number}", results=1, to=(PACS, ARCHIVE))
            last = [claim(session, 1, PACS), claim(session, 1, ARCHIVE)]

        def end(number: int, last: list[Delivery] = last) -> None:
            with database.transaction() as session:
                outbox.delivered(session, int(last[number].id or 0), 1, "0000", at(2))

        at_once(end, 2)
        with database.reading() as session:
            assert jobs.get(session, int(job.id or 0)).state == "done"


def test_many_senders_never_send_a_row_twice(database: Database) -> None:
    with database.transaction() as session:
        for number in range(20):
            delivering(session, study=f"1.2.{number}", results=2)
    claimed: list[int] = []

    def work(owner: int) -> None:
        empty = 0
        while empty < 5:
            with database.transaction() as session:
                delivery = outbox.claim(session, PACS, str(owner), at(1), 600)
            if delivery is None:
                empty += 1
                continue
            claimed.append(int(delivery.id or 0))
            with database.transaction() as session:
                outbox.delivered(session, int(delivery.id or 0), 1, "0000", at(1))

    at_once(work, 6)
    assert len(claimed) == 40
    assert max(Counter(claimed).values()) == 1
    with database.reading() as session:
        assert {job.state for job in jobs.list_jobs(session)} == {"done"}


def test_what_waits_for_a_destination_that_nobody_serves_is_counted(database: Database) -> None:
    with database.transaction() as session:
        delivering(session, to=(PACS, ARCHIVE))
        sent = claim(session, 1, ARCHIVE)
        outbox.delivered(session, int(sent.id or 0), 1, "0x0000", at(2))
        assert outbox.unserved(session, [PACS, ARCHIVE]) == {}
        assert outbox.unserved(session, [PACS]) == {ARCHIVE: 1}
        assert outbox.unserved(session, []) == {PACS: 2, ARCHIVE: 1}


def test_an_unknown_delivery_or_state_is_refused(database: Database) -> None:
    with database.transaction() as session:
        with pytest.raises(Refused) as caught:
            outbox.get(session, 1)
        assert caught.value.code == "no-such-delivery"
        with pytest.raises(Refused) as caught:
            outbox.list_deliveries(session, "lost")
        assert caught.value.code == "no-such-state"


def test_a_password_never_gets_into_the_outbox(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session))
        job = jobs.claim(session, "w", at(0), 60)
        assert job is not None
        row = result(session, job)
        assert outbox.add(session, row, ["https://nadir:secret@archive/dicom-web/"], START) == 1
        assert outbox.add(session, row, ["https://nadir:newer@archive/dicom-web"], START) == 0
        assert [d.destination for d in outbox.list_deliveries(session)] == ["https://archive/dicom-web"]


def test_what_waits_for_a_destination_that_is_gone_can_be_abandoned(database: Database) -> None:
    with database.transaction() as session:
        job, other = (
            delivering(session, to=(PACS, ARCHIVE)),
            delivering(session, study="1.2.4", to=(ARCHIVE,)),
        )
        for _ in range(2):
            sent = claim(session, 1)
            outbox.delivered(session, int(sent.id or 0), 1, "0x0000", at(1))
        claim(session, 1, ARCHIVE)
        assert outbox.abandon(session, ARCHIVE, at(2), job_pk=other.id) == 2
        assert jobs.get(session, int(other.id or 0)).state == "done"
        assert outbox.abandon(session, ARCHIVE, at(3)) == 1
        assert jobs.get(session, int(job.id or 0)).state == "delivering"
        assert outbox.abandon(session, ARCHIVE, at(100)) == 1
        assert jobs.get(session, int(job.id or 0)).state == "done"
        given_up = outbox.list_deliveries(session, "abandoned")
        assert [row.abandoned_at for row in given_up] == [at(100), at(3), at(2), at(2)]
        assert outbox.unserved(session, []) == {}


def test_a_destination_that_nothing_was_ever_for_is_refused_with_those_that_have_something_waiting(
    database: Database,
) -> None:
    with database.transaction() as session:
        with pytest.raises(Refused, match="no result is for nonsense; something waits for: nobody"):
            outbox.require_delivery(session, "nonsense")
        job, other = delivering(session, to=(PACS, ARCHIVE)), delivering(session, study="1.2.4")
        with pytest.raises(Refused) as caught:
            outbox.require_delivery(session, "nonsense")
        told = (caught.value.code, caught.value.sentence)
        places = f"something waits for: {PACS}, {ARCHIVE}"
        assert told == ("no-such-destination", f"no result is for nonsense; {places}")
        with pytest.raises(Refused, match=f"no result of job {other.id} is for {ARCHIVE}"):
            outbox.require_delivery(session, ARCHIVE, other.id)
        with pytest.raises(Refused, match=r"There is no job 7\."):
            outbox.require_delivery(session, ARCHIVE, 7)
        assert outbox.abandon(session, ARCHIVE, at(2)) == 2
        outbox.require_delivery(session, ARCHIVE, job.id)
        with pytest.raises(Refused, match=f"something waits for: {PACS}$"):
            outbox.require_delivery(session, "nonsense")


def test_what_a_dead_sender_held_can_be_sent_at_once(database: Database) -> None:
    with database.transaction() as session:
        delivering(session, results=1)
        claim(session, 0)
        assert outbox.owners(session, PACS) == {"s"}
        assert outbox.release(session, PACS, ["another"], at(1)) == 0
        assert outbox.claim(session, PACS, "t", at(1), 60) is None
        assert outbox.release(session, PACS, ["s"], at(1)) == 1
        assert claim(session, 1).attempt == 2


def test_only_what_could_not_be_reached_is_woken_by_a_destination_that_is_back(database: Database) -> None:
    with database.transaction() as session:
        for study, status in (("1.2.1", "unreachable"), ("1.2.2", "0xA700")):
            delivering(session, study=study, results=1)
            held = claim(session, 0)
            outbox.failed(session, int(held.id or 0), 1, status, "no", at(0))
        assert outbox.is_waiting(session, PACS, at(1), "unreachable")
        outbox.wake(session, PACS, at(1), "unreachable")
        assert claim(session, 1).last_status == "unreachable"
        assert not outbox.is_waiting(session, PACS, at(1), "unreachable")
        assert outbox.is_waiting(session, PACS, at(1))

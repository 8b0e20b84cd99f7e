"""The audit trail in SQL: its chain shows what was changed."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from store import audit
from store.database import Database
from store.tally import AuditWalk

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
pytestmark = pytest.mark.sec


def fill(database: Database, *messages: str) -> str:
    with database.transaction() as session:
        return audit.append(session, [(NOON, message) for message in messages])


def verdict(database: Database) -> audit.Verdict:
    with database.reading() as session:
        return audit.verify(session)


def test_each_record_holds_the_hash_of_the_one_before(database: Database) -> None:
    fill(database, "one")
    last = fill(database, "two", "three")
    assert verdict(database) == audit.Verdict(records=3, last_sha256=last, broken_pk=None)
    one = audit.link("0" * 64, "one")
    assert last == audit.link(audit.link(one, "two"), "three")


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE audit_record SET message = 'other' WHERE message = 'two'", "two"),
        ("DELETE FROM audit_record WHERE message = 'two'", "three"),
        ("UPDATE audit_record SET sha256 = repeat_of WHERE message = 'one'", "one"),
    ],
)
def test_a_record_that_was_changed_or_taken_out_shows(database: Database, change: str, broken: str) -> None:
    fill(database, "one", "two", "three")
    with database.transaction() as session:
        numbers = {
            message: pk
            for pk, message in session.connection().execute(text("SELECT id, message FROM audit_record"))
        }
        session.connection().execute(text(change.replace("repeat_of", f"'{'a' * 64}'")))
    assert verdict(database).broken_pk == numbers[broken]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE audit_record SET at = '2020-01-01 00:00:00' WHERE id = 2", 2),
        ("UPDATE audit_record SET at = '2026-03-01 12:00:00.252' WHERE id = 2", 2),
        ("UPDATE audit_record SET message = message", None),
    ],
)
def test_a_record_whose_time_was_changed_shows_beside_the_time_in_its_message(
    database: Database, change: str, broken: int | None
) -> None:
    moment = NOON.replace(microsecond=250_999)
    told = '<AuditMessage><EventIdentification EventActionCode="E" EventDateTime="2026-03-01T12:00:00.250+00:00"/>'
    with database.transaction() as session:
        audit.append(session, [(moment, f"{told}{n}") for n in range(3)])
        if not database.is_sqlite:
            change = change.replace("' WHERE", "+00' WHERE")
        session.connection().execute(text(change))
    assert verdict(database).broken_pk == broken
    with database.reading() as session:
        assert AuditWalk().step(session) == (broken is None)


def test_an_end_that_was_cut_off_shows_by_the_hash_that_was_kept_elsewhere(database: Database) -> None:
    last = fill(database, "one", "two", "three")
    with database.transaction() as session:
        session.connection().execute(text("DELETE FROM audit_record WHERE message = 'three'"))
    found = verdict(database)
    assert found.broken_pk is None
    assert (found.records, found.last_sha256 == last) == (2, False)


def test_many_that_append_at_once_make_one_chain(database: Database) -> None:
    threads = [
        threading.Thread(target=lambda n=n: [fill(database, f"{n} {k}") for k in range(5)]) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = verdict(database)
    assert (found.records, found.broken_pk) == (30, None)


def test_records_come_in_pages_and_in_order(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 4)
    fill(database, *map(str, range(10)))
    with database.reading() as session:
        assert [r.message for r in audit.records(session)] == [str(n) for n in range(10)]
        assert [r.message for r in audit.records(session, after_pk=3, limit=5)] == list("34567")


def test_a_sink_belongs_to_one_process_until_it_lets_go_or_dies(database: Database) -> None:
    def claim(owner: str, seconds: float) -> int | None:
        with database.transaction() as session:
            at = datetime.fromtimestamp(NOON.timestamp() + seconds, UTC)
            return audit.claim_sink(session, "syslog x", owner, at, 60)

    assert claim("a", 0) == 0
    assert claim("b", 30) is None
    with database.transaction() as session:
        audit.handed_on(session, "syslog x", "a", 7)
        audit.handed_on(session, "syslog x", "b", 99)  # not its own
    assert claim("a", 59) == 7
    assert claim("b", 120) == 7
    with database.transaction() as session:
        audit.release_sink(session, "syslog x", "b")
    assert claim("a", 121) == 7

"""What a listener has to write while the database is away: kept, written once, told, and lost in no silence."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_schema import told
from dicom_series import make_series
from patience import PATIENT_LIMITS, eventually
from pydicom import dcmread
from raw_peer import CT, RawPeer
from small_node import SmallNode
from sqlmodel import Session

import node.housekeeping as housekeeping
from node.audit import Audit
from node.audit_events import Patients
from node.housekeeping import Chore, Housekeeper
from node.listener import Listener
from plugins.errors import Unavailable
from store.audit_tables import AuditRecord
from store.tables import Association, Event

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AWAY = Unavailable("The database did not answer; try again.")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallNode]:
    """Give a node whose database is waited for a moment only."""
    monkeypatch.setattr("store.database.WAIT_SECONDS", 0.2)
    monkeypatch.setattr(housekeeping, "RETRY_SECONDS", 0.1)
    node = SmallNode.make(tmp_path / "node")
    yield node
    node.database.dispose()


@contextmanager
def held_by_another(small: SmallNode) -> Iterator[None]:
    """Hold the database as another process does that writes for long."""
    with closing(sqlite3.connect(small.home / "nadir.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def event(kind: str) -> Chore:
    def write(session: Session, at: datetime) -> None:
        session.add(Event(at=at, kind=kind, subject="x", text="y"))

    return Chore(otherwise="event-not-written", about={"kind": kind}, write=write)


def kinds(small: SmallNode) -> list[str]:
    return [row.kind for row in small.rows(Event)]


def actions(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith(f"action={name}")]


@pytest.fixture
def keeper(small: SmallNode) -> Iterator[Callable[..., Housekeeper]]:
    made: list[Housekeeper] = []

    def make(clock: Callable[[], datetime] = lambda: NOON) -> Housekeeper:
        made.append(Housekeeper(small.database, clock, lambda session, now: None))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.mark.parametrize("receive_path", ["fast", "pynetdicom"])
def test_an_association_that_ends_while_the_database_is_away_is_closed_and_told_to_the_trail_once(
    small: SmallNode, tmp_path: Path, receive_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    trail = Audit(small.database, source="NADIR", patients=Patients(key=b"k"))
    trail.start()
    paths = make_series(tmp_path / "in", np.zeros((3, 8, 8)))
    listener = Listener(
        small.database, small.objects, host="127.0.0.1", port=0, accept_any=True, reserve_bytes=0,
        receive_path=receive_path, limits=PATIENT_LIMITS, audit=trail,
    )  # fmt: skip
    listener.start()
    with caplog.at_level(logging.INFO):
        with RawPeer(listener.port) as peer:
            peer.associate(calling="CT1")
            for path in paths:
                raw = path.read_bytes()
                uid = str(dcmread(path).SOPInstanceUID)
                assert peer.store(CT, uid, raw[raw.index(b"\x08\x00\x05\x00CS") :]) == 0x0000
            with held_by_another(small):
                peer.release()
                assert eventually(lambda: bool(actions(caplog, "house-keeping-failed")))
                time.sleep(0.5)
        assert eventually(lambda: small.rows(Association)[0].closed_at is not None)
        listener.stop()
        trail.stop()
    messages = [record.message for record in small.rows(AuditRecord)]
    assert [told(message) for message in messages] == [("DICOM Instances Transferred", "", "0")]
    assert 'NumberOfInstances="3"' in messages[0]
    assert actions(caplog, "received") == ["action=received study=1 instances=3 source=CT1"]
    assert len(actions(caplog, "house-keeping-failed")) == 1
    assert len(actions(caplog, "house-keeping-works")) == 1


def test_what_failed_is_written_in_its_order_with_the_time_it_happened_at(
    small: SmallNode, keeper: Callable[..., Housekeeper]
) -> None:
    house = keeper(small.database.now)
    with held_by_another(small):
        house.start()
        for number in range(5):
            house.later(event(f"e{number}"))
        happened = small.database.now()
        time.sleep(1.0)
    assert eventually(lambda: len(kinds(small)) == 5)
    assert kinds(small) == [f"e{number}" for number in range(5)]
    assert all(row.at <= happened + timedelta(milliseconds=100) for row in small.rows(Event))


def test_a_clock_that_does_not_answer_holds_nothing_up_and_loses_nothing(
    small: SmallNode, keeper: Callable[..., Housekeeper]
) -> None:
    answers: list[Any] = [AWAY, AWAY, NOON]

    def clock() -> datetime:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return NOON

    house = keeper(clock)
    house.start()
    house.later(event("one"))
    assert eventually(lambda: kinds(small) == ["one"])


def test_a_commit_that_fails_does_again_what_is_in_sql_and_not_what_comes_after(
    small: SmallNode, keeper: Callable[..., Housekeeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written, after, failures = small.database.transaction, [], [], [AWAY, AWAY]

    @contextmanager
    def transaction() -> Iterator[Session]:
        with real() as session:
            yield session
            if failures:
                raise failures.pop()

    def write(session: Session, at: datetime) -> Callable[[], None]:
        written.append(at)
        return lambda: after.append(at)

    monkeypatch.setattr(small.database, "transaction", transaction)
    house = keeper()
    house.start()
    house.later(Chore(otherwise="x", about={}, write=write))
    assert eventually(lambda: bool(after))
    house.stop()
    assert (len(written), len(after)) == (3, 1)


def test_a_fault_in_one_is_told_and_keeps_no_other_back(
    small: SmallNode, keeper: Callable[..., Housekeeper], caplog: pytest.LogCaptureFixture
) -> None:
    def write(session: Session, at: datetime) -> None:
        raise ValueError("a fault")

    house = keeper()
    for one in (event("before"), Chore(otherwise="broken", about={"n": 1}, write=write), event("after")):
        house.later(one)
    house.start()
    assert eventually(lambda: kinds(small) == ["before", "after"])
    assert actions(caplog, "broken") == ["action=broken n=1"]


def test_what_the_database_has_not_taken_when_the_listener_ends_is_told_one_by_one(
    small: SmallNode,
    keeper: Callable[..., Housekeeper],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(housekeeping, "LAST_SECONDS", 0.5)
    house = keeper()
    with held_by_another(small):
        house.start()
        house.later(event("one"))
        house.later(event("two"))
        house.stop()
    assert actions(caplog, "house-keeping-lost") == ["action=house-keeping-lost count=2"]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR][1:] == [
        "action=event-not-written kind=one",
        "action=event-not-written kind=two",
    ]


def test_more_than_can_wait_is_told_at_once(
    small: SmallNode,
    keeper: Callable[..., Housekeeper],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(housekeeping, "MOST_WAITING", 1)
    house = keeper()
    house.later(event("one"))
    house.later(event("two"))
    assert actions(caplog, "event-not-written") == ["action=event-not-written kind=two"]
    house.start()
    assert eventually(lambda: kinds(small) == ["one"])


def test_a_caller_that_is_turned_away_while_the_database_is_away_is_told_later(
    small: SmallNode, caplog: pytest.LogCaptureFixture
) -> None:
    is_away = threading.Event()

    def clock() -> datetime:
        if is_away.is_set():
            raise AWAY
        return NOON

    listener = Listener(
        small.database, small.objects, host="127.0.0.1", port=0, callers=("KNOWN",), ae_title="NADIR",
        limits=PATIENT_LIMITS, reserve_bytes=0, clock=clock,
    )  # fmt: skip
    listener.start()
    is_away.set()
    with RawPeer(listener.port) as peer:
        got = peer.associate(calling="STRANGER")
    assert got is not None and got[0] == 0x03
    assert eventually(lambda: bool(actions(caplog, "house-keeping-failed")))
    is_away.clear()
    assert eventually(lambda: kinds(small) == ["rejected"])
    listener.stop()

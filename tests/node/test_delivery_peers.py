"""Delivery to peers that warn, refuse, reject, hang, lie or die: what is sent again, and what a person is asked."""

from __future__ import annotations

import gc
import hashlib
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from empty_database import empty_database
from outbox_rows import deliveries, job_state, waiting_results
from patience import PATIENCE_SECONDS, eventually
from ports import free_port
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from sqlmodel import select
from storage_peer import calling, peer, work_off

from node.loop import Loop
from node.scu import Timeouts
from node.sender import Sender
from store.database import Database
from store.objects import ObjectStore
from store.tables import Event

QUICK = Timeouts(connect=2.0, associate=2.0, answer=1.0)
"""Of a sender to a peer that never answers."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = empty_database(tmp_path)
    yield made
    made.dispose()


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "store")


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_a_warning_is_delivered_and_kept(
    database: Database, objects: ObjectStore, tmp_path: Path, status: int
) -> None:
    with peer(lambda _: status) as destination:
        waiting_results(database, objects, tmp_path, [destination], count=1)
        work_off(Sender(database, objects, destination), database.now())
    (row,) = deliveries(database)
    assert (row.state, row.last_status) == ("delivered", f"0x{status:04X}")


@pytest.mark.parametrize("status", [0xA700, 0x0110])
def test_a_peer_without_resources_is_sent_the_same_bytes_until_it_takes_them(
    database: Database, objects: ObjectStore, tmp_path: Path, status: int
) -> None:
    seen: list[str] = []

    def answer(event: evt.Event) -> int:
        seen.append(hashlib.sha256(event.encoded_dataset(include_meta=False)).hexdigest())
        return 0 if len(seen) > 5 else status

    with peer(answer) as destination:
        waiting_results(database, objects, tmp_path, [destination], count=1)
        sender, now = Sender(database, objects, destination), database.now()
        for _ in range(40):
            work_off(sender, now)
            now += timedelta(minutes=4)
    (row,) = deliveries(database)
    assert (row.state, row.attempt) == ("delivered", 6)
    assert len(set(seen)) == 1 and len(seen) == 6


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0124])
def test_a_peer_that_refuses_is_asked_three_times_and_then_a_person(
    database: Database, objects: ObjectStore, tmp_path: Path, status: int
) -> None:
    seen: list[int] = []
    with peer(lambda _: seen.append(1) or status) as destination:
        waiting_results(database, objects, tmp_path, [destination], count=1)
        sender, now = Sender(database, objects, destination), database.now()
        for _ in range(40):
            work_off(sender, now)
            now += timedelta(minutes=20)
    (row,) = deliveries(database)
    assert (row.state, row.attempt, row.last_status, len(seen)) == ("parked", 3, f"0x{status:04X}", 3)
    with database.reading() as session:
        assert [(e.kind, e.subject) for e in session.exec(select(Event))] == [
            ("delivery-parked", destination)
        ]
    assert job_state(database) == "delivering"


def test_a_peer_that_does_not_know_the_sop_class_parks(
    database: Database, objects: ObjectStore, tmp_path: Path
) -> None:
    ae = AE(ae_title="PEER")
    ae.add_supported_context("1.2.840.10008.1.1")
    port = free_port()
    running = ae.start_server(("127.0.0.1", port), block=False)
    destination = f"PEER@127.0.0.1:{port}"
    waiting_results(database, objects, tmp_path, [destination], count=1)
    sender, now = Sender(database, objects, destination), database.now()
    for _ in range(5):
        work_off(sender, now)
        now += timedelta(minutes=20)
    running.shutdown()
    (row,) = deliveries(database)
    assert (row.state, row.attempt) == ("parked", 3)
    assert row.last_error and "SOP class" in row.last_error


@contextmanager
def refuses_tcp() -> Iterator[str]:
    with warnings.catch_warnings():
        # pynetdicom shuts a refused socket down and leaves its closing to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        yield f"PEER@127.0.0.1:{free_port()}"
        gc.collect()


@contextmanager
def rejects_for_now() -> Iterator[str]:
    with peer(lambda _: 0, maximum=1) as destination:
        occupant = AE()
        occupant.add_requested_context(CTImageStorage)
        held = occupant.associate("127.0.0.1", int(destination.rpartition(":")[2]))
        yield destination
        held.release()


@contextmanager
def is_silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"PEER@127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def accepts_and_never_answers() -> Iterator[str]:
    gate = threading.Event()

    def wait(_: evt.Event) -> int:
        gate.wait(2 * PATIENCE_SECONDS)
        return 0

    with peer(wait) as destination:
        try:
            yield destination
        finally:
            gate.set()


@contextmanager
def aborts() -> Iterator[str]:
    def abort(event: evt.Event) -> int:
        event.assoc.abort()
        return 0

    with peer(abort) as destination:
        yield destination


@pytest.mark.parametrize(
    "trouble", [refuses_tcp, rejects_for_now, is_silent, accepts_and_never_answers, aborts]
)
def test_a_peer_that_gives_no_answer_is_tried_again_later(
    database: Database, objects: ObjectStore, tmp_path: Path, trouble: Callable[[], Any]
) -> None:
    with trouble() as destination:
        waiting_results(database, objects, tmp_path, [destination], count=2)
        now = database.now()
        began = time.monotonic()
        work_off(Sender(database, objects, destination, transport=calling(destination, QUICK)), now)
        assert time.monotonic() - began < PATIENCE_SECONDS
    rows = deliveries(database)
    assert [(r.state, r.attempt) for r in rows] == [("pending", 1), ("pending", 0)]
    assert rows[0].run_after > now + timedelta(seconds=20)
    assert rows[0].last_error


def test_a_peer_that_rejects_us_for_good_parks_after_three(
    database: Database, objects: ObjectStore, tmp_path: Path
) -> None:
    with peer(lambda _: 0, called=["SOMEONE"]) as destination:
        waiting_results(database, objects, tmp_path, [destination], count=1)
        sender, now = Sender(database, objects, destination), database.now()
        for _ in range(5):
            work_off(sender, now)
            now += timedelta(minutes=20)
    (row,) = deliveries(database)
    assert (row.state, row.attempt) == ("parked", 3)


def test_a_response_that_was_lost_leads_to_the_same_instance_again(
    database: Database, objects: ObjectStore, tmp_path: Path
) -> None:
    held: dict[str, int] = {}

    def store_and_die_once(event: evt.Event) -> int:
        uid = event.request.AffectedSOPInstanceUID
        held[uid] = held.get(uid, 0) + 1
        if held[uid] == 1:
            event.assoc.abort()
        return 0

    with peer(store_and_die_once) as destination:
        uids = waiting_results(database, objects, tmp_path, [destination], count=1)
        sender, now = Sender(database, objects, destination, transport=calling(destination)), database.now()
        work_off(sender, now)
        work_off(sender, now + timedelta(minutes=2))
    assert held == {uids[0]: 2}
    (row,) = deliveries(database)
    assert (row.state, row.attempt) == ("delivered", 2)


def test_a_dead_destination_does_not_slow_another(
    database: Database, objects: ObjectStore, tmp_path: Path
) -> None:
    with peer(lambda _: 0) as live:
        with accepts_and_never_answers() as dead:
            waiting_results(database, objects, tmp_path, [dead, live], count=5)
            senders = [Sender(database, objects, name, transport=calling(name)) for name in (dead, live)]
            loops = [Loop(s.destination, s.tick, database.now, 0.05) for s in senders]
            for loop in loops:
                loop.start()
            assert eventually(
                lambda: all(r.state == "delivered" for r in deliveries(database) if r.destination == live)
            )
            # Its first call is still open: who came behind it would not have been served.
            assert "delivered" not in {r.state for r in deliveries(database) if r.destination == dead}
        assert all(loop.stop(PATIENCE_SECONDS) for loop in loops)

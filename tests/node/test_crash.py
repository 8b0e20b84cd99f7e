"""Kills during ingest: what was acknowledged is there, once, whole, whenever the process ends."""

from __future__ import annotations

import hashlib
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from figures import write_figure
from listener_nursery import Nursery
from postgres_server import running_postgres
from pydicom import dcmread
from raw_peer import CT, RawPeer
from sqlmodel import col, select

from store.database import Database
from store.tables import Event, Instance

POINTS = ("after-temp-write", "after-fsync", "after-link", "before-commit", "after-commit", "after-response")
PATHS = ("fast", "pynetdicom")
SENDERS = 3
PATIENCE_SECONDS = 60.0
UID = "1.2.826.0.1.3680043.8.498.1{:012d}"

pytestmark = pytest.mark.fault


class Scanner:
    """Sends images that differ in nothing but their UIDs, and remembers which ones were acknowledged."""

    def __init__(self, folder: Path) -> None:
        (path,) = make_series(folder, np.arange(48.0 * 48).reshape(1, 48, 48))
        raw = path.read_bytes()
        dataset = dcmread(path)
        dataset.SOPInstanceUID = UID.format(0)
        dataset.save_as(path)
        raw = path.read_bytes()
        self._data = raw[raw.index(b"\x08\x00\x05\x00CS") :]
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self._open: list[str] = []
        self._lock = threading.Lock()
        self.has_begun = threading.Event()

    def data(self, uid: str) -> bytes:
        return self._data.replace(UID.format(0).encode(), uid.encode())

    def _next(self) -> str:
        """Return what was sent and not acknowledged before anything new, as a scanner does."""
        with self._lock:
            if self._open:
                return self._open.pop()
            uid = UID.format(len(self.sent) + 1)
            self.sent.add(uid)
            return uid

    def send(self, port: int, most: int) -> None:
        """Send until the other side is gone."""
        uid = ""
        try:
            with RawPeer(port, timeout=PATIENCE_SECONDS) as peer:
                peer.associate()
                for _ in range(most):
                    uid = self._next()
                    if peer.store(CT, uid, self.data(uid)) != 0x0000:
                        break
                    with self._lock:
                        self.acknowledged.add(uid)
                    uid = ""
                    self.has_begun.set()
        except OSError:
            pass
        finally:
            self.has_begun.set()
            with self._lock:
                self._open += [uid] if uid else []

    def crowd(self, port: int, most: int = 10_000) -> list[threading.Thread]:
        """Begin to send on several associations."""
        self.has_begun.clear()
        threads = [threading.Thread(target=self.send, args=(port, most)) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        return threads


def kill_often(nursery: Nursery, database: Database, scanner: Scanner, plan: list[str]) -> float:
    """Kill listeners while they receive, and return how many seconds that took."""
    dice, checked = random.Random(len(plan)), set[str]()
    begun = time.monotonic()
    for number, point in enumerate(plan):
        failpoint = f"{point}:{dice.randint(1, 12)}" if point else ""
        port = nursery.start(failpoint, receive_path=PATHS[number % 2])
        threads = scanner.crowd(port)
        if not point:
            assert scanner.has_begun.wait(PATIENCE_SECONDS)
            time.sleep(dice.uniform(0.0, 0.06))
            assert nursery.end() == -signal.SIGKILL
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        if point:
            assert nursery.end() == 137
        # Before the next start, which would take in objects without a row: a row is what acknowledged means.
        with database.reading() as session:
            new = scanner.acknowledged - checked
            rows = set(
                session.exec(select(Instance.sop_instance_uid).where(col(Instance.sop_instance_uid).in_(new)))
            )
        assert new == rows
        checked |= new
    return time.monotonic() - begun


def check(home: Path, database: Database, scanner: Scanner) -> dict[str, int]:
    """Return how much of what was acknowledged is lost, there twice, or of other bytes than it should be."""
    with database.reading() as session:
        rows = session.exec(select(Instance.sop_instance_uid, Instance.sha256)).all()
        events = session.exec(select(Event.kind).where(col(Event.kind) != "recovered")).all()
    held = dict(rows)
    objects = {path.stem: path for path in (home / "store" / "objects").glob("??/*")}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in objects.items()}
    return {
        "lost": sum(held.get(uid) not in hashes for uid in scanner.acknowledged),
        "duplicate_rows": len(rows) - len(held),
        "duplicate_events": len(events),
        "corrupt": sum(name != sha256 for name, sha256 in hashes.items()),
        "without_row": len(set(hashes) - set(held.values())),
        "temporaries": len(list((home / "store" / "incoming").iterdir())),
    }


def kill_and_check(
    home: Path, url: str, scanner: Scanner, *, at_random: int, at_each_point: int
) -> dict[str, float]:
    database = Database(url)
    with Nursery(home, database_url=url) as nursery:
        plan = [""] * at_random + [point for point in POINTS for _ in range(at_each_point)]
        random.Random(at_random).shuffle(plan)
        seconds = kill_often(nursery, database, scanner, plan)
        acknowledged = len(scanner.acknowledged)
        port = nursery.start()
        assert nothing_left(home, database), "the next start takes in what was kept and not recorded"
        found = check(home, database, scanner)
        # What was acknowledged is sent once more, and what was not: the node holds each once.
        again = sorted(scanner.sent)[-200:]
        with RawPeer(port) as peer:
            peer.associate()
            assert {peer.store(CT, uid, scanner.data(uid)) for uid in again} == {0x0000}
        assert nursery.end(signal.SIGTERM) == 0
    after = check(home, database, scanner)
    with database.reading() as session:
        held = set(session.exec(select(Instance.sop_instance_uid)))
    database.dispose()
    assert set(again) <= held <= scanner.sent
    assert found == after == dict.fromkeys(found, 0)
    assert acknowledged > at_random
    return {
        "rounds": len(plan),
        "acknowledged": acknowledged,
        "seconds": round(seconds, 1),
        **found,
    }


def nothing_left(home: Path, database: Database) -> bool:
    """Return True once every object on disk has a row."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with database.reading() as session:
            named = set(session.exec(select(Instance.sha256)))
        if {path.stem for path in (home / "store" / "objects").glob("??/*.dcm")} <= named:
            return True
        time.sleep(0.05)
    return False


def sqlite_in(home: Path) -> str:
    home.mkdir()
    return f"sqlite:///{home / 'nadir.sqlite'}"


def test_what_was_acknowledged_survives_kills_at_any_moment_and_is_there_once(tmp_path: Path) -> None:
    home, scanner = tmp_path / "node", Scanner(tmp_path / "in")
    figures = kill_and_check(home, sqlite_in(home), scanner, at_random=8, at_each_point=5)
    write_figure("kill -9 during ingest", **figures)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_what_was_acknowledged_survives_a_thousand_kills(tmp_path: Path) -> None:
    home, scanner = tmp_path / "node", Scanner(tmp_path / "in")
    figures = kill_and_check(home, sqlite_in(home), scanner, at_random=400, at_each_point=100)
    write_figure("kill -9 during ingest", tier="long", **figures)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.postgres
def test_what_was_acknowledged_survives_kills_on_postgresql(tmp_path: Path) -> None:
    with running_postgres() as server:
        url = server.url(server.create())
        scanner = Scanner(tmp_path / "in")
        figures = kill_and_check(tmp_path / "node", url, scanner, at_random=60, at_each_point=15)
    write_figure("kill -9 during ingest, PostgreSQL", tier="long", **figures)

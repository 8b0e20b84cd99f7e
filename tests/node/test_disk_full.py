"""Disks that are full or fail while objects arrive: send it again is the answer, nothing is half kept, no restart."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from figures import write_figure
from listener_process import ListenerProcess
from pydicom import dcmread
from raw_peer import CT, RawPeer
from small_node import SmallNode, instances_in
from sqlalchemy import event as sql_event

from node.listener import Listener
from store import database as database_module

pytestmark = pytest.mark.fault

ROUNDS = 20
MIB = 1 << 20
OUT_OF_RESOURCES, SUCCESS = 0xA700, 0x0000
UID = "1.2.826.0.1.3680043.8.498.1{:09d}"


class Image:
    """One image that can be sent under any UID."""

    def __init__(self, folder: Path, size_bytes: int = 2048) -> None:
        (path,) = make_series(folder, np.zeros((1, size_bytes // 1024, 512)))
        dataset = dcmread(path)
        dataset.SOPInstanceUID = UID.format(0)
        dataset.save_as(path)
        raw = path.read_bytes()
        self._data = raw[raw.index(b"\x08\x00\x05\x00CS") :]

    def send(self, peer: RawPeer, number: int) -> int | None:
        uid = UID.format(number)
        return peer.store(CT, uid, self._data.replace(UID.format(0).encode(), uid.encode()))


@pytest.fixture(params=["fast", "pynetdicom"])
def receive_path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """Mount a filesystem of a few megabytes on a folder; skip where that is not permitted."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    mounted = subprocess.run([shutil.which("mount") or "mount", *options], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("a small filesystem cannot be mounted here; the limit on file size is tested instead")
    try:
        yield
    finally:
        subprocess.run([shutil.which("umount") or "umount", str(folder)], check=True)


def assert_nothing_half_kept(home: Path, uids: set[str]) -> None:
    rows = instances_in(home)
    assert set(rows) == uids
    assert list((home / "store" / "incoming").iterdir()) == []
    assert {path.stem for path in (home / "store" / "objects").glob("??/*")} == set(rows.values())


def test_a_full_disk_is_answered_with_a700_and_recovers_without_a_restart(
    tmp_path: Path, receive_path: str
) -> None:
    home = tmp_path / "node"
    image = Image(tmp_path / "in", MIB)
    with (
        small_disk(home / "store", 4 * MIB),
        ListenerProcess(home, receive_path=receive_path) as process,
        RawPeer(process.port) as peer,
    ):
        peer.associate()
        for number in range(1, ROUNDS + 1):
            filler = home / "store" / "filler"
            filler.write_bytes(bytes(shutil.disk_usage(home / "store").free - MIB // 2))
            assert image.send(peer, number) == OUT_OF_RESOURCES
            assert_nothing_half_kept(home, {UID.format(0)} if number > 1 else set())
            filler.unlink()
            assert image.send(peer, 0) == SUCCESS
    write_figure(f"disk full (tmpfs), {receive_path}", rounds=ROUNDS, answered_a700=ROUNDS, partial_files=0)


def test_a_file_beyond_the_limit_is_answered_with_a700_and_the_next_is_taken(
    tmp_path: Path, receive_path: str
) -> None:
    home = tmp_path / "node"
    large, small = Image(tmp_path / "large", 5 * MIB), Image(tmp_path / "small")
    with ListenerProcess(home, receive_path=receive_path, file_size_limit=4 * MIB) as process:
        with RawPeer(process.port) as peer:
            peer.associate()
            for number in range(1, ROUNDS + 1):
                assert large.send(peer, 100 + number) == OUT_OF_RESOURCES
                assert small.send(peer, number) == SUCCESS
        assert_nothing_half_kept(home, {UID.format(number) for number in range(1, ROUNDS + 1)})
    write_figure(
        f"disk full (RLIMIT_FSIZE), {receive_path}", rounds=ROUNDS, answered_a700=ROUNDS, partial_files=0
    )


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    node = SmallNode.make(tmp_path / "node")
    yield node
    node.database.dispose()


@contextmanager
def listening(node: SmallNode, receive_path: str) -> Iterator[RawPeer]:
    """Give an association with a listener of a node."""
    listener = Listener(
        node.database,
        node.objects,
        host="127.0.0.1",
        port=0,
        accept_any=True,
        reserve_bytes=0,
        receive_path=receive_path,
    )
    listener.start()
    try:
        with RawPeer(listener.port) as peer:
            peer.associate()
            yield peer
    finally:
        listener.stop()


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_disk_that_fails_is_answered_with_a700_and_recovers(
    small: SmallNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receive_path: str, call: str
) -> None:
    image, number, times = Image(tmp_path / "in"), 0, 10
    codes = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT)
    with listening(small, receive_path) as peer:
        for code in codes:
            for _ in range(times):
                number += 1

                def fail(*_: object, code: int = code) -> None:
                    raise OSError(code, os.strerror(code))

                with monkeypatch.context() as failing:
                    failing.setattr(os, call, fail)
                    assert image.send(peer, 1000 + number) == OUT_OF_RESOURCES
                assert image.send(peer, number) == SUCCESS
        assert_nothing_half_kept(small.home, {UID.format(one) for one in range(1, number + 1)})
    rounds = times * len(codes)
    write_figure(
        f"disk fails in {call}, {receive_path}", rounds=rounds, answered_a700=rounds, partial_files=0
    )


def test_a_full_database_is_answered_with_a700_and_recovers(
    small: SmallNode, tmp_path: Path, receive_path: str
) -> None:
    image, most = Image(tmp_path / "in"), {"pages": 1}

    def limit(connection: object) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={most['pages']}")  # type: ignore[attr-defined]

    with listening(small, receive_path) as peer:
        sql_event.listen(small.database._engine, "begin", limit)
        # The first ones find room in the pages that the database has.
        statuses: list[int | None] = []
        while statuses.count(OUT_OF_RESOURCES) < 5 and len(statuses) < 300:
            statuses.append(image.send(peer, len(statuses) + 1))
        assert set(statuses) == {SUCCESS, OUT_OF_RESOURCES}
        accepted = {UID.format(number) for number, status in enumerate(statuses, 1) if status == SUCCESS}
        assert set(instances_in(small.home)) == accepted
        most["pages"] = 1 << 30
        assert {image.send(peer, number) for number in range(1, len(statuses) + 1)} == {SUCCESS}
        assert len(instances_in(small.home)) == len(statuses)
        assert_nothing_half_kept(small.home, set(instances_in(small.home)))


def test_a_locked_database_is_answered_with_a700_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receive_path: str
) -> None:
    monkeypatch.setattr(database_module, "WAIT_SECONDS", 0.2)
    node, image = SmallNode.make(tmp_path / "node"), Image(tmp_path / "in")
    with listening(node, receive_path) as peer, closing(sqlite3.connect(node.home / "nadir.sqlite")) as other:
        for number in range(1, 6):
            other.execute("BEGIN IMMEDIATE")
            assert image.send(peer, number) == OUT_OF_RESOURCES
            other.rollback()
            assert image.send(peer, number) == SUCCESS
        assert_nothing_half_kept(node.home, {UID.format(number) for number in range(1, 6)})
    node.database.dispose()


def test_sigterm_lets_an_object_that_arrives_be_finished_and_takes_nobody_new(
    tmp_path: Path, receive_path: str
) -> None:
    image, home = Image(tmp_path / "in", MIB), tmp_path / "node"
    with ListenerProcess(home, receive_path=receive_path) as process, RawPeer(process.port) as peer:
        peer.associate()
        whole = peer.socket.sendall
        sent: list[bytes] = []

        def slowly(data: bytes) -> None:
            whole(data)
            sent.append(data)
            if len(sent) == 30:
                process.process.send_signal(signal.SIGTERM)
                assert refuses(process.port)

        peer.send = slowly  # type: ignore[method-assign]
        assert image.send(peer, 1) == SUCCESS
        assert process.process.wait(60) == 0
        assert_nothing_half_kept(home, {UID.format(1)})


def refuses(port: int) -> bool:
    """Return True once nobody listens any more; a connection that was just being taken is reset."""
    for _ in range(400):
        try:
            RawPeer(port).socket.close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass
        time.sleep(0.05)
    return False

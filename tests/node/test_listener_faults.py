from __future__ import annotations

import hashlib
import random
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from listener_process import ListenerProcess
from patience import PATIENT, eventually
from pydicom import dcmread
from raw_peer import (
    CT,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    VERIFICATION,
    RawPeer,
    associate_rq,
    command,
    p_data,
    pdu,
    store_command,
)
from small_node import instances_in

from node.crew import MOST_IDLE
from node.scu import echo, send_files

MIB = 1 << 20
QUICK = {"silent_seconds": 1.0, "stall_seconds": 1.0, "pdu_seconds": 4.0}


@pytest.fixture(params=["fast", "pynetdicom"])
def quick(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ListenerProcess]:
    """Give a listener that cuts off soon whoever says nothing: for tests of that alone."""
    with ListenerProcess(tmp_path / "quick", limits=QUICK, receive_path=request.param) as process:
        yield process


@pytest.fixture(scope="module", params=["fast", "pynetdicom"])
def patient(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ListenerProcess]:
    """Give a listener that cuts nobody off for being slow."""
    home = tmp_path_factory.mktemp("node")
    with ListenerProcess(home, receive_path=request.param) as process:
        yield process


def series(folder: Path, count: int, size: int = 16, **keywords: object) -> list[Path]:
    array = np.random.default_rng(1).integers(0, 1000, (count, size, size))
    return make_series(folder, array, **keywords)  # type: ignore[arg-type]


def store_bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    return raw[raw.index(b"\x08\x00\x05\x00CS") :]


def incoming(process: ListenerProcess) -> list[Path]:
    return list((process.home / "store" / "incoming").iterdir())


def assert_whole(home: Path) -> dict[str, str]:
    rows = instances_in(home)
    for sha256 in rows.values():
        data = (home / "store" / "objects" / sha256[:2] / f"{sha256}.dcm").read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
    return rows


def require_echo(port: int) -> None:
    """Fail when it does not serve."""
    echo(ae_title="NADIR", host="127.0.0.1", port=port, timeouts=PATIENT)


def test_sigterm_ends_the_process_in_order(tmp_path: Path) -> None:
    with ListenerProcess(tmp_path / "node") as process:
        sent = send_files(series(tmp_path / "in", 3), ae_title="NADIR", host="127.0.0.1", port=process.port)
        assert process.terminate() == 0
    assert {one.status for one in sent} == {0x0000}
    assert len(assert_whole(process.home)) == 3


def test_sigterm_does_not_wait_for_a_peer_that_sends_nothing(tmp_path: Path) -> None:
    with ListenerProcess(tmp_path / "node", drain_seconds=120) as process, RawPeer(process.port) as peer:
        peer.associate()
        assert process.terminate() == 0
        assert peer.ended_within()


@pytest.mark.parametrize("how", ["abort", "reset"])
def test_a_sender_that_goes_away_within_an_object_leaves_nothing(
    patient: ListenerProcess, tmp_path: Path, how: str
) -> None:
    (path,) = series(tmp_path / "in", 1, 256)
    data, uid = store_bytes(path), str(dcmread(path).SOPInstanceUID)
    before = instances_in(patient.home)
    for part in np.linspace(0.0, 0.99, 10):
        with RawPeer(patient.port) as peer:
            peer.associate()
            peer.send(p_data(3, 3, store_command(CT, uid)))
            for start in range(0, int(len(data) * part), 16000):
                peer.send(p_data(3, 0, data[start : start + 16000]))
            if how == "abort":
                peer.send(pdu(0x07, bytes(4)))
                assert peer.ended_within()
    assert eventually(lambda: incoming(patient) == [])
    assert instances_in(patient.home) == before
    with RawPeer(patient.port) as peer:
        peer.associate()
        assert peer.store(CT, uid, data) == 0x0000


STALLS = (struct.pack(">BBL", 1, 0, 5000), b"\x01", associate_rq("NADIR", "A", [])[:40])


def test_two_hundred_silent_connections_and_sixty_stalled_ones_hold_nobody_up(
    patient: ListenerProcess,
) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(RawPeer(patient.port)) for _ in range(260)]
        for peer, beginning in zip(crowd, STALLS * 20, strict=False):
            peer.send(beginning)
        require_echo(patient.port)
        crowd[0].socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            crowd[0].socket.recv(1)


def test_silent_connections_and_peers_that_stall_within_a_pdu_are_closed(quick: ListenerProcess) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(RawPeer(quick.port)) for _ in range(260)]
        for peer, beginning in zip(crowd, STALLS * 20, strict=False):
            peer.send(beginning)
        assert all(peer.ended_within() for peer in crowd)
    require_echo(quick.port)


def test_a_peer_that_stalls_within_an_object_loses_its_seat(tmp_path: Path) -> None:
    with ListenerProcess(tmp_path / "node", limits=QUICK, max_associations=1) as process:
        with RawPeer(process.port) as peer:
            peer.associate()
            peer.send(p_data(3, 3, store_command(CT, "1.2.3")) + p_data(3, 0, bytes(1000))[:500])
            assert peer.ended_within()
        require_echo(process.port)
        assert incoming(process) == []


def test_a_byte_a_time_does_not_last_beyond_the_time_for_a_pdu(quick: ListenerProcess) -> None:
    with RawPeer(quick.port) as peer:
        peer.associate()
        message = p_data(3, 3, store_command(CT, "1.2.3"))
        with pytest.raises(OSError):
            for at in range(len(message) // 3):
                peer.send(message[at : at + 1])
                time.sleep(0.3)


def test_a_pdu_of_four_gigabytes_is_aborted_and_takes_no_memory(patient: ListenerProcess) -> None:
    echo(ae_title="NADIR", host="127.0.0.1", port=patient.port)
    before = patient.resident_bytes
    for _ in range(5):
        with RawPeer(patient.port) as peer:
            try:
                peer.send(struct.pack(">BBL", 1, 0, 0xFFFFFFFF))
                for _ in range(64):
                    peer.send(bytes(MIB))
            except OSError:
                pass
            assert peer.ended_within()
    assert patient.resident_bytes - before < 32 * MIB


def test_data_longer_than_was_announced_are_aborted_as_an_invalid_parameter(patient: ListenerProcess) -> None:
    with RawPeer(patient.port) as peer:
        peer.associate()
        peer.send(p_data(3, 3, store_command(CT, "1.2.3")))
        peer.send(struct.pack(">BBL", 4, 0, 8 * MIB))
        assert peer.receive() == (0x07, bytes([0, 0, 2, 6]))
        assert peer.ended_within()
    assert eventually(lambda: incoming(patient) == [])


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes.fromhex("160301020001000001fc0303"),
        pdu(0x01, b"\xff" * 200),
        pdu(0x04, b"\x00\x00\x00\x02\x01\x03"),
        pdu(0x05, bytes(4)),
        pdu(0x07, bytes(4)),
        pdu(0x02, bytes(68)),
    ],
    ids=["http", "tls", "garbage", "data-first", "release-first", "abort-first", "accept-first"],
)
def test_noise_ends_its_own_connection_and_nothing_else(patient: ListenerProcess, noise: bytes) -> None:
    for _ in range(5):
        with RawPeer(patient.port) as peer:
            peer.send(noise)
            assert peer.ended_within()
    require_echo(patient.port)


@pytest.mark.parametrize("seed", range(3))
def test_random_streams_after_the_association_end_only_themselves(
    patient: ListenerProcess, seed: int
) -> None:
    dice, before = random.Random(seed), instances_in(patient.home)
    good = p_data(3, 3, store_command(CT, "1.2.3")) + p_data(3, 2, bytes(300))
    for _ in range(25):
        spoiled = bytearray(good)
        for _ in range(dice.randint(1, 8)):
            spoiled[dice.randrange(len(spoiled))] = dice.randrange(256)
        with RawPeer(patient.port) as peer:
            peer.associate()
            peer.send(bytes(spoiled))
    require_echo(patient.port)
    assert eventually(lambda: incoming(patient) == [])
    assert instances_in(patient.home) == before


def test_an_unknown_context_ends_the_association_only(patient: ListenerProcess) -> None:
    with RawPeer(patient.port) as peer:
        peer.associate()
        peer.send(p_data(77, 3, store_command(CT, "1.2.3")))
        assert peer.ended_within()
    require_echo(patient.port)


def test_a_store_without_data_set_is_answered_with_c000(patient: ListenerProcess) -> None:
    with RawPeer(patient.port) as peer:
        peer.associate()
        peer.send(p_data(3, 3, store_command(CT, "1.2.3", has_data=False)))
        assert peer.status() == 0xC000


def test_a_flood_of_associations_is_served_or_rejected_for_now(tmp_path: Path) -> None:
    answers: list[int | None] = []
    with ListenerProcess(tmp_path / "node", max_associations=10) as process:

        def call() -> None:
            with RawPeer(process.port) as peer:
                got = peer.associate(contexts=[(VERIFICATION, IMPLICIT_LITTLE), (CT, EXPLICIT_LITTLE)])
                if got is not None and got[0] == 0x02:
                    time.sleep(0.5)
                    answers.append(peer.echo())
                else:
                    answers.append(None if got is None else -got[1][1])

        threads = [threading.Thread(target=call) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 100
        assert set(answers) <= {0x0000, -2}
        assert answers.count(0x0000) >= 10
        require_echo(process.port)


@pytest.mark.parametrize("receive_path", ["fast", "pynetdicom"])
def test_associations_leave_no_thread_and_no_descriptor_behind(tmp_path: Path, receive_path: str) -> None:
    with ListenerProcess(tmp_path / "node", receive_path=receive_path) as process:
        proc, most_threads = Path(f"/proc/{process.process.pid}"), 6 + MOST_IDLE

        def held() -> tuple[int, int]:
            return len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))

        for turn in range(2):
            for number in range(60):
                with RawPeer(process.port) as peer:
                    peer.associate()
                    assert peer.echo() == 0x0000
                    if number % 2:
                        peer.release()
            if turn == 0:
                assert eventually(lambda: held()[0] <= most_threads)
                base = held()
        assert eventually(lambda: held()[0] <= most_threads and held()[1] <= base[1] + 2), (base, held())


def test_a_large_object_is_never_whole_in_memory(tmp_path: Path) -> None:
    (path,) = make_series(tmp_path / "in", np.zeros((1, 8192, 4096)))
    with ListenerProcess(tmp_path / "node") as process:
        echo(ae_title="NADIR", host="127.0.0.1", port=process.port)
        before, peak, done = process.resident_bytes, [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                peak[0] = max(peak[0], process.resident_bytes)

        thread = threading.Thread(target=watch)
        thread.start()
        (sent,) = send_files([path], ae_title="NADIR", host="127.0.0.1", port=process.port)
        done.set()
        thread.join()
    assert sent.status == 0x0000
    assert path.stat().st_size > 64 * MIB
    assert peak[0] - before < 24 * MIB


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_no_value_of_a_patient_reaches_the_log(tmp_path: Path) -> None:
    canaries = {
        "PatientName": "CANARY^NAME",
        "PatientID": "CANARY-ID-77",
        "AccessionNumber": "CANARY-ACC",
        "StudyDescription": "CANARY-DESCRIPTION",
        "PatientBirthDate": "19210304",
    }
    paths = series(tmp_path / "in", 3, **canaries)
    data = store_bytes(paths[0])
    uid = str(dcmread(paths[0]).SOPInstanceUID)
    with ListenerProcess(tmp_path / "node", callers=["GOOD"], accept_any=False, ae_title="NADIR") as process:
        send_files(paths[1:], ae_title="NADIR", host="127.0.0.1", port=process.port, calling_ae="GOOD")
        for sop_uid, payload in (("9.9", data), (uid, data[:60]), ("CANARY", data), (uid, data)):
            with RawPeer(process.port) as peer:
                peer.associate(calling="GOOD")
                peer.store(CT, sop_uid, payload)
        with RawPeer(process.port) as peer:
            peer.associate(calling="EVIL\nLINE")
        process.terminate()
    log = process.log.read_text()
    assert "action=listening" in log
    assert "CANARY" not in log
    assert "19210304" not in log
    assert uid not in log
    assert all(line.startswith("20") for line in log.splitlines())


@pytest.mark.parametrize("missing", ["AffectedSOPInstanceUID", "AffectedSOPClassUID"])
def test_a_store_command_without_a_uid_is_answered_and_the_association_goes_on(
    patient: ListenerProcess, tmp_path: Path, missing: str
) -> None:
    (path,) = series(tmp_path / "s", 1)
    uids = {"AffectedSOPClassUID": CT, "AffectedSOPInstanceUID": "1.2.3", missing: ""}
    broken = command(CommandField=1, MessageID=1, Priority=0, CommandDataSetType=1, **uids)
    with RawPeer(patient.port) as peer:
        peer.associate()
        peer.send(p_data(3, 3, broken) + p_data(3, 2, store_bytes(path)))
        assert peer.status() == 0xC000
        uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        assert peer.store(CT, uid, store_bytes(path)) == 0x0000
        assert eventually(lambda: incoming(patient) == [])
        peer.release()

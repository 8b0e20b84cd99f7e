"""Hostile peers of every kind at once with honest ones: who sends honestly is served, and nothing is left behind."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from attacks import MIB, PATHS, QUICK, Honest, attacked, everybody_ended, slow_senders, under_attack
from dicom_series import make_series
from figures import write_figure
from listener_process import ListenerProcess
from patience import eventually
from pdu_streams import CONTEXTS, hostile_request
from pydicom import dcmread
from raw_peer import CT, RawPeer, associate_rq, item, p_data, pdu, store_command
from small_node import instances_in

from node.scu import echo, send_files

pytestmark = [pytest.mark.fault, pytest.mark.sec]


@pytest.fixture(scope="module", params=PATHS)
def listener(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ListenerProcess]:
    """Give a listener that cuts nobody off for being slow."""
    with attacked(tmp_path_factory.mktemp("node"), request.param) as process:
        yield process


@pytest.fixture(scope="module", params=PATHS)
def quick(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ListenerProcess]:
    """Give a listener that cuts off after two seconds: for attacks that end by that alone."""
    with attacked(tmp_path_factory.mktemp("node"), request.param, limits=QUICK) as process:
        yield process


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    array = np.random.default_rng(1).integers(0, 1000, (1, 128, 128))
    return make_series(tmp_path_factory.mktemp("in"), array)[0]


def test_oversize_pdu_of_four_gigabytes_and_over_the_announced_size(
    quick: ListenerProcess, image: Path
) -> None:
    def attack(honest: Honest) -> None:
        for number in range(20):
            with RawPeer(quick.port) as peer, suppress(OSError):
                if number % 2:
                    peer.associate()
                    peer.send(p_data(3, 3, store_command(CT, "1.2.3")))
                    peer.send(struct.pack(">BBL", 4, 0, 0xFFFFFFFF if number % 4 == 1 else (1 << 17) + 1))
                else:
                    peer.send(struct.pack(">BBL", 1, 0, 0xFFFFFFFF))
                for _ in range(64):
                    peer.send(bytes(MIB))
                raise AssertionError("64 MiB were taken")

    under_attack(quick, image, "oversize PDUs", attack)


def test_calling_ae_called_ae_and_ip_allow_who_is_wrong_is_rejected_and_holds_no_seat(
    tmp_path: Path, image: Path
) -> None:
    callers = ["CT1@127.0.0.1", "*@127.0.0.2"]
    with ListenerProcess(tmp_path, accept_any=False, callers=callers, max_associations=1) as process:
        for called, calling, source, answer in (
            ("NADIR", "CT2", "127.0.0.1", (1, 1, 3)),
            ("OTHER", "CT1", "127.0.0.1", (1, 1, 7)),
            ("NADIR", "CT1", "127.0.0.3", None),
            ("NADIR", "ANY", "127.0.0.2", ()),
        ) * 3:
            with RawPeer(process.port, source=source) as peer:
                got = None
                with suppress(OSError):
                    got = peer.associate(called=called, calling=calling)
                if answer:
                    assert got == (0x03, bytes([0, *answer]))
                elif answer is None:
                    assert got is None
                else:
                    assert got is not None and got[0] == 0x02
                    peer.release()
        (sent,) = send_files([image], ae_title="NADIR", host="127.0.0.1", port=process.port, calling_ae="CT1")
        assert sent.status == 0x0000


@pytest.mark.parametrize("title", ["../x", "/etc/passwd", "A\0B", "A\nB", "..\\x", "\x7f", "x" * 17])
def test_ae_paths_are_rejected_or_stay_names(listener: ListenerProcess, image: Path, title: str) -> None:
    before = {path for path in listener.home.rglob("*") if path.is_dir()}
    raw = image.read_bytes()
    uid = str(dcmread(image, stop_before_pixels=True).SOPInstanceUID)
    with RawPeer(listener.port) as peer, suppress(ConnectionError):
        answer = peer.associate(calling=title)
        is_let_in = answer is not None and answer[0] == 0x02
        assert is_let_in == (title in ("../x", "/etc/passwd"))
        if is_let_in:
            assert peer.store(CT, uid, raw[raw.index(b"\x08\x00\x05\x00CS") :]) == 0x0000
    new = {path for path in listener.home.rglob("*") if path.is_dir()} - before
    assert all(path.parent == listener.home / "store" / "objects" for path in new)


def test_abort_mid_object_at_ten_places_ten_times_leaves_nothing(
    listener: ListenerProcess, image: Path
) -> None:
    raw = image.read_bytes()
    data = raw[raw.index(b"\x08\x00\x05\x00CS") :]
    known = instances_in(listener.home)
    for number in range(100):
        with RawPeer(listener.port) as peer:
            peer.associate()
            peer.send(p_data(3, 3, store_command(CT, "1.2.3")))
            for start in range(0, int(len(data) * (number % 10) / 10), 4000):
                peer.send(p_data(3, 0, data[start : start + 4000]))
            if number % 2:
                peer.send(pdu(0x07, bytes(4)))
    assert eventually(lambda: list((listener.home / "store" / "incoming").iterdir()) == [])
    assert instances_in(listener.home) == known
    write_figure(f"aborts within an object, {listener.name}", aborts=100, left_behind=0)  # type: ignore[attr-defined]


NOISE = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes.fromhex("160301020001000001fc0303"),
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x00" * 16,
    b"\xff" * 300,
    b"\r\n\r\n",
    b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
    pdu(0x01, b""),
    pdu(0x01, b"\xff" * 200),
    pdu(0x04, b"\x00\x00\x00\x02\x01\x03"),
)


def test_port_scan_http_and_tls_bytes_a_hundred_times(quick: ListenerProcess, image: Path) -> None:
    def attack(honest: Honest) -> None:
        for number in range(100):
            with RawPeer(quick.port) as peer:
                peer.send(NOISE[number % len(NOISE)])
                assert peer.ended_within()
            socket.create_connection(("127.0.0.1", quick.port)).close()

    under_attack(quick, image, "port scan, HTTP and TLS bytes", attack)


def test_hostile_requests_are_rejected_or_aborted_and_end_only_themselves(
    quick: ListenerProcess, image: Path
) -> None:
    dice = random.Random(20261120)
    contexts = b"".join(
        item(
            0x20,
            struct.pack(">BBBB", n % 256, 0, 0, 0)
            + item(0x30, CT.encode())
            + item(0x40, b"1.2.840.10008.1.2"),
        )
        for n in range(1, 300, 2)
    )
    head = struct.pack(">HH", 1, 0) + b"NADIR".ljust(16) + b"A".ljust(16) + bytes(32)
    named = item(0x10, b"1.2.840.10008.3.1.1.1")
    requests = [
        associate_rq("NADIR", "A", []),
        associate_rq("NADIR", "A\0B", CONTEXTS),
        associate_rq("NADIR", "A\nB", CONTEXTS),
        associate_rq("NADIR", "A\\B", CONTEXTS),
        associate_rq("NADIR", " " * 16, CONTEXTS),
        pdu(0x01, head + named + contexts),
        pdu(0x01, head + named + b"\x20\0\xff\xff\x01\0\0\0"),
        pdu(0x01, head + named + item(0x50, item(0x51, b"\0\0\x40\0") * 1000)),
    ]
    accepted = []

    def attack(honest: Honest) -> None:
        for number, request in enumerate([*requests, *(hostile_request(dice) for _ in range(40))]):
            with RawPeer(quick.port) as peer, suppress(ConnectionError):
                peer.send(request)
                answer = peer.receive()
                assert answer is None or answer[0] in (0x02, 0x03, 0x07)
                if number < len(requests):
                    accepted.append(answer is not None and answer[0] == 0x02)

    under_attack(quick, image, "hostile association requests", attack)
    assert not any(accepted)
    assert "reason=unexpected" not in quick.log.read_text()


def test_everything_at_once_with_the_limits_as_they_are(tmp_path: Path, image: Path) -> None:
    with ListenerProcess(tmp_path, limits={}) as process:
        echo(ae_title="NADIR", host="127.0.0.1", port=process.port)

        def attack(honest: Honest) -> None:
            with ExitStack() as stack:
                ports = [process.port] * 200
                silent = [stack.enter_context(RawPeer(port)) for port in ports]
                slow = threading.Thread(target=slow_senders(process.port, image, 5.0, 1.0), args=(honest,))
                slow.start()
                for noise in NOISE * 2:
                    with RawPeer(process.port) as peer:
                        peer.send(noise)
                assert everybody_ended(silent)
                slow.join()

        under_attack(process, image, "half-open, slow senders and noise at once, defaults", attack)

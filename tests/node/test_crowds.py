"""Crowds of peers that are half open, slow or too many: who sends honestly is served, and seats come free again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from attacks import PATHS, QUICK, Base, Honest, attacked, everybody_ended, slow_senders, under_attack
from dicom_series import make_series
from figures import write_figure
from listener_process import ListenerProcess
from patience import PATIENCE_SECONDS, eventually
from pdu_streams import CONTEXTS
from raw_peer import CT, RawPeer, associate_rq, p_data, store_command

from node.scu import echo

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


def test_half_open_two_hundred_silent_sockets(quick: ListenerProcess, image: Path) -> None:
    def attack(honest: Honest) -> None:
        with ExitStack() as stack:
            silent = [stack.enter_context(RawPeer(quick.port)) for _ in range(200)]
            assert everybody_ended(silent)

    under_attack(quick, image, "200 half-open sockets", attack)


@pytest.mark.parametrize(
    "beginning", [b"", associate_rq("NADIR", "A", CONTEXTS)[:70]], ids=["silent", "half"]
)
def test_half_open_the_largest_crowd_makes_room_and_not_the_others(tmp_path: Path, beginning: bytes) -> None:
    limits = {**QUICK, "connections": 20, "silent_seconds": 300.0, "stall_seconds": 300.0}
    with ListenerProcess(tmp_path, limits=limits) as process, ExitStack() as stack:
        base = Base(process)
        early = [stack.enter_context(RawPeer(process.port, source="127.0.0.2")) for _ in range(5)]
        crowd = []
        for number in range(60):
            crowd.append(stack.enter_context(RawPeer(process.port)))
            crowd[-1].send(associate_rq("NADIR", "A", CONTEXTS)[: number % 2 * 70])
        assert everybody_ended(crowd[:40])
        for peer in early:
            assert peer.associate() is not None
            assert peer.echo() == 0x0000
        assert eventually(lambda: base._held()[0] <= base.threads + len(early))


def test_slowloris_a_hundred_slow_senders(quick: ListenerProcess, image: Path) -> None:
    under_attack(quick, image, "100 slow senders", slow_senders(quick.port, image, 5.0, 1.0))


@pytest.mark.long
@pytest.mark.parametrize("receive_path", PATHS)
def test_slowloris_a_hundred_slow_senders_for_two_minutes_with_the_limits_as_they_are(
    tmp_path: Path, image: Path, receive_path: str
) -> None:
    with ListenerProcess(tmp_path, limits={}, receive_path=receive_path) as process:
        process.name = receive_path  # type: ignore[attr-defined]
        echo(ae_title="NADIR", host="127.0.0.1", port=process.port)
        attack = slow_senders(process.port, image, 120.0, 1.0)
        under_attack(process, image, "100 slow senders", attack, tier="long")


def test_slowloris_byte_by_byte_does_not_last_for_the_longest_time_of_a_pdu(
    quick: ListenerProcess,
) -> None:
    with RawPeer(quick.port) as peer:
        peer.associate()
        message = p_data(3, 3, store_command(CT, "1.2.3"))
        with pytest.raises(OSError):
            for byte in message[: len(message) // 2]:
                peer.send(bytes([byte]))
                time.sleep(0.5)


def test_slowloris_a_message_of_thousands_of_tiny_pdus_has_a_pace_to_keep(quick: ListenerProcess) -> None:
    with RawPeer(quick.port) as one, RawPeer(quick.port) as other:
        left = {one: p_data(3, 0, b"\0"), other: p_data(3, 0, b"")}
        for peer in left:
            peer.associate()
            peer.send(p_data(3, 3, store_command(CT, "1.2.3")))
        begun = time.monotonic()
        while left and time.monotonic() - begun < PATIENCE_SECONDS:
            for peer, tiny in list(left.items()):
                try:
                    peer.send(tiny)
                except OSError:
                    del left[peer]
            time.sleep(0.05)
        assert left == {}
    assert eventually(lambda: list((quick.home / "store" / "incoming").iterdir()) == [])


def test_flood_of_two_hundred_associations_is_served_or_rejected_for_now_and_done_on_retry(
    listener: ListenerProcess, image: Path
) -> None:
    served, rejected = [0], [0]
    lock = threading.Lock()

    def call(number: int) -> None:
        dice, pause = random.Random(number), 0.2
        while True:
            with RawPeer(listener.port) as peer:
                answer = peer.associate()
                if answer is not None and answer[0] == 0x02:
                    time.sleep(0.2)
                    assert peer.echo() == 0x0000
                    peer.release()
                    with lock:
                        served[0] += 1
                    return
                assert answer == (0x03, bytes([0, 2, 3, 2]))
                with lock:
                    rejected[0] += 1
            time.sleep(pause * dice.uniform(0.5, 1.5))
            pause = min(2.0, 2 * pause)

    base, begun = Base(listener), time.monotonic()
    threads = [threading.Thread(target=call, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    assert served == [200]
    assert base.is_back(), (base, base._held())
    path = getattr(listener, "name", "fast")
    figures = {"served": 200, "rejected": rejected[0], "seconds": round(seconds, 1)}
    write_figure(f"200 associations at once, 50 served at one time, {path}", **figures)


def test_one_address_cannot_take_more_seats_than_its_share(tmp_path: Path) -> None:
    with (
        ListenerProcess(tmp_path, max_associations=4, max_associations_per_address=2) as process,
        ExitStack() as stack,
    ):

        def call(source: str) -> int:
            peer = stack.enter_context(RawPeer(process.port, source=source))
            answer = peer.associate()
            assert answer is not None
            return answer[0]

        assert [call("127.0.0.1") for _ in range(3)] == [0x02, 0x02, 0x03]
        assert [call("127.0.0.2") for _ in range(3)] == [0x02, 0x02, 0x03]
        assert call("127.0.0.3") == 0x03

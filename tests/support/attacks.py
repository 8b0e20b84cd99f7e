"""An attack on a listener while an honest peer sends: what both do, and whether who is honest was served."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from figures import write_figure
from listener_process import ListenerProcess
from patience import PATIENCE_SECONDS, Pulse, eventually
from pdu_streams import CONTEXTS
from raw_peer import CT, RawPeer, associate_rq, p_data, store_command

from node.scu import echo, send_files
from plugins.errors import NadirError

MIB = 1 << 20
PATHS = ("fast", pytest.param("pynetdicom", marks=pytest.mark.long))
QUICK = {"silent_seconds": 2.0, "stall_seconds": 2.0, "pdu_seconds": 120.0, "idle_seconds": 2.0}
SLOWEST_P95_SECONDS = 2.0
MOST_MIB = 32
FEWEST = 10
"""Honest objects that are sent during an attack, which is repeated until then."""


@contextmanager
def attacked(home: Path, receive_path: str, **options: Any) -> Iterator[ListenerProcess]:
    """Give a listener that is named by how it receives, and has answered once."""
    with ListenerProcess(home, receive_path=receive_path, **options) as process:
        process.name = receive_path  # type: ignore[attr-defined]
        echo(ae_title="NADIR", host="127.0.0.1", port=process.port)
        yield process


@dataclass
class Honest:
    """A sender that goes on sending while others attack."""

    port: int
    path: Path
    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def send(self) -> None:
        begun = time.monotonic()
        try:
            (sent,) = send_files([self.path], ae_title="NADIR", host="127.0.0.1", port=self.port)
            self.failed += sent.status != 0x0000
        except NadirError:
            self.failed += 1
        self.seconds.append(time.monotonic() - begun)

    def __enter__(self) -> Honest:
        self._thread = threading.Thread(target=self._go_on)
        self._thread.start()
        return self

    def _go_on(self) -> None:
        while not self._stop.wait(0.02):
            self.send()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def p95_seconds(self) -> float:
        return statistics.quantiles(self.seconds, n=20)[-1] if len(self.seconds) > 1 else self.seconds[0]


@dataclass
class Base:
    """What a process holds while nobody is there."""

    process: ListenerProcess
    threads: int = 0
    files: int = 0
    resident_bytes: int = 0

    def __post_init__(self) -> None:
        self.threads, self.files = self._held()
        self.resident_bytes = self.process.resident_bytes

    def _held(self) -> tuple[int, int]:
        proc = Path(f"/proc/{self.process.process.pid}")
        return len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))

    def is_back(self) -> bool:
        """Return True once threads and descriptors are what they were, but for a few."""

        def holds_as_few() -> bool:
            threads, files = self._held()
            return threads <= self.threads + 5 and files <= self.files + 5

        return eventually(holds_as_few)

    @property
    def grown_mib(self) -> float:
        return (self.process.resident_bytes - self.resident_bytes) / MIB


def under_attack(
    process: ListenerProcess,
    image: Path,
    name: str,
    attack: Callable[[Honest], None],
    tier: str = "quick",
) -> dict[str, float]:
    """Attack while an honest sender sends; check that it is served and that nothing stays, and write the figures."""
    alone = Honest(process.port, image)
    for _ in range(3):
        alone.send()
    base, peak, done = Base(process), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], base.grown_mib)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with Pulse() as pulse, Honest(process.port, image) as honest:
            while len(honest.seconds) < FEWEST:
                attack(honest)
    finally:
        done.set()
        watcher.join()
    assert base.is_back(), (base, base._held())
    figures = {
        "honest": len(honest.seconds),
        "failed": honest.failed,
        "p95_seconds": round(honest.p95_seconds, 3),
        "alone_seconds": round(max(alone.seconds), 3),
        "memory_mib": round(peak[0], 1),
    }
    path = getattr(process, "name", "fast")
    write_figure(f"{name}, {path}", tier=tier, **figures)
    # On a machine that is busy with other things, sending takes its time without any attack, and who stands still
    # for as long as short limits allow is cut off.
    assert honest.failed <= pulse.pauses, (figures, pulse.pauses)
    slowest_seconds = SLOWEST_P95_SECONDS + 5 * max(alone.seconds) + pulse.seconds
    assert honest.p95_seconds <= slowest_seconds, (figures, slowest_seconds)
    assert peak[0] <= MOST_MIB, figures
    return figures


def everybody_ended(peers: list[RawPeer]) -> bool:
    """Return True when all these connections are closed in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    return all(peer.ended_within(max(0.1, deadline - time.monotonic())) for peer in peers)


def begin_slowly(peer: RawPeer, is_associated: bool) -> bytes:
    """Return what such a peer says byte by byte, or not at all."""
    if not is_associated:
        return associate_rq("NADIR", "SLOW", CONTEXTS)
    peer.associate()
    peer.send(p_data(3, 3, store_command(CT, "1.2.3")))
    return p_data(3, 0, bytes(100_000))


def slow_senders(port: int, image: Path, seconds: float, pause: float) -> Callable[[Honest], None]:
    """Return an attack of 50 that stall and 50 at a byte a second, half of each with an association that holds a seat.

    Whoever is cut off comes again.
    """

    def attack(honest: Honest) -> None:
        deadline = time.monotonic() + seconds

        def trickle(number: int) -> None:
            dice = random.Random(number)
            time.sleep(dice.uniform(0, 0.5))
            while time.monotonic() < deadline:
                with suppress(OSError, AssertionError), RawPeer(port, timeout=5.0) as peer:
                    data = begin_slowly(peer, number % 2 == 0)
                    peer.send(data[:7])
                    for at in range(7, len(data)):
                        if number < 50:  # a stall: nothing more until we are cut off
                            peer.ended_within(max(0.1, deadline - time.monotonic()))
                            break
                        peer.send(data[at : at + 1])
                        if time.monotonic() > deadline:
                            break
                        time.sleep(pause)

        threads = [threading.Thread(target=trickle, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return attack

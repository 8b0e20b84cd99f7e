"""Streams of PDUs, spoiled with fixed seeds: each ends only itself, in time, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import random
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from certificates import Authority
from dicom_series import make_series
from figures import write_figure
from listener_process import ListenerProcess
from patience import PATIENCE_SECONDS, PATIENT_LIMITS, eventually
from pdu_streams import Stream, spoiled, store_pdus, valid_stream
from pydicom import dcmread
from raw_peer import RawPeer

from node.callers import Callers
from node.crew import MOST_IDLE
from node.desk import Arrival, Peer
from node.reception import Reception
from node.scu import send_files
from node.settings import Settings
from node.tls import client_context
from plugins.errors import Unavailable

pytestmark = [pytest.mark.fault, pytest.mark.sec, pytest.mark.filterwarnings("ignore")]
MIB = 1 << 20
UNEXPECTED = "reason=unexpected"
PATHS = pytest.mark.parametrize("receive_path", ["fast", "pynetdicom"])


class KeptDesk:
    """A desk that keeps what it was given in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: list[bytes] = []
        self.unwritten = self._numbers = 0

    def temporary(self) -> Path:
        self._numbers += 1
        return self.folder / str(self._numbers)

    def free_bytes(self) -> int:
        return 1 << 40

    def receive(self, arrival: Arrival) -> int:
        if arrival.failure is not None:
            self.unwritten += 1
            return 0xA700
        if arrival.path is None:
            return 0xC000
        self.kept.append(arrival.path.read_bytes())
        arrival.path.unlink()
        return 0x0000

    def left(self, peer: Peer) -> None:
        pass

    def turned_away(self, reason: str, calling_ae: str, address: str) -> None:
        pass


class Target:
    """A receive path that connections are handed to, without the way through accept and lobby."""

    def __init__(self, folder: Path, receive_path: str) -> None:
        folder.mkdir(parents=True)
        self.desk = KeptDesk(folder)
        self._receive_path = receive_path
        self._reception = Reception(
            self.desk,
            ae_title="NADIR",
            host="127.0.0.1",
            port=0,
            callers=Callers.parse((), accept_any=True),
            limits=PATIENT_LIMITS,
            receive_path=receive_path,
        )
        self._reception.start()
        (self._server,) = self._reception._servers
        self._door = socket.create_server(("127.0.0.1", 0))

    def close(self) -> None:
        self._door.close()
        self._reception.stop()

    @property
    def associations(self) -> int:
        return len(self._server.active_associations)

    def tell(self, stream: Stream, patience_seconds: float = 0.03) -> None:
        """Say all of it at once; TimeoutError when the connection does not end.

        pynetdicom's own path aborts whoever speaks before he is answered: there, the first answer and the last are
        waited for.
        """
        with socket.create_connection(self._door.getsockname()) as client:
            request, address = self._door.accept()
            self._server.process_request_thread(request, address)
            waits = self._receive_path == "pynetdicom"
            try:
                if waits:
                    client.sendall(stream[0] if stream else b"")
                    self._hear(client, 10 * patience_seconds)
                client.sendall(b"".join(stream[1:] if waits else stream))
                if waits:
                    while self._hear(client, patience_seconds):
                        pass
                client.shutdown(socket.SHUT_WR)
                client.settimeout(PATIENCE_SECONDS)
                while client.recv(1 << 16):
                    pass
            except TimeoutError:
                raise
            except OSError:  # it was cut off
                pass

    def _hear(self, client: socket.socket, seconds: float) -> bool:
        client.settimeout(seconds)
        try:
            return bool(client.recv(1 << 16))
        except TimeoutError:
            return False
        finally:
            client.settimeout(PATIENCE_SECONDS)


@contextmanager
def target(folder: Path, receive_path: str) -> Iterator[Target]:
    made = Target(folder, receive_path)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def listening() -> Iterator[list[str]]:
    """Give what the rooms of the node warn of, and keep it from pytest, which would keep all of it."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    ours = logging.getLogger("node")
    theirs = {logger: logger.level for logger in map(logging.getLogger, ("pynetdicom", "pydicom"))}
    ours.addHandler(handler)
    ours.propagate = False
    for logger in theirs:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield said
    finally:
        ours.removeHandler(handler)
        ours.propagate = True
        for logger, level in theirs.items():
            logger.setLevel(level)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def data_set(folder: Path) -> tuple[bytes, str]:
    (path,) = make_series(folder, np.random.default_rng(1).integers(0, 1000, (1, 32, 32)))
    raw = path.read_bytes()
    return raw[raw.index(b"\x08\x00\x05\x00CS") :], str(dcmread(path).SOPInstanceUID)


def fuzz(folder: Path, receive_path: str, streams: int) -> dict[str, float]:
    """Tell so many spoiled streams, and check after each batch that nothing is left and a sender is served."""
    data, uid = data_set(folder / "in")
    valid = valid_stream(data, uid)
    honest = [valid[0], *store_pdus(data, uid)]
    dice, slowest, batch = random.Random(f"{receive_path} 20261120"), 0.0, 500
    with listening() as warnings, target(folder / "incoming", receive_path) as to:
        to.tell(honest, 1.0)
        (whole,) = to.desk.kept
        threads, files, memory = threading.active_count(), descriptors(), resident_bytes()
        for number in range(streams):
            begun = time.monotonic()
            to.tell(spoiled(dice, valid))
            slowest = max(slowest, time.monotonic() - begun)
            if (number + 1) % batch == 0 or number + 1 == streams:
                assert eventually(lambda: to.associations == 0)
                to.desk.kept.clear()
                to.tell(honest, 1.0)
                assert eventually(lambda: to.associations == 0)
                assert to.desk.kept == [whole], number
                assert list((folder / "incoming").iterdir()) == []
                assert not [said for said in warnings if UNEXPECTED in said]
                warnings.clear()
        assert eventually(lambda: threading.active_count() <= threads + MOST_IDLE)
        assert eventually(lambda: descriptors() <= files)
        grown = resident_bytes() - memory
        assert to.desk.unwritten == 0
    assert slowest < PATIENCE_SECONDS
    assert grown < 64 * MIB
    return {"streams": streams, "slowest_seconds": round(slowest, 2), "memory_mib": round(grown / MIB, 1)}


@pytest.mark.parametrize(
    ("receive_path", "streams"), [("fast", 1500), pytest.param("pynetdicom", 300, marks=pytest.mark.long)]
)
def test_spoiled_pdu_streams_end_only_themselves(tmp_path: Path, receive_path: str, streams: int) -> None:
    figures = fuzz(tmp_path, receive_path, streams)
    write_figure(f"mutated PDU streams, {receive_path}", crashes=0, hangs=0, **figures)


def test_spoiled_pdu_streams_through_the_doors_of_a_node_with_and_without_tls(tmp_path: Path) -> None:
    data, uid = data_set(tmp_path / "in")
    valid, dice = valid_stream(data, uid), random.Random(20261120)
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("node", hosts=("127.0.0.1",))
    tls = {"tls_certificate": str(certificate), "tls_key": str(key), "tls_ca": str(authority.ca)}
    context = client_context(Settings(**tls))  # type: ignore[arg-type]
    limits = {"silent_seconds": 1.0, "stall_seconds": 1.0, "pdu_seconds": 2.0, "idle_seconds": 2.0}
    with ListenerProcess(tmp_path / "node", tls=tls, limits=limits) as process:

        def tell(number: int, stream: bytes) -> None:
            with suppress(ConnectionError, ssl.SSLError), ExitStack() as stack:
                peer = stack.enter_context(RawPeer(process.tls_port if number % 2 else process.port))
                if number % 2:
                    peer.socket = context.wrap_socket(peer.socket, server_hostname="127.0.0.1")
                    stack.enter_context(peer.socket)
                peer.send(stream)
                assert peer.ended_within()

        with ThreadPoolExecutor(20) as pool:
            jobs = [pool.submit(tell, n, b"".join(spoiled(dice, valid))) for n in range(160)]
            for job in jobs:
                job.result()

        def is_served(port: int, by: ssl.SSLContext | None) -> bool:
            """Tell whether an object is taken; who stands still for a second is cut off, and comes again."""
            with suppress(Unavailable):
                (sent,) = send_files(
                    [*(tmp_path / "in").iterdir()], ae_title="NADIR", host="127.0.0.1", port=port, tls=by
                )
                return sent.status == 0x0000
            return False

        assert eventually(lambda: is_served(process.port, None))
        assert eventually(lambda: is_served(process.tls_port, context))
        assert eventually(lambda: list((tmp_path / "node" / "store" / "incoming").iterdir()) == [])
        assert UNEXPECTED not in process.log.read_text()
        assert "lobby-failed" not in process.log.read_text()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("receive_path", "streams"), [("fast", 180_000), ("pynetdicom", 20_000)])
def test_many_spoiled_pdu_streams_end_only_themselves(
    tmp_path: Path, receive_path: str, streams: int
) -> None:
    figures = fuzz(tmp_path, receive_path, streams)
    write_figure(f"mutated PDU streams, {receive_path}", tier="long", crashes=0, hangs=0, **figures)

"""What a connection holds that is cut off before it was let in: nothing, at once, on both receive paths."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from patience import PATIENCE_SECONDS, PATIENT_LIMITS, eventually
from pdu_streams import CONTEXTS
from raw_peer import RawPeer, associate_rq

from node.callers import Callers
from node.desk import Arrival, Peer
from node.reception import Reception
from node.socket_guard import Limits

ONE_AT_A_TIME: Limits = replace(PATIENT_LIMITS, connections=1, silent_seconds=2 * PATIENCE_SECONDS)


class IdleDesk:
    """A desk to which nothing comes."""

    def temporary(self) -> Path:
        raise NotImplementedError

    def free_bytes(self) -> int:
        return 1 << 40

    def receive(self, arrival: Arrival) -> int:
        raise NotImplementedError

    def left(self, peer: Peer) -> None: ...

    def turned_away(self, reason: str, calling_ae: str, address: str) -> None: ...


@pytest.fixture(params=["fast", "pynetdicom"])
def reception(request: pytest.FixtureRequest) -> Iterator[Reception]:
    running = Reception(
        IdleDesk(),
        ae_title="NADIR",
        host="127.0.0.1",
        port=0,
        callers=Callers(entries=(), accept_any=True),
        limits=ONE_AT_A_TIME,
        receive_path=request.param,
    )
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize(
    "beginning",
    [
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF),
        associate_rq("NADIR", "A", CONTEXTS)[:70],
        struct.pack(">BBL", 5, 0, 4) + bytes(4),
    ],
    ids=["too long", "half", "no request"],
)
def test_who_is_cut_off_within_the_request_makes_room_at_once(reception: Reception, beginning: bytes) -> None:
    def is_let_in() -> bool:
        with RawPeer(reception.port) as peer:
            return peer.associate() is not None and peer.echo() == 0x0000

    with RawPeer(reception.port) as rude:
        rude.send(beginning)
        rude.socket.shutdown(socket.SHUT_WR)
        assert rude.ended_within()
    assert eventually(is_let_in)

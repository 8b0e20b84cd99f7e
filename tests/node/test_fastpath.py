"""Both receive paths, byte by byte: the fast one has to do what pynetdicom does, and to refuse what it must not do."""

from __future__ import annotations

import hashlib
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE_SECONDS, PATIENT_LIMITS, eventually
from pydicom import dcmread
from pynetdicom.dul import DULServiceProvider
from raw_peer import (
    CT,
    EXPLICIT_LITTLE,
    RawPeer,
    associate_rq,
    command,
    p_data,
    pdu,
    store_command,
)

from node.callers import Callers
from node.desk import Arrival, Peer
from node.fastpath import StoreRequest, command_values, fragments
from node.inline_dul import ProtocolError
from node.reception import Reception
from node.socket_guard import Limits
from store.part10 import write_preamble

P_DATA, RELEASED, ABORTED = 0x04, 0x06, 0x07
PIXELS = bytes(range(256)) * 2500


@dataclass
class MemoryDesk:
    """A desk that remembers what it was given, and the bytes."""

    folder: Path
    arrived: list[tuple[Arrival, bytes]] = field(default_factory=list)
    status: int = 0x0000
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self._count = 0

    def temporary(self) -> Path:
        self._count += 1
        return self.folder / str(self._count)

    def free_bytes(self) -> int:
        return 1 << 40

    def receive(self, arrival: Arrival) -> int:
        self.gate.wait(PATIENCE_SECONDS)
        self.arrived.append((arrival, b"" if arrival.path is None else arrival.path.read_bytes()))
        if arrival.path is not None:
            arrival.path.unlink()
        return self.status

    def left(self, peer: Peer) -> None: ...

    def turned_away(self, reason: str, calling_ae: str, address: str) -> None: ...


@pytest.fixture
def desk(tmp_path: Path) -> MemoryDesk:
    return MemoryDesk(tmp_path)


@pytest.fixture(params=["fast", "pynetdicom"])
def reception(desk: MemoryDesk, request: pytest.FixtureRequest) -> Iterator[Reception]:
    running = _reception(desk, request.param)
    yield running
    running.stop()


@pytest.fixture
def fast(desk: MemoryDesk) -> Iterator[Reception]:
    running = _reception(desk, "fast")
    yield running
    running.stop()


def _reception(desk: MemoryDesk, path: str, limits: Limits = PATIENT_LIMITS) -> Reception:
    running = Reception(
        desk,
        ae_title="NADIR",
        host="127.0.0.1",
        port=0,
        callers=Callers(entries=(), accept_any=True),
        reserve_bytes=0,
        limits=limits,
        receive_path=path,
    )
    running.start()
    return running


def cut(data: bytes, *sizes: int) -> list[bytes]:
    """Return the data in pieces of these sizes, again and again."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


@pytest.mark.parametrize("sizes", [(16000,), (1, 130000, 7), (131066,), (2, 4)], ids=str)
def test_what_is_stored_is_the_data_set_byte_for_byte_behind_our_preamble(
    reception: Reception, desk: MemoryDesk, sizes: tuple[int, ...]
) -> None:
    data = PIXELS if max(sizes) > 100 else PIXELS[:5000]
    pieces = cut(data, *sizes)
    with RawPeer(reception.port) as peer:
        peer.associate()
        message = p_data(3, 3, store_command(CT, "1.2.3"))
        for number, piece in enumerate(pieces):
            message += p_data(3, 2 if number == len(pieces) - 1 else 0, piece)
        peer.send(message)
        assert peer.status() == 0x0000
        peer.release()

    (arrival, stored) = desk.arrived[0]
    whole = write_preamble(CT, "1.2.3", EXPLICIT_LITTLE) + data
    assert stored == whole
    assert (arrival.sop_class_uid, arrival.sop_instance_uid) == (CT, "1.2.3")
    assert arrival.size_bytes == len(whole)
    assert arrival.sha256 is not None
    assert arrival.sha256() == hashlib.sha256(whole).hexdigest()
    assert arrival.head == whole[: 1 << 16]
    assert list(desk.folder.iterdir()) == []


def test_many_items_in_one_pdu_and_many_messages_in_one_breath_are_told_apart(
    reception: Reception, desk: MemoryDesk
) -> None:
    with RawPeer(reception.port) as peer:
        peer.associate()
        everything = b""
        for uid in ("1.1", "1.2", "1.3"):
            head, tail = store_command(CT, uid)[:20], store_command(CT, uid)[20:]
            items = ((1, head), (3, tail), (0, uid.encode()), (0, b""), (0, b"+"), (2, b"-"))
            everything += pdu(P_DATA, b"".join(p_data(3, control, data)[6:] for control, data in items))
        peer.send(everything)
        assert [peer.status() for _ in range(3)] == [0x0000] * 3

    preambles = {uid: len(write_preamble(CT, uid, EXPLICIT_LITTLE)) for uid in ("1.1", "1.2", "1.3")}
    assert [stored[preambles["1.1"] :] for _, stored in desk.arrived] == [b"1.1+-", b"1.2+-", b"1.3+-"]


def test_the_answer_names_the_request_and_is_the_same_on_both_paths(tmp_path: Path) -> None:
    answers = []
    for path in ("fast", "pynetdicom"):
        running = _reception(MemoryDesk(tmp_path, status=0xA700), path)
        with RawPeer(running.port) as peer:
            peer.associate()
            peer.send(p_data(3, 3, store_command(CT, "1.2.3")) + p_data(3, 2, b"data"))
            answer = peer.receive()
            assert answer is not None
            answers.append(answer[1])
        running.stop()

    fast, slow = (dcmread(BytesIO(answer[6:]), force=True) for answer in answers)
    assert fast == slow
    assert (fast.MessageIDBeingRespondedTo, fast.Status, fast.CommandField) == (1, 0xA700, 0x8001)
    assert (fast.AffectedSOPClassUID, fast.AffectedSOPInstanceUID) == (CT, "1.2.3")


@pytest.mark.parametrize("keyword", ["AffectedSOPInstanceUID", "AffectedSOPClassUID"])
@pytest.mark.filterwarnings("ignore:(Invalid value|The value length)")
def test_a_uid_of_65_characters_in_the_command_is_answered_with_c000(
    reception: Reception, desk: MemoryDesk, keyword: str
) -> None:
    uids = {"AffectedSOPClassUID": CT, "AffectedSOPInstanceUID": "1.2", keyword: "1." + "2" * 63}
    request = command(CommandField=1, MessageID=1, Priority=0, CommandDataSetType=1, **uids)
    with RawPeer(reception.port) as peer:
        peer.associate()
        peer.send(p_data(3, 3, request) + p_data(3, 2, b"data"))
        assert peer.status() == 0xC000
        assert peer.store(CT, "1.2.3", b"data") == 0x0000
    assert len(desk.arrived) == 1
    assert eventually(lambda: list(desk.folder.iterdir()) == [])


WRONG = {
    "data without a command": p_data(3, 2, b"data"),
    "data in another context": p_data(3, 3, store_command(CT, "1.2")) + p_data(1, 2, b"data"),
    "a context that was not accepted": p_data(99, 3, store_command(CT, "1.2")),
    "a command within a data set": p_data(3, 3, store_command(CT, "1.2")) * 2,
    "a command without end": p_data(3, 1, bytes(60000)) * 2,
    "a command of another group": p_data(3, 3, struct.pack("<HHLH", 8, 0x18, 2, 0)),
    "a command cut off": p_data(3, 3, store_command(CT, "1.2")[:-3]),
    "a request without message id": p_data(3, 3, command(CommandField=1, CommandDataSetType=0x0101)),
    "an item longer than its PDU": pdu(P_DATA, struct.pack(">LBB", 100, 3, 3) + b"short"),
    "an item without header": pdu(P_DATA, b"\0\0\0"),
    "an empty item": pdu(P_DATA, struct.pack(">L", 0) + b"\3\3"),
    "no PDU": b"\x0a\0\0\0\0\4abcd",
    "another association request": associate_rq("NADIR", "RAW", [(CT, EXPLICIT_LITTLE)]),
    "an association accept": pdu(0x02, bytes(68)),
    "an unknown service": p_data(3, 3, command(CommandField=0x0777, MessageID=1, CommandDataSetType=0x0101)),
}


@pytest.mark.parametrize("message", WRONG.values(), ids=WRONG)
def test_what_the_protocol_forbids_is_aborted_and_leaves_nothing(
    fast: Reception, desk: MemoryDesk, message: bytes
) -> None:
    with RawPeer(fast.port) as peer:
        peer.associate()
        peer.send(message)
        answer = peer.receive()
        assert answer is None or answer[0] == ABORTED
        assert peer.ended_within()
    assert desk.arrived == []
    assert eventually(lambda: list(desk.folder.iterdir()) == [] and fast.peers == ())


def test_what_is_open_when_a_peer_releases_or_aborts_is_dropped(
    reception: Reception, desk: MemoryDesk
) -> None:
    for end, answered in ((pdu(0x05, bytes(4)), True), (pdu(0x07, bytes(4)), False)):
        with RawPeer(reception.port) as peer:
            peer.associate()
            peer.send(p_data(3, 3, store_command(CT, "1.2")) + p_data(3, 0, b"half") + end)
            answer = peer.receive()
            assert (answer is not None and answer[0] == RELEASED) is answered
            assert peer.ended_within()
    assert desk.arrived == []
    assert eventually(lambda: list(desk.folder.iterdir()) == [] and reception.peers == ())


def test_a_cancel_is_no_fault_and_the_association_goes_on(reception: Reception) -> None:
    cancel = command(CommandField=0x0FFF, MessageIDBeingRespondedTo=1, CommandDataSetType=0x0101)
    with RawPeer(reception.port) as peer:
        peer.associate()
        peer.send(p_data(3, 3, cancel))
        assert peer.store(CT, "1.2.3", b"data") == 0x0000
        assert peer.echo() == 0x0000


def test_a_peer_that_takes_short_pdus_only_gets_its_answer_in_short_ones(fast: Reception) -> None:
    request = associate_rq("NADIR", "RAW", [(CT, EXPLICIT_LITTLE)])
    shortest = request.replace(struct.pack(">L", 16382), struct.pack(">L", 64))
    with RawPeer(fast.port) as peer:
        peer.send(shortest)
        assert peer.receive() is not None
        peer.send(p_data(1, 3, store_command(CT, "1.2.3")) + p_data(1, 2, b"data"))
        answer = b""
        while True:
            got = peer.receive()
            assert got is not None
            assert len(got[1]) <= 64
            answer += got[1][6:]
            if got[1][5] & 2:
                break
    assert dcmread(BytesIO(answer), force=True).Status == 0x0000


def test_a_peer_that_is_silent_once_it_was_let_in_is_aborted_after_the_idle_time(desk: MemoryDesk) -> None:
    soon = _reception(desk, "fast", replace(PATIENT_LIMITS, stall_seconds=1.0, idle_seconds=1.0))
    with RawPeer(soon.port) as peer:
        peer.associate()
        assert peer.receive() == (ABORTED, bytes(4))
        assert peer.ended_within()
    soon.stop()


def test_an_object_that_is_being_stored_when_the_node_stops_is_answered_before_the_abort(
    fast: Reception, desk: MemoryDesk
) -> None:
    desk.gate.clear()
    with RawPeer(fast.port) as peer:
        peer.associate()
        peer.send(p_data(3, 3, store_command(CT, "1.2.3")) + p_data(3, 2, b"data"))
        stopping = threading.Thread(target=fast.stop)
        stopping.start()
        time.sleep(0.2)
        desk.gate.set()
        assert peer.status() == 0x0000
        assert peer.receive() == (ABORTED, bytes(4))
        stopping.join(PATIENCE_SECONDS)
        assert not stopping.is_alive()


def test_the_fast_path_has_one_thread_for_each_association(fast: Reception) -> None:
    with RawPeer(fast.port) as one, RawPeer(fast.port) as two:
        one.associate()
        two.associate()
        assert len(fast.peers) == sum(thread.name == "association" for thread in threading.enumerate()) == 2
        assert not any(isinstance(thread, DULServiceProvider) for thread in threading.enumerate())


def test_a_command_set_is_read_as_it_was_written() -> None:
    values = command_values(store_command(CT, "1.2.3"))
    request = StoreRequest.of(values)
    assert (request.message_id, request.sop_class_uid, request.sop_instance_uid) == (1, CT, "1.2.3")
    assert request.has_data
    answer = dcmread(BytesIO(request.answer(0xA900)), force=True)
    assert answer.CommandGroupLength == len(request.answer(0xA900)) - 12
    assert (answer.Status, answer.CommandDataSetType) == (0xA900, 0x0101)


@given(st.binary(max_size=200))
def test_whatever_bytes_come_as_a_command_or_as_items_end_in_a_value_or_a_protocol_error(data: bytes) -> None:
    for read in (lambda: StoreRequest.of(command_values(data)), lambda: list(fragments(memoryview(data)))):
        try:
            read()
        except ProtocolError:
            continue

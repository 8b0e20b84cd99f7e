"""A request that was answered before: the same answer, of the same rules, for an association of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.acse import ACSE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from raw_peer import CT, EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION, RawPeer, associate_rq, item, pdu

from node.agreements import MOST_AGREEMENTS, Agreement, Agreements, Offer
from node.association import StorageAssociation
from node.callers import Callers
from node.contexts import STORAGE_COMMITMENT
from node.desk import Arrival, Peer
from node.inline_association import InlineAssociation
from node.reception import Reception
from node.socket_guard import Limits

CONTEXTS = [(VERIFICATION, IMPLICIT_LITTLE), (CT, EXPLICIT_LITTLE), (STORAGE_COMMITMENT, IMPLICIT_LITTLE)]
ACCEPTED, REJECTED, RELEASED = 0x02, 0x03, 0x06
HEADER_BYTES = 6


class Desk:
    """A desk that deletes what comes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self.turned: list[str] = []

    def temporary(self) -> Path:
        self._count += 1
        return self._folder / str(self._count)

    def free_bytes(self) -> int:
        return 1 << 40

    def receive(self, arrival: Arrival) -> int:
        arrival.require_path().unlink()
        return 0x0000

    def left(self, peer: Peer) -> None: ...

    def turned_away(self, reason: str, calling_ae: str, address: str) -> None:
        self.turned.append(reason)


class Reports:
    """Who may report storage commitment: the same AE title, from another address."""

    callers = Callers.parse(["SCANNER@127.0.0.2"])

    def report(self, peer: Peer, information: Dataset) -> int:
        raise AssertionError


@contextmanager
def receiving(folder: Path, **options: object) -> Iterator[tuple[Reception, Desk]]:
    desk = Desk(folder)
    settings = {"callers": Callers(entries=(), accept_any=True), "reserve_bytes": 0, **options}
    reception = Reception(desk, ae_title="NADIR", host="127.0.0.1", port=0, **settings)  # type: ignore[arg-type]
    reception.start()
    try:
        yield reception, desk
    finally:
        reception.stop()


@pytest.fixture
def negotiations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each negotiation of pynetdicom."""
    begun: list[int] = []
    real = ACSE.negotiate_association

    def negotiate(self: ACSE) -> None:
        begun.append(1)
        real(self)

    monkeypatch.setattr(ACSE, "negotiate_association", negotiate)
    return begun


def ask(port: int, request: bytes, source: str = "127.0.0.1") -> tuple[int, bytes] | None:
    """Return the answer, and release at once what was accepted."""
    with RawPeer(port, source=source) as peer:
        peer.send(request)
        answer: tuple[int, bytes] | None = peer.receive()
        if answer is not None and answer[0] == ACCEPTED:
            peer.send(pdu(0x05, bytes(4)))
            assert peer.receive() == (RELEASED, bytes(4))
    return answer


def test_the_same_request_is_negotiated_once_and_answered_with_the_same_bytes_by_both_receive_paths(
    tmp_path: Path, negotiations: list[int]
) -> None:
    request = associate_rq("NADIR", "SCANNER", CONTEXTS)
    with receiving(tmp_path) as (reception, _):
        first, *others = [ask(reception.port, request) for _ in range(4)]
        assert len(negotiations) == 1
        assert ask(reception.port, associate_rq("NADIR", "SCANNED", CONTEXTS)) != first
        assert len(negotiations) == 2
    with receiving(tmp_path, receive_path="pynetdicom") as (reception, _):
        slow = ask(reception.port, request)
    assert first is not None
    assert first[0] == ACCEPTED
    assert others == [first] * 3
    assert slow == first


def test_every_service_works_after_a_request_that_was_known(tmp_path: Path) -> None:
    with receiving(tmp_path) as (reception, _):
        ask(reception.port, associate_rq("NADIR", "RAW", CONTEXTS))
        with RawPeer(reception.port) as peer:
            peer.associate(contexts=CONTEXTS)
            assert peer.echo() == 0x0000
            assert peer.store(CT, "1.2.3", bytes(40_000)) == 0x0000
            assert peer.echo() == 0x0000
            peer.send(pdu(0x07, bytes(4)))
            assert peer.ended_within(5.0)


def test_rules_limits_and_rights_are_asked_for_a_known_request_too(
    tmp_path: Path, negotiations: list[int]
) -> None:
    options = {
        "callers": Callers.parse(["SCANNER@127.0.0.1"]),
        "max_associations": 1,
        "reporters": Reports(),
    }
    request = associate_rq("NADIR", "SCANNER", CONTEXTS)
    with receiving(tmp_path, **options) as (reception, desk):
        first = ask(reception.port, request)
        assert first is not None
        assert _results(first[1]) == [0, 0, 3]
        reporting = ask(reception.port, request, source="127.0.0.2")
        assert reporting is not None
        assert _results(reporting[1]) == [0, 3, 0]
        assert ask(reception.port, request) == first
        assert ask(reception.port, request, source="127.0.0.3") is None
        with RawPeer(reception.port) as sitting:
            sitting.send(request)
            assert sitting.receive() == first
            sitting.echo()
            assert ask(reception.port, request) == (REJECTED, bytes([0, 2, 3, 2]))
        assert desk.turned == ["address", "limit"]


def test_a_request_that_tells_users_apart_is_negotiated_each_time(
    tmp_path: Path, negotiations: list[int]
) -> None:
    plain = associate_rq("NADIR", "SCANNER", CONTEXTS)
    at = plain.rindex(item(0x51, struct.pack(">L", 16382))) - 4
    user = item(0x58, bytes([1, 0]) + struct.pack(">H", 4) + b"anna" + struct.pack(">H", 0))
    request = pdu(0x01, plain[HEADER_BYTES:at] + item(0x50, plain[at + 4 :] + user))
    with receiving(tmp_path) as (reception, _):
        for _ in range(3):
            answer = ask(reception.port, request)
            assert answer is not None
            assert answer[0] == ACCEPTED
    assert len(negotiations) == 3


def test_agreements_are_few_and_short_and_the_unused_go_first() -> None:
    agreements, agreement = Agreements(), _agreement()
    for number in range(MOST_AGREEMENTS):
        agreements.keep(b"%d" % number, agreement)
    assert agreements.find(b"0") is agreement
    agreements.keep(b"one more", agreement)
    assert agreements.find(b"0") is agreement
    assert agreements.find(b"1") is None
    agreements.keep(bytes(1 << 16), agreement)
    assert agreements.find(bytes(1 << 16)) is None


def test_an_association_of_one_thread_has_every_attribute_of_pynetdicoms() -> None:
    ae = AE()
    whole = StorageAssociation(ae, lambda *uids: None)  # type: ignore[arg-type]
    ours = InlineAssociation(ae, lambda *uids: None, Agreements(), Limits())  # type: ignore[arg-type]
    assert [name for name in vars(whole) if not hasattr(ours, name)] == []
    assert [name for name in vars(whole.dul) if not hasattr(ours.dul, name)] == []
    for name, value in vars(whole).items():
        if isinstance(value, (bool, int, float, str, list)) and not name.startswith("_"):
            assert getattr(ours, name) == value, name
    assert ours._handlers == whole._handlers


def _results(body: bytes) -> list[int]:
    """Return the result of each presentation context of an A-ASSOCIATE-AC, in the order of their numbers."""
    found, at = {}, 68
    while at < len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        if kind == 0x21:
            found[body[at + 4]] = body[at + 6]
        at += 4 + length
    return [found[number] for number in sorted(found)]


def _agreement() -> Agreement:
    request = A_ASSOCIATE_RQ()
    request.decode(associate_rq("NADIR", "SCANNER", CONTEXTS))
    offer = Offer(storage=True, commitment=False)
    return Agreement(request=request.to_primitive(), offer=offer, answer=b"", accepted=(), rejected=())

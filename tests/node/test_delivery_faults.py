"""Peers in every state, a night without a PACS, and a dead destination beside a live one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from figures import write_figure
from moody_peer import MOODS, MoodyPeer
from outbox_rows import waiting_results
from patience import PATIENCE_SECONDS, PATIENT, eventually
from small_node import SmallNode
from sqlmodel import select

from node.loop import Loop
from node.scu import Timeouts
from node.sender import Sender
from node.transport import Answer, Parcel, dimse
from plugins.errors import Unavailable
from store import outbox
from store.tables import Delivery

pytestmark = pytest.mark.fault

QUICK = Timeouts(connect=1.0, associate=1.0, answer=1.0)
"""Of a sender to a peer that is silent."""
EXPECTED = {
    "refuses TCP": ("pending", "unreachable"),
    "rejects for now": ("pending", "unreachable"),
    "rejects for good": ("parked", "no status"),
    "is silent": ("pending", "unreachable"),
    "aborts after one": ("pending", "no status"),
    "0xA700": ("pending", "0xA700"),
    "0xA900": ("parked", "0xA900"),
    "0xB000": ("delivered", "0xB000"),
    "0xC000": ("parked", "0xC000"),
    "empty status": ("pending", "no status"),
    "dies after storing": ("pending", "no status"),
}
"""What a delivery is after three attempts at a peer in this state, and the last answer: the outcome table."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    made = SmallNode.make(tmp_path / "home")
    yield made
    made.database.dispose()


@pytest.fixture
def peer() -> Iterator[MoodyPeer]:
    made = MoodyPeer()
    yield made
    made.stop()


def rows(small: SmallNode) -> list[Delivery]:
    with small.database.reading() as session:
        return list(session.exec(select(Delivery).order_by(Delivery.id)))  # type: ignore[arg-type]


def sender(small: SmallNode, peer: MoodyPeer) -> Sender:
    """Return a sender that does not wait long while its peer is silent."""

    def transport(parcel: Parcel) -> Answer:
        timeouts = QUICK if peer.mood == "is silent" else PATIENT
        return dimse("PEER", "127.0.0.1", peer.port, "NADIR", timeouts=timeouts)(parcel)

    return Sender(small.database, small.objects, peer.address, transport=transport)


@pytest.mark.parametrize("mood", MOODS)
def test_a_peer_in_each_state_gives_the_outcome_of_the_table_and_then_every_result_once(
    small: SmallNode, peer: MoodyPeer, tmp_path: Path, mood: str
) -> None:
    uids = waiting_results(small.database, small.objects, tmp_path, [peer.address], count=10)
    sending, now = sender(small, peer), small.database.now()
    peer.become(mood)
    is_partial = mood == "aborts after one"
    for _ in range(4 if is_partial else 3):
        sending.tick(now)
        now += timedelta(minutes=20)
    tried = rows(small)[1 if is_partial else 0]
    assert (tried.state, tried.last_status) == EXPECTED[mood]
    peer.become("is well")
    with small.database.transaction() as session:
        retried = outbox.retry_parked(session, now)
    for _ in range(40):
        sending.tick(now)
        now += timedelta(minutes=1)
    assert [row.state for row in rows(small)] == ["delivered"] * 10
    assert list(peer.times) == uids
    # Only where nobody knows whether it was stored does it come again, under the same UID.
    again = 3 if mood == "dies after storing" else 0
    assert sum(peer.times.values()) == 10 + again
    figures = {
        "outcome": EXPECTED[mood][0],
        "delivered": 10,
        "lost": 0,
        "sent_again": again,
        "retried": retried,
    }
    write_figure(f"peer that {mood}", **figures)


@pytest.mark.parametrize(("studies", "results"), [pytest.param(1, 40, marks=pytest.mark.long), (20, 2)])
def test_after_a_night_without_a_pacs_everything_is_delivered_once_in_order_and_soon(
    small: SmallNode, tmp_path: Path, studies: int, results: int
) -> None:
    began = now = small.database.now()
    back = began + timedelta(hours=12)
    took: list[str] = []
    at: list[float] = []

    def transport(parcel: Parcel) -> Answer:
        if now < back:
            raise Unavailable("refused")
        took.append(parcel.sop_instance_uid)
        at.append((now - back).total_seconds())
        return Answer(status=0)

    sent = [
        waiting_results(
            small.database, small.objects, tmp_path, ["P@h:104"], count=results, patient_id=f"{n}", now=began
        )
        for n in range(studies)
    ]
    sending = Sender(
        small.database, small.objects, "P@h:104", transport=transport, is_there=lambda: now >= back
    )
    while len(took) < 40 and now < back + timedelta(hours=1):
        while sending.tick(now):
            pass
        now += timedelta(seconds=60)
    assert len(took) == len(set(took)) == 40
    assert all([uid for uid in took if uid in of_one] == of_one for of_one in sent)
    attempts = max(row.attempt for row in rows(small))
    assert max(at) <= 600
    assert attempts <= 80
    figures = {"delivered": 40, "last_after_s": max(at), "attempts_at_most": attempts, "out_of_order": 0}
    write_figure(f"PACS down for 12 h, {studies} studies", **figures)


def test_a_dead_destination_does_not_slow_a_live_one(
    small: SmallNode, peer: MoodyPeer, tmp_path: Path
) -> None:
    dead = MoodyPeer()
    dead.become("is silent")
    peer.become("is well")
    alone = _seconds(small, tmp_path, "alone", [peer])
    beside = _seconds(small, tmp_path, "beside", [peer, dead])
    dead.stop()
    states = {row.state for row in rows(small) if row.destination == dead.address}
    assert states <= {"pending", "sending"}
    assert len(peer.times) == 40
    write_figure(
        "dead destination beside a live one", alone_s=round(alone, 2), beside_s=round(beside, 2), lost=0
    )


def _seconds(small: SmallNode, folder: Path, name: str, peers: list[MoodyPeer]) -> float:
    """Return how long the first peer took for 20 results, with a sender for each peer."""
    first = peers[0]
    to = [peer.address for peer in peers]
    waiting_results(small.database, small.objects, folder, to, count=20, patient_id=name)
    loops = [Loop(p.address, sender(small, p).tick, small.database.now, 0.05) for p in peers]
    began = time.monotonic()
    for loop in loops:
        loop.start()
    assert eventually(
        lambda: all(row.state == "delivered" for row in rows(small) if row.destination == first.address)
    )
    taken = time.monotonic() - began
    assert all(loop.stop(PATIENCE_SECONDS) for loop in loops)
    return taken

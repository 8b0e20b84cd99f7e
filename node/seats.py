"""Who is associated now, and how many may be: also when all seats are taken by peers that do not send."""

from __future__ import annotations

import logging
import threading
import time
from typing import Generic, Protocol, TypeVar

from node.desk import Peer
from node.logs import line

log = logging.getLogger(__name__)

BEHIND_SECONDS = 1.0
"""Whoever is this far behind while others wait has to go."""
PATIENCE_SECONDS = 2.0
LOOK_SECONDS = 0.02


class Seated(Protocol):
    """An association that may have to make room."""

    @property
    def behind_seconds(self) -> float:
        """Return for how long the peer has owed bytes that did not come; 0 while it is being served."""

    def give_up(self) -> None:
        """Close the connection at once; must not wait."""


SeatedT = TypeVar("SeatedT", bound=Seated)


class Seats(Generic[SeatedT]):
    """The associations of one port.

    Parameters
    ----------
    most
        Associations at one time.
    most_per_address
        Of these from one address; 0 for as many as there are.

    """

    def __init__(self, most: int, most_per_address: int = 0) -> None:
        self._most = most
        self._most_per_address = most_per_address or most
        self._lock = threading.Lock()
        self._peers: dict[SeatedT, Peer] = {}
        self._numbers = 0

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Return who is associated now."""
        with self._lock:
            return tuple(self._peers.values())

    def take(self, association: SeatedT, calling_ae: str, address: str) -> Peer | None:
        """Return who the peer is from now on; None when there is no seat.

        When all are taken, and somebody does not send what he owes, that one has to go: for this alone the call
        may last, `PATIENCE_SECONDS` at most.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        ended: set[SeatedT] = set()
        while True:
            with self._lock:
                here = [a for a, peer in self._peers.items() if peer.address == address]
                crowd = here if len(here) >= self._most_per_address else list(self._peers)
                if len(here) < self._most_per_address and len(self._peers) < self._most:
                    self._numbers += 1
                    peer = self._peers[association] = Peer(calling_ae, address, self._numbers)
                    return peer
            if time.monotonic() > deadline or not self._make_room(crowd, ended):
                return None
            time.sleep(LOOK_SECONDS)

    def leave(self, association: SeatedT) -> Peer | None:
        """Return who has left; None when it never had a seat."""
        with self._lock:
            return self._peers.pop(association, None)

    def _make_room(self, crowd: list[SeatedT], ended: set[SeatedT]) -> bool:
        """End the association that is furthest behind; False when none is, so that waiting would not help."""
        rest = [association for association in crowd if association not in ended]
        behind, slowest = max(((a.behind_seconds, a) for a in rest), key=lambda pair: pair[0], default=(0, None))
        if slowest is not None and behind > BEHIND_SECONDS:
            log.warning(line("peer-cut-off", reason="made-room", behind_seconds=round(behind, 1)))
            slowest.give_up()
            ended.add(slowest)
        return behind > 0 or bool(ended)

"""Who is associated now, and how many may be: also when all seats are taken by peers that do not send."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from node.desk import Peer
from node.logs import line

log = logging.getLogger(__name__)

BEHIND_SECONDS = 1.0
"""Whoever is this far behind while others wait has to go."""
PATIENCE_SECONDS = 3.0
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
        self._waiting: list[SeatedT] = []
        self._numbers = 0

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Return who is associated now."""
        with self._lock:
            return tuple(self._peers.values())

    def take(self, association: SeatedT, calling_ae: str, address: str) -> Peer | None:
        """Return who the peer is from now on; None when there is no seat.

        When all are taken, and somebody does not send what he owes, that one has to go: for this alone the call
        may last, `PATIENCE_SECONDS` at most. Those who wait are served in the order in which they came.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        has_ended_one = False
        try:
            while True:
                found = self._sit(association, calling_ae, address)
                if isinstance(found, Peer):
                    return found
                slowest = max(found, key=lambda one: one.behind_seconds, default=association)
                behind = slowest.behind_seconds
                if behind > BEHIND_SECONDS and not has_ended_one:
                    has_ended_one = True
                    log.warning(line("peer-cut-off", reason="made-room", behind_seconds=round(behind, 1)))
                    slowest.give_up()
                if time.monotonic() > deadline or not (behind or has_ended_one):
                    return None
                time.sleep(LOOK_SECONDS)
        finally:
            with self._lock, suppress(ValueError):
                self._waiting.remove(association)

    def _sit(self, association: SeatedT, calling_ae: str, address: str) -> Peer | list[SeatedT]:
        """Return who has sat down, or else those in the way."""
        with self._lock:
            here = [a for a, peer in self._peers.items() if peer.address == address]
            if len(here) >= self._most_per_address:
                return here
            if association not in self._waiting:
                self._waiting.append(association)
            if self._waiting.index(association) >= self._most - len(self._peers):
                return list(self._peers)
            self._numbers += 1
            self._peers[association] = peer = Peer(calling_ae, address, self._numbers)
            return peer

    def leave(self, association: SeatedT) -> Peer | None:
        """Return who has left; None when it never had a seat."""
        with self._lock:
            return self._peers.pop(association, None)

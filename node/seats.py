"""Who is associated now, and how many may be: also when all seats are taken by peers that do not send."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _InTheWay(Generic[SeatedT]):
    others: list[SeatedT]
    """Those who sit where somebody waits, and have not been told to go."""
    are_leaving: bool
    """True when enough of them have been told."""


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
        self._leaving: set[SeatedT] = set()
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
        try:
            while True:
                found = self._sit(association, calling_ae, address)
                if isinstance(found, Peer):
                    return found
                if time.monotonic() > deadline or not (found.are_leaving or self._make_room(found.others)):
                    return None
                time.sleep(LOOK_SECONDS)
        finally:
            with self._lock, suppress(ValueError):
                self._waiting.remove(association)

    def _sit(self, association: SeatedT, calling_ae: str, address: str) -> Peer | _InTheWay[SeatedT]:
        """Return who has sat down, or else those in the way."""
        with self._lock:
            here = [a for a, peer in self._peers.items() if peer.address == address]
            if len(here) >= self._most_per_address:
                return self._in_the_way(here, 1)
            if association not in self._waiting:
                self._waiting.append(association)
            needed = self._waiting.index(association) + 1 - (self._most - len(self._peers))
            if needed > 0:
                return self._in_the_way(list(self._peers), needed)
            self._numbers += 1
            self._peers[association] = peer = Peer(calling_ae, address, self._numbers)
            return peer

    def _in_the_way(self, crowd: list[SeatedT], needed: int) -> _InTheWay[SeatedT]:
        others = [association for association in crowd if association not in self._leaving]
        return _InTheWay(others, len(crowd) - len(others) >= needed)

    def _make_room(self, crowd: list[SeatedT]) -> bool:
        """End the association that is furthest behind; False when none is, so that waiting would not help."""
        if not crowd:
            return True
        slowest = max(crowd, key=lambda one: one.behind_seconds)
        behind = slowest.behind_seconds
        if behind > BEHIND_SECONDS:
            with self._lock:
                if slowest in self._peers:
                    self._leaving.add(slowest)
            log.warning(line("peer-cut-off", reason="made-room", behind_seconds=round(behind, 1)))
            slowest.give_up()
        return behind > 0

    def leave(self, association: SeatedT) -> Peer | None:
        """Return who has left; None when it never had a seat."""
        with self._lock:
            self._leaving.discard(association)
            return self._peers.pop(association, None)

"""Where new connections wait until they have spoken: no thread, no seat, for TLS no association at all.

Whoever brings a whole request along goes straight through. One thread watches the others. A connection that stays
silent, that cannot finish its handshake in time or whose first byte is no DICOM is closed from here. When there are
too many, the oldest of the address that has the most makes room.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from node.logs import line
from node.tls import failure_reason

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
PDU_TYPES = range(0x01, 0x08)
ASSOCIATE_RQ, TLS_HANDSHAKE = 0x01, b"\x16"
HEADER = struct.Struct(">BxL")
MOST_AWAITED_BYTES = 1 << 14
"""A longer A-ASSOCIATE-RQ is read by the association's own thread."""
UNRECOGNISED_PDU = bytes([0x07, 0, 0, 0, 0, 4, 0, 0, 0x02, 0x01])
"""A-ABORT by the service provider (PS3.8 9.3.8)."""


@dataclass(kw_only=True)
class _Guest:
    address: Any
    deadline: float
    is_shaking: bool
    awaited_bytes: int = 0


class Lobby:
    """The connections that have not spoken yet.

    Parameters
    ----------
    silent_seconds
        Time for the A-ASSOCIATE-RQ; by TLS for the handshake and the first byte after it.
    admit
        Takes a connection whose request is here, and its address.
    close
        Closes one that will not be served.
    told
        Learns reason and IP address of who was sent away for what it said or for not finishing its handshake.
    new_context
        Gives the TLS context of the next connection; None for a plain port.

    """

    def __init__(
        self,
        *,
        silent_seconds: float,
        admit: Callable[[socket.socket, Any], None],
        close: Callable[[socket.socket], None],
        told: Callable[[str, str], None],
        new_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._silent_seconds = silent_seconds
        self._admit, self._close, self._told = admit, close, told
        self._new_context = new_context
        self._guests: dict[socket.socket, _Guest] = {}
        self._arrived: list[tuple[socket.socket, Any, int]] = []
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lobby", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def enter(self, connection: socket.socket, address: Any, room: int) -> None:
        """Admit a new connection whose request is here already, else let it wait; `room` is how many may."""
        if self._new_context is None and _has_request(connection):
            self._admit(connection, address)
            return
        with self._lock:
            self._arrived.append((connection, address, room))
        self._wake_write.send(b"+")

    def stop(self) -> None:
        """Close everything that waits."""
        self._closing.set()
        if self._thread.is_alive():
            self._wake_write.send(b".")
            self._thread.join(5.0)
        self._wake_read.close()
        self._wake_write.close()

    def _watch(self) -> None:
        with self._selector:
            self._selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._closing.is_set():
                try:
                    self._turn()
                except Exception as error:  # a border: one connection must not close the door for the others
                    log.exception(line("lobby-failed", error=type(error).__name__))
            for connection, _, _ in self._arrived:
                self._close(connection)
            for connection in list(self._guests):
                self._send_away(connection)

    def _turn(self) -> None:
        spoke = [key.fileobj for key, _ in self._selector.select(LOOK_SECONDS)]
        for connection in spoke:
            if connection is self._wake_read:
                self._wake_read.recv(4096)
                self._seat_arrived()
            elif isinstance(connection, socket.socket) and connection in self._guests:
                try:
                    self._listen_to(connection)
                except OSError:  # it has gone meanwhile
                    self._send_away(connection)
        now = time.monotonic()
        for connection, guest in list(self._guests.items()):
            if now > guest.deadline:
                self._send_away(connection, "tls-silent" if guest.is_shaking else "")

    def _seat_arrived(self) -> None:
        with self._lock:
            arrived, self._arrived = self._arrived, []
        for connection, address, room in arrived:
            if len(self._guests) >= max(room, 1):
                self._make_room()
            guest = _Guest(
                address=address,
                deadline=time.monotonic() + self._silent_seconds,
                is_shaking=self._new_context is not None,
            )
            try:
                waiting = connection if self._new_context is None else self._wrap(connection)
            except OSError as error:  # it has gone already
                self._told(failure_reason(error), str(address[0]))
                self._close(connection)
                continue
            self._guests[waiting] = guest
            self._selector.register(waiting, selectors.EVENT_READ)

    def _wrap(self, connection: socket.socket) -> socket.socket:
        assert self._new_context is not None
        connection.setblocking(False)
        return self._new_context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def _make_room(self) -> None:
        """Close the oldest of the address with the most; whoever means to speak has done so long before."""
        counts = Counter(guest.address[0] for guest in self._guests.values())
        crowd = counts.most_common(1)[0][0]
        oldest = next(c for c, guest in self._guests.items() if guest.address[0] == crowd)
        self._send_away(oldest)

    def _listen_to(self, connection: socket.socket) -> None:
        guest = self._guests[connection]
        if isinstance(connection, ssl.SSLSocket):
            if guest.is_shaking and not (self._shake(connection, guest) and connection.pending()):
                return
        elif not self._begins_well(connection, guest):
            return
        connection.setblocking(True)
        self._forget(connection)
        self._admit(connection, guest.address)

    def _shake(self, connection: ssl.SSLSocket, guest: _Guest) -> bool:
        """Go on with a handshake; True when it is over and well."""
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._selector.modify(connection, selectors.EVENT_WRITE)
        except (OSError, ValueError) as error:
            self._send_away(connection, failure_reason(error))
        else:
            self._selector.modify(connection, selectors.EVENT_READ)
            guest.is_shaking = False
            return True
        return False

    def _begins_well(self, connection: socket.socket, guest: _Guest) -> bool:
        """Look at the first bytes without taking them: a request has to be whole, what begins no PDU is aborted."""
        try:
            start = connection.recv(HEADER.size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            start = b""
        if not start or start[0] not in PDU_TYPES:
            self._refuse_start(connection, start)
            return False
        length = HEADER.unpack(start)[1] if len(start) == HEADER.size else 0
        needed = HEADER.size + length
        if start[0] != ASSOCIATE_RQ or needed > MOST_AWAITED_BYTES or guest.awaited_bytes >= needed:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return True
        # Not woken before it is here; woken with less, the peer has gone, which its own thread finds out.
        guest.awaited_bytes = needed
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed)
        return False

    def _refuse_start(self, connection: socket.socket, start: bytes) -> None:
        if start:
            with suppress(OSError):
                connection.send(UNRECOGNISED_PDU, socket.MSG_DONTWAIT)
        is_tls = start[:1] == TLS_HANDSHAKE
        self._send_away(connection, "tls-on-plain-port" if is_tls else "not-dicom" if start else "")

    def _send_away(self, connection: socket.socket, reason: str = "") -> None:
        address = str(self._guests[connection].address[0])
        self._forget(connection)
        if reason:
            self._told(reason, address)
        else:
            log.info(line("silent-connection-closed", address=address))
        self._close(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._guests[connection]


def _has_request(connection: socket.socket) -> bool:
    """Return True when a whole A-ASSOCIATE-RQ can be read; on a network it comes later than the connection."""
    try:
        start = connection.recv(MOST_AWAITED_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    is_request = len(start) >= HEADER.size and start[0] == ASSOCIATE_RQ
    return is_request and len(start) >= HEADER.size + HEADER.unpack_from(start)[1]

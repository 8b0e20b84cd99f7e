"""pynetdicom's upper layer without its thread: a PDU is read when one is waited for, and sent at once.

pynetdicom runs two threads for each association, both of which sleep a millisecond between looks. Here the
association's own thread drives the state machine; what it does with each PDU stays pynetdicom's. A PDU is read with
`recv_into` into one buffer, with a deadline, a stall limit and a largest length.
"""

from __future__ import annotations

import queue
import socket
import ssl
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.fsm import StateMachine
from pynetdicom.timer import Timer

from node.lobby import PDU_TYPES
from node.pace import SLOWEST_BYTES_PER_SECOND
from node.socket_guard import P_DATA_TF, GuardedDul, Limits, say_goodbye

HEADER = struct.Struct(">BxL")
HEADER_BYTES = HEADER.size
A_RELEASE_RQ = 0x05
RELEASE_RP = HEADER.pack(0x06, 4) + bytes(4)
TIMEVAL = struct.Struct("@ll")
FIRST_BYTES = 1 << 12
AHEAD_BYTES = 1 << 10
LINGER_SECONDS, LINGER_BYTES = 1.0, 1 << 20
CONNECTION_CLOSED = "Evt17"


class ProtocolError(Exception):
    """The peer sent what PS3.7 or PS3.8 does not allow; the association is aborted."""


class TooLongError(ProtocolError):
    """The peer sent a longer PDU than was announced."""


class IdleError(Exception):
    """The peer sent nothing for too long, or the node ends; the association is aborted in order."""


class Line:
    """What pynetdicom uses of a queue, for one thread."""

    def __init__(self) -> None:
        self.queue: deque[object] = deque()
        self.put = self.queue.append

    def get(self, block: bool = False, timeout: float | None = None) -> object:
        """Return the next; raises queue.Empty at once when there is none."""
        if not self.queue:
            raise queue.Empty
        return self.queue.popleft()

    get_nowait = get

    def empty(self) -> bool:
        """Return True when nothing is waiting."""
        return not self.queue


class InlineDul(GuardedDul):
    """The upper layer of an association, on the thread of whoever calls it: reads when asked, sends at once."""

    def __init__(self, assoc: Association, limits: Limits) -> None:
        threading.Thread.__init__(self)  # not pynetdicom's own; a test compares what both leave behind
        self._assoc = assoc
        self.socket: Any = None
        self.event_queue, self._recv_pdu = Line(), Line()
        self.to_provider_queue, self.to_user_queue = Line(), Line()
        self._idle_timer, self.artim_timer = Timer(None), Timer(None)
        self.state_machine = StateMachine(self)
        self._run_loop_delay, self._kill_thread = 0.0, False
        self._limits = limits
        # It grows with the longest PDU. Behind that is room for the next one's header: both come with one call, as
        # does a command set with the beginning of its data set.
        self._buffer = memoryview(bytearray(FIRST_BYTES))
        self._end = self._ahead = 0
        self._is_interrupted = False

    def start(self) -> None:
        """Let the state machine learn of the connection; there is no thread to start."""
        connection = self.socket.socket
        if not isinstance(connection, ssl.SSLSocket):
            # The system keeps the limit in the one call that reads; Python's own timeout asks it twice.
            limit = TIMEVAL.pack(*divmod(round(self._limits.stall_seconds * 1e6), 10**6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            connection.settimeout(None)
        self._act()

    def is_alive(self) -> bool:
        """Return False: there is no thread to wait for."""
        return False

    def join(self, timeout: float | None = None) -> None:
        """Return at once."""

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> object:
        """Return the next primitive for the association, None when there is none or the connection has ended."""
        while wait and self.to_user_queue.empty() and self.is_open:
            pdu = self.read()
            if pdu is not None:
                self.take(*pdu)
        return super().receive_pdu(wait=False)

    def send_pdu(self, primitive: object) -> None:
        """Send a primitive before this returns."""
        super().send_pdu(primitive)
        self._process_recv_primitive()
        self._act()

    @property
    def is_open(self) -> bool:
        """Return True while PDUs may come: not once the last one was sent or the connection has gone."""
        return not self._kill_thread and self.state_machine.current_state != "Sta13"

    def read(self) -> tuple[int, memoryview] | None:
        """Return type and body of the next PDU, to be used before the next call; None when the connection ended.

        Raises IdleError when nothing came in the time allowed, and ProtocolError for what is no PDU or too long.
        """
        try:
            return self._read() if self.is_open else None
        except TimeoutError:
            self.socket._hang_up("stalled")
        except (OSError, ValueError):
            self.socket._hang_up("connection-lost")
        self.happen(CONNECTION_CLOSED)
        return None

    def take(self, kind: int, body: memoryview) -> None:
        """Give a PDU to pynetdicom's state machine. Raises ProtocolError when it cannot be decoded."""
        try:
            pdu, event = self._decode_pdu(HEADER.pack(kind, len(body)) + body)
            self._recv_pdu.put(pdu)
            self.happen(event)
        except Exception as error:  # a border: pynetdicom's decoders raise whatever they meet
            raise ProtocolError("a PDU cannot be decoded") from error

    def requested(self) -> None:
        """Go on as after an A-ASSOCIATE-RQ that was taken in (PS3.8 9.2.2, AE-6)."""
        self.artim_timer.stop()
        self.state_machine.transition("Sta3")

    def accepted(self, answer: bytes) -> None:
        """Send an A-ASSOCIATE-AC that is encoded already (PS3.8 9.2.2, AE-7)."""
        self.state_machine.transition("Sta6")
        self.socket.send(answer)
        self._act()

    def released(self) -> None:
        """Answer an A-RELEASE-RQ (PS3.8 9.2.2, AR-2 and AR-4)."""
        self.state_machine.transition("Sta13")
        self.socket.send(RELEASE_RP)
        self._act()

    def happen(self, event: str) -> None:
        """Tell the state machine of an event."""
        self.event_queue.put(event)
        self._act()

    def interrupt(self) -> None:
        """Let `read` raise IdleError in the thread that reads; for any other thread."""
        self._is_interrupted = True
        connection = self.socket.socket if self.socket else None
        if connection is not None:
            with suppress(OSError):
                # Not the method of a TLS socket, which would end writing too.
                socket.socket.shutdown(connection, socket.SHUT_RD)

    def finish(self) -> None:
        """Let the peer read our last PDU: closing with unread bytes would take it back (RFC 1122 4.2.2.13)."""
        connection = self.socket.socket if self.socket else None
        if connection is not None and self.state_machine.current_state == "Sta13":
            deadline, left = time.monotonic() + LINGER_SECONDS, LINGER_BYTES
            with suppress(OSError, ValueError):
                say_goodbye(connection)
                connection.settimeout(LINGER_SECONDS)
                connection.shutdown(socket.SHUT_WR)
                while (
                    left > 0 and time.monotonic() < deadline and (got := connection.recv_into(self._buffer))
                ):
                    left -= got
        self._buffer = memoryview(b"")

    def _act(self) -> None:
        while not self._kill_thread:
            try:
                event = self.event_queue.get_nowait()
            except queue.Empty:
                return
            self.state_machine.do_action(event)

    def _read(self) -> tuple[int, memoryview]:
        limits, is_established = self._limits, self.assoc.is_established
        if self._ahead:
            self._buffer[: self._ahead] = self._buffer[self._end : self._end + self._ahead]
        else:
            self._ahead = self._wait(limits.idle_seconds if is_established else limits.silent_seconds)
        have = self._ahead
        deadline = time.monotonic() + (limits.pdu_seconds if is_established else limits.silent_seconds)
        if have < HEADER_BYTES:
            have = self._fill(have, HEADER_BYTES, HEADER_BYTES, deadline)
        kind, length = HEADER.unpack_from(self._buffer)
        if kind not in PDU_TYPES:
            raise ProtocolError("the peer sent what is no PDU")
        if length > (limits.pdu_bytes if kind == P_DATA_TF and is_established else limits.request_bytes):
            raise TooLongError("the peer sent a longer PDU than it may")
        end = HEADER_BYTES + length
        if end + AHEAD_BYTES > len(self._buffer):
            longer = memoryview(bytearray(end + AHEAD_BYTES))
            longer[:have] = self._buffer[:have]
            self._buffer = longer
        if have < end:
            have = self._fill(have, end, end + HEADER_BYTES, deadline)
        self._end, self._ahead = end, have - end
        return kind, self._buffer[HEADER_BYTES:end]

    def _wait(self, seconds: float) -> int:
        """Return how many bytes of a message have come, once there are some."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self._receive(0, AHEAD_BYTES)
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise IdleError from None

    def _fill(self, have: int, enough: int, most: int, deadline: float) -> int:
        """Read until the buffer holds `enough` bytes, and not beyond `most`; return how many it holds."""
        begun, had = time.monotonic(), have
        while have < enough:
            have += self._receive(have, most)
            if have < enough:
                slowest = begun + self._limits.stall_seconds + (have - had) / SLOWEST_BYTES_PER_SECOND
                if time.monotonic() > min(deadline, slowest):
                    raise TimeoutError("the peer took too long over a PDU")
        return have

    def _receive(self, start: int, end: int) -> int:
        try:
            got: int = self.socket.socket.recv_into(self._buffer[start:end])
        except BlockingIOError:
            raise TimeoutError("nothing came in time") from None
        if self._is_interrupted:
            raise IdleError
        if not got:
            raise ConnectionResetError("the peer closed the connection")
        self.socket.pace.got(got)
        return got

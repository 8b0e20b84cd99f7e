"""What pynetdicom's transport does not defend against: silent, stalled and oversize peers.

pynetdicom reads a PDU without a limit of time or length, and starts two polling threads for every TCP connection,
even one that never says a word. Here a connection waits in a lobby until its first byte; every PDU has a deadline,
a stall limit and a largest length. The hooks that are overridden are not a promised interface of pynetdicom: the
version is pinned, and `assert_hooks` refuses to start when one of them has changed its shape.
"""

from __future__ import annotations

import inspect
import logging
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pynetdicom import _config, evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.transport import AssociationServer, AssociationSocket, ThreadedAssociationServer

from node.crew import Crew
from node.lobby import PDU_TYPES, Lobby
from node.pace import SLOWEST_BYTES_PER_SECOND, Pace
from plugins.errors import Broken

log = logging.getLogger(__name__)

P_DATA_TF = 0x04
ABORT_INVALID_PARAMETER = 0x06


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long and how much one peer may take."""

    pdu_bytes: int = 1 << 17
    """Largest P-DATA-TF, the Maximum Length that is announced."""
    request_bytes: int = 1 << 18
    """Largest other PDU: an A-ASSOCIATE-RQ with 128 contexts of many syntaxes is well below."""
    silent_seconds: float = 5.0
    """Time to the first byte, and for the whole A-ASSOCIATE-RQ."""
    stall_seconds: float = 5.0
    """Longest pause within a PDU."""
    pdu_seconds: float = 60.0
    """Longest time for one PDU; one that comes byte by byte ends long before."""
    idle_seconds: float = 60.0
    """Longest pause between PDUs of an association, and how far behind the pace of a slow line a message may be."""
    connections: int = 512
    """TCP connections held at one time, associated or not."""


def assert_hooks() -> None:
    """Raise Broken when pynetdicom's private hooks are not those that this module overrides."""
    expected = {
        AssociationSocket.recv: ["self", "nr_bytes"],
        AssociationServer.process_request: ["self", "request", "client_address"],
        AssociationServer.service_actions: ["self"],
        ThreadedAssociationServer.process_request_thread: ["self", "request", "client_address"],
        DULServiceProvider.run_reactor: ["self"],
        DULServiceProvider._read_pdu_data: ["self"],
        DIMSEServiceProvider.receive_primitive: ["self", "primitive"],
        Association._serve_request: ["self", "msg", "context_id"],
        Association.run_reactor: ["self"],
        ACSE.send_reject: ["self", "result", "source", "diagnostic"],
    }
    for hook, names in expected.items():
        if list(inspect.signature(hook).parameters) != names:
            raise Broken(f"pynetdicom's {hook.__qualname__} has changed; install pynetdicom>=3.0.4,<3.1")
    if not hasattr(_config, "LOG_HANDLER_LEVEL"):
        raise Broken("pynetdicom has changed; install pynetdicom>=3.0.4,<3.1")


def say_goodbye(connection: socket.socket) -> None:
    """Tell a TLS peer that nothing more comes (close_notify), without waiting for what it says."""
    if isinstance(connection, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            connection.settimeout(0.0)
            connection.unwrap()


class ClosingSocket(AssociationSocket):  # type: ignore[misc]  # pynetdicom is untyped here
    """A socket that is closed also when the peer was never there, or has gone before."""

    socket: Any

    def _shutdown_socket(self) -> None:
        connection = self.socket
        if connection is None:
            return
        say_goodbye(connection)
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("action=already-disconnected")
        finally:
            connection.close()

    def _abort(self, reason: str = "protocol") -> None:
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = 0x02, ABORT_INVALID_PARAMETER
        try:
            if self.socket is not None:
                self.socket.settimeout(1.0)
                self.socket.sendall(pdu.encode())
        except OSError:
            log.debug("action=abort-not-sent")
        self._hang_up(reason)

    def _hang_up(self, reason: str) -> None:
        self._shutdown_socket()

    @property
    def ready(self) -> bool:
        """Return True when bytes wait; by poll, because select ends at file descriptor 1023."""
        if self.socket is None or not self._is_connected:
            return False
        try:
            waiting = select.poll()
            waiting.register(self.socket, select.POLLIN)
            ready = bool(waiting.poll(0))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False
        return ready or (isinstance(self.socket, ssl.SSLSocket) and bool(self.socket.pending()))


class GuardedSocket(ClosingSocket):
    """A socket that gives up on a peer that stalls, and aborts one that sends more than was announced."""

    def __init__(self, assoc: Association, client_socket: socket.socket, limits: Limits) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._limits = limits
        self.pace = Pace(limits.silent_seconds)
        self._deadline = 0.0
        self._largest = limits.request_bytes
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client_socket.settimeout(limits.stall_seconds)

    def recv(self, nr_bytes: int) -> bytearray:
        """Return the next `nr_bytes`, fewer when the peer closes; OSError when it stalls or sends too much."""
        header = nr_bytes == 6 and self._deadline == 0.0
        if header:
            seconds = self._limits.pdu_seconds if self.assoc.is_established else self._limits.silent_seconds
            self._deadline = time.monotonic() + seconds
        elif nr_bytes > self._largest:
            self._abort("pdu-too-long")
            raise ConnectionAbortedError("the peer sent a longer PDU than it may")
        data = self._read(nr_bytes)
        if header and len(data) == 6 and data[0] in PDU_TYPES:
            is_data = data[0] == P_DATA_TF and self.assoc.is_established
            self._largest = self._limits.pdu_bytes if is_data else self._limits.request_bytes
        else:
            self._deadline = 0.0
        return data

    def _read(self, nr_bytes: int) -> bytearray:
        connection = self.socket
        if connection is None:
            raise ConnectionAbortedError("the connection is closed")
        data = bytearray(nr_bytes)
        view, read = memoryview(data), 0
        begun = time.monotonic()
        self.pace.owe()
        while read < nr_bytes:
            slowest = begun + self._limits.stall_seconds + read / SLOWEST_BYTES_PER_SECOND
            left = min(self._deadline, slowest) - time.monotonic()
            if left <= 0:
                self._hang_up("too-slow")
                raise TimeoutError("the peer took too long over a PDU")
            try:
                connection.settimeout(min(left, self._limits.stall_seconds))
                got = connection.recv_into(view[read:])
            except OSError as error:
                self._hang_up("stalled" if isinstance(error, TimeoutError) else "connection-lost")
                raise
            if got == 0:
                break
            read += got
            self.pace.got(got)
        view.release()
        del data[read:]
        return data

    def give_up(self) -> None:
        """Close the connection, for a thread that does not read from it; the one that does finds it closed."""
        connection = self.socket
        if connection is not None:
            with suppress(OSError):
                # That of a TLS socket would change it under the feet of the other thread.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _hang_up(self, reason: str) -> None:
        if self._is_connected and self.socket is not None:
            address = self.assoc.requestor.address
            log.warning("action=peer-cut-off reason=%s address=%s", reason, address)
        self._deadline = 0.0
        self._shutdown_socket()


class GuardedDul(DULServiceProvider):  # type: ignore[misc]  # pynetdicom is untyped here
    """The upper layer of one association; its thread ends in order, whatever the peer sends."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.daemon = True

    def run_reactor(self) -> None:
        """Run until the connection ends; an exception aborts this association and no other."""
        try:
            super().run_reactor()
        except Exception as error:  # a border: nothing that a peer sends may reach the thread's end
            log.warning("action=association-aborted reason=protocol error=%s", type(error).__name__)
            self.assoc.is_aborted, self.assoc.is_established = True, False
            self.assoc._kill = self._kill_thread = True
            if self.socket is not None:
                self.socket._abort()
        finally:
            self.to_user_queue.put(None)  # whoever waits for a request: none comes


class GuardedServer(ThreadedAssociationServer):  # type: ignore[misc]  # pynetdicom is untyped here
    """An association server with a lobby: threads are started only for peers that have begun to speak.

    Parameters
    ----------
    limits
        How long and how many may wait.
    new_context
        Gives the TLS context of each connection; None for a plain port.
    shares_port
        Whether other processes listen on the port too.

    """

    request_queue_size = 512
    daemon_threads = True

    def __init__(
        self,
        *args: Any,
        limits: Limits,
        new_context: Callable[[], ssl.SSLContext] | None = None,
        shares_port: bool = False,
        **kwargs: Any,
    ) -> None:
        self.limits = limits
        self._shares_port = shares_port
        self._associations: set[Association] = set()
        self._crew = Crew("association")
        self._lobby = Lobby(
            silent_seconds=limits.silent_seconds,
            admit=self.process_request_thread,
            close=self.shutdown_request,
            told=self.sent_away,
            new_context=new_context,
        )
        super().__init__(*args, **kwargs)
        self._lobby.start()

    def server_bind(self) -> None:
        """Take the port, together with those who share it."""
        if self._shares_port:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def _bind_defaults(self) -> None:
        """Bind only the handlers that answer; the others write what peers send into the log."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def is_welcome(self, address: str) -> bool:
        """Return True when a connection from this address may speak at all; overridden by the owner."""
        return True

    def sent_away(self, reason: str, address: str) -> None:
        """Learn who was sent away before an association, and why; overridden by the owner."""

    def new_association(self, request: Any, client_address: Any) -> Association:
        """Return the association of a connection whose request has come; overridden by the owner."""
        raise NotImplementedError

    @property
    def active_associations(self) -> list[Association]:
        """Return those that have begun and not ended."""
        return list(self._associations)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return False, so that the connection is closed unread, for strangers and when too many are associated."""
        return len(self._associations) < self.limits.connections and self.is_welcome(str(client_address[0]))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Let a new connection wait for its first byte."""
        self._lobby.enter(request, client_address, self.limits.connections - len(self._associations))

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin the association of a connection; returns at once."""
        association = self.new_association(request, client_address)
        self._associations.add(association)

        def attend() -> None:
            try:
                association.run_reactor()
            finally:
                self._associations.discard(association)

        try:
            self._crew.do(attend)
        except RuntimeError:  # no thread is to be had
            self._associations.discard(association)
            raise

    def service_actions(self) -> None:
        """Do nothing between two connections, where pynetdicom collects all garbage every now and then."""

    def server_close(self) -> None:
        """Close the listening socket and the lobby; associations go on."""
        super().server_close()
        self._lobby.stop()
        self._crew.stop()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log that a connection could not be served."""
        log.warning("action=connection-failed address=%s", client_address[0], exc_info=True)

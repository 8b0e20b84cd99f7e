"""The requesting side of pynetdicom, with what a sender needs of it.

pynetdicom waits out its whole time limit when a peer goes away between two messages, queues an object whole before
it is sent, leaves the socket of a refused connection to the garbage collector, and keeps to itself why a connection
failed. Its own thread may take the answer that a service waits for. By TLS it would wait for a PDU when only a record
of the handshake has come.
"""

from __future__ import annotations

import queue
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE, DimsePrimitiveType, DimseServiceType
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import T_CONNECT, AddressInformation

from node.application_entity import NamedAE
from node.socket_guard import ClosingSocket, GuardedDul

CLOSED = "Sta1"
CONNECTED, NOT_CONNECTED = "Evt2", "Evt17"
POLL_SECONDS = 0.1
NO_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING")
"""What OpenSSL says of an answer that is no TLS, or of none."""
QUEUED_FRAGMENTS = 64


class SendingAE(NamedAE):
    """An application entity whose associations notice that the peer has gone."""

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> DialingSocket:
        """Return the socket of a new association, whose layers are replaced on the way."""
        assoc.dul = GuardedDul(assoc)
        assoc.acse_timeout, assoc.network_timeout = self.acse_timeout, self.network_timeout
        assoc.dimse = AttentiveDimse(assoc)
        made = self._new_socket(assoc, address)
        made.tls_args = tls_args
        made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _new_socket(self, assoc: Association, address: AddressInformation) -> DialingSocket:
        return DialingSocket(assoc, address=address)


class DialingSocket(ClosingSocket):
    """A socket that remembers why it failed, and never speaks plain DICOM where TLS was asked for."""

    failure: OSError | None = None
    """Why the connection, its handshake or reading from it failed."""
    _first: bytes = b""

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect, by TLS when asked to; within the association's connection timeout, handshake included."""
        connection: Any = self.socket
        try:
            connection.settimeout(self.assoc.connection_timeout)
            connection.connect(primitive.address_info.as_tuple)
            if self.tls_args:
                context, host = self.tls_args
                connection = self.socket = context.wrap_socket(connection, server_hostname=host)
            connection.settimeout(None)
            self.assoc.requestor.address_info = AddressInformation.from_tuple(connection.getsockname())
            self._is_connected = True
            primitive.result = CONNECTED
        except (OSError, ValueError) as error:
            self.failure = error if isinstance(error, OSError) else OSError(str(error))
            self._shutdown_socket()
            self.socket = None
            primitive.result = NOT_CONNECTED
        finally:
            self.provider_queue.put(primitive)
            self._ready.set()

    @property
    def ready(self) -> bool:
        """Return True when bytes of a PDU wait; a TLS record may hold something else (a session ticket)."""
        if self._first:
            return True
        if not super().ready:
            return False
        connection: Any = self.socket
        if not isinstance(connection, ssl.SSLSocket) or connection.pending():
            return True
        timeout = connection.gettimeout()
        connection.settimeout(0.0)
        try:
            self._first = connection.recv(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            self.failure = error
        finally:
            with suppress(OSError):
                connection.settimeout(timeout)
        return True

    def recv(self, nr_bytes: int) -> bytearray:
        """Return the next `nr_bytes`, fewer when the peer closes."""
        first, self._first = self._first, b""
        try:
            rest: bytearray = super().recv(nr_bytes - len(first))
        except OSError as error:
            self.failure = self.failure or error
            raise
        return bytearray(first) + rest


def why_failed(association: Association) -> str:
    """Return why the connection of an association that we asked for failed, in words for people; empty when unknown."""
    failure = getattr(association.dul.socket, "failure", None)
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {failure.verify_message}"
    if isinstance(failure, ssl.SSLError):
        return f"TLS failed: {(failure.reason or 'handshake').replace('_', ' ').lower()}"
    return "" if failure is None else (failure.strerror or str(failure) or type(failure).__name__)


def what_to_ask(association: Association, *, by_tls: bool) -> str:
    """Return what a person may look at when the connection of an association failed; empty when its reason says it."""
    failure = getattr(association.dul.socket, "failure", None)
    if by_tls:
        is_cut = isinstance(failure, ConnectionResetError) or getattr(failure, "reason", "") in NO_TLS
        return "; perhaps it speaks no TLS: see `tls` of its delivery table" if is_cut else ""
    if failure is None or isinstance(failure, ConnectionResetError):  # it was there, and hung up
        return "; is the port right, or does it speak TLS only (`tls` of its delivery table)?"
    return "; is it running, and is the port right?"


def rejection_of(association: Association) -> A_ASSOCIATE | None:
    """Return with what the peer rejected an association that we asked for; None when it did not.

    A peer that rejects and closes before pynetdicom's thread has looked would be taken for one that is not there.
    """
    answer = association.acceptor.primitive if association.is_rejected else association.dul.peek_next_pdu()
    return answer if isinstance(answer, A_ASSOCIATE) and answer.result else None


class AttentiveDimse(DIMSEServiceProvider):  # type: ignore[misc]  # pynetdicom is untyped here
    """The message service of a sender: sees at once that the peer has gone, and never queues a whole object."""

    @property
    def _is_gone(self) -> bool:
        return not self.dul.is_alive() or self.dul.state_machine.current_state == CLOSED

    def get_msg(self, block: bool = False) -> tuple[int | None, DimseServiceType | None]:
        """Return the next message, or (None, None) after the time limit or when the connection has ended."""
        deadline = time.monotonic() + (self.dimse_timeout or 0.0)
        while True:
            try:
                context_id, message = self.msg_queue.get(block=block, timeout=POLL_SECONDS)
            except queue.Empty:
                if not block or self._is_gone or time.monotonic() > deadline:
                    return None, None
                continue
            if not block and not self.assoc._reactor_checkpoint.is_set():
                # The association's own thread looks although a service waits: pynetdicom paused it a moment too late.
                with self.msg_queue.mutex:
                    self.msg_queue.queue.appendleft((context_id, message))
                    self.msg_queue.not_empty.notify()
                return None, None
            return context_id, message

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send a message; a C-STORE request is read from its file no faster than the peer takes it."""
        if not isinstance(primitive, C_STORE) or primitive.MessageIDBeingRespondedTo is not None:
            super().send_msg(primitive, context_id)
            return
        message = C_STORE_RQ()
        message.primitive_to_message(primitive)
        message.context_id = context_id
        for fragment in message.encode_msg(context_id, self.maximum_pdu_size):
            while self.dul.to_provider_queue.qsize() >= QUEUED_FRAGMENTS and not self._is_gone:
                time.sleep(0.001)
            if self._is_gone:
                return
            self.dul.send_pdu(fragment)

"""The requesting side of pynetdicom, with what a sender needs of it.

pynetdicom waits out its whole time limit when a peer goes away between two messages, queues an object whole before
it is sent, and leaves the socket of a refused connection to the garbage collector.
"""

from __future__ import annotations

import queue
import socket
import time
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE, DimsePrimitiveType, DimseServiceType
from pynetdicom.transport import AddressInformation

from node.socket_guard import ClosingSocket

CLOSED = "Sta1"
POLL_SECONDS = 0.1
QUEUED_FRAGMENTS = 64


class SendingAE(AE):  # type: ignore[misc]  # pynetdicom is untyped here
    """An application entity whose associations notice that the peer has gone."""

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> ClosingSocket:
        """Return the socket of a new association; the association's message service is replaced on the way."""
        assoc.dimse = AttentiveDimse(assoc)
        made = ClosingSocket(assoc, address=address)
        made.tls_args = tls_args
        made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


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
            else:
                return context_id, message

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send a message; a C-STORE is read from its file no faster than the peer takes it."""
        if not isinstance(primitive, C_STORE):
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

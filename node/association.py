"""One association as its acceptor: every C-STORE goes to a spool, and an end of any kind is an orderly one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE, DimseServiceType
from pynetdicom.service_class import StorageServiceClass

from node.agreements import Offer
from node.contexts import supported_contexts
from node.desk import Peer
from node.socket_guard import GuardedDul
from node.spool import Spool, SpoolingDimse
from node.status import CANNOT_UNDERSTAND
from store.failpoint import reach

log = logging.getLogger(__name__)

HANDLERS = {event: (evt.get_default_handler(event), None) for event in evt._INTERVENTION_EVENTS}


class StorageAssociation(Association):  # type: ignore[misc]  # pynetdicom is untyped here
    """An association that spools what it receives, and tells when it has ended.

    It is no thread of its own: whoever calls `run_reactor` attends to it.
    """

    is_established: bool
    is_aborted: bool
    peer: Peer | None = None
    is_serving = was_busy = False
    on_release: Callable[[StorageAssociation], object]
    """Learns that the peer is about to be told that it may go; it may ask for the next association at once."""
    on_end: Callable[[StorageAssociation], None]

    def __init__(self, ae: AE, new_spool: Callable[[str, str, str], Spool]) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.dul = GuardedDul(self)
        self.dimse: SpoolingDimse = SpoolingDimse(self, new_spool)
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout

    def _bind_defaults(self) -> None:
        """Bind only the handlers that answer; the others write what peers send into the log."""
        self._handlers.update(HANDLERS)

    def offer(self, offer: Offer) -> None:
        """Say what the peer may use, and who we are, before the negotiation."""
        us, proposed = self.acceptor, self.requestor.primitive.presentation_context_definition_list
        us.ae_title, us.maximum_length = self._ae.ae_title, self._ae.maximum_pdu_size
        us.implementation_version_name = self._ae.implementation_version_name
        us.supported_contexts = supported_contexts(
            proposed,
            storage=offer.storage,
            commitment=offer.commitment,
        )

    @property
    def is_busy(self) -> bool:
        """Return True while an object is arriving or being stored."""
        return self.is_serving or self.dimse.is_receiving

    @property
    def behind_seconds(self) -> float:
        """Return for how long the peer has owed bytes that did not come; 0 while an object is being stored."""
        guarded = self.dul.socket
        return 0.0 if self.is_serving or guarded is None else float(guarded.pace.behind_seconds)

    def give_up(self) -> None:
        """Close the connection at once; for another thread than the association's own."""
        if self.dul.socket is not None:
            self.dul.socket.give_up()

    def run_reactor(self) -> None:
        """Run until the association ends; always close the connection, drop what is incomplete, and tell."""
        try:
            self.converse()
        except Exception as error:  # a border: nothing that a peer sends may reach the thread's end
            log.warning("action=association-ended reason=unexpected error=%s", type(error).__name__)
        finally:
            self.dul.kill_dul()
            connection = self.dul.socket.socket if self.dul.socket else None
            if connection is not None:
                self._server.shutdown_request(connection)
            self.dul.join(1.0)
            self.discard_unfinished()
            self.on_end(self)

    def converse(self) -> None:
        """Negotiate and serve; returns when the association has ended."""
        super().run_reactor()

    def discard_unfinished(self) -> None:
        """Delete what has not arrived whole."""
        self.dimse.discard_all()

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        """Serve a C-STORE of any SOP class by the storage service; all else as pynetdicom does."""
        self.is_serving = True
        try:
            if not isinstance(msg, C_STORE) or msg.MessageID is None or context_id not in self._accepted_cx:
                super()._serve_request(msg, context_id)
            elif msg.is_valid_request:
                StorageServiceClass(self).SCP(msg, self._accepted_cx[context_id])
                reach("after-response")
            else:
                self._answer_unread(msg, context_id)
        finally:
            self.is_serving = False

    def _answer_unread(self, request: C_STORE, context_id: int) -> None:
        """Answer a command that lacks a UID, where pynetdicom would let the sender wait."""
        if isinstance(request._dataset_file, Spool):
            self.dimse.served(request._dataset_file)
        answer = C_STORE()
        answer.MessageIDBeingRespondedTo = request.MessageID
        answer.Status = CANNOT_UNDERSTAND
        self.dimse.send_msg(answer, context_id)

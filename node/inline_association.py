"""An association that runs on the thread which calls it, and negotiates again only what it has not negotiated before.

Before a byte is read, pynetdicom makes threads, queues and validated items that most associations have no use for. Here
are the same attributes, made when they are asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property

from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR, MODE_REQUESTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import ServiceUser
from pynetdicom.events import EventType
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from node.agreements import Agreement, Agreements, Offer, own_copy
from node.association import StorageAssociation
from node.inline_dul import InlineDul
from node.lobby import ASSOCIATE_RQ
from node.socket_guard import Limits
from node.spool import Spool, SpoolingDimse


class InlineAssociation(StorageAssociation):
    """An association of one thread.

    Parameters
    ----------
    ae, new_spool
        As of every storage association.
    agreements
        What was agreed upon before, with the same port.
    limits
        Defence against silent, stalled and oversize peers.

    """

    def __init__(
        self, ae: AE, new_spool: Callable[[str, str, str], Spool], agreements: Agreements, limits: Limits
    ) -> None:
        threading.Thread.__init__(self)  # not pynetdicom's own; a test compares what both leave behind
        self._ae, self._mode, self._server = ae, MODE_ACCEPTOR, None
        self._agreements = agreements
        self._offer: Offer | None = None
        self._thread_id = 0
        self._new_spool = new_spool
        self.requestor = ServiceUser(self, MODE_REQUESTOR)
        self.is_established = self.is_rejected = self.is_aborted = self.is_released = False
        self._sent_abort = self._sent_release = self._kill = self._started_dul = self._is_paused = False
        self._accepted_cx: dict[int, PresentationContext] = {}
        self._rejected_cx: list[PresentationContext] = []
        self.dul = InlineDul(self, limits)
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout
        self.connection_timeout, self.dimse_timeout = ae.connection_timeout, ae.dimse_timeout
        self.network_timeout_response = "A-ABORT"
        self._timer_resolution = None
        self._dul_ready, self._reactor_checkpoint = threading.Event(), threading.Event()
        self._handlers: dict[EventType, object] = {}
        self._bind_defaults()

    @cached_property
    def acceptor(self) -> ServiceUser:
        """Return our own side of the negotiation."""
        return ServiceUser(self, MODE_ACCEPTOR)

    @cached_property
    def acse(self) -> ACSE:
        """Return what negotiates, when something has to be negotiated."""
        return ACSE(self)

    @cached_property
    def dimse(self) -> SpoolingDimse:  # type: ignore[override]  # not made before it is asked for
        """Return the message service of all but C-STORE."""
        return SpoolingDimse(self, self._new_spool)

    def offer(self, offer: Offer) -> None:
        """Remember what the peer may use."""
        self._offer = offer

    def negotiate(self) -> None:
        """Answer the A-ASSOCIATE-RQ; `is_established` tells how. May raise what `InlineDul.read` raises."""
        self._thread_id = threading.get_ident()
        self.dul.start()
        pdu = self.dul.read()
        if pdu is None:
            return
        body = bytes(pdu[1])
        known = self._agreements.find(body) if pdu[0] == ASSOCIATE_RQ else None
        if known is not None:
            self.dul.requested()
            request: object = known.request
        else:
            self.dul.take(*pdu)
            request = self.dul.receive_pdu(wait=True)
        if not isinstance(request, A_ASSOCIATE):
            return
        self.requestor.primitive = request
        evt.trigger(self, evt.EVT_REQUESTED, {})
        if self.is_aborted or self.is_rejected:
            return
        if known is not None and known.offer == self._offer:
            self._accept(known)
        else:
            self._negotiate_anew(body)

    def _accept(self, known: Agreement) -> None:
        """Accept as the same request was accepted before."""
        self._accepted_cx = {context.context_id: own_copy(context) for context in known.accepted}
        self._rejected_cx = [own_copy(context) for context in known.rejected]
        self.dul.accepted(known.answer)
        evt.trigger(self, evt.EVT_ACCEPTED, {})
        self.is_established = True
        evt.trigger(self, evt.EVT_ESTABLISHED, {})

    def _negotiate_anew(self, body: bytes) -> None:
        if self._offer is not None:
            super().offer(self._offer)
        self.acse.negotiate_association()
        if self.is_established and self._offer is not None:
            agreement = Agreement(
                request=self.requestor.primitive,
                offer=self._offer,
                answer=A_ASSOCIATE_AC(self.acceptor.primitive).encode(),
                accepted=[own_copy(context) for context in self.accepted_contexts],
                rejected=[own_copy(context) for context in self.rejected_contexts],
            )
            self._agreements.keep(body, agreement)

    def _abort_blocking(self, block: bool = True) -> None:
        """Abort at once; another thread than our own interrupts our reading, and we abort when it returns."""
        if threading.get_ident() == self._thread_id:
            super()._abort_blocking(False)
            return
        self.dul.interrupt()

"""An association on which the peer sends objects back: C-GET, with the roles of PS3.7 D.3.3.4; and its patience.

What arrives goes to a file while it arrives, as at the storage port. A peer is waited for as long as it shows signs of
life: bytes that come, or, for a C-MOVE, objects that arrive at our own port meanwhile.
"""

from __future__ import annotations

import queue
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pynetdicom import build_role
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import DimseServiceType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from node.pace import Pace
from node.requestor import POLL_SECONDS, AttentiveDimse, DialingSocket, SendingAE, why_failed
from node.scu import TRANSIENT, Timeouts
from node.spool import Spool, SpoolingDimse
from plugins.errors import Refused, Unavailable

NewSpool = Callable[[str, str, str], Spool]


@dataclass(frozen=True, kw_only=True)
class Called:
    """Whom we call, and how."""

    ae_title: str
    """AE title of the peer."""
    host: str
    """Its host."""
    port: int
    """Its port."""
    calling_ae: str = "NADIR"
    """Our own AE title."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """How long it may take."""
    tls: ssl.SSLContext | None = None
    """TLS, and nothing else, when given."""

    @property
    def name(self) -> str:
        """Return `AE@host:port`."""
        return f"{self.ae_title}@{self.host}:{self.port}"


class RetrievingDimse(SpoolingDimse, AttentiveDimse):
    """The message service of one association: spools what the peer stores on it, and waits while it shows life."""

    def __init__(self, assoc: Association, new_spool: NewSpool) -> None:
        super().__init__(assoc, new_spool)
        self.signs_of_life: Callable[[], object] = lambda: None
        self._heard = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take in a P-DATA, and notice that something came."""
        self._heard += 1
        super().receive_primitive(primitive)

    def get_msg(self, block: bool = False) -> tuple[int | None, DimseServiceType | None]:
        """Return the next message; (None, None) when the connection ended or nothing stirred for the time limit."""
        life: object = None
        deadline = 0.0
        while True:
            try:
                context_id, message = self.msg_queue.get(block=block, timeout=POLL_SECONDS)
            except queue.Empty:
                if not block or self._is_gone:
                    return None, None
                if time.monotonic() > deadline:
                    seen = (self._heard, self.signs_of_life())
                    if deadline and seen == life:
                        return None, None
                    life, deadline = seen, time.monotonic() + (self.dimse_timeout or 0.0)
            else:
                return context_id, message


class PacedSocket(DialingSocket):
    """A socket with the account of what the peer owes: one that trickles is no better than one that is silent."""

    def __init__(self, assoc: Association, address: AddressInformation) -> None:
        super().__init__(assoc, address=address)
        self.pace = Pace(assoc.network_timeout or 0.0)

    def recv(self, nr_bytes: int) -> bytearray:
        """Return the next `nr_bytes`, fewer when the peer closes."""
        self.pace.owe()
        data = super().recv(nr_bytes)
        self.pace.got(len(data))
        return data


class RetrievingAE(SendingAE):
    """An application entity whose associations spool what they are sent."""

    def __init__(self, ae_title: str, new_spool: NewSpool) -> None:
        super().__init__(ae_title)
        self._new_spool = new_spool

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> DialingSocket:
        """Return the socket of a new association, whose message service spools."""
        made = super()._create_socket(assoc, address, tls_args)
        assoc.dimse = RetrievingDimse(assoc, self._new_spool)
        return made

    def _new_socket(self, assoc: Association, address: AddressInformation) -> PacedSocket:
        return PacedSocket(assoc, address)


def associate(
    called: Called,
    contexts: Sequence[PresentationContext],
    new_spool: NewSpool,
    *,
    stored: Sequence[str] = (),
    handlers: Sequence[tuple[Any, Any]] = (),
) -> Association:
    """Return an established association; for the SOP classes `stored` the peer may be the one who sends.

    Refuses `association-rejected` when the peer rejects it for good or accepts nothing; raises `Unavailable` when it
    cannot be reached or is busy.
    """
    ae = RetrievingAE(called.calling_ae, new_spool)
    ae.connection_timeout = called.timeouts.connect
    ae.acse_timeout = called.timeouts.associate
    ae.dimse_timeout = ae.network_timeout = called.timeouts.answer
    try:
        association = ae.associate(
            called.host,
            called.port,
            contexts=list(contexts),
            ae_title=called.ae_title,
            ext_neg=[build_role(uid, scp_role=True) for uid in stored],
            evt_handlers=list(handlers),
            tls_args=(called.tls, called.host) if called.tls else None,
        )
    except (OSError, RuntimeError) as error:
        raise Unavailable(f"{called.name} cannot be reached: {error}") from error
    if association.is_established:
        return association
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None and answer.result != TRANSIENT:
        raise Refused("association-rejected", f"{called.name} rejected the association: {answer.reason_str}")
    if association.is_rejected:
        raise Unavailable(f"{called.name} rejected the association for now")
    if association.is_aborted and answer is not None and not association.accepted_contexts:
        raise Refused(
            "association-rejected", f"{called.name} accepts none of the services that it was asked for"
        )
    why = why_failed(association)
    raise Unavailable(f"{called.name} cannot be reached{': ' if why else ''}{why}")


def end(association: Association) -> None:
    """Release an association, drop what is incomplete, and wait for its threads."""
    if association.is_established:
        association.release()
    association.join(5.0)
    association.dimse.discard_all()


__all__ = ["Called", "associate", "end"]

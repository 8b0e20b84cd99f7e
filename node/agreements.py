"""What was agreed upon with a request: a scanner sends the same one for each association, and gets the same answer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

MOST_AGREEMENTS = 32
LARGEST_REQUEST_BYTES = 1 << 15
LASTING = (
    MaximumLengthNotification,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
)
"""Items that are answered alike whenever they come; not those by which a user or an application is told apart."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a peer may use, of what it proposes."""

    storage: bool
    """Storage classes."""
    commitment: bool
    """Storage commitment."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """An A-ASSOCIATE-RQ and how it was accepted. Nothing in it may be changed: many associations refer to it."""

    request: A_ASSOCIATE
    """The request, decoded."""
    offer: Offer
    """What the peer was allowed then."""
    answer: bytes
    """The A-ASSOCIATE-AC."""
    accepted: Sequence[PresentationContext]
    """Contexts that were accepted."""
    rejected: Sequence[PresentationContext]
    """Contexts that were not."""


class Agreements:
    """The latest agreements of one port, by the bytes of the request; those that were not used for longest go first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Agreement] = OrderedDict()

    def find(self, request: bytes) -> Agreement | None:
        """Return how these bytes, the body of an A-ASSOCIATE-RQ, were accepted before; None when they were not."""
        with self._lock:
            found = self._known.get(request)
            if found is not None:
                self._known.move_to_end(request)
        return found

    def keep(self, request: bytes, agreement: Agreement) -> None:
        """Remember an agreement, unless it depends on more than the request, or is long."""
        items = agreement.request.user_information
        if len(request) > LARGEST_REQUEST_BYTES or not all(isinstance(item, LASTING) for item in items):
            return
        with self._lock:
            self._known[request] = agreement
            self._known.move_to_end(request)
            if len(self._known) > MOST_AGREEMENTS:
                self._known.popitem(last=False)


def own_copy(context: PresentationContext) -> PresentationContext:
    """Return a context of the same content, for one association."""
    copy = PresentationContext()
    vars(copy).update(vars(context), _transfer_syntax=list(context.transfer_syntax))
    return copy

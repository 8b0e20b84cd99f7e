"""Storage commitment (PS3.4 Annex J) and the query that stands in for it, as one association each."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from node.find import FIND, LONGEST_SECONDS, find
from node.scu import VERIFICATION, Timeouts, associate, release
from node.status import DUPLICATE_TRANSACTION, NO_SUCH_INSTANCE, PENDING, SUCCESS
from plugins.errors import Refused, Unavailable
from store.commitment import Referenced
from store.confirmation import Unconfirmed

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
# Leading zeros are let through: there are scanners that write them.
UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
REQUEST = 1
ALL_KEPT, FAILURES_EXIST = 1, 2


class Unanswered(Unavailable):
    """The response to a request was lost: the peer may have it, and is to be asked under the same Transaction UID."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an N-EVENT-REPORT says."""

    transaction_uid: str
    """Transaction UID; empty when it has none."""
    kept: frozenset[str] = frozenset()
    """SOP Instance UIDs that are kept."""
    lost: dict[str, int] = field(default_factory=dict)
    """SOP Instance UIDs that are not, with the Failure Reason."""

    @classmethod
    def of(cls, information: Dataset) -> Report:
        """Return what the Event Information says (PS3.4 Table J.3-2); an item that says nothing is passed over."""
        failed = information.get("FailedSOPSequence") or ()
        return cls(
            transaction_uid=str(information.get("TransactionUID") or ""),
            kept=frozenset(_uid(item) for item in information.get("ReferencedSOPSequence") or ()),
            lost={_uid(item): int(item.get("FailureReason") or NO_SUCH_INSTANCE) for item in failed},
        )


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A destination that speaks DICOM, and how it is called."""

    ae_title: str
    """Its AE title."""
    host: str
    """Its host."""
    port: int
    """Its port."""
    calling_ae: str
    """Our AE title."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """How long it may take."""
    tls: ssl.SSLContext | None = None
    """TLS context, None for plain DICOM."""

    @property
    def where(self) -> str:
        """Return `AE@host:port`."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    def associate(
        self, sop_class_uid: str, *handlers: tuple[object, ...], ext_neg: Sequence[object] = ()
    ) -> Association:
        """Return an association that offers one SOP class. Raises Unavailable; refuses `not-offered`."""
        try:
            association = associate(
                [(sop_class_uid, None), (VERIFICATION, None)],
                self.ae_title,
                self.host,
                self.port,
                self.calling_ae,
                self.timeouts,
                self.tls,
                handlers,
                ext_neg,
            )
        except Refused as refused:
            raise Refused("not-offered", refused.sentence) from refused
        if any(str(c.abstract_syntax) == sop_class_uid for c in association.accepted_contexts):
            return association
        release(association)
        raise Refused("not-offered", f"{self.where} does not offer it")


def request_commitment(
    peer: Peer,
    transaction_uid: str,
    rows: Iterable[Unconfirmed],
    on_report: Callable[[Dataset], int],
    *,
    wait_seconds: float,
    is_repeated: bool = False,
) -> None:
    """Ask a peer to commit to these instances, and wait `wait_seconds` for an answer on the same association.

    `on_report` is given the Event Information of such an answer and returns the status of ours. `is_repeated`: the
    response to the same request was lost, so that it has come when the peer knows its Transaction UID (0x0131). Raises
    Unavailable, as `Unanswered` once the request is out; refuses `not-offered` when the peer knows no storage
    commitment, or refuses this request.
    """
    answered: list[int] = []

    def handle(event: Event) -> tuple[int, None]:
        answered.append(on_report(event.event_information))
        return answered[-1], None

    association = peer.associate(PUSH_MODEL, (evt.EVT_N_EVENT_REPORT, handle))
    try:
        answer, _ = association.send_n_action(
            _references(transaction_uid, rows), REQUEST, PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
        status = answer.get("Status")
        if status is None:
            raise Unanswered("the storage commitment request was not answered")
        if status != SUCCESS and not (is_repeated and status == DUPLICATE_TRANSACTION):
            raise Refused("not-offered", f"storage commitment was refused with status 0x{status:04X}")
        deadline = time.monotonic() + wait_seconds
        while not answered and association.is_established and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        release(association)


def referenced(information: Dataset) -> tuple[str, tuple[Referenced, ...]]:
    """Return Transaction UID and instances of a request (PS3.4 Table J.3-1), each instance once."""
    items = information.get("ReferencedSOPSequence") or ()
    references = [
        Referenced(sop_class_uid=str(item.get("ReferencedSOPClassUID") or ""), sop_instance_uid=_uid(item))
        for item in items
    ]
    return str(information.get("TransactionUID") or ""), tuple(dict.fromkeys(references))


def send_report(peer: Peer, transaction_uid: str, reasons: Mapping[Referenced, int | None]) -> None:
    """Report on an association of our own what is kept (None) and what is not, with the Failure Reason.

    Raises Unavailable; refuses `not-offered` when the peer does not take reports, or refuses this one.
    """
    information = Dataset()
    information.TransactionUID = transaction_uid
    kept = [_item(r) for r, reason in reasons.items() if reason is None]
    failed = [_item(r, reason) for r, reason in reasons.items() if reason is not None]
    if kept:
        information.ReferencedSOPSequence = Items(kept)
    if failed:
        information.FailedSOPSequence = Items(failed)
    role = build_role(PUSH_MODEL, scu_role=False, scp_role=True)
    association = peer.associate(PUSH_MODEL, ext_neg=(role,))
    try:
        kind = FAILURES_EXIST if failed else ALL_KEPT
        answer, _ = association.send_n_event_report(information, kind, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    except ValueError as error:  # the context was accepted in the other role only
        raise Refused("not-offered", f"{peer.where} does not take storage commitment reports") from error
    finally:
        release(association)
    status = answer.get("Status")
    if status is None:
        raise Unavailable(f"{peer.where} did not answer a storage commitment report")
    if status != 0x0000:
        raise Refused("not-offered", f"{peer.where} refused a report with status 0x{status:04X}")


def _item(reference: Referenced, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def query_instances(peer: Peer, rows: Sequence[Unconfirmed]) -> frozenset[str]:
    """Return which of these SOP Instance UIDs the peer finds by C-FIND at the IMAGE level, one query each.

    Raises Unavailable, also when an answer does not end; refuses `not-offered` when the peer knows no query, or
    refuses this one.
    """
    association = peer.associate(FIND)
    try:
        return frozenset(row.sop_instance_uid for row in rows if _finds(association, row))
    finally:
        release(association)


def _finds(association: Association, row: Unconfirmed) -> bool:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = row.study_instance_uid
    identifier.SeriesInstanceUID = row.series_instance_uid
    identifier.SOPInstanceUID = row.sop_instance_uid
    if not association.is_established:
        raise Unavailable("the association ended during a query")
    found, status = False, None
    for answer, match in find(association, identifier, longest_seconds=LONGEST_SECONDS):
        status = answer.get("Status")
        if status in PENDING and match is not None:
            found = found or str(match.get("SOPInstanceUID") or "") == row.sop_instance_uid
    if status is None:
        raise Unavailable("a query was not answered")
    if status != 0x0000:
        raise Refused("not-offered", f"a query was refused with status 0x{status:04X}")
    return found


def _references(transaction_uid: str, rows: Iterable[Unconfirmed]) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = Items()
    for row in rows:
        reference = Referenced(sop_class_uid=row.sop_class_uid, sop_instance_uid=row.sop_instance_uid)
        request.ReferencedSOPSequence.append(_item(reference))
    return request


def _uid(item: Dataset) -> str:
    return str(item.get("ReferencedSOPInstanceUID") or "")


__all__ = ["Peer", "Report", "query_instances", "request_commitment"]

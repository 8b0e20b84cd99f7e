"""Storage commitment for scanners (PS3.4 Annex J, as SCP): asked on their association, answered on one of ours."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydicom import Dataset
from pynetdicom.dimse_primitives import N_ACTION

from node.address import parse_destination
from node.callers import Caller, Callers
from node.commitment import PUSH_MODEL_INSTANCE, REQUEST, UID, referenced, send_report
from node.commitment import Peer as Scanner
from node.desk import Peer
from node.logs import line
from node.status import (
    DUPLICATE_TRANSACTION,
    INVALID_ARGUMENT,
    NO_SUCH_ACTION,
    NO_SUCH_INSTANCE,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SUCCESS,
)
from plugins.errors import NadirError, Refused, Unavailable
from store import commitment
from store.commitment import Referenced, Request
from store.database import Database
from store.objects import ObjectStore

log = logging.getLogger(__name__)


def callers_of(requestors: Sequence[str]) -> dict[str, Callers]:
    """Return who may ask, by `AE@host:port` that is answered. Refuses `bad-caller` for a host that cannot be found."""
    known: dict[str, Callers] = {}
    for text in requestors:
        parsed = parse_destination(text)
        assert not isinstance(parsed, str)  # the settings have checked it
        host = f"[{parsed[1]}]" if ":" in parsed[1] else parsed[1]
        known[text] = Callers.parse([f"{parsed[0]}@{host}"])
    return known


class Committer:
    """Takes requests in, and answers them from the rows and the bytes that are held.

    Parameters
    ----------
    database, objects
        Of the node.
    requestors
        Who may ask, and where the answer goes: `AE@host:port`.

    """

    def __init__(self, database: Database, objects: ObjectStore, requestors: Sequence[str]) -> None:
        self._database = database
        self._objects = objects
        self._callers = callers_of(requestors)
        entries: list[Caller] = [entry for callers in self._callers.values() for entry in callers.entries]
        self.callers = Callers(entries=tuple(entries))

    def commit(self, peer: Peer, request: N_ACTION, information: Dataset) -> int:
        """Keep a request and return the status of its response; success only once it is on disk. Never raises."""
        try:
            requestor = next(
                (r for r, c in self._callers.items() if c.admits(peer.calling_ae, peer.address)), None
            )
            if requestor is None:
                return NOT_AUTHORISED
            if request.RequestedSOPInstanceUID != PUSH_MODEL_INSTANCE:
                return NO_SUCH_INSTANCE
            if request.ActionTypeID != REQUEST:
                return NO_SUCH_ACTION
            transaction_uid, references = referenced(information)
            if not references or not _are_uids(transaction_uid, references):
                return INVALID_ARGUMENT
            with self._database.transaction() as session:
                now = self._database.now()
                is_kept = commitment.ask(session, transaction_uid, requestor, references, now)
        except Unavailable as error:
            log.warning(line("commitment-not-kept", source=peer.name, error=str(error)))
            return OUT_OF_RESOURCES
        except Exception as error:  # a border: whatever a peer sends becomes a status
            log.warning(line("commitment-not-read", source=peer.name, error=type(error).__name__))
            return PROCESSING_FAILURE
        if not is_kept:
            log.warning(line("commitment-refused", source=peer.name, transaction=transaction_uid))
            return DUPLICATE_TRANSACTION
        log.info(line("commitment-requested", source=peer.name, count=len(references)))
        return SUCCESS


def _are_uids(transaction_uid: str, references: Sequence[Referenced]) -> bool:
    uids = [transaction_uid, *(uid for r in references for uid in (r.sop_class_uid, r.sop_instance_uid))]
    return all(UID.fullmatch(uid) for uid in uids)


class Answerer:
    """Answers the requests that wait, one after the other.

    Parameters
    ----------
    database, objects
        Of the node.
    requestors
        Who is answered, `AE@host:port`, with the TLS context to call it by; None for plain DICOM.
    calling_ae
        AE title that this node calls itself.

    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        requestors: Mapping[str, ssl.SSLContext | None],
        *,
        calling_ae: str,
    ) -> None:
        self._database = database
        self._objects = objects
        self._requestors = requestors
        self._calling_ae = calling_ae

    def tick(self, now: datetime) -> bool:
        """Answer the next request that is due; returns whether there was one."""
        with self._database.reading() as session:
            request = commitment.due(session, now)
            if request is None:
                return False
            reasons = {r: commitment.judge(session, self._objects, r) for r in request.references}
        told = {"requestor": request.requestor, "count": len(reasons)}
        lost = sum(reason is not None for reason in reasons.values())
        try:
            self._send(request, reasons)
        except NadirError as error:
            with self._database.transaction() as session:
                state = commitment.failed(session, request.pk, str(error), now)
            log.warning(line("commitment-not-answered", **told, state=state, error=str(error)))
        else:
            with self._database.transaction() as session:
                commitment.answered(session, request.pk, now)
            log.info(line("commitment-answered", **told, lost=lost))
        return True

    def _send(self, request: Request, reasons: dict[Referenced, int | None]) -> None:
        if request.requestor not in self._requestors:  # whether by TLS is not known any more
            raise Refused("not-a-caller", f"{request.requestor} is none of the commitment_callers any more")
        parsed, tls = parse_destination(request.requestor), self._requestors[request.requestor]
        assert not isinstance(parsed, str)
        scanner = Scanner(
            ae_title=parsed[0], host=parsed[1], port=parsed[2], calling_ae=self._calling_ae, tls=tls
        )
        send_report(scanner, request.transaction_uid, reasons)


__all__ = ["Answerer", "Committer"]

"""Deliver results: one sender per destination works off its part of the outbox, with the same bytes on every attempt.

What the answers mean (PS3.4 B.2.3, and the conformance statement):

====================================================  =========================================================
0x0000                                                delivered
0x0001, 0x0107, 0x0111, 0x0116, 0xBxxx                delivered; the warning is kept
0xA9xx, 0xCxxx, 0x0112, 0x0117, 0x0122, 0x0124        refused: tried three times, then parked for a person
anything else: 0xA7xx, 0x0110, no status, no answer   tried again, with growing pauses, for a week
====================================================  =========================================================
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from sqlmodel import select

from node.logs import line
from node.pacs import DicomWeb, without_credentials
from node.scu import Timeouts, send_files
from node.settings import parse_destination
from plugins.errors import Refused, Unavailable
from store import outbox
from store.database import Database
from store.jobs import Fenced
from store.objects import ObjectStore
from store.tables import Delivery, Result

log = logging.getLogger(__name__)

LEASE_SECONDS = 120.0
# 0x0111, a duplicate: only this result has this UID, so an earlier attempt whose answer was lost has arrived.
STORED = frozenset({0x0000, 0x0001, 0x0107, 0x0111, 0x0116})
REFUSALS = frozenset({0x0105, 0x0106, 0x0112, 0x0115, 0x0117, 0x0118, 0x0119, 0x0122, 0x0124, 0x0211})


class Outcome(Enum):
    """What a destination's answer means for a delivery."""

    #: it holds the object
    DELIVERED = "delivered"
    #: it does not hold it, or nobody knows: send the same bytes again
    RETRY = "retry"
    #: it will not take it: again a few times, then a person must look
    REFUSED = "refused"


def outcome(status: int | None) -> Outcome:
    """Return what a C-STORE status or a STOW failure reason means; None is an answer that never came."""
    if status is None:
        return Outcome.RETRY
    if status in STORED or 0xB000 <= status <= 0xBFFF:
        return Outcome.DELIVERED
    if status in REFUSALS or 0xA900 <= status <= 0xA9FF or 0xC000 <= status <= 0xCFFF:
        return Outcome.REFUSED
    return Outcome.RETRY


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One result on its way."""

    path: Path
    """Its Part 10 file."""
    sop_instance_uid: str
    """Its SOP Instance UID."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a destination said of one parcel."""

    status: int | None
    """DICOM status; None when no answer came: the destination may or may not hold it."""
    text: str = ""
    """One sentence for people, when something went wrong."""


#: Sends a parcel and gives the answer. Raises `Unavailable` or `Refused` when it did not come to sending.
Transport = Callable[[Parcel], Answer]


def dimse(
    ae_title: str, host: str, port: int, calling_ae: str, *, timeouts: Timeouts | None = None
) -> Transport:
    """Return a transport by C-STORE, an association a parcel."""

    def send(parcel: Parcel) -> Answer:
        (sent,) = send_files(
            [parcel.path], ae_title=ae_title, host=host, port=port, calling_ae=calling_ae, timeouts=timeouts
        )
        return Answer(status=sent.status, text=sent.text)

    return send


def stow(dicomweb: DicomWeb) -> Transport:
    """Return a transport by STOW-RS."""

    def send(parcel: Parcel) -> Answer:
        said = {answer.sop_instance_uid: answer.status for answer in dicomweb.store([parcel.path])}
        # A bare 200 says that it was stored; one that speaks of other instances only says nothing.
        return Answer(status=said.get(parcel.sop_instance_uid) if said else 0x0000)

    return send


class Sender:
    """Sends what the outbox holds for one destination, one result at a time, in the order they were written.

    An association a result: what comes after one that failed must wait, or a viewer meets a report whose
    segmentation is not there.

    Parameters
    ----------
    database, objects
        Where the outbox and the bytes are.
    destination
        ``AE@host:port`` or a DICOMweb root, as in the outbox rows.
    calling_ae
        AE title that this node calls itself.
    transport
        Another way to send; by the form of the destination when None.

    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        destination: str,
        *,
        calling_ae: str = "NADIR",
        transport: Transport | None = None,
    ) -> None:
        self.destination = destination
        self.shown = without_credentials(destination)
        self._database = database
        self._objects = objects
        self._owner = f"sender {socket.gethostname()}:{os.getpid()}"
        self.close: Callable[[], None] = lambda: None
        parsed = parse_destination(destination)
        if transport is not None:
            self._transport = transport
        elif isinstance(parsed, str):
            dicomweb = DicomWeb(parsed)
            self._transport, self.close = stow(dicomweb), dicomweb.close
        else:
            self._transport = dimse(*parsed, calling_ae)

    def tick(self, now: datetime) -> bool:
        """Send the next result that is due; returns whether there was one."""
        with self._database.transaction() as session:
            delivery = outbox.claim(session, self.destination, self._owner, now, LEASE_SECONDS)
            if delivery is None:
                return False
            result = session.exec(select(Result).where(Result.id == delivery.result_pk)).one()
        path = self._objects.path(result.sha256)
        began = time.monotonic()
        try:
            if not path.is_file():
                raise Refused("missing-object", "the bytes of this result are no longer in the object store")
            with self._holding(delivery):
                answer = self._transport(Parcel(path=path, sop_instance_uid=result.sop_instance_uid))
            what = outcome(answer.status)
        except Unavailable as error:
            what, answer = Outcome.RETRY, Answer(status=None, text=str(error))
        except Refused as error:
            what, answer = Outcome.REFUSED, Answer(status=None, text=error.sentence)
        self._record(delivery, what, answer, now + timedelta(seconds=time.monotonic() - began))
        shown = {"destination": self.shown, "result": result.id, "kind": result.kind}
        log.info(
            line("delivery", **shown, attempt=delivery.attempt, status=_status(answer), outcome=what.value)
        )
        return True

    @contextmanager
    def _holding(self, delivery: Delivery) -> Iterator[None]:
        """Keep the lease for as long as the transfer takes: a large object on a slow line is not stuck."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(LEASE_SECONDS / 4):
                try:
                    with self._database.transaction() as session:
                        now = self._database.now()
                        outbox.heartbeat(session, _pk(delivery), delivery.attempt, now, LEASE_SECONDS)
                except Unavailable as error:
                    log.warning(line("lease-not-kept", error=str(error)))

        thread = threading.Thread(target=beat, name=f"lease {self.shown}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _record(self, delivery: Delivery, what: Outcome, answer: Answer, now: datetime) -> None:
        text = answer.text or f"{self.shown} answered {_status(answer)}"
        pk, attempt = _pk(delivery), delivery.attempt
        try:
            with self._database.transaction() as session:
                if what is Outcome.DELIVERED:
                    outbox.delivered(session, pk, attempt, _status(answer), now)
                else:
                    is_refused = what is Outcome.REFUSED
                    outbox.failed(session, pk, attempt, _status(answer), text, now, permanent=is_refused)
        except Fenced:
            # The lease ran out and another sender has it: it sends the same bytes, so nothing is doubled.
            log.warning(line("delivery-fenced", destination=self.shown, delivery=pk))


def _status(answer: Answer) -> str:
    return "no status" if answer.status is None else f"0x{answer.status:04X}"


def _pk(delivery: Delivery) -> int:
    assert delivery.id is not None  # it came out of the database
    return delivery.id


__all__ = ["Answer", "Outcome", "Parcel", "Sender", "Transport", "dimse", "outcome", "stow"]

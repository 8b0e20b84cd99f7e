"""Deliver results: one sender per destination works off its part of the outbox, with the same bytes on every attempt.

What the answers mean (PS3.4 B.2.3, and the conformance statement):

====================================================  =========================================================
0x0000                                                delivered
0x0001, 0x0107, 0x0116, 0xBxxx                        delivered; the warning is kept
0xA9xx, 0xCxxx, 0x0112, 0x0117, 0x0122, 0x0124        refused: tried three times, then parked for a person
anything else: 0xA7xx, 0x0110, no status, no answer   tried again, with growing pauses, for a week
====================================================  =========================================================
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import groupby
from pathlib import Path

from sqlmodel import select

from node.logs import line
from node.pacs import DicomWeb
from node.scu import send_files
from node.settings import parse_destination
from plugins.errors import Refused, Unavailable
from store import outbox
from store.database import Database
from store.objects import ObjectStore
from store.tables import Delivery, Result

log = logging.getLogger(__name__)

BATCH = 16
LEASE_SECONDS = 300.0
STORED = frozenset({0x0000, 0x0001, 0x0107, 0x0116})
REFUSALS = frozenset({0x0105, 0x0106, 0x0111, 0x0112, 0x0115, 0x0117, 0x0118, 0x0119, 0x0122, 0x0124, 0x0211})


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


#: Sends parcels in one association or request and answers for each, in the same order.
#: Raises `Unavailable` or `Refused` when nothing at all was sent.
Transport = Callable[[Sequence[Parcel]], Sequence[Answer]]


def dimse(ae_title: str, host: str, port: int, calling_ae: str) -> Transport:
    """Return a transport by C-STORE."""

    def send(parcels: Sequence[Parcel]) -> Sequence[Answer]:
        paths = [parcel.path for parcel in parcels]
        sent = send_files(paths, ae_title=ae_title, host=host, port=port, calling_ae=calling_ae)
        return [Answer(status=one.status, text=one.text) for one in sent]

    return send


def stow(dicomweb: DicomWeb) -> Transport:
    """Return a transport by STOW-RS."""

    def send(parcels: Sequence[Parcel]) -> Sequence[Answer]:
        said = {
            answer.sop_instance_uid: answer.status for answer in dicomweb.store([p.path for p in parcels])
        }
        unnamed = None if said else 0x0000  # a bare 200 speaks for all
        return [Answer(status=said.get(parcel.sop_instance_uid, unnamed)) for parcel in parcels]

    return send


class Sender:
    """Sends what the outbox holds for one destination.

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
        self._database = database
        self._objects = objects
        self._owner = f"sender {socket.gethostname()}:{os.getpid()}"
        self._transport = transport or _by_form(destination, calling_ae)

    def tick(self, now: datetime) -> bool:
        """Send what is due, one association per job; returns whether there was anything."""
        claimed = self._claim(now)
        for _, group in groupby(claimed, key=lambda pair: pair[0].job_pk):
            self._send(list(group), now)
        return bool(claimed)

    def _claim(self, now: datetime) -> list[tuple[Delivery, Result]]:
        claimed: list[tuple[Delivery, Result]] = []
        with self._database.transaction() as session:
            while len(claimed) < BATCH:
                delivery = outbox.claim(session, self.destination, self._owner, now, LEASE_SECONDS)
                if delivery is None:
                    break
                result = session.exec(select(Result).where(Result.id == delivery.result_pk)).one()
                claimed.append((delivery, result))
        return claimed

    def _send(self, claimed: Sequence[tuple[Delivery, Result]], now: datetime) -> None:
        parcels = [
            Parcel(path=self._objects.path(result.sha256), sop_instance_uid=result.sop_instance_uid)
            for _, result in claimed
        ]
        try:
            answers = self._transport(parcels)
        except Unavailable as error:
            answers = [Answer(status=None, text=str(error))] * len(parcels)
        except Refused as error:
            self._record(claimed, [(Outcome.REFUSED, None, error.sentence)] * len(claimed), now)
            return
        self._record(claimed, [(outcome(a.status), a.status, a.text) for a in answers], now)

    def _record(
        self,
        claimed: Sequence[tuple[Delivery, Result]],
        said: Sequence[tuple[Outcome, int | None, str]],
        now: datetime,
    ) -> None:
        with self._database.transaction() as session:
            for (delivery, result), (what, status, text) in zip(claimed, said, strict=True):
                shown = "" if status is None else f"0x{status:04X}"
                if what is Outcome.DELIVERED:
                    outbox.delivered(session, _pk(delivery), delivery.attempt, shown, now)
                else:
                    permanent = what is Outcome.REFUSED
                    error = text or f"{self.destination} answered {shown or 'nothing'}"
                    outbox.failed(session, _pk(delivery), delivery.attempt, shown, error, now, permanent)
                log.info(
                    line(
                        "delivery",
                        destination=self.destination,
                        result=result.id,
                        kind=result.kind,
                        attempt=delivery.attempt,
                        status=shown or "none",
                        outcome=what.value,
                    )
                )


def _by_form(destination: str, calling_ae: str) -> Transport:
    parsed = parse_destination(destination)
    return stow(DicomWeb(parsed)) if isinstance(parsed, str) else dimse(*parsed, calling_ae)


def _pk(delivery: Delivery) -> int:
    assert delivery.id is not None  # it came out of the database
    return delivery.id


__all__ = ["Answer", "Outcome", "Parcel", "Sender", "Transport", "dimse", "outcome", "stow"]

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

from node.pacs import DicomWeb
from node.scu import send_files
from store.database import Database
from store.objects import ObjectStore

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
class Answer:
    """What a destination said of one file."""

    path: Path
    """The file."""
    status: int | None
    """DICOM status; None when no answer came."""
    error: str = ""
    """One sentence for people, when something went wrong."""


#: Sends files in one association or request and answers for each, in the same order.
#: Raises `Unavailable` or `Refused` when nothing at all was sent.
Transport = Callable[[Sequence[Path]], Sequence[Answer]]


def dimse(ae: str, host: str, port: int, calling_ae: str) -> Transport:
    """Return a transport by C-STORE."""

    def send(paths: Sequence[Path]) -> Sequence[Answer]:
        sent = {s.path: s for s in send_files(paths, ae, host, port, calling_ae)}
        return [
            Answer(path=path, status=sent[path].status, error=sent[path].error)
            if path in sent
            else Answer(path=path, status=None, error="not sent")
            for path in paths
        ]

    return send


def stow(dicomweb: DicomWeb, uid_of: Callable[[Path], str]) -> Transport:
    """Return a transport by STOW-RS; `uid_of` tells the SOP Instance UID of a file."""

    def send(paths: Sequence[Path]) -> Sequence[Answer]:
        said = dicomweb.store(paths)
        status = {answer.sop_instance_uid: answer.status for answer in said}
        unnamed = None if said else 0x0000  # a bare 200 speaks for all
        return [
            Answer(
                path=path,
                status=status.get(uid_of(path), unnamed),
                error="named in the answer" if said else "",
            )
            for path in paths
        ]

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
        Another way to send; by the destination's form when None.

    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        destination: str,
        *,
        calling_ae: str,
        transport: Transport | None = None,
    ) -> None:
        self.destination = destination
        self._database = database
        self._objects = objects
        self._owner = f"sender {socket.gethostname()}:{os.getpid()}"
        self._transport = transport or self._by_form(calling_ae)

    def tick(self, now: datetime) -> bool:
        """Send what is due, one association per job; returns whether there was anything."""
        claimed = self._claim(now)
        for _, deliveries in groupby(claimed, key=lambda pair: pair[0].job_pk):
            self._send(list(deliveries))
        return bool(claimed)

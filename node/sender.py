"""Deliver results: one sender per destination works off its part of the outbox, with the same bytes on every attempt.

What the answers mean (PS3.4 B.2.3, and the conformance statement):

====================================================  =========================================================
0x0000                                                delivered
0x0001, 0x0107, 0x0111, 0x0116, 0xBxxx                delivered; the warning is kept
0xA9xx, 0xCxxx, those of `REFUSALS`                   refused: tried three times, then parked for a person
anything else: 0xA7xx, 0x0110, no status, no answer   tried again, with growing pauses, for a week
====================================================  =========================================================

A destination's settings may move failure statuses between the last two rows. One that has no resources, or is not
there, is left alone for a moment, and only that one.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import Enum

from sqlmodel import select

from node.address import parse_destination
from node.audit import Audit
from node.deliveries import DeliverySettings, key_of, with_credentials
from node.fault import place
from node.logs import about, line
from node.pacs import DicomWeb
from node.receipts import Dispatches
from node.rest import Rest
from node.status import is_stored
from node.transport import Answer, Parcel, Transport, dimse, echoes, reencoding_for, stow
from plugins.errors import Refused, Unavailable
from store import outbox
from store.database import Database
from store.failpoint import reach
from store.jobs import Fenced
from store.objects import ObjectStore
from store.tables import Delivery, Event, Result

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
LOOK_SECONDS = 240.0
LOOP_SECONDS = 0.5
REST_CAP_SECONDS = 60.0
FIRST_REST_CAP_SECONDS = 4.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
SHORT_OF_RESOURCES = range(0xA700, 0xA800)
REFUSALS = frozenset({0x0105, 0x0106, 0x0112, 0x0115, 0x0117, 0x0118, 0x0119, 0x0122, 0x0124, 0x0211})


class Outcome(Enum):
    """What a destination's answer means for a delivery."""

    #: it holds the object
    DELIVERED = "delivered"
    #: it does not hold it, or nobody knows: send the same bytes again
    RETRY = "retry"
    #: it will not take it: again a few times, then a person must look
    REFUSED = "refused"


def outcome(status: int | None, settings: DeliverySettings | None = None) -> Outcome:
    """Return what a C-STORE status or a STOW failure reason means; None is an answer that never came."""
    if status is None:
        return Outcome.RETRY
    if is_stored(status):
        return Outcome.DELIVERED
    if settings is not None and status in _numbers(settings.retry_statuses):
        return Outcome.RETRY
    if settings is not None and status in _numbers(settings.park_statuses):
        return Outcome.REFUSED
    if status in REFUSALS or 0xA900 <= status <= 0xA9FF or 0xC000 <= status <= 0xCFFF:
        return Outcome.REFUSED
    return Outcome.RETRY


class Sender:
    """Sends what the outbox holds for one destination, one result at a time, in the order they were written.

    An association a result: what comes after one that failed must wait, or a viewer meets a report whose
    segmentation is not there.

    Parameters
    ----------
    database, objects
        Where the outbox and the bytes are.
    destination
        ``AE@host:port`` or a DICOMweb root, as in the settings of the node; with its password.
    settings
        Of this destination.
    calling_ae
        AE title that this node calls itself.
    tls
        TLS context to call it by (`node.tls_renewed.calling_to`); None for plain DICOM, and HTTP.
    transport, is_there
        Another way to send, and to ask whether the destination is there; by its form when None.
    audit
        The audit trail, told of the results of each job.

    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        destination: str,
        *,
        settings: DeliverySettings | None = None,
        calling_ae: str = "NADIR",
        tls: ssl.SSLContext | None = None,
        transport: Transport | None = None,
        is_there: Callable[[], bool] | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.destination = key_of(destination)
        self._settings = settings or DeliverySettings()
        self._database = database
        self._objects = objects
        self._dispatches = Dispatches(database, audit, calling_ae, self.destination)
        self._host = socket.gethostname()
        self._owner = f"sender {self._host}:{os.getpid()}"
        self._rest = self._looked = Rest()
        self._failures = 0
        self._took_at: datetime | None = None
        self.close: Callable[[], None] = lambda: None
        parsed = parse_destination(destination)
        reencoding = reencoding_for(self._settings, objects.temporary)
        self._is_there = is_there
        if transport is not None:
            self._transport = transport
        elif isinstance(parsed, str):
            dicomweb = DicomWeb(with_credentials(parsed, self._settings), tls=tls)
            self._transport, self.close = stow(dicomweb, reencoding), dicomweb.close
            self._is_there = is_there or dicomweb.answers
        else:
            self._transport = dimse(*parsed, calling_ae, tls=tls, reencoding=reencoding)
            self._is_there = is_there or (lambda: echoes(*parsed, calling_ae, tls))

    def take_over(self, now: datetime) -> int:
        """Let go what a process of this host had begun before it died, and return how many; before the first tick."""
        with self._database.transaction() as session:
            owners = outbox.owners(session, self.destination)
            dead = [owner for owner in owners if self._is_dead(owner)]
            return outbox.release(session, self.destination, dead, now)

    def _is_dead(self, owner: str) -> bool:
        """Return True for an owner of this host whose process is gone; our own name is that of an earlier life."""
        host, _, number = owner.removeprefix("sender ").rpartition(":")
        return host == self._host and number.isdecimal() and (owner == self._owner or not _runs(int(number)))

    def tick(self, now: datetime) -> bool:
        """Send the next result that is due; returns whether there was one."""
        if self._rest.holds(now):
            return False
        with self._database.transaction() as session:
            delivery = outbox.claim(session, self.destination, self._owner, now, LEASE_SECONDS)
            if delivery is None:
                result = None
            else:
                result = session.exec(select(Result).where(Result.id == delivery.result_pk)).one()
                study_pk = outbox.study_of(session, delivery)
        if delivery is None or result is None:
            self._look(now)
            return False
        reach("sender-claimed")
        with about(study=study_pk):
            self._deliver(delivery, result, now)
        # The loop that calls looks twice a second, which would be slower than a pace that is shorter.
        if self._settings.pause_seconds < LOOP_SECONDS:
            time.sleep(self._settings.pause_seconds)
        return True

    def _deliver(self, delivery: Delivery, result: Result, now: datetime) -> None:
        began = time.monotonic()
        self._dispatches.begun(delivery)
        what, answer = self._send(delivery, result)
        ended = now + timedelta(seconds=time.monotonic() - began)
        self._leave_alone(delivery, what, answer, now, ended)
        self._record(delivery, what, answer, ended)
        reach("sender-recorded")
        self._dispatches.ended(delivery)
        shown = {"destination": self.destination, "result": result.id, "kind": result.kind}
        told = {**shown, "attempt": delivery.attempt, "status": _status(answer), "outcome": what.value}
        # What a peer that was reached says may quote the patient; why it could not be is our own sentence.
        why = {} if answer.was_reached else {"text": answer.text}
        level = logging.INFO if what is Outcome.DELIVERED else logging.WARNING
        log.log(level, line("delivery", **told, **why))

    def _send(self, delivery: Delivery, result: Result) -> tuple[Outcome, Answer]:
        path = self._objects.path(result.sha256)
        try:
            if not path.is_file():
                raise Refused("missing-object", "the bytes of this result are no longer in the object store")
            reach("sender-before-send")
            with self._holding(delivery):
                answer = self._transport(Parcel(path=path, sop_instance_uid=result.sop_instance_uid))
            reach("sender-after-send")
            return outcome(answer.status, self._settings), answer
        except Unavailable as error:
            return Outcome.RETRY, Answer(status=None, text=str(error), was_reached=False)
        except Refused as error:
            return Outcome.REFUSED, Answer(status=None, text=error.sentence)
        except (
            Exception
        ) as error:  # a border: one object that cannot be sent must not hold the others for ever
            log.exception(line("delivery-broken", destination=self.destination, result=result.id))
            return Outcome.RETRY, Answer(status=None, text=f"a fault of our own: {place(error)}")

    def _leave_alone(
        self, delivery: Delivery, what: Outcome, answer: Answer, began: datetime, ended: datetime
    ) -> None:
        """Keep the pace that was set, and leave alone a destination that has no resources or is not there.

        The rests double; after the first failure of an object they stay short: it may be the object's, and others wait.
        """
        pace = self._settings.pause_seconds if self._settings.pause_seconds >= LOOP_SECONDS else 0.0
        self._rest = Rest(began, timedelta(seconds=pace))
        is_struggling = answer.status is None or answer.status in SHORT_OF_RESOURCES
        if what is not Outcome.RETRY or not is_struggling:
            self._failures = 0
            return
        is_first = answer.was_reached and delivery.last_status in (None, outbox.UNREACHABLE)
        self._failures += 1
        cap = FIRST_REST_CAP_SECONDS if is_first else REST_CAP_SECONDS
        pause = max(min(cap, 2.0 ** min(self._failures - 1, 10)), answer.retry_after_seconds)
        until = ended + timedelta(seconds=min(pause, LONGEST_RETRY_AFTER_SECONDS))
        self._rest = Rest(began, max(self._rest.lasting, until - began))

    def _look(self, now: datetime) -> None:
        """Ask now and then whether a destination that could not be reached is back, long before the pause is over."""
        if self._is_there is None or self._looked.holds(now):
            return
        self._looked = Rest(now, timedelta(seconds=LOOK_SECONDS))
        with self._database.reading() as session:
            is_waiting = outbox.is_waiting(session, self.destination, now, outbox.UNREACHABLE)
        if is_waiting and self._is_there():
            with self._database.transaction() as session:
                outbox.wake(session, self.destination, now, outbox.UNREACHABLE)

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

        thread = threading.Thread(target=beat, name=f"lease {self.destination}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _record(self, delivery: Delivery, what: Outcome, answer: Answer, now: datetime) -> None:
        text = answer.text or f"{self.destination} answered {_status(answer)}"
        pk, attempt = _pk(delivery), delivery.attempt
        is_proved = self._settings.commitment != "off"
        confirm_after = now + timedelta(seconds=self._settings.confirm_seconds) if is_proved else None
        reach("sender-before-delivered")
        try:
            with self._database.transaction() as session:
                if what is Outcome.DELIVERED:
                    quiet = now - self._took_at if self._took_at else timedelta.max
                    outbox.delivered(
                        session, pk, attempt, _status(answer), now, confirm_after=confirm_after, quiet=quiet
                    )
                    self._took_at = now
                else:
                    is_refused = what is Outcome.REFUSED
                    state = outbox.failed(
                        session, pk, attempt, _status(answer), text, now, permanent=is_refused
                    )
                    if state == outbox.PARKED:
                        told = f"a person must look at delivery {pk}: {_status(answer)}"
                        session.add(
                            Event(at=now, kind="delivery-parked", subject=self.destination, text=told)
                        )
        except Fenced:
            # The lease ran out and another sender has it: it sends the same bytes, so nothing is doubled.
            log.warning(line("delivery-fenced", destination=self.destination, delivery=pk))


def _status(answer: Answer) -> str:
    if not answer.was_reached:
        return outbox.UNREACHABLE
    return "no status" if answer.status is None else f"0x{answer.status:04X}"


def _numbers(statuses: Iterable[str]) -> set[int]:
    return {int(status, 16) for status in statuses}


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, and is not ours
        return True
    return True


def _pk(delivery: Delivery) -> int:
    assert delivery.id is not None  # it came out of the database
    return delivery.id


__all__ = ["Outcome", "Sender", "outcome"]

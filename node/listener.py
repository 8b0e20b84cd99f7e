"""The DICOM port: C-ECHO and C-STORE. Success is answered only for what is on disk for good."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from sqlmodel import Session

from node.audit import Audit
from node.callers import Callers
from node.desk import Arrival, Committers, Peer, Reporters
from node.housekeeping import Chore, Housekeeper
from node.intake import Intake
from node.logs import line
from node.receipts import Receipts
from node.reception import Door, Reception
from node.recovery import Recovery
from node.socket_guard import Limits
from node.status import PROCESSING_FAILURE, SUCCESS, status_of
from plugins.errors import NadirError, Refused
from store.database import Database
from store.instances import OpenAssociation, Recorded, beat, close_association
from store.objects import ObjectStore
from store.priors import Coming
from store.tables import Event

log = logging.getLogger(__name__)

SAME_EVENT_SECONDS = 60.0
MOST_TOLD = 1000
LATEST_CLOSE = 100
Answered = Callable[[int, float, int], None]


class Listener:
    """The node's own storage SCP.

    Parameters
    ----------
    database, objects
        Where rows and bytes are kept.
    ae_title, host, port
        Our AE title, and where to listen; port 0 takes any free one, None none without TLS.
    tls
        The port with TLS, when there is one.
    callers, caller_certificates, accept_any
        Who may send: `AE`, `AE@address`, `*@address`; nobody by default, or everybody. And the AE titles that need
        a certificate, `AE=name`.
    max_associations, max_associations_per_address, max_object_bytes, reserve_bytes
        Bounds on what is accepted.
    limits
        Defence against silent, stalled and oversize peers.
    receive_path
        `fast` or `pynetdicom`, as of Reception.
    shares_port
        Whether other processes listen on the port too.
    sync
        False to accept before the row is on disk; the database and the store have the same setting.
    reporters, committers
        Who may report storage commitment, and who may ask for it.
    audit
        The audit trail, told of rejected callers and of what each association brought.
    answered
        Told of each object: the status of the answer, how many seconds it took, and the size in bytes.
    clock
        Gives the present time, aware UTC; the database's own clock when not given.

    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        *,
        ae_title: str = "NADIR",
        host: str = "0.0.0.0",  # noqa: S104 - scanners are on the network
        port: int | None = 11112,
        tls: Door | None = None,
        callers: Sequence[str] = (),
        caller_certificates: Sequence[str] = (),
        accept_any: bool = False,
        max_associations: int = 50,
        max_associations_per_address: int = 0,
        max_object_bytes: int = 8 << 30,
        reserve_bytes: int = 256 << 20,
        limits: Limits | None = None,
        receive_path: str = "fast",
        shares_port: bool = False,
        sync: bool = True,
        reporters: Reporters | None = None,
        committers: Committers | None = None,
        audit: Audit | None = None,
        answered: Answered | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        receipts = Receipts(audit, ae_title)
        self._clerk = _Clerk(
            database, objects, clock or database.now, ae_title, receipts, sync=sync, answered=answered
        )
        self._objects = objects
        self._reception = Reception(
            self._clerk,
            ae_title=ae_title,
            host=host,
            port=port,
            tls=tls,
            callers=Callers.parse(callers, accept_any=accept_any, certificates=caller_certificates),
            max_associations=max_associations,
            max_associations_per_address=max_associations_per_address,
            largest_bytes=max_object_bytes,
            reserve_bytes=reserve_bytes,
            limits=limits,
            receive_path=receive_path,
            shares_port=shares_port,
            hashing=sync,
            answered=objects.prepare if sync else None,
            reporters=reporters,
            committers=committers,
        )

    def start(self) -> None:
        """Delete what an earlier run left unfinished, and listen. Raises Unavailable when the port is taken."""
        swept = self._objects.sweep()
        self._reception.start()
        self._clerk.start()
        log.info(line("listening", port=self.port, tls_port=self.tls_port, swept=swept))

    @property
    def port(self) -> int:
        """Return the port without TLS, the real one when any free one was asked for; 0 when there is none."""
        return self._reception.port

    @property
    def tls_port(self) -> int:
        """Return the port with TLS, likewise."""
        return self._reception.tls_port

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Return who is associated now."""
        return self._reception.peers

    def drain(self, timeout_seconds: float = 20.0) -> bool:
        """Take no new association, let those that send finish; True when none had to be ended while it sent."""
        finished = self._reception.drain(timeout_seconds)
        self._clerk.stop()
        log.info(line("drained", finished=finished))
        return finished

    def stop(self) -> None:
        """End now; an object that is being stored is still finished and answered."""
        self.drain(0.0)


class _Clerk:
    """What the listener does with each object, and the rows of the associations that are open."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        clock: Callable[[], datetime],
        ae_title: str,
        receipts: Receipts,
        *,
        sync: bool,
        answered: Answered | None = None,
    ) -> None:
        self._answered = answered
        self._ae_title = ae_title
        self._receipts = receipts
        self._objects = objects
        self._intake = Intake(database, objects, clock=clock)
        self._sync = sync
        self._take: Callable[..., Recorded | None] = self._intake.take if sync else self._intake.take_soon
        self._open: dict[Peer, OpenAssociation] = {}
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], float] = {}
        self._house = Housekeeper(database, clock, self._beat)
        self._stopping = threading.Event()
        self._recovery = threading.Thread(target=self._recover, name="listener-recovery", daemon=True)

    def start(self) -> None:
        self._house.start()
        self._recovery.start()

    def stop(self) -> None:
        self._intake.finish()
        self._stopping.set()
        self._house.stop()
        if self._recovery.is_alive():
            self._recovery.join(10.0)

    def temporary(self) -> Path:
        return self._objects.temporary()

    def free_bytes(self) -> int:
        return self._objects.free_bytes()

    def receive(self, arrival: Arrival) -> int:
        began = time.perf_counter()
        status = self._received(arrival)
        if self._answered is not None:
            self._answered(status, time.perf_counter() - began, arrival.size_bytes)
        return status

    def _received(self, arrival: Arrival) -> int:
        try:
            self._store(arrival)
        except Exception as error:  # the border: every error becomes a status
            status = status_of(error)
            code = error.code if isinstance(error, Refused) else type(error).__name__
            told = {"status": f"{status:04X}", "code": code, "why": _why(error), "source": arrival.peer.name}
            log.warning(line("not-stored", **told))
            self._receipts.refused(arrival.peer, code)
            if status == PROCESSING_FAILURE:
                log.exception(line("store-failed"))
            return status
        return SUCCESS

    def _store(self, arrival: Arrival) -> None:
        recorded = self._take(
            arrival.require_path(),
            source=arrival.peer.name,
            association=self._association(arrival.peer),
            expected=(arrival.sop_class_uid, arrival.sop_instance_uid),
            coming=self._coming(arrival),
            sha256=arrival.sha256,
            head=arrival.head,
            size_bytes=arrival.size_bytes,
        )
        if recorded is not None:
            self._receipts.stored(arrival.peer, recorded.study_pk, arrival.sop_class_uid)

    def _coming(self, arrival: Arrival) -> Coming:
        """Return whether a C-MOVE of ours may have brought it; some archives name themselves, not who asked."""
        by_us = arrival.move_originator in (self._ae_title, arrival.peer.calling_ae)
        return "moved" if arrival.move_originator and by_us else "sent"

    def _association(self, peer: Peer) -> OpenAssociation:
        with self._lock:
            new = OpenAssociation(calling_ae=peer.calling_ae, address=peer.address)
            return self._open.setdefault(peer, new)

    def left(self, peer: Peer) -> None:
        with self._lock:
            association = self._open.pop(peer, None)
        if association is not None:
            tries = 0 if self._sync else LATEST_CLOSE
            self._house.later(_closing(self._house, peer, association, tries, time.monotonic()))
        if brought := self._receipts.left(peer):
            self._house.later(
                Chore(
                    otherwise="audit-not-recorded",
                    about={"source": peer.name, **brought.about},
                    write=lambda session, at: brought.tell(session),
                )
            )
        if not self._open:
            self._objects.forget_prepared()

    def turned_away(self, reason: str, calling_ae: str, address: str) -> None:
        now = time.monotonic()
        with self._lock:
            self._told = {key: at for key, at in self._told.items() if now - at < SAME_EVENT_SECONDS}
            if (reason, address) in self._told or len(self._told) >= MOST_TOLD:
                return
            self._told[reason, address] = now
        log.warning(line("rejected", reason=reason, calling_ae=calling_ae, address=address))
        self._receipts.turned_away(reason, calling_ae, address)
        subject = f"{calling_ae}@{address}"

        def write(session: Session, at: datetime) -> None:
            session.add(Event(at=at, kind="rejected", subject=subject, text=reason))

        about = {"reason": reason, "source": subject}
        self._house.later(Chore(otherwise="event-not-written", about=about, write=write))

    def _recover(self) -> None:
        try:
            adopted, missing = Recovery(self._intake).run(self._stopping.is_set)
        except Exception as error:  # the border of this thread: the next start looks again
            log.warning(line("recovery-failed", error=type(error).__name__))
        else:
            log.info(line("recovered", adopted=adopted, missing=missing))

    def _beat(self, session: Session, now: datetime) -> None:
        with self._lock:
            rows = [association.pk for association in self._open.values()]
        for row in rows:
            if row is not None:
                beat(session, row, now)


def _closing(
    house: Housekeeper, peer: Peer, association: OpenAssociation, tries: int, left_at: float
) -> Chore:
    """Return what writes when an association ended; without sync its row may have to be waited for, or never come."""

    def write(session: Session, at: datetime) -> Callable[[], None] | None:
        if association.pk is not None:
            close_association(session, association.pk, at)
        elif tries:
            return lambda: house.later(_closing(house, peer, association, tries - 1, left_at))
        return None

    # A row that stays open goes stale by itself.
    about = {"source": peer.name}
    return Chore(otherwise="association-not-closed", about=about, write=write, left_at=left_at)


def _why(error: Exception) -> str:
    """Return what an administrator may do about it: of our own errors and the system's; another may quote values."""
    if isinstance(error, NadirError):
        return str(error)
    return (error.strerror or "") if isinstance(error, OSError) else ""

"""The audit trail of a running node: messages are queued, appended to SQL in batches, and handed on to the sinks.

Whoever records something never waits and never fails. SQL keeps what a file or a repository has not taken yet, so a
repository that is down for days misses nothing by TCP or TLS. What writes SQL waits for neither, so a node that is
killed loses half a second of the trail at most.
"""

from __future__ import annotations

import hmac
import logging
import math
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from node.audit_courier import Courier
from node.audit_events import Patients
from node.audit_message import SUCCESS, AuditMessage, Subject
from node.audit_sinks import FileSink, Sink, SyslogSink, parse_syslog
from node.logs import line
from node.outage import Outage
from node.settings import Settings
from store import audit
from store.database import Database
from store.secret_file import secret_of

log = logging.getLogger(__name__)

BATCH = 500
BATCH_SECONDS = 0.5
MOST_WAITING = 20_000
SAME_SECONDS = 60.0
MOST_KEYS = 1000
MOST_NAMED = 20
"""Patients that a record of an export names; one of more is told without them."""


class Record(Protocol):
    """What takes messages: `Audit.record`."""

    def __call__(self, message: AuditMessage, *, once: Hashable = None) -> bool:
        """Take one; returns False for one of a key that was told within the minute."""


def unheard(message: AuditMessage, *, once: Hashable = None) -> bool:
    """Record nothing: for parts of a node that run without a trail, as in tests."""
    return True


class Audit:
    """The trail of one process.

    Parameters
    ----------
    database
        Where it is kept.
    source
        AuditSourceID: who tells.
    patients
        How patients are named.
    sinks
        Where it goes besides.

    """

    def __init__(
        self, database: Database, *, source: str, patients: Patients, sinks: Sequence[Sink] = ()
    ) -> None:
        self.patients = patients
        self._database = database
        self._source = source
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._couriers = [Courier(database, sink, owner) for sink in sinks]
        self._waiting: queue.Queue[tuple[float, AuditMessage]] = queue.Queue(MOST_WAITING)
        self._batch: list[tuple[float, AuditMessage]] = []
        self._unsure: tuple[datetime, str] | None = None
        self._lost = 0
        self._told: dict[Hashable, float] = {}
        self._lock = threading.Lock()
        self._outage = Outage(log, "audit-not-written", "audit-written")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Begin to write what is recorded."""
        self._thread.start()
        for courier in self._couriers:
            courier.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Write what was recorded so far, and hand it on once more."""
        ends_at = time.monotonic() + timeout_seconds
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        for courier in self._couriers:
            courier.finish()
        for courier in self._couriers:
            courier.stop(max(0.0, ends_at - time.monotonic()))

    def record(self, message: AuditMessage, *, once: Hashable = None) -> bool:
        """Queue a message; with `once`, at most one of the same key a minute, or a port scan would fill the trail.

        Returns False for one that was not the first.
        """
        if once is not None and not self._is_first(once, is_refusal=message.outcome != SUCCESS):
            return False
        try:
            self._waiting.put_nowait((time.time(), message))
        except queue.Full:
            self._lost += 1
        return True

    def _is_first(self, key: Hashable, *, is_refusal: bool) -> bool:
        now = time.monotonic()  # the clock may be set back
        with self._lock:
            if now - self._told.get(key, -math.inf) < SAME_SECONDS:
                return False
            if len(self._told) >= MOST_KEYS:
                self._told = {known: at for known, at in self._told.items() if now - at < SAME_SECONDS}
            if len(self._told) >= MOST_KEYS:
                if is_refusal:
                    return False
                del self._told[next(iter(self._told))]  # told twice rather than not at all
            self._told[key] = now
            return True

    def _run(self) -> None:
        while True:
            is_last = self._stopping.wait(BATCH_SECONDS)
            try:
                written = self._write()
            except Exception as error:  # the border of this thread: the next turn tries again
                self._outage.failed(error)
            else:
                if written:
                    self._outage.over()
                    for courier in self._couriers:
                        courier.wake()
            if is_last and (self._waiting.empty() or self._batch):
                return

    def _write(self) -> bool:
        """Append what waits; a batch that failed is kept and comes first the next time."""
        if self._lost:
            log.error(line("audit-lost", messages=self._lost))
            self._lost = 0
        any_written = False
        while True:
            if not self._batch:
                with suppress(queue.Empty):
                    while len(self._batch) < BATCH:
                        self._batch.append(self._waiting.get_nowait())
            if not self._batch:
                return any_written
            if not self._is_there():
                self._append()
            self._batch, self._unsure = [], None
            any_written = True

    def _is_there(self) -> bool:
        """Return True when an earlier turn has appended the batch, and only the answer to its commit was lost."""
        if self._unsure is None:
            return False
        with self._database.reading() as session:
            return audit.holds(session, *self._unsure)

    def _append(self) -> None:
        offset = self._database.now().timestamp() - time.time()
        rows = [self._row(at + offset, message) for at, message in self._batch]
        with self._database.transaction() as session:
            self._unsure = rows[-1][0], audit.append(session, rows)

    def _row(self, at: float, message: AuditMessage) -> tuple[datetime, str]:
        moment = datetime.fromtimestamp(at, tz=UTC)
        return moment, message.xml(moment, self._source)


def settings_hash(settings: Settings, key: bytes) -> str:
    """Return a keyed hash of all settings, secrets too: it shows that they changed, and nothing of what they are."""
    said = "\n".join(f"{name}={value!r}" for name, value in settings)
    return hmac.new(key, said.encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:16]


def audit_of(settings: Settings, database: Database) -> Audit:
    """Return the trail that the settings describe, not started. Refuses `bad-settings` and `bad-tls`."""
    sinks = sinks_of(settings)
    return Audit(database, source=settings.ae_title, patients=patients_of(settings), sinks=sinks)


def sinks_of(settings: Settings) -> tuple[Sink, ...]:
    """Return where the trail goes besides SQL; nothing is opened yet. Refuses `bad-settings` and `bad-tls`."""
    sinks: list[Sink] = []
    if settings.audit_file is not None:
        sinks.append(FileSink(settings.audit_file))
    if settings.audit_syslog:
        tls = None
        if parse_syslog(settings.audit_syslog)[0] == "tls":
            from node.tls_renewed import calling

            tls = calling(settings.model_copy(update={"tls_hostnames": True}))
        sinks.append(SyslogSink(settings.audit_syslog, tls))
    return tuple(sinks)


def patients_of(settings: Settings) -> Patients:
    """Return how the trail of a node with these settings names patients."""
    return Patients(key=pseudonym_key(settings), by_identity=settings.audit_patients == "identity")


def named(settings: Settings, whose: Iterable[tuple[str, str]]) -> list[Subject]:
    """Return people (issuer and PatientID) as the trail names them, sorted; nobody when they are too many."""
    people = sorted(set(whose))
    if not people or len(people) > MOST_NAMED:
        return []
    patients = patients_of(settings)
    return [patients.subject(*one) for one in people]


def pseudonym_key(settings: Settings) -> bytes:
    """Return the key of the pseudonyms: the setting, or a file of the home folder that is made once.

    Refuses `empty-secret`; raises Unavailable.
    """
    if settings.audit_key:
        return settings.audit_key.encode("utf-8")
    return secret_of(settings.home / "audit.key")

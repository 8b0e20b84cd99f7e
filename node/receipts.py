"""What comes and goes, told to the audit trail: a message for each study that an association brought or a job sent.

What arrives is counted in memory and told when the association ends: two dictionary steps an object are all it costs.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from node import audit_events
from node.audit import Audit
from node.audit_message import AuditMessage, Subject
from node.desk import Peer
from node.logs import line
from store.database import Database
from store.tables import Delivery, Job, Patient, Result, Revision, Study

log = logging.getLogger(__name__)

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
UNDER_WAY = frozenset({"pending", "sending"})
ARRIVED = frozenset({"delivered", "confirmed"})


@dataclass
class Receipt:
    """The counts of one association."""

    stored: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """SOP classes by the row of their study."""
    refused: Counter[str] = field(default_factory=Counter)
    """Codes of what was refused."""


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What an association that has ended has brought."""

    about: Mapping[str, object]
    """Its studies by their rows, and how much of it is kept and refused: for a line of the log."""
    tell: Callable[[Session], Callable[[], None]]
    """Reads of whom it is, and returns what tells the trail: one message a study. May be called again."""


class Receipts:
    """The counts of all open associations.

    Parameters
    ----------
    audit
        The trail; nothing is counted when None.
    ae_title
        Our own AE title.
    is_asked
        True for what we asked peers for: the node is told as the one who began it.

    """

    def __init__(self, audit: Audit | None = None, ae_title: str = "", *, is_asked: bool = False) -> None:
        self._audit = audit
        self._ae_title = ae_title
        self._is_asked = is_asked
        self._open: defaultdict[Peer, Receipt] = defaultdict(Receipt)
        self._lock = threading.Lock()

    def stored(self, peer: Peer, study_pk: int, sop_class_uid: str = "") -> None:
        """Count an object that is kept."""
        if self._audit is not None:
            with self._lock:
                self._open[peer].stored[study_pk][sop_class_uid] += 1

    def refused(self, peer: Peer, code: str) -> None:
        """Count an object that is not."""
        if self._audit is not None:
            with self._lock:
                self._open[peer].refused[code] += 1

    def turned_away(self, reason: str, calling_ae: str, address: str) -> None:
        """Tell that somebody was not let in."""
        if self._audit is not None:
            peer = audit_events.Peer(name=calling_ae, address=address)
            self._audit.record(audit_events.association_rejected(self._ae_title, reason, peer))

    def queried(self, source: str, issuer: str, patient_id: str) -> None:
        """Tell that a source was asked for the studies of a patient."""
        if self._audit is not None:
            who = self._audit.patients.subject(issuer, patient_id)
            peer, what = audit_events.Peer(name=source), "studies by PatientID and StudyDate"
            self._audit.record(audit_events.queried(self._ae_title, peer, STUDY_ROOT_FIND, what, who))

    def left(self, peer: Peer) -> Brought | None:
        """Return what an association that has ended has brought; None when it brought nothing, or nobody is told."""
        with self._lock:
            receipt = self._open.pop(peer, None)
        if self._audit is None or receipt is None:
            return None
        trail = self._audit
        about = {
            "studies": tuple(receipt.stored),
            "instances": sum(classes.total() for classes in receipt.stored.values()),
            "refused": receipt.refused.total(),
        }
        return Brought(about=about, tell=lambda session: self._reading(session, trail, peer, receipt))

    def tell(self, session: Session, peer: Peer) -> None:
        """Tell what a peer has brought; its counts stay for the next time when the database does not answer."""
        with self._lock:
            receipt = self._open.get(peer)
        if self._audit is not None and receipt is not None:
            self._reading(session, self._audit, peer, receipt)()
            with self._lock:
                self._open.pop(peer, None)

    def _reading(self, session: Session, trail: Audit, peer: Peer, receipt: Receipt) -> Callable[[], None]:
        known = audit_events.Peer(name=peer.calling_ae or peer.address, address=peer.address)
        statement = (
            select(Study, Patient)
            .join(Patient, col(Study.patient_pk) == col(Patient.id))
            .where(col(Study.id).in_(receipt.stored))
        )
        refused = receipt.refused
        lines, messages = [], []
        for study, patient in session.exec(statement):
            count = receipt.stored[study.id or 0].total()
            lines.append(line("received", study=study.id, instances=count, source=known.name))
            subject = audit_events.study(study.study_instance_uid, receipt.stored[study.id or 0])
            who = trail.patients.subject(patient.issuer, patient.patient_id, patient.patient_name)
            messages.append(self._came(known, subject, who, refused=refused))
            refused = Counter()  # told once, with the first study
        if refused:
            messages.append(self._came(known, None, None, refused=refused))

        def tell() -> None:
            for told in lines:
                log.info(told)
            for message in messages:
                trail.record(message)

        return tell

    def _came(
        self,
        peer: audit_events.Peer,
        study: Subject | None,
        patient: Subject | None,
        *,
        refused: Counter[str],
    ) -> AuditMessage:
        return audit_events.instances_received(
            self._ae_title, peer, study, patient, refused=refused, is_asked=self._is_asked
        )


class Dispatches:
    """What a sender tells: that results of a job begin to go to a destination, and that all of them are there.

    Parameters
    ----------
    database
        Where the outbox is.
    audit
        The trail; nothing is told when None.
    ae_title, destination
        Our own AE title, and the destination as the outbox calls it.

    """

    def __init__(self, database: Database, audit: Audit | None, ae_title: str, destination: str) -> None:
        self._database = database
        self._audit = audit
        self._ae_title = ae_title
        self._peer = audit_events.Peer(name=destination)

    def begun(self, delivery: Delivery) -> None:
        """Tell of the first attempt at the first result of a job."""
        if self._audit is None or delivery.attempt > 1:
            return
        with self._database.reading() as session:
            if any(row.attempt for row, _ in self._siblings(session, delivery) if row.id != delivery.id):
                return
            study, patient = self._subjects(session, delivery, self._audit)
        self._audit.record(audit_events.sending_begun(self._ae_title, self._peer, study, patient))

    def ended(self, delivery: Delivery) -> None:
        """Tell of the last result of a job, once none is under way any more; a parked one is a failure."""
        if self._audit is None:
            return
        with self._database.reading() as session:
            rows = self._siblings(session, delivery)
            if any(row.state in UNDER_WAY for row, _ in rows):
                return
            study, patient = self._subjects(session, delivery, self._audit)
        sent = Counter(result.sop_class_uid for row, result in rows if row.state in ARRIVED)
        parked = [row for row, _ in rows if row.state == "parked"]
        failure = f"{len(parked)} parked: {parked[0].last_status}" if parked else ""
        study = audit_events.study(study.id, sent)
        self._audit.record(
            audit_events.instances_sent(self._ae_title, self._peer, study, patient, failure=failure)
        )

    def _siblings(self, session: Session, delivery: Delivery) -> list[tuple[Delivery, Result]]:
        same = (Delivery.job_pk == delivery.job_pk, Delivery.destination == delivery.destination)
        joined = select(Delivery, Result).join(Result, col(Delivery.result_pk) == col(Result.id))
        return list(session.exec(joined.where(*same)))

    def _subjects(self, session: Session, delivery: Delivery, trail: Audit) -> tuple[Subject, Subject]:
        study, patient = session.exec(
            select(Study, Patient)
            .join(Patient, col(Study.patient_pk) == col(Patient.id))
            .join(Revision, col(Revision.study_pk) == col(Study.id))
            .join(Job, col(Job.revision_pk) == col(Revision.id))
            .where(Job.id == delivery.job_pk)
        ).one()
        who = trail.patients.subject(patient.issuer, patient.patient_id, patient.patient_name)
        return audit_events.study(study.study_instance_uid, {}), who


__all__ = ["Dispatches", "Receipts"]

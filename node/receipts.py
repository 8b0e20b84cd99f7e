"""What each open association has brought, counted as it comes and told to the audit trail when it ends."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from node import audit_events
from node.audit import Audit
from node.desk import Peer
from store.tables import Patient, Study


@dataclass
class Receipt:
    """The counts of one association."""

    stored: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """SOP classes by the row of their study."""
    refused: Counter[str] = field(default_factory=Counter)
    """Codes of what was refused."""


class Receipts:
    """The counts of all open associations; two dictionary steps an object are all that they cost.

    Parameters
    ----------
    audit
        The trail; nothing is counted when None.
    ae_title
        Our own AE title.

    """

    def __init__(self, audit: Audit | None, ae_title: str) -> None:
        self._audit = audit
        self._ae_title = ae_title
        self._open: defaultdict[Peer, Receipt] = defaultdict(Receipt)
        self._lock = threading.Lock()

    def stored(self, peer: Peer, study_pk: int, sop_class_uid: str) -> None:
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

    def left(self, peer: Peer) -> Callable[[Session], None] | None:
        """Return what tells of an association that has ended, one message a study; None when it brought nothing."""
        with self._lock:
            receipt = self._open.pop(peer, None)
        if self._audit is None or receipt is None:
            return None
        trail = self._audit
        return lambda session: self._tell(session, trail, peer, receipt)

    def _tell(self, session: Session, trail: Audit, peer: Peer, receipt: Receipt) -> None:
        known = audit_events.Peer(name=peer.calling_ae, address=peer.address)
        statement = (
            select(Study, Patient)
            .join(Patient, col(Study.patient_pk) == col(Patient.id))
            .where(col(Study.id).in_(receipt.stored))
        )
        refused = receipt.refused
        for study, patient in session.exec(statement):
            subject = audit_events.study(study.study_instance_uid, receipt.stored[study.id or 0])
            who = trail.patients.subject(patient.issuer, patient.patient_id, patient.patient_name)
            trail.record(
                audit_events.instances_received(self._ae_title, known, subject, who, refused=refused)
            )
            refused = Counter()  # told once, with the first study
        if refused:
            trail.record(audit_events.instances_received(self._ae_title, known, None, None, refused=refused))


__all__ = ["Receipts"]

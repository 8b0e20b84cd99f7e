"""Asks one destination whether it keeps what it took, until every delivery is confirmed or has to be sent again."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pydicom import Dataset
from pydicom.uid import generate_uid

from node.address import parse_destination
from node.commitment import Peer, Unanswered, query_instances, request_commitment
from node.deliveries import DeliverySettings, key_of, with_credentials
from node.fault import place
from node.logs import line
from node.pacs import DicomWeb
from node.reporters import answer
from node.rest import Rest
from plugins.errors import Refused, Unavailable
from store import confirmation
from store.confirmation import Unconfirmed
from store.database import Database

log = logging.getLogger(__name__)

#: Returns which SOP Instance UIDs a destination finds. Raises `Unavailable`; refuses `not-offered`.
Query = Callable[[Sequence[Unconfirmed]], frozenset[str]]
NOT_OFFERED_FOR = timedelta(hours=24)
ANSWER_HERE_SECONDS = 5.0


class Confirmer:
    """Makes `confirmed` of `delivered` for one destination.

    Parameters
    ----------
    database
        Where the outbox is.
    destination
        Its key in the outbox.
    settings
        Of this destination.
    peer
        How it is asked for storage commitment; None for a DICOMweb server, which knows none.
    query
        How it is asked by a query.

    """

    def __init__(
        self,
        database: Database,
        destination: str,
        settings: DeliverySettings,
        *,
        peer: Peer | None,
        query: Query,
    ) -> None:
        self._database = database
        self._destination = destination
        self._peer = peer if settings.commitment == "auto" else None
        self._query = query
        self._not_offered = Rest()
        self._unheard: set[str] = set()  # Transaction UIDs of requests whose response was lost
        self.close: Callable[[], None] = lambda: None

    @classmethod
    def of(
        cls,
        database: Database,
        destination: str,
        settings: DeliverySettings,
        *,
        calling_ae: str,
        tls: ssl.SSLContext | None = None,
    ) -> Confirmer:
        """Return the confirmer of a destination as the settings name it."""
        parsed, key = parse_destination(destination), key_of(destination)
        if isinstance(parsed, str):
            dicomweb = DicomWeb(with_credentials(parsed, settings), tls=tls)
            made = cls(database, key, settings, peer=None, query=query_by_qido(dicomweb))
            made.close = dicomweb.close
            return made
        peer = Peer(ae_title=parsed[0], host=parsed[1], port=parsed[2], calling_ae=calling_ae, tls=tls)
        return cls(database, key, settings, peer=peer, query=query_by_find(peer))

    def tick(self, now: datetime) -> bool:
        """Ask for what is due: by storage commitment, by a query where that is not offered or was not answered."""
        with self._database.reading() as session:
            rows = confirmation.due(session, self._destination, now)
        if not rows:
            return False
        try:
            self._confirm(rows, now)
        except (
            Exception
        ) as error:  # a border: what nobody foresaw of a peer must not be asked for without end
            log.exception(line("confirm-broken", destination=self._destination))
            self._postpone(rows, f"not confirmed, a fault of our own: {place(error)}", now)
        return False

    def _confirm(self, rows: Sequence[Unconfirmed], now: datetime) -> None:
        commits = self._peer is not None and not self._not_offered.holds(now)
        asked = self._in_one([row for row in rows if commits and not row.is_unanswered])
        try:
            self._ask(asked, now)
        except Refused as refused:
            self._not_offered = Rest(now, NOT_OFFERED_FOR)
            log.info(line("commitment-not-offered", destination=self._destination, why=refused.sentence))
            with self._database.transaction() as session:
                confirmation.withdrawn(session, _pks(asked), refused.sentence, now)
            asked = []
        except Unavailable as error:
            self._postpone(asked, str(error), now, is_open=True)
        self._look(rows if not asked else [row for row in rows if row.is_unanswered], now)

    def _ask(self, rows: Sequence[Unconfirmed], now: datetime) -> None:
        if not rows or self._peer is None:
            return
        before = rows[0].transaction_uid
        is_repeated = before in self._unheard
        uid = str(before if is_repeated else generate_uid(prefix=None))
        with self._database.transaction() as session:
            confirmation.asked(session, _pks(rows), uid, now)
        log.info(line("commitment-asked", destination=self._destination, count=len(rows)))
        try:
            request_commitment(
                self._peer,
                uid,
                rows,
                self._on_report,
                wait_seconds=ANSWER_HERE_SECONDS,
                is_repeated=is_repeated,
            )
        except Unanswered:
            self._unheard.add(uid)
            raise
        self._unheard.discard(uid)

    def _in_one(self, rows: Sequence[Unconfirmed]) -> Sequence[Unconfirmed]:
        """Return what one request asks for; what one whose response was lost asked for is asked for by itself.

        It may have come, and a report on it counts only while its Transaction UID stands.
        """
        lost = next((row.transaction_uid for row in rows if row.transaction_uid in self._unheard), None)
        return rows if lost is None else [row for row in rows if row.transaction_uid == lost]

    def _on_report(self, information: Dataset) -> int:
        """Take in an answer that came on the association of the request."""
        own = self._destination
        return answer(self._database, own, lambda asked: asked == own, information)

    def _look(self, rows: Sequence[Unconfirmed], now: datetime) -> None:
        if not rows:
            return
        try:
            found = self._query(rows)
        except (Refused, Unavailable) as error:
            sentence = error.sentence if isinstance(error, Refused) else str(error)
            self._postpone(rows, f"not confirmed, the query failed: {sentence}", now)
            return
        proved = _pks([row for row in rows if row.sop_instance_uid in found])
        lacking = _pks([row for row in rows if row.sop_instance_uid not in found])
        with self._database.transaction() as session:
            count = confirmation.confirmed(session, proved, confirmation.QUERY, now)
            lost = confirmation.missing(session, lacking, now)
            studies = confirmation.study_pks(session, _pks(rows))
        counts = {"confirmed": count, "missing": len(lacking), "again": lost.again, "parked": lost.parked}
        log.info(line("queried", destination=self._destination, study=studies, **counts))

    def _postpone(
        self, rows: Sequence[Unconfirmed], why: str, now: datetime, *, is_open: bool = False
    ) -> None:
        with self._database.transaction() as session:
            confirmation.postpone(session, _pks(rows), why, now, is_open=is_open)


def query_by_qido(dicomweb: DicomWeb) -> Query:
    """Return a query by QIDO-RS, one for each series."""

    def held(study: str, series: str) -> frozenset[str]:
        try:
            return frozenset(i.sop_instance_uid for i in dicomweb.series_instances(study, series))
        except Refused as refused:
            # 404 is what some say of a series that they do not hold, and others of every query.
            if refused.code == "pacs-unknown" and dicomweb.answers():
                return frozenset()
            raise

    def query(rows: Sequence[Unconfirmed]) -> frozenset[str]:
        series = {(row.study_instance_uid, row.series_instance_uid) for row in rows}
        return frozenset().union(*(held(*one) for one in sorted(series)))

    return query


def query_by_find(peer: Peer) -> Query:
    """Return a query by C-FIND, one for each instance."""
    return lambda rows: query_instances(peer, rows)


def _pks(rows: Sequence[Unconfirmed]) -> list[int]:
    return [row.delivery_pk for row in rows]


__all__ = ["Confirmer", "query_by_find", "query_by_qido"]

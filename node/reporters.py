"""Takes in the storage commitment reports of destinations, on whatever association they come (PS3.4 J.3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from pydicom import Dataset
from sqlmodel import Session

from node.address import parse_destination
from node.callers import Caller, Callers
from node.commitment import UID, Report
from node.deliveries import key_of
from node.desk import Peer
from node.logs import line
from node.settings import Settings
from node.status import INVALID_ARGUMENT, NOT_AUTHORISED, OUT_OF_RESOURCES, PROCESSING_FAILURE, SUCCESS
from plugins.errors import Refused, Unavailable
from store import confirmation
from store.database import Database
from store.tables import Event

log = logging.getLogger(__name__)


class Reporters:
    """The destinations that may report, and what becomes of their reports.

    Parameters
    ----------
    database
        Where the outbox is.
    settings
        Of the node. A destination reports under its own AE title from its own host, or as `reported_by` of its
        settings says; a host whose name cannot be found is left out until it can, and that is logged.

    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._texts: dict[str, tuple[str, ...]] = {}
        self._of: dict[str, Callers] = {}
        self.callers = Callers(entries=())
        for destination in settings.destinations:
            parsed, own = parse_destination(destination), settings.delivery_of(destination)
            if not isinstance(parsed, str) and own.commitment == "auto":
                host = f"[{parsed[1]}]" if ":" in parsed[1] else parsed[1]
                self._texts[key_of(destination)] = (f"{parsed[0]}@{host}", *own.reported_by)
        self._look_up()

    def tick(self, _: datetime) -> bool:
        """Look the hosts up again: one may start after this node, or move. Never finds more to do at once."""
        self._look_up()
        return False

    def _look_up(self) -> None:
        for destination, texts in self._texts.items():
            found = _known(texts)
            if found.entries:
                self._of[destination] = found
        self.callers = Callers(entries=tuple(e for callers in self._of.values() for e in callers.entries))

    def report(self, peer: Peer, information: Dataset) -> int:
        """Take in a report and return the status of the answer. Never raises."""
        return answer(self._database, peer.name, lambda asked: self._may_report(asked, peer), information)

    def _may_report(self, destination: str, peer: Peer) -> bool:
        callers = self._of.get(destination)
        return callers is not None and callers.admits(peer.calling_ae, peer.address)


def answer(database: Database, source: str, may_report: Callable[[str], bool], information: Dataset) -> int:
    """Take in the report that `source` brings, and return the status of the answer. Never raises.

    `may_report` says whether it may report on what a destination was asked for.
    """
    try:
        return _take_in(database, source, may_report, Report.of(information))
    except Unavailable as error:
        log.warning(line("report-not-kept", source=source, error=str(error)))
        return OUT_OF_RESOURCES
    except Exception as error:  # a border: whatever a peer sends becomes a status
        log.warning(line("report-not-read", source=source, error=type(error).__name__))
        return PROCESSING_FAILURE


def _take_in(database: Database, source: str, may_report: Callable[[str], bool], report: Report) -> int:
    uid, now = report.transaction_uid, database.now()
    with database.transaction() as session:
        destination = confirmation.known(session, uid) if UID.fullmatch(uid) else None
        if destination is None:
            shown = uid if UID.fullmatch(uid) else "no UID"
            text = f"a storage commitment report on an unknown or past transaction: {shown}"
            session.add(Event(at=now, kind="commitment-unknown", subject=source, text=text))
            log.warning(line("commitment-unknown", source=source, transaction=shown))
            return INVALID_ARGUMENT
        if not may_report(destination):
            text = f"a storage commitment report on what {destination} was asked for"
            session.add(Event(at=now, kind="rejected", subject=source, text=text))
            log.warning(line("rejected", reason="commitment-report", source=source))
            return NOT_AUTHORISED
        _record(session, destination, report, now)
    return SUCCESS


def _record(session: Session, destination: str, report: Report, now: datetime) -> None:
    """Keep what a destination reports of a transaction that it was asked under; say it when something was lost."""
    changed = confirmation.report(session, report.transaction_uid, report.kept, report.lost, now)
    counts = {"confirmed": changed.confirmed, "again": changed.again, "parked": changed.parked}
    log.info(line("commitment", destination=destination, study=changed.studies, **counts))
    if changed.again:
        text = f"{changed.again} results were delivered and are not kept; they are sent again"
        session.add(Event(at=now, kind="commitment-failed", subject=destination, text=text))


def _known(texts: Iterable[str]) -> Callers:
    entries: list[Caller] = []
    for text in texts:
        try:
            entries += Callers.parse([text]).entries
        except Refused as refused:
            log.warning(line("reporter-not-known", reporter=text, why=refused.sentence))
    return Callers(entries=tuple(entries))


__all__ = ["Reporters", "answer"]

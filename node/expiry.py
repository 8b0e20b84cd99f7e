"""Tell in good time that a TLS certificate expires: one event a day, whoever of the node's processes looks first."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlmodel import col, select

from node.logs import line
from node.settings import Settings
from node.tls import SOON_DAYS, certificate_files, days_left
from plugins.errors import Refused
from store.database import Database
from store.tables import Event

log = logging.getLogger(__name__)

KIND = "certificate-expires"


class Expiry:
    """Looks at the certificates of the settings."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def tick(self, now: datetime) -> bool:
        """Write an event for each file that expires soon and was not told of today; True when there was one."""
        soon: dict[str, float] = {}
        told = False
        for file in certificate_files(self._settings):
            try:
                if (left := days_left(file, now)) <= SOON_DAYS:
                    soon[str(file)] = left
            except Refused as refused:
                log.error(line(refused.code, text=refused.sentence))
        for path, days in soon.items():
            with self._database.transaction() as session:
                today = select(Event.id).where(
                    col(Event.kind) == KIND,
                    col(Event.subject) == path,
                    col(Event.at) > now - timedelta(days=1),
                )
                if session.exec(today.limit(1)).first() is None:
                    text = "it has expired" if days < 0 else f"{days:.0f} days are left"
                    log.warning(line(KIND, file=path, text=text))
                    session.add(Event(at=now, kind=KIND, subject=path, text=text))
                    told = True
        return told

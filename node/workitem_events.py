"""What a worklist tells of workitems without being asked (PS3.18 8.10.4, 8.10.5): above all, to cancel one.

A request to cancel changes nothing in the workitem itself, so that only who is subscribed ever hears of it.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from node import ups
from node.logs import line
from node.pacs import plain
from node.rest import Rest
from node.settings import Settings
from node.tls import context_to
from node.ups_rs import Worklist
from plugins.errors import Refused, Unavailable
from store import workitems
from store.database import Database

log = logging.getLogger(__name__)

EVERYTHING = "1.2.840.10008.5.1.4.34.5"
"""The well-known UID of a subscription to all workitems (PS3.4 CC.2.3.2)."""
STATE_REPORT, CANCEL_REQUESTED = 1, 2
"""Event types (PS3.4 Table CC.2.4-1)."""
LISTEN_SECONDS = 1.0
OPEN_SECONDS = 10.0
MAX_EVENT_BYTES = 1 << 20
WHENEVER = timedelta(days=1)
PAUSES = (timedelta(seconds=10), timedelta(minutes=15))


class Events:
    """Subscribes to the workitems that are ours, and hears what is told of them.

    Parameters
    ----------
    database, worklist, settings
        As for the performer; the client is this thread's own.
    something_new
        Called when a workitem was scheduled, while everything is subscribed to.

    """

    def __init__(
        self,
        database: Database,
        worklist: Worklist,
        settings: Settings,
        *,
        something_new: Callable[[], None] = lambda: None,
    ) -> None:
        self._something_new = something_new
        self._database = database
        self._worklist = worklist
        self._settings = settings
        self._connection: ClientConnection | None = None
        self._address = ""
        self._subscribed: set[str] = set()
        self._rest = Rest()
        self._pause = PAUSES[0]
        self._is_stopping = False

    def interrupt(self) -> None:
        """Listen no longer."""
        self._is_stopping = True

    def tick(self, now: datetime) -> bool:
        """Subscribe to what is new, and listen for a moment; returns whether it listened."""
        if self._is_stopping:
            self._hang_up()
            return False
        if self._rest.holds(now):
            return False
        with self._database.reading() as session:
            rows = workitems.due(session, self._settings.worklist.url, workitems.STOPPABLE, now + WHENEVER)
        ours = {row.workitem_uid for row in rows} | (
            {EVERYTHING} if self._settings.worklist.triggered else set()
        )
        try:
            self._subscribe(ours)
            if self._connection is None:
                return False
            return self._listen(self._connection, now)
        except (Unavailable, Refused, OSError, WebSocketException) as error:
            log.warning(line("worklist-events", error=f"{type(error).__name__}: {error}"))
            self._hang_up()
            self._rest = Rest(now, self._pause)
            self._pause = min(self._pause * 2, PAUSES[1])
            return False

    def _subscribe(self, ours: set[str]) -> None:
        """Subscribe to each workitem once a connection; what ended is given up."""
        for uid in sorted(ours - self._subscribed):
            self._subscribed.add(uid)
            if address := self._worklist.subscribe(uid):
                self._address = address
            if self._address and self._connection is None:
                self._connection = self._call()
        for uid in self._subscribed - ours:
            self._subscribed.discard(uid)
            self._worklist.unsubscribe(uid)
        if not self._subscribed:
            self._hang_up()

    def _call(self) -> ClientConnection:
        root = urlsplit(self._settings.worklist.address)
        headers = {}
        if root.username is not None:
            pair = f"{unquote(root.username)}:{unquote(root.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        context = context_to(self._settings, self._address)
        made = connect(
            self._address,
            additional_headers=headers,
            open_timeout=OPEN_SECONDS,
            max_size=MAX_EVENT_BYTES,
            proxy=None,
            ssl=context,
        )
        self._pause, self._rest = PAUSES[0], Rest()
        log.info(line("worklist-events", state="open"))
        return made

    def _listen(self, connection: ClientConnection, now: datetime) -> bool:
        try:
            message = connection.recv(timeout=LISTEN_SECONDS)
        except TimeoutError:
            return True  # listening is the pause
        try:
            told = json.loads(message)
        except (ValueError, RecursionError):
            return True
        for event in told if isinstance(told, list) else [told]:
            if isinstance(event, dict):
                self._take(event, now)
        return True

    def _take(self, event: dict[str, Any], now: datetime) -> None:
        """Take in one event report about a workitem that is ours; others are passed over."""
        uid, kind = str(_value(event, "00001000") or ""), _value(event, "00001002")
        if kind == STATE_REPORT and _value(event, "00741000") == ups.SCHEDULED:
            self._something_new()
            return
        with self._database.transaction() as session:
            row = workitems.find(session, self._settings.worklist.url, uid)
            if row is None or row.state not in workitems.STOPPABLE:
                return
            if kind == CANCEL_REQUESTED:
                why = plain(str(_value(event, "00741238") or ""))
                told = "The worklist asked for it to be cancelled" + (f": {why}" if why else ".")
                workitems.stop(session, int(row.id or 0), now, reason="requested", told=told)
                log.info(line("workitem-cancel-requested", workitem=row.id))
            elif kind == STATE_REPORT and _value(event, "00741000") in (ups.CANCELED, ups.COMPLETED):
                workitems.stay(session, row, told_at=None)  # the next round looks what became of it

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._address = None, ""
        self._subscribed.clear()


def _value(event: dict[str, Any], tag: str) -> Any:
    element = event.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


__all__ = ["Events"]

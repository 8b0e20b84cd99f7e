"""A worklist of the PACS over HTTP (UPS-RS, PS3.18 section 11): search, claim, read, tell, end, subscribe.

Servers differ in two things: whether the requester's AE title stands in the path, and whether a body is one data set
or a list of one. What a server understands is found by trying, while the workitem proves to be as it was.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import httpx
from pydicom.dataset import Dataset

from node import ups
from node.pacs import DICOM_JSON, SOP_UID, Answered, DicomWeb, json_of, uid_of
from plugins.errors import Refused


class Outcome(Enum):
    """What a worklist made of a request."""

    DONE = "done"
    """It did what was asked."""
    CONFLICT = "conflict"
    """The workitem is not in the state that was thought, or not ours, or the request was not understood."""
    GONE = "gone"
    """It knows no such workitem, or no longer."""


OUTCOMES: Final[Mapping[int, Outcome]] = {
    **dict.fromkeys((200, 201, 202, 204), Outcome.DONE),
    **dict.fromkeys((400, 405, 409, 415), Outcome.CONFLICT),
    **dict.fromkeys((404, 410), Outcome.GONE),
}
"""What a status means (PS3.18 Tables 11.6.3-1 and 11.7.3-1); 401 and 403 are refused, others may pass."""
NOT_UNDERSTOOD: Final = frozenset({400, 404, 405, 415})
"""Statuses after which another way of asking may be understood."""
OTHER_OWNER: Final = "transaction uid"
"""What stands in the Warning when the Transaction UID is not that of the workitem (PS3.18 11.7.3.2)."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a worklist answered."""

    outcome: Outcome
    """What it means."""
    status: int
    """HTTP status."""
    warning: str = ""
    """Text of the Warning header."""

    def __str__(self) -> str:
        return f"HTTP {self.status}" + (f", {self.warning}" if self.warning else "")


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a server wants to be asked."""

    names_requester: bool = False
    """The path of a state ends in the requester's AE title."""
    lists: bool = False
    """A body is a list of one data set."""


EVENTS_BY: Final = {"http": "ws", "ws": "ws", "https": "wss", "wss": "wss"}
"""How events come from an address, by its scheme."""
WAYS: Final = tuple(
    Way(names_requester=names, lists=lists) for lists in (False, True) for names in (False, True)
)


def _origin(url: httpx.URL) -> tuple[str | None, str, int | None]:
    """Return scheme, as events come by it, host and port: what addresses of one server share (RFC 6454)."""
    return EVENTS_BY.get(url.scheme), url.host, url.port


class Worklist(DicomWeb):
    """A worklist.

    Parameters
    ----------
    root_url, client, tls
        As `DicomWeb`.
    ae_title
        Ours.
    events_url
        Another server's address that its events may come from; empty for none.

    """

    def __init__(
        self,
        root_url: str,
        ae_title: str,
        *,
        events_url: str = "",
        client: httpx.Client | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(root_url, client=client, tls=tls)
        self._ae_title = ae_title
        self._origins = {_origin(httpx.URL(url)) for url in (self.root_url, events_url) if url}
        self._way = WAYS[0]

    def scheduled(self, label: str = "") -> Iterator[dict[str, Any]]:
        """Yield the workitems that are scheduled, of one Worklist Label when it is given, as DICOM JSON."""
        query: dict[str, str | list[str]] = {"ProcedureStepState": ups.SCHEDULED}
        if label:
            query["WorklistLabel"] = label
        yield from self._rows("/workitems", query, SOP_UID)

    def workitem(self, uid: str) -> dict[str, Any] | None:
        """Return a workitem as DICOM JSON; None when the worklist does not know it."""
        headers = {"Accept": DICOM_JSON, "Cache-Control": "no-cache"}
        with self._answer("GET", f"/workitems/{uid_of(uid)}", headers=headers, accept=(404, 410)) as response:
            if response.status_code in (404, 410):
                return None
            found = json_of(response, self.root_url)
        row = found[0] if isinstance(found, list) and found else found
        if not isinstance(row, dict):
            raise Answered(f"{self.root_url} answered with something that is not a workitem in DICOM JSON")
        return row

    def state(self, uid: str) -> str | None:
        """Return the Procedure Step State of a workitem; None when the worklist does not know it."""
        row = self.workitem(uid)
        if row is None:
            return None
        element = row.get("00741000")
        values = element.get("Value") if isinstance(element, dict) else None
        return str(values[0]) if isinstance(values, list) and values else ""

    def change(self, uid: str, transaction_uid: str, state: str) -> Answer:
        """Ask for another state of a workitem (Change Workitem State, 11.7)."""
        body = Dataset()
        body.TransactionUID = transaction_uid
        body.ProcedureStepState = state

        def ask(way: Way) -> Answer:
            path = f"/workitems/{uid_of(uid)}/state" + (f"/{self._ae_title}" if way.names_requester else "")
            return self._say("PUT", path, _body(body, way))

        return self._understood(uid, ups.SCHEDULED if state == ups.IN_PROGRESS else ups.IN_PROGRESS, ask)

    def update(self, uid: str, transaction_uid: str, update: Dataset) -> Answer:
        """Set attributes of a workitem that is ours (Update Workitem, 11.6).

        The Transaction UID stands in the query, as PS3.18 has it, and in the data set, as PS3.4 CC.2.6 has it.
        """
        update.TransactionUID = transaction_uid

        def ask(way: Way) -> Answer:
            params = {"transaction-uid": transaction_uid}
            return self._say("POST", f"/workitems/{uid_of(uid)}", _body(update, way), params=params)

        return self._understood(uid, ups.IN_PROGRESS, ask)

    def subscribe(self, uid: str) -> str | None:
        """Subscribe to what happens to a workitem (11.10); return the address of the events, None when there are none.

        An address of another origin (scheme, host and port) than the worklist's and that of `events_url` is none: a
        worklist does not choose whom this node calls.
        """
        path = f"/workitems/{uid_of(uid)}/subscribers/{self._ae_title}"
        params = {"deletionlock": "false"}
        accept = (400, 403, 404, 405, 409, 501)
        with self._answer("POST", path, params=params, content=b"", accept=accept) as response:
            if not response.is_success:
                return None
            told = response.headers.get("Content-Location") or response.headers.get("Location") or ""
        try:
            address = httpx.URL(self.root_url).join(told)
        except (httpx.InvalidURL, ValueError):
            return None
        scheme = EVENTS_BY.get(address.scheme)
        if not told or scheme is None or _origin(address) not in self._origins:
            return None
        return str(address.copy_with(scheme=scheme))

    def unsubscribe(self, uid: str) -> None:
        """End the subscription to a workitem."""
        path = f"/workitems/{uid_of(uid)}/subscribers/{self._ae_title}"
        with self._answer("DELETE", path, accept=(400, 403, 404, 405, 409, 410, 501)):
            pass

    def _understood(self, uid: str, state: str, ask: Callable[[Way], Answer]) -> Answer:
        """Return what the server answers to the first way of asking that it understands, and keep to that way.

        Another way is tried only while the workitem is in the state that the request begins with.
        """
        first = ask(self._way)
        if first.outcome is Outcome.DONE or first.status not in NOT_UNDERSTOOD or _is_foreign(first):
            return first
        for way in (way for way in WAYS if way != self._way):
            if self.state(uid) != state:
                return first
            answer = ask(way)
            if answer.outcome is Outcome.DONE or answer.status not in NOT_UNDERSTOOD:
                self._way = way
                return answer
        return first

    def _say(self, method: str, path: str, body: bytes, params: Mapping[str, str] | None = None) -> Answer:
        headers = {"Content-Type": DICOM_JSON, "Accept": DICOM_JSON}
        accept = tuple(status for status in OUTCOMES if status >= 400)
        with self._answer(
            method, path, headers=headers, content=body, params=params, accept=accept
        ) as response:
            warning = " ".join(response.headers.get("Warning", "").split())[:500]
            if response.status_code not in OUTCOMES:
                raise Refused("worklist-odd", f"{self.root_url} answered HTTP {response.status_code}")
            return Answer(
                outcome=OUTCOMES[response.status_code], status=response.status_code, warning=warning
            )


def _is_foreign(answer: Answer) -> bool:
    return OTHER_OWNER in answer.warning.lower()


def _body(dataset: Dataset, way: Way) -> bytes:
    plain: dict[str, Any] | Sequence[dict[str, Any]] = dataset.to_json_dict()
    return json.dumps([plain] if way.lists else plain).encode()


__all__ = ["Answer", "Outcome", "Worklist"]

"""A strict worklist manager over UPS-RS: the state machine of PS3.4 CC.1.1 told a second time, with faults on demand.

It shares no code with the node. `handle` is the whole server; `transport` lets a client call it in this process,
`serving` puts it behind a port, and `events` is its event channel.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from pydicom.datadict import dictionary_VR, tag_for_keyword
from websockets.sync.server import ServerConnection, serve

INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."
INCORRECT = "The Transaction UID is incorrect."
MISSING = "The Transaction UID is missing."
NEVER_SET = {
    "ProcedureStepState",
    "SOPClassUID",
    "SOPInstanceUID",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
}
STYLES = ("standard", "requester", "listed")


def tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword):08X}"


def element(keyword: str, *values: Any) -> dict[str, Any]:
    vr = dictionary_VR(tag_for_keyword(keyword))
    return {tag(keyword): {"vr": vr, "Value": list(values)} if values else {"vr": vr}}


def dataset(**values: Any) -> dict[str, Any]:
    """Return DICOM JSON of keyword=value; a list is several values."""
    plain: dict[str, Any] = {}
    for keyword, value in values.items():
        plain |= element(keyword, *(value if isinstance(value, list) else [value]))
    return plain


def value(row: Mapping[str, Any], keyword: str) -> Any:
    """Return the first value of an attribute; None when it has none."""
    values = row.get(tag(keyword), {}).get("Value", [])
    return values[0] if values else None


def values(row: Mapping[str, Any], keyword: str) -> list[Any]:
    return list(row.get(tag(keyword), {}).get("Value", []))


def code(meaning: str, text: str, scheme: str) -> dict[str, Any]:
    return dataset(CodeValue=text, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


@dataclass
class Item:
    """One workitem."""

    row: dict[str, Any]
    lock: str = ""
    performer: str = ""
    history: list[str] = field(default_factory=lambda: ["SCHEDULED"])
    updates: list[dict[str, Any]] = field(default_factory=list)
    subscribers: set[str] = field(default_factory=set)

    @property
    def state(self) -> str:
        return str(value(self.row, "ProcedureStepState"))

    def become(self, state: str) -> None:
        self.row |= dataset(ProcedureStepState=state)
        self.history.append(state)

    @property
    def outputs(self) -> list[tuple[str, str]]:
        """Return (SOP Instance UID, places) of every object that is listed, as often as it stands there."""
        found = []
        for item in values(self.row, "UnifiedProcedureStepPerformedProcedureSequence"):
            for reference in values(item, "OutputInformationSequence"):
                places = [value(one, "RetrieveURL") for one in values(reference, "WADORSRetrievalSequence")]
                places += [
                    value(one, "RetrieveAETitle") for one in values(reference, "DICOMRetrievalSequence")
                ]
                for one in values(reference, "ReferencedSOPSequence"):
                    found.append((value(one, "ReferencedSOPInstanceUID"), ",".join(places)))
        return found

    def progress(self, keyword: str) -> Any:
        item = value(self.row, "ProcedureStepProgressInformationSequence") or {}
        return value(item, keyword)


Reply = tuple[int, dict[str, str], Any]


class WorklistManager:
    """Holds workitems, and answers as the standard has it."""

    def __init__(self, style: str = "standard") -> None:
        assert style in STYLES
        self.style = style
        self.items: dict[str, Item] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self.broken: dict[tuple[str, str], int] = {}
        self.socket_url = ""
        self._sockets: dict[str, list[ServerConnection]] = {}
        self._everything: set[str] = set()
        self._lock = threading.RLock()

    def schedule(
        self, uid: str, study: str = "1.2.7", *, codes: list[Any] | None = None, **more: Any
    ) -> Item:
        """Put a workitem on the list that has every attribute which a worklist has to fill in (Table CC.2.5-3)."""
        codes = [code("nodules", "lung_nodule", "99NADIR")] if codes is None else codes
        row = dataset(
            SOPClassUID="1.2.840.10008.5.1.4.34.6.1",
            SOPInstanceUID=uid,
            ScheduledProcedureStepPriority="MEDIUM",
            ScheduledProcedureStepModificationDateTime="20260301080000",
            ScheduledProcedureStepStartDateTime="20200101080000",
            ProcedureStepLabel="Find nodules",
            WorklistLabel="AI",
            ScheduledWorkitemCodeSequence=codes,
            InputReadinessState="READY",
            StudyInstanceUID=study,
            InputInformationSequence=[],
            ProcedureStepState="SCHEDULED",
            PatientName={"Alphabetic": "Phantom^7"},
            PatientID="P7",
        )
        item = self.items[uid] = Item(row=row | dataset(**more), subscribers=set(self._everything))
        self._tell(uid, item, dataset(EventTypeID=1, ProcedureStepState="SCHEDULED"))
        return item

    # --- the server -------------------------------------------------------------------------------------------------

    def handle(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Return status, headers and JSON of the answer to one request."""
        parts = urlsplit(url)
        path = parts.path[parts.path.index("/workitems") :] if "/workitems" in parts.path else parts.path
        query = {name: found[0] for name, found in parse_qs(parts.query).items()}
        with self._lock:
            self.requests.append((method, path))
            for (verb, start), status in self.broken.items():
                if method == verb and path.startswith(start):
                    return status, {}, None
            if path == "/workitems" and method == "GET":
                return self._search(query)
            match = re.fullmatch(r"/workitems/([0-9.]+)(/[a-z]+)?(/[^/]+)?", path)
            if match is None:
                return 404, {}, None
            uid, verb, who = match[1], match[2] or "", (match[3] or "").strip("/")
            if verb == "/state" and bool(who) != (self.style == "requester"):
                return 404, {}, None  # no such path here
            if uid == "1.2.840.10008.5.1.4.34.5" and verb == "/subscribers":
                return self._subscribe(None, method, who)
            item = self.items.get(uid)
            if item is None:
                return 404, {}, None
            if method == "GET" and not verb:
                return 200, {}, [{k: v for k, v in item.row.items() if k != tag("TransactionUID")}]
            if verb == "/subscribers":
                return self._subscribe(item, method, who)
            if verb == "/cancelrequest" and method == "POST":
                return self._cancel_request(uid, item, json.loads(body or b"{}"))
            plain = self._body(headers, body)
            if plain is None:
                return 400, {}, None
            if method == "PUT" and verb == "/state":
                return self._change(uid, item, plain, who)
            if method == "POST" and not verb:
                return self._update(item, plain, query.get("transaction-uid"))
        return 405, {}, None

    def _body(self, headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
        if {k.lower(): v for k, v in headers.items()}.get("content-type") != "application/dicom+json":
            return None
        plain = json.loads(body)
        if isinstance(plain, list) != (self.style == "listed"):
            return None
        return dict(plain[0] if isinstance(plain, list) else plain)

    def _search(self, query: Mapping[str, str]) -> Reply:
        found = []
        for item in self.items.values():
            wanted = {k: v for k, v in query.items() if k not in ("limit", "offset", "includefield")}
            if all(value(item.row, keyword) == text for keyword, text in wanted.items()):
                found.append({k: v for k, v in item.row.items() if k != tag("InputInformationSequence")})
        page = found[int(query.get("offset", 0)) :][: int(query.get("limit", 100))]
        return (200, {}, page) if page else (204, {}, None)

    def _change(self, uid: str, item: Item, plain: Mapping[str, Any], who: str) -> Reply:
        lock, wanted = value(plain, "TransactionUID"), value(plain, "ProcedureStepState")
        if not lock:
            return 400, {"Warning": f"299 manager: {MISSING}"}, None
        if wanted == "IN PROGRESS":
            if item.state != "SCHEDULED":
                return 409, {"Warning": f"299 manager: {INCONSISTENT}"}, None
            item.lock, item.performer = str(lock), who
            item.become("IN PROGRESS")
        elif wanted in ("COMPLETED", "CANCELED"):
            if item.state == wanted:
                return (
                    200,
                    {"Warning": f"299 manager: The UPS is already in the requested state of {wanted}."},
                    None,
                )
            if item.state != "IN PROGRESS":
                return 409, {"Warning": f"299 manager: {INCONSISTENT}"}, None
            if lock != item.lock:
                return 400, {"Warning": f"299 manager: {INCORRECT}"}, None
            if missing := lacking(item.row, str(wanted)):
                return 409, {"Warning": f"299 manager: {INCONSISTENT} Lacks {missing}"}, None
            item.become(str(wanted))
        else:
            return 400, {}, None
        self._tell(uid, item, {**dataset(EventTypeID=1), **element("ProcedureStepState", item.state)})
        return 200, {}, None

    def _update(self, item: Item, plain: dict[str, Any], in_query: str | None) -> Reply:
        lock = in_query or value(plain, "TransactionUID")
        if item.state != "IN PROGRESS":
            return 409, {"Warning": f"299 manager: {INCONSISTENT}"}, None
        if not lock:
            return 400, {"Warning": f"299 manager: {MISSING}"}, None
        if lock != item.lock or value(plain, "TransactionUID") not in (None, lock):
            return 400, {"Warning": f"299 manager: {INCORRECT}"}, None
        if wrong := faults_in_set(plain):
            return 400, {"Warning": f"299 manager: {wrong}"}, None
        plain.pop(tag("TransactionUID"), None)
        item.row |= plain
        item.updates.append(plain)
        return 200, {}, None

    def _cancel_request(self, uid: str, item: Item, plain: Mapping[str, Any]) -> Reply:
        if item.state == "SCHEDULED":
            item.become("IN PROGRESS")
            item.become("CANCELED")
            return 202, {}, None
        if item.state == "CANCELED":
            return (
                202,
                {"Warning": "299 manager: The UPS is already in the requested state of CANCELED."},
                None,
            )
        if item.state == "COMPLETED" or not self._tell(uid, item, {**dataset(EventTypeID=2), **plain}):
            return 409, {}, None
        return 202, {}, None

    # --- events -----------------------------------------------------------------------------------------------------

    def _subscribe(self, item: Item | None, method: str, who: str) -> Reply:
        subscribers = self._everything if item is None else item.subscribers
        if method == "DELETE":
            subscribers.discard(who)
            return 200, {}, None
        if not self.socket_url:
            return 501, {}, None
        subscribers.add(who)
        return 201, {"Content-Location": f"{self.socket_url}/subscribers/{who}"}, None

    def _tell(self, uid: str, item: Item, event: dict[str, Any]) -> int:
        sent = 0
        for who in item.subscribers:
            for socket in self._sockets.get(who, []):
                socket.send(json.dumps({**event, **dataset(AffectedSOPInstanceUID=uid)}))
                sent += 1
        return sent

    @contextmanager
    def events(self) -> Iterator[None]:
        """Open the event channel on a port of its own."""

        def hold(socket: ServerConnection) -> None:
            who = socket.request.path.rsplit("/", 1)[1] if socket.request else ""
            self._sockets.setdefault(who, []).append(socket)
            for _ in socket:
                pass
            self._sockets[who].remove(socket)

        with serve(hold, "127.0.0.1", 0) as server:
            self.socket_url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield
            finally:
                self.socket_url = ""
                for sockets in list(self._sockets.values()):
                    for socket in list(sockets):
                        socket.close()
                server.shutdown()
                thread.join(60)

    # --- ways to call it --------------------------------------------------------------------------------------------

    def client(self) -> httpx.Client:
        """Return a client that calls this server without a network."""

        def answer(request: httpx.Request) -> httpx.Response:
            fault = self.faults.pop(0) if self.faults else ""
            if fault == "503":
                return httpx.Response(503)
            if fault == "refused":
                raise httpx.ConnectError("refused", request=request)
            status, headers, plain = self.handle(
                request.method, str(request.url), request.headers, request.content
            )
            if fault == "cut":  # it was done, and nobody hears of it
                raise httpx.ReadError("cut", request=request)
            return (
                httpx.Response(status, headers=headers, json=plain)
                if plain is not None
                else httpx.Response(status, headers=headers)
            )

        return httpx.Client(transport=httpx.MockTransport(answer))

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Give the URL of this server on a port."""
        manager = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = manager.faults.pop(0) if manager.faults else ""
                if fault == "slow":
                    time.sleep(1.0)
                headers = dict(self.headers.items())
                status, more, plain = (
                    (503, {}, None)
                    if fault == "503"
                    else manager.handle(self.command, self.path, headers, body)
                )
                if fault == "cut":
                    self.close_connection = True
                    return
                text = b"" if plain is None else json.dumps(plain).encode()
                self.send_response(status)
                for name, told in {
                    **more,
                    "Content-Length": str(len(text)),
                    "Content-Type": "application/dicom+json",
                }.items():
                    self.send_header(name, told)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815  # the names that http.server asks for

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/rs"
        finally:
            server.shutdown()
            server.server_close()
            thread.join(60)


def lacking(row: Mapping[str, Any], state: str) -> list[str]:
    """Return what a workitem lacks for a final state, read from PS3.4 Table CC.2.5-3 by hand."""
    missing = [
        keyword
        for keyword in (
            "SOPClassUID", "SOPInstanceUID", "ScheduledProcedureStepPriority", "InputReadinessState",
            "ScheduledProcedureStepModificationDateTime", "ScheduledProcedureStepStartDateTime",
        )
        if value(row, keyword) in (None, "")
    ]  # fmt: skip
    if state == "CANCELED":
        progress = value(row, "ProcedureStepProgressInformationSequence") or {}
        needed = ("ProcedureStepCancellationDateTime", "ProcedureStepDiscontinuationReasonCodeSequence")
        return missing + [keyword for keyword in needed if value(progress, keyword) in (None, "")]
    done = value(row, "UnifiedProcedureStepPerformedProcedureSequence")
    if not done:
        return [*missing, "UnifiedProcedureStepPerformedProcedureSequence"]
    needed = (
        "PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime",
        "PerformedWorkitemCodeSequence", "PerformedProcedureStepEndDateTime",
    )  # fmt: skip
    missing += [keyword for keyword in needed if value(done, keyword) in (None, "")]
    return missing + (["OutputInformationSequence"] if tag("OutputInformationSequence") not in done else [])


def faults_in_set(plain: Mapping[str, Any]) -> str:
    """Return what is wrong in an N-SET: an attribute that may not be set, a wrong VR, a reference that is not whole."""
    for keyword in NEVER_SET:
        if tag(keyword) in plain:
            return f"{keyword} may not be set"
    for item in values(plain, "UnifiedProcedureStepPerformedProcedureSequence"):
        if tag("OutputInformationSequence") not in item:
            return "OutputInformationSequence is of type 2"
        for reference in values(item, "OutputInformationSequence"):
            if value(reference, "TypeOfInstances") != "DICOM" or not values(
                reference, "ReferencedSOPSequence"
            ):
                return "a reference needs its type and its instances"
            ways = ("WADORSRetrievalSequence", "DICOMRetrievalSequence")
            if not all(value(reference, k) for k in ("StudyInstanceUID", "SeriesInstanceUID")) or not any(
                values(reference, way) for way in ways
            ):
                return "a reference needs study, series and where it is"
    return _wrong_vr(plain)


def _wrong_vr(plain: Mapping[str, Any]) -> str:
    for key, told in plain.items():
        if not re.fullmatch(r"[0-9A-F]{8}", key):
            return f"{key} is no tag"
        if told["vr"] not in dictionary_VR(int(key, 16)):
            return f"{key} is {told['vr']}"
        for inner in told.get("Value", []):
            if told["vr"] == "SQ" and (wrong := _wrong_vr(inner)):
                return wrong
            limit = {"LO": 64, "SH": 16, "ST": 1024, "CS": 16, "AE": 16}.get(told["vr"])
            if limit and len(inner) > limit:
                return f"{key} is too long"
            if told["vr"] == "DT" and not re.fullmatch(r"\d{14}(\.\d{1,6})?([+-]\d{4})?", inner):
                return f"{key} is no DT"
    return ""

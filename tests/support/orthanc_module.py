"""Stand-ins for what the hook lives between: Orthanc's module, in the shapes of old and new versions, and the node."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from orthanc_server import HOOK

STABLE, STARTED, STOPPED = 7, 13, 14


class OldOutput:
    """The answer object as plugin 4.0 has it: SendHttpStatus needs a size."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def AnswerBuffer(self, body: str, mime: str) -> None:
        self.sent.append((200, body, mime))

    def SendMethodNotAllowed(self, allowed: str) -> None:
        self.sent.append((405, allowed))

    def SendHttpStatus(self, code: int, body: str, size: int) -> None:
        self.sent.append((code, body[:size]))


class NewOutput(OldOutput):
    """The answer object as plugin 7.1 has it: SendHttpStatus takes no size."""

    def SendHttpStatus(self, code: int, body: bytes) -> None:  # type: ignore[override]  # that is the trap
        self.sent.append((code, body))


class OrthancException(Exception):
    """Raised by Orthanc with the number of an error and its name, as its Python plugin 4.0 does."""


class FakeOrthanc:
    """What the hook uses of Orthanc's module."""

    ChangeType = SimpleNamespace(STABLE_STUDY=STABLE, ORTHANC_STARTED=STARTED, ORTHANC_STOPPED=STOPPED)

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration
        self.changes: list[dict[str, Any]] = []
        self.stored: dict[str, list[tuple[str, str]]] = {}
        """When each instance of a study was stored, and as which file: its UID, and what follows a slash."""
        self.properties: dict[int, str] = {}
        self.is_ill = False
        """Whether its database fails."""
        self.logged: list[str] = []
        self.on_change: Callable[[int, int, str], None] | None = None
        self.routes: dict[str, Callable[..., None]] = {}

    def GetConfiguration(self) -> str:
        return json.dumps(self.configuration)

    def RegisterOnChangeCallback(self, callback: Callable[[int, int, str], None]) -> None:
        self.on_change = callback

    def RegisterRestCallback(self, uri: str, callback: Callable[..., None]) -> None:
        self.routes[uri] = callback

    def LogWarning(self, text: str) -> None:
        self.logged.append(text)

    LogError = LogWarning

    def GetGlobalProperty(self, number: int, default: str) -> str:
        return self.properties.get(number, default)

    def SetGlobalProperty(self, number: int, value: str) -> None:
        assert number >= 1024
        self.properties[number] = value

    def RestApiPost(self, uri: str, body: str) -> bytes:
        if uri == "/tools/lookup":
            same = [{"Type": "Study", "ID": one} for one in self.stored if self._uid(one) == body]
            return json.dumps([{"Type": "Patient", "ID": "p"}, *same]).encode()
        assert uri == "/tools/bulk-content"
        found = [one for study in json.loads(body)["Resources"] for one in self.stored[study]]
        rows = [
            {
                "FileUuid": file,
                "Metadata": {"ReceptionDate": at},
                "MainDicomTags": {"SOPInstanceUID": file.partition("/")[0]},
            }
            for at, file in found
        ]
        return json.dumps(rows).encode()

    def _uid(self, identifier: str) -> str:
        """Return the Study Instance UID of a study; what follows a dash tells its patients apart."""
        return "1.2." + identifier.partition("-")[0]

    def RestApiGet(self, uri: str) -> bytes:
        if uri == "/changes?last":
            return json.dumps({"Last": len(self.changes)}).encode()
        if uri.startswith("/changes?since="):
            since, limit = (int(part.partition("=")[2]) for part in uri.partition("?")[2].split("&"))
            return json.dumps({"Changes": self.changes[since : since + limit]}).encode()
        identifier = uri.removeprefix("/studies/")
        if identifier == "deleted":
            raise OrthancException(17, "Unknown resource")
        if self.is_ill:
            raise OrthancException(11, "Error with the database engine")
        return json.dumps({"MainDicomTags": {"StudyInstanceUID": self._uid(identifier)}}).encode()


def load_hook(monkeypatch: pytest.MonkeyPatch, module: object | None) -> ModuleType:
    if module is None:
        monkeypatch.delitem(sys.modules, "orthanc", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "orthanc", module)
    spec = importlib.util.spec_from_file_location("hook_under_test", HOOK)
    assert spec is not None and spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


class Ear:
    """A stand-in for the node that writes down what it is told and answers as it is set."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.answers: list[int] = []
        ear = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                ear.tokens.append(self.headers.get("Authorization"))
                ear.heard.append({"path": self.path, **json.loads(body)})
                self.send_response(ear.answers.pop(0) if ear.answers else 202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                logging.getLogger(__name__).debug(format, *args)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def uids(self) -> list[str]:
        return [told["study_instance_uid"] for told in self.heard]


def change(fake: FakeOrthanc, what: int, resource: str = "") -> None:
    assert fake.on_change is not None
    fake.on_change(what, 1, resource)

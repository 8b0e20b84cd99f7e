"""The pages of OHIF on loopback, unmodified, with `/dicom-web` passed on to an Orthanc: one origin, so no CORS."""

from __future__ import annotations

import http.client
import json
import mimetypes
import os
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

ROOT = Path(__file__).parents[2]
PASSED_ON = ("accept", "content-type", "host", "range")
SOURCE = {
    "friendlyName": "Orthanc",
    "name": "orthanc",
    "wadoUriRoot": "/dicom-web",
    "qidoRoot": "/dicom-web",
    "wadoRoot": "/dicom-web",
    "qidoSupportsIncludeField": False,
    "imageRendering": "wadors",
    "thumbnailRendering": "wadors",
    "enableStudyLazyLoad": True,
    "supportsFuzzyMatching": False,
    "supportsWildcard": True,
    "omitQuotationForMultipartRequest": True,
    "bulkDataURI": {"enabled": True},
}
CONFIG = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "dicomweb",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "dicomweb",
            "configuration": SOURCE,
        }
    ],
}


def require_viewer() -> Path:
    """Return the folder of OHIF's pages; fail in CI when the viewer is not installed, skip elsewhere."""
    pages = ROOT / "node_modules" / "@ohif" / "app" / "dist"
    missing = [name for name in ("node", "chromium") if shutil.which(name) is None]
    if not (pages / "index.html").is_file() or not (ROOT / "node_modules" / "playwright-core").is_dir():
        missing.append("the pages of OHIF and playwright-core")
    if missing:
        reason = f"missing: {', '.join(missing)}; run `make viewer`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return pages


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pages: ClassVar[Path]
    upstream: ClassVar[urllib.parse.ParseResult]

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        # Orthanc builds its addresses from the Host header, so it must be the one the browser used.
        headers = {k: v for k, v in self.headers.items() if k.lower() in PASSED_ON}
        connection = http.client.HTTPConnection(self.upstream.hostname or "", self.upstream.port, timeout=60)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        self._answer(
            answer.status, answer.headers.get("Content-Type", "application/octet-stream"), answer.read()
        )
        connection.close()

    def do_GET(self) -> None:
        path = urllib.parse.urlparse(self.path).path
        if path.startswith("/dicom-web"):
            self._pass_on()
            return
        if path == "/app-config.js":
            self._answer(200, "text/javascript", f"window.config = {json.dumps(CONFIG)};".encode())
            return
        file = (self.pages / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.pages) or not file.is_file():
            if "." in file.name:
                self._answer(404, "text/plain", b"no")
                return
            file = self.pages / "index.html"
        kind = {".wasm": "application/wasm", ".js": "text/javascript"}.get(file.suffix)
        kind = kind or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._answer(200, kind, file.read_bytes())

    def do_POST(self) -> None:
        self._pass_on()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running_ohif(pages: Path, orthanc_url: str) -> Iterator[str]:
    """Serve the pages on a free port while the block runs; gives their address."""
    handler = type(
        "Pages", (_Pages,), {"pages": pages.resolve(), "upstream": urllib.parse.urlparse(orthanc_url)}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)

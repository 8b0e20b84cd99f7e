"""A PACS of a few lines: answers what a test tells it to, and keeps what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class StubPacs:
    """What it answers and what it was asked."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/dicom+json"})
    body: bytes = b"[]"
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Method, target, header and body of each request."""
    url: str = ""


@contextmanager
def stub_pacs() -> Iterator[StubPacs]:
    """Give one on a free port of the loopback."""
    pacs = StubPacs()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pacs.asked.append(
                (self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            )
            self.send_response(pacs.status)
            for name, value in pacs.headers.items():
                self.send_header(name, value)
            if pacs.status not in (204, 304):
                self.send_header("Content-Length", str(len(pacs.body)))
            self.end_headers()
            if pacs.status not in (204, 304):
                self.wfile.write(pacs.body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    pacs.url = f"http://127.0.0.1:{server.server_address[1]}/pacs/rs"
    try:
        yield pacs
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)

"""What one process knows of itself: that it lives, how it fares, and a port of its own that says so.

Every process of a node has one, whatever its roles, so that each can be probed and scraped where it runs. Nothing here
is of a patient or of a place: loops are named by their kind, without the destination they serve.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from node.address import not_listening
from node.loop import Loop
from plugins.errors import NadirError

ANSWER_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SILENCE_SECONDS = 5.0
MOST_CONNECTIONS = 16


class Vitals:
    """The counts of one process since it started; a restart begins at zero, as Prometheus expects of a counter.

    Parameters
    ----------
    roles
        Of this process.

    """

    def __init__(self, roles: Sequence[str]) -> None:
        self.registry = made = CollectorRegistry()
        self._loops: list[Loop] = []
        ProcessCollector(registry=made)
        GCCollector(registry=made)
        made.register(_Loops(self._loops))
        build = Gauge("nadir_build_info", "1, with the version that runs", ["version"], registry=made)
        build.labels(version("nadir")).set(1)
        role = Gauge("nadir_role", "1 for each role of this process", ["role"], registry=made)
        for name in roles:
            role.labels(name).set(1)
        self._answers = Histogram(
            "nadir_store_answer_seconds",
            "From the last byte of an object by C-STORE until it is on disk and answered",
            ["status"],
            buckets=ANSWER_BUCKETS,
            registry=made,
        )
        self._bytes = Counter("nadir_store_bytes", "Bytes that came by C-STORE and are kept", registry=made)
        self._requests = Counter(
            "nadir_http_requests",
            "HTTP requests by route and status",
            ["method", "route", "status"],
            registry=made,
        )
        self._seconds = Histogram(
            "nadir_http_request_seconds",
            "How long HTTP requests took, body and answer",
            ["route"],
            buckets=REQUEST_BUCKETS,
            registry=made,
        )

    def follow(self, loop: Loop) -> None:
        """Tell of a loop from now on."""
        self._loops.append(loop)

    def answered(self, status: int, seconds: float, size_bytes: int) -> None:
        """Count an object that came by C-STORE: the status of the answer, and how long that took."""
        self._answers.labels(f"{status:04X}").observe(seconds)
        if status == 0:
            self._bytes.inc(size_bytes)

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request; `route` is the template, never the address, which may name somebody."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def dead(self) -> list[str]:
        """Return the kinds of loops whose thread has ended though nobody stopped it."""
        return sorted({_kind(loop) for loop in self._loops if loop.is_dead})

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Loops(Collector):
    """The rounds of the loops, together for those of one kind."""

    def __init__(self, loops: list[Loop]) -> None:
        self._loops = loops

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        last = GaugeMetricFamily(
            "nadir_loop_last_round_timestamp_seconds",
            "When the slowest of these last began a round",
            labels=["loop"],
        )
        failed = CounterMetricFamily(
            "nadir_loop_failed_rounds", "Rounds that ended in an error", labels=["loop"]
        )
        for kind in sorted({_kind(loop) for loop in self._loops}):
            same = [loop for loop in self._loops if _kind(loop) == kind]
            if begun := [loop.began_at for loop in same if loop.began_at]:
                last.add_metric([kind], min(begun))
            failed.add_metric([kind], sum(loop.failed_rounds for loop in same))
        yield last
        yield failed


def _kind(loop: Loop) -> str:
    return loop.name.partition(" ")[0]


class VitalsServer:
    """`/alive`, `/health` and `/metrics` of one process, on a port of its own.

    `/alive` is 200 while its threads run; `/health` also wants the database to answer. No one has to say who he is:
    the port is for the network of those that watch, and the loopback by default. Who comes before `start` waits.

    Parameters
    ----------
    vitals
        What it tells.
    look
        Asks the database; raises a `NadirError` when it does not answer.
    host, port
        Where it listens; port 0 takes a free one.

    """

    def __init__(self, vitals: Vitals, look: Callable[[], object], host: str, port: int) -> None:
        class Handler(_Handler):
            told = vitals
            asked = staticmethod(look)

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise not_listening("metrics ", host, port, error, "metrics_port") from error
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="vitals", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End it, also before it was started."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: object, client_address: object) -> None:
        """Serve in a thread while there are places; who comes beyond them is sent away."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Give the place back."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: a peer that goes away is no event."""


class _Handler(BaseHTTPRequestHandler):
    timeout = SILENCE_SECONDS
    server_version, sys_version = "nadir", ""
    told: ClassVar[Vitals]
    asked: ClassVar[Callable[[], object]]

    def do_GET(self) -> None:
        """Answer one question."""
        if self.path == "/metrics":
            self._answer(200, self.told.text(), CONTENT_TYPE_PLAIN_0_0_4)
        elif self.path in ("/alive", "/health"):
            wrong = [f"the thread '{kind}' has ended" for kind in self.told.dead()]
            if not wrong and self.path == "/health":
                try:
                    type(self).asked()
                except NadirError as error:
                    wrong = [str(error)]
            body = {"status": "failing", "error": wrong[0]} if wrong else {"status": "ok"}
            self._answer(503 if wrong else 200, json.dumps(body).encode(), "application/json")
        else:
            self._answer(404, b'{"error": "there are /alive, /health and /metrics"}', "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: probes come every few seconds."""


__all__ = ["Vitals", "VitalsServer"]

"""The bounds of the HTTP port: how much, how long, how slowly, and that the node answers meanwhile."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Request
from figures import write_figure
from patience import PATIENCE_SECONDS, eventually
from web_site import WebSite

from node.settings import Settings
from node.web import guard
from node.web import server as web_server
from node.web.access import allow
from node.web.app import create_app
from node.web.server import WebServer
from store.accounts import SCOPES

pytestmark = pytest.mark.sec
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    made = WebSite(tmp_path, pacs_url="http://127.0.0.1:9/dicom-web")
    yield made
    made.stop()


def raw(port: int, *lines: str, body: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    sock.sendall("\r\n".join((*lines, "", "")).encode() + body)
    return sock


def status(sock: socket.socket) -> int:
    with sock:
        said = sock.recv(4096)
    return int(said.split()[1]) if said else 0


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(site: WebSite) -> None:
    head = ("POST /intake/study HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    assert status(raw(site.server.port, *head, "Content-Length: 1073741824")) == 413


def test_a_packed_body_is_refused_unread(site: WebSite) -> None:
    bomb = gzip.compress(b" " * 10_000)
    answer = site.client().post("/intake/study", content=bomb, headers={**JSON, "Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["GET /health?" + "x" * 5000 + " HTTP/1.1", "Host: h"], 414),
        (["GET /health HTTP/1.1", "Host: h", *[f"X-{n}: 1" for n in range(80)]], 431),
        (["GET /health HTTP/1.1", "Host: h", "X: " + "x" * 40_000], 431),
        (["GET /health HTTP/1.1"], 400),
        (["\x16\x03\x01\x02"], 400),
        (["POST /intake/study HTTP/1.1", "Host: localhost", "Content-Length: 3", "Transfer-Encoding: chunked"], 400),
    ],
)  # fmt: skip
def test_a_head_out_of_bounds_is_refused(site: WebSite, lines: list[str], expected: int) -> None:
    assert status(raw(site.server.port, *lines)) == expected
    assert site.client().get("/health").status_code == 200


def everything(sock: socket.socket) -> bytes:
    """Return what comes until the peer closes."""
    with sock:
        return b"".join(iter(lambda: sock.recv(4096), b""))


@pytest.mark.parametrize(
    ("target", "accept"),
    [("POST /intake/study", "*/*"), ("GET /health", "text/html"), (f"POST /{'x' * 5000}", "*/*")],
    ids=["body", "page", "long"],
)
def test_what_follows_a_body_of_two_lengths_is_no_request_and_the_connection_closes(
    site: WebSite, target: str, accept: str
) -> None:
    body = b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: h\r\n\r\n"
    lengths = (f"Content-Length: {len(body)}", "Transfer-Encoding: chunked")
    head = (f"{target} HTTP/1.1", "Host: localhost", f"Accept: {accept}")
    began = time.monotonic()
    said = everything(raw(site.server.port, *head, *lengths, body=body))
    assert time.monotonic() - began < web_server.HEAD_SECONDS / 3  # not for its silence
    assert said.startswith(b"HTTP/1.1 400 ") and said.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in said.lower()


@pytest.mark.parametrize(
    ("target", "field", "expected"),
    [("/intake/study", "Content-Encoding: gzip", 415), ("/intake/study", "Transfer-Encoding: chunked", 415),
     ("/nothing", "Origin: http://elsewhere", 403), ("/health", "Expect: 100-continue", 405)],
)  # fmt: skip
def test_the_body_of_a_refused_request_is_not_the_next_request(
    site: WebSite, target: str, field: str, expected: int
) -> None:
    body = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
    head = [f"POST {target} HTTP/1.1", "Host: localhost", field]
    if field.startswith("Transfer"):
        head.append("Content-Encoding: gzip")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        head.append(f"Content-Length: {len(body)}")
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    said = everything(raw(site.server.port, *head, body=body + last))
    assert [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]] == [expected, 200]


def test_the_limit_of_an_upload_is_the_settings(tmp_path: Path) -> None:
    router = APIRouter()

    @router.post("/upload")
    @allow(scopes=("sender",), is_upload=True)
    async def upload(request: Request) -> int:
        return sum([len(block) async for block in request.stream()])

    made = WebSite(tmp_path)
    app = create_app(Settings(home=tmp_path, max_request_bytes=100_000), made.database, routers=[router])
    server = WebServer(app, "127.0.0.1", 0)
    server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        assert client.post("/upload", content=b"x" * 100_000).json() == 100_000
        blocks = iter([b"x" * 50_000] * 3)
        assert client.post("/upload", content=blocks).status_code == 413
    assert server.stop()
    made.stop()


def test_a_sender_below_the_slowest_rate_is_given_up_and_a_pause_of_ours_is_not_the_senders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 2.0)
    router = APIRouter()

    @router.post("/upload")
    @allow(scopes=("sender",), is_upload=True)
    def upload_slowly(request: Request) -> str:
        time.sleep(3)
        return "done"

    @router.post("/read")
    @allow(scopes=("sender",), is_upload=True)
    async def read(request: Request) -> int:
        return len(await request.body())

    made = WebSite(tmp_path)
    app = create_app(Settings(home=tmp_path), made.database, routers=[router])
    server = WebServer(app, "127.0.0.1", 0)
    server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        assert client.post("/upload", content=b"x" * 1000).status_code == 200

    sent: list[bool] = []

    def trickle() -> Iterator[bytes]:
        for _ in range(300):
            sent.append(True)
            yield b"x"
            time.sleep(0.1)

    with (
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client,
        suppress(httpx.WriteError),  # cut off while it was still sending
    ):
        assert client.post("/read", content=trickle()).status_code == 408
    assert len(sent) < 300
    assert server.stop()
    made.stop()


def test_slowloris_connections_without_a_whole_head_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "HEAD_SECONDS", 2.0)
    site = WebSite(tmp_path)
    silent = socket.create_connection(("127.0.0.1", site.server.port), timeout=PATIENCE_SECONDS)
    trickling = socket.create_connection(("127.0.0.1", site.server.port), timeout=PATIENCE_SECONDS)
    used = raw(site.server.port, "GET /health HTTP/1.1", "Host: h")
    assert b"200 OK" in used.recv(4096)
    used.sendall(b"GET /hea")  # a second request that never ends
    with silent, trickling, used:
        closed_at = None
        for _ in range(600):
            try:
                trickling.sendall(b"G")
                time.sleep(0.1)
            except OSError:
                closed_at = time.monotonic()
                break
        assert closed_at is not None
        assert silent.recv(10) == b""
        while rest := used.recv(4096):  # the rest of the first answer, then the end
            assert b"HTTP/1.1 4" not in rest
    site.stop()


def test_slowloris_posts_hold_two_hundred_connections_and_the_node_still_answers(site: WebSite) -> None:
    head = (
        "POST /intake/study HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "Content-Length: 99",
    )
    with ExitStack() as held:
        for _ in range(200):
            held.enter_context(raw(site.server.port, *head, body=b"{"))
        seconds = []
        for _ in range(20):
            began = time.monotonic()
            assert site.client().get("/health").status_code == 200
            seconds.append(time.monotonic() - began)
    write_figure("health during 200 slow posts", answers=20, slowest_s=round(max(seconds), 3))


def test_slowloris_at_the_open_door_does_not_shut_the_others(site: WebSite) -> None:
    head = (
        "POST /login HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "Content-Length: 99",
    )
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(raw(site.server.port, *head, body=b"{"))
        assert site.client().get("/api/jobs").status_code == 200
        assert eventually(lambda: site.client().post("/login", json={}).status_code == 503)


def test_health_answers_while_every_thread_of_the_others_waits(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(
        "node.web.api.ledger.priors.listed", lambda *_, **__: release.wait(PATIENCE_SECONDS) and []
    )
    askers = [
        threading.Thread(target=lambda: site.client().get("/api/priors"), daemon=True) for _ in range(50)
    ]
    for asker in askers:
        asker.start()
    time.sleep(0.5)
    assert site.client().get("/health").status_code == 200
    release.set()
    for asker in askers:
        asker.join(PATIENCE_SECONDS)


@pytest.mark.parametrize("path", ["/health", "/login", "/static/nadir.css"])
def test_head_is_answered_as_get_without_the_body(site: WebSite, path: str) -> None:
    stranger = site.client()
    got, head = stranger.get(path), stranger.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.headers["content-length"] == str(len(got.content))


def test_a_method_that_a_place_does_not_know_is_answered_with_those_that_it_knows(site: WebSite) -> None:
    site.account("chief", "administrator")  # before there is one, everybody on this machine is let in
    stranger = site.client()
    answer = stranger.delete("/login")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert stranger.delete("/api/jobs").status_code == 401
    answer = site.client(Authorization=f"Bearer {site.token('t', *SCOPES)}").delete("/dicom-web/studies")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


def test_a_crowd_is_told_once_a_minute_in_words_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web_server, "MOST_CONNECTIONS", 3)
    site = WebSite(tmp_path, pacs_url="http://127.0.0.1:9/dicom-web")
    with ExitStack() as crowd:
        crowd.callback(site.stop)
        for _ in range(3):
            crowd.enter_context(socket.create_connection(("127.0.0.1", site.server.port)))
        for _ in range(5):
            assert status(raw(site.server.port, "GET /health HTTP/1.1", "Host: h")) == 503
    said = [record.getMessage() for record in caplog.records if record.levelno >= 30]
    assert said == ["action=web-full connections=3 answered=503"]

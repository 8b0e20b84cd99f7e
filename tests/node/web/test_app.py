"""The HTTP port: who may ask, what is written down before it is acknowledged, and how errors look."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from empty_database import empty_database
from outbox_rows import waiting_results
from patience import PATIENCE_SECONDS
from sqlmodel import select

from node.settings import Settings
from node.web.app import create_app
from node.web.server import WebServer
from plugins.errors import Broken, Unavailable
from store.database import Database
from store.objects import ObjectStore
from store.tables import Pull

UID = "1.2.840.99.1"
SECRET = "correct-horse"


class Site:
    """A running web server and a client for it."""

    def __init__(self, database: Database, home: Path, **settings: Any) -> None:
        self.database = database
        self.woken = 0
        settings = {"pacs_url": "http://127.0.0.1:9/dicom-web", **settings}
        app = create_app(Settings(home=home, **settings), database, told=self._wake)
        self.server = WebServer(app, "127.0.0.1", 0)
        self.server.start()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.server.port}", trust_env=False)

    def _wake(self) -> None:
        self.woken += 1

    def stop(self) -> None:
        self.client.close()
        assert self.server.stop()

    def waiting(self) -> list[tuple[str, int, bool]]:
        with self.database.reading() as session:
            return [(p.study_instance_uid, p.requests, p.everything) for p in session.exec(select(Pull))]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = empty_database(tmp_path)
    yield made
    made.dispose()


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    made = Site(database, tmp_path)
    yield made
    made.stop()


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Iterator[Site]:
    made = Site(database, tmp_path, hook_token=SECRET)
    yield made
    made.stop()


def one_sentence(response: httpx.Response) -> str:
    body = response.json()
    assert set(body) == {"error", "code"} and body["code"]
    text = str(body["error"])
    assert text and "\n" not in text and "Traceback" not in text
    return text


def test_a_told_study_is_in_sql_when_the_answer_comes_and_told_twice_it_waits_once(site: Site) -> None:
    for expected in (1, 2):
        answer = site.client.post("/intake/study", json={"study_instance_uid": UID, "orthanc_id": "ab-01"})
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
        assert site.waiting() == [(UID, expected, False)]
        assert site.woken == expected
    site.client.post("/intake/study", json={"study_instance_uid": UID, "everything": True})
    site.client.post("/intake/study", json={"study_instance_uid": UID})
    assert site.waiting() == [(UID, 4, True)]


def test_a_study_is_taken_by_a_uid_with_leading_zeros_as_its_images_are(site: Site) -> None:
    uid = "1.2.840.0113.05"
    assert site.client.post("/intake/study", json={"study_instance_uid": uid}).status_code == 202
    assert site.waiting() == [(uid, 1, False)]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 16_000, 400),
        (b"\xff\xfe\x00", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"study_instance_uid": 5}', 422),
        (b'{"study_instance_uid": ""}', 422),
        (b'{"study_instance_uid": "../../etc"}', 422),
        (b'{"study_instance_uid": "1.2.3\\n"}', 422),
        (b'{"study_instance_uid": "1..2"}', 422),
        (b'{"study_instance_uid": ".."}', 422),
        (b'{"study_instance_uid": "%s"}' % (b"1" * 65), 422),
        (b'{"study_instance_uid": "1.2", "orthanc_id": "<script>"}', 422),
        (b'{"study_instance_uid": "1.2", "more": 1}', 422),
        (b'{"study_instance_uid": "1.2"}' + b" " * 20_000, 413),
    ],
)
def test_a_bad_body_gets_one_sentence_and_leaves_nothing(site: Site, content: bytes, status: int) -> None:
    answer = site.client.post("/intake/study", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    one_sentence(answer)
    assert site.waiting() == [] and site.woken == 0


def test_what_is_not_json_by_name_is_not_read(site: Site) -> None:
    # A page in a browser may post plain text to this machine without asking; JSON it may not.
    answer = site.client.post(
        "/intake/study", content=b'{"study_instance_uid": "1.2"}', headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 415
    assert site.waiting() == []


def test_a_body_that_never_ends_is_cut_off(site: Site) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b" " * 4096

    try:
        answer = site.client.post(
            "/intake/study", content=endless(), headers={"Content-Type": "application/json"}
        )
    except httpx.WriteError:
        return  # cut off while it was still sending
    assert answer.status_code == 413


def test_a_body_that_never_comes_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.web.guard.BODY_SECONDS", 0.3)
    head = (
        "POST /intake/study HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "Content-Length: 9",
    )
    request = "\r\n".join((*head, "", "{")).encode()
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=PATIENCE_SECONDS) as sock:
        sock.sendall(request)
        assert b" 408 " in sock.recv(4096)


def test_without_a_pacs_a_told_study_is_refused(database: Database, tmp_path: Path) -> None:
    site = Site(database, tmp_path, pacs_url="")
    answer = site.client.post("/intake/study", json={"study_instance_uid": UID})
    assert answer.status_code == 409
    assert "pacs_url" in one_sentence(answer)
    site.stop()


PRIVATE = [("POST", "/intake/study"), ("GET", "/api/jobs"), ("GET", "/api/priors"), ("GET", "/nothing")]


@pytest.mark.parametrize(("method", "path"), PRIVATE)
@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", "Basic " + SECRET, f"bearer {SECRET}x", "Bearer é"]
)
def test_with_a_token_nobody_gets_in_without_it(guarded: Site, method: str, path: str, header: str) -> None:
    headers = {"Authorization": header.encode()} if header else {}
    answer = guarded.client.request(method, path, headers=headers, json={"study_instance_uid": UID})
    assert answer.status_code == 401
    assert SECRET not in answer.text
    assert guarded.waiting() == []


def test_with_the_token_every_door_opens(guarded: Site) -> None:
    headers = {"Authorization": "Bearer " + SECRET}
    told = guarded.client.post("/intake/study", headers=headers, json={"study_instance_uid": UID})
    assert told.status_code == 202
    assert guarded.client.get("/api/jobs", headers=headers).json()["jobs"] == []
    assert guarded.client.get("/api/priors", headers=headers).json()["priors"] == []


@pytest.mark.parametrize(("method", "path"), PRIVATE)
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"X-Real-IP": "1.2.3.4"},
        {"Host": "evil.example"},
    ],
)
def test_without_a_token_neither_a_proxy_nor_a_rebound_name_counts_as_this_machine(
    site: Site, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = site.client.request(method, path, headers=headers, json={"study_instance_uid": UID})
    assert answer.status_code == 403
    one_sentence(answer)
    assert site.waiting() == []


def test_without_a_token_another_machine_gets_nothing(database: Database, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; asks which of our addresses would be used
            address = probe.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no address besides loopback")
    if address.startswith("127."):
        pytest.skip("this machine has no address besides loopback")
    server = WebServer(create_app(Settings(home=tmp_path), database), "0.0.0.0", 0)
    server.start()
    with httpx.Client(trust_env=False) as client:
        assert (
            client.get(f"http://{address}:{server.port}/api/jobs", headers={"Host": "localhost"}).status_code
            == 403
        )
        assert client.get(f"http://{address}:{server.port}/health").status_code == 200
    assert server.stop()


def test_jobs_are_given_as_json(site: Site, tmp_path: Path) -> None:
    objects = ObjectStore(tmp_path / "store")
    waiting_results(site.database, objects, tmp_path, ["P@h:104"], count=2)
    (job,) = site.client.get("/api/jobs").json()["jobs"]
    assert (job["plugin"], job["state"], job["attempt"]) == ("p", "delivering", 1)
    assert site.client.get("/api/jobs", params={"state": "dead"}).json()["jobs"] == []
    bad = site.client.get("/api/jobs", params={"state": "x' OR 1=1"})
    assert bad.status_code == 400 and bad.json()["code"] == "no-such-state"
    one_sentence(bad)


def test_health_tells_whether_the_database_answers(
    site: Site, guarded: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for any_site in (site, guarded):
        assert any_site.client.get("/health").json() == {"status": "ok"}

    def gone(*_: object) -> None:
        with Database("postgresql://nadir:secret@127.0.0.1:1/rows").reading() as session:
            session.connection()

    monkeypatch.setattr(site.database, "reading", gone)
    monkeypatch.setattr(site.database, "transaction", gone)
    for answer in (
        site.client.get("/health"),
        site.client.get("/metrics"),
        site.client.post("/intake/study", json={"study_instance_uid": UID}),
    ):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "10"
        assert one_sentence(answer) == "The database cannot be used; nadir doctor says why."
    assert site.woken == 0


@pytest.mark.parametrize("fault", [ValueError("secret detail"), Broken("secret detail"), RecursionError()])
def test_a_fault_of_ours_is_one_sentence_without_detail(
    site: Site, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(site.database, "reading", fail)
    answer = site.client.get("/api/jobs")
    assert answer.status_code == 500
    assert "secret" not in one_sentence(answer)


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/api", "/../etc/passwd", "/%00"])
def test_no_other_page_exists_and_none_tells_what_does(site: Site, path: str) -> None:
    answer = site.client.get(path)
    assert answer.status_code == 404
    assert one_sentence(answer) == "Not Found"


def test_every_answer_forbids_sniffing_caching_and_scripts(site: Site) -> None:
    for path in ("/health", "/metrics", "/api/jobs", "/nothing"):
        headers = site.client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "server" not in headers
    assert site.client.put("/api/jobs").status_code == 405


def test_metrics_count_the_ledger_and_name_no_patient(site: Site, tmp_path: Path) -> None:
    objects = ObjectStore(tmp_path / "store")
    waiting_results(site.database, objects, tmp_path, ["P@h:104"], count=2, patient_id="CANARY")
    site.client.post("/intake/study", json={"study_instance_uid": UID})
    answer = site.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for line in (
        'nadir_jobs{state="delivering"} 1.0',
        'nadir_studies{state="settled"} 1.0',
        'nadir_deliveries{destination="P@h:104",state="pending"} 2.0',
        'nadir_pulls{state="waiting"} 1.0',
        "nadir_instances 1.0",
        "nadir_findings 0.0",
    ):
        assert line in lines
    assert "CANARY" not in answer.text and UID not in answer.text


def test_a_taken_port_is_unavailable_with_one_sentence(
    site: Site, database: Database, tmp_path: Path
) -> None:
    other = WebServer(create_app(Settings(home=tmp_path), database), "127.0.0.1", site.server.port)
    with pytest.raises(Unavailable, match=str(site.server.port)):
        other.start()
    assert other.stop()


def test_stopping_ends_the_thread_soon_although_a_client_hangs_on(database: Database, tmp_path: Path) -> None:
    site = Site(database, tmp_path)
    with socket.create_connection(("127.0.0.1", site.server.port)):
        site.client.get("/health")
        site.stop()

"""The audit trail of a node: that nothing is missed while a repository is down, and where it goes."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from audit_repository import Repository
from audit_schema import judge, told
from certificates import Authority
from dicom_series import make_series
from full_disk import full_disk
from patience import eventually
from small_node import SmallNode

from node import audit_events
from node.audit import Audit, audit_of
from node.audit_events import Patients, Peer
from node.audit_message import MINOR_FAILURE, AuditMessage
from node.audit_sinks import FileSink, SyslogSink, line_of, parse_syslog, syslog_frame
from node.scu import send_files
from node.serve import Node
from node.settings import Settings
from plugins.errors import NadirError, Refused, Unavailable
from store import accounts, audit
from store.audit_tables import AuditRecord
from store.database import Database

pytestmark = pytest.mark.sec
NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
PEER = Peer(name="CT1", address="10.0.0.7")
PATIENTS = Patients(key=b"k")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    made = SmallNode.make(tmp_path / "home")
    yield made
    made.database.dispose()


def trail(database: Database, *sinks: Any) -> Audit:
    made = Audit(database, source="NADIR", patients=PATIENTS, sinks=sinks)
    made.start()
    return made


def note(n: int) -> AuditMessage:
    return audit_events.signed_in(f"n{n}", "10.0.0.1")


def names(messages: list[str]) -> list[str]:
    return [judge(m).find("ActiveParticipant").attrib["UserID"] for m in messages]  # type: ignore[union-attr]


def test_nothing_is_missed_while_the_repository_is_down_nor_over_a_restart(
    small: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.audit_courier.LOOK_SECONDS", 0.2)
    first = Repository()
    sink = SyslogSink(f"tcp://127.0.0.1:{first.port}")
    running = trail(small.database, sink)
    running.record(note(0))
    assert names(first.wait_for(1)) == ["n0"]
    first.stop()
    for n in range(1, 30):
        running.record(note(n))
    running.stop()
    with small.database.reading() as session:
        assert audit.verify(session).records == 30
    again = trail(small.database, SyslogSink(f"tcp://127.0.0.1:{first.port}"))
    again.record(note(30))
    time.sleep(0.5)
    second = Repository(first.port)
    # In order and whole; a batch whose arrival was in doubt may come twice.
    got = list(dict.fromkeys(names(second.wait_for(30))))
    again.stop()
    second.stop()
    assert got == [f"n{n}" for n in range(1, 31)]


def test_a_sink_that_is_silent_keeps_nothing_from_sql_nor_from_another_sink_and_misses_no_order(
    small: SmallNode, tmp_path: Path
) -> None:
    goes_on, began, got = threading.Event(), threading.Event(), list[str]()

    def send(records: list[AuditRecord]) -> None:
        began.set()
        assert goes_on.wait(60)
        got.extend(names([record.message for record in records]))

    path = tmp_path / "audit.jsonl"
    running = trail(
        small.database, SimpleNamespace(name="silent", send=send, close=lambda: None), FileSink(path)
    )
    running.record(note(0))
    assert began.wait(60)
    for n in range(1, 4):
        running.record(note(n))
        assert eventually(lambda count=n + 1: len(small.rows(AuditRecord)) == count)
    assert eventually(lambda: path.is_file() and len(path.read_text().splitlines()) == 4)
    assert got == []
    goes_on.set()
    running.record(note(4))
    running.stop()
    assert got == [f"n{n}" for n in range(5)]


def test_messages_wait_in_memory_while_sql_does_not_answer(
    small: SmallNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = small.database.transaction
    is_down = threading.Event()

    def transaction() -> Any:
        if is_down.is_set():
            raise Unavailable("The database did not answer; try again.")
        return real()

    monkeypatch.setattr(small.database, "transaction", transaction)
    is_down.set()
    running = trail(small.database)
    for n in range(10):
        running.record(note(n))
    with caplog.at_level(logging.INFO):
        time.sleep(1.2)
        is_down.clear()
        running.stop()
    said = [message.split(" ")[0] for message in caplog.messages]
    assert said == ["action=audit-not-written", "action=audit-written"]
    assert names([r.message for r in small.rows(AuditRecord)]) == [f"n{n}" for n in range(10)]


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_commit_whose_answer_is_lost_puts_no_message_into_the_trail_twice(
    small: SmallNode, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    real, failures = small.database.transaction, [Unavailable("The connection broke; try again.")] * 2

    @contextmanager
    def transaction() -> Iterator[Any]:
        with real() as session:
            yield session
            if failures and not is_committed:
                raise failures.pop()
        if failures:
            raise failures.pop()

    monkeypatch.setattr(small.database, "transaction", transaction)
    running = trail(small.database)
    for n in range(5):
        running.record(note(n))
    assert eventually(lambda: len(failures) < 2)
    running.record(note(5))
    assert eventually(lambda: len(small.rows(AuditRecord)) >= 6)
    running.stop()
    assert names([r.message for r in small.rows(AuditRecord)]) == [f"n{n}" for n in range(6)]
    with small.database.reading() as session:
        assert audit.verify(session).broken_pk is None


def test_the_same_alert_is_told_once_a_minute(small: SmallNode) -> None:
    running = trail(small.database)
    for _ in range(100):
        running.record(note(1), once=("denied", "10.0.0.1"))
        running.record(note(2), once=("denied", "10.0.0.2"))
    for n in range(5000):
        running.record(replace(note(3), outcome=MINOR_FAILURE), once=("scan", n))
    running.stop()
    found = names([r.message for r in small.rows(AuditRecord)])
    assert found.count("n1") == found.count("n2") == 1
    assert len(found) < 1100


def test_what_was_told_while_the_clock_was_ahead_is_told_again_a_minute_after_it_was_set_back(
    small: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = SimpleNamespace()
    monkeypatch.setattr("node.audit.time", clocks)
    told = Audit(small.database, source="NADIR", patients=PATIENTS)
    # The machine has just started; its clock is an hour ahead, then right, then ahead again.
    for n, (wall, passed) in enumerate([(3600, 30), (0, 40), (0, 89), (0, 90), (7200, 100)]):
        clocks.time, clocks.monotonic = (lambda at=wall: at), (lambda at=passed: at)
        told.record(note(n), once=("denied", "10.0.0.1"))
    assert [message for _, message in told._waiting.queue] == [note(0), note(3)]


def test_whoever_reads_thousands_of_studies_within_a_minute_is_told_of_each(small: SmallNode) -> None:
    running = trail(small.database)
    for n in range(3000):
        running.record(note(n), once=("study-read", n))
        running.record(note(n), once=("study-read", n))
    running.stop()
    assert names([r.message for r in small.rows(AuditRecord)]) == [f"n{n}" for n in range(3000)]


def test_syslog_messages_have_the_head_of_rfc_5424_and_the_body_of_dicom() -> None:
    head, _, body = syslog_frame(NOON, "<AuditMessage/>").partition(b"\xef\xbb\xbf")
    priority, stamp, host, application, process, kind, data = head.decode().split(" ")[:7]
    assert (priority, stamp, application) == ("<85>1", "2026-03-01T12:00:00.250Z", "nadir")
    assert (kind, data, body) == ("DICOM+RFC3881", "-", b"<AuditMessage/>")
    assert host and process.isdecimal()


def test_syslog_by_udp_is_one_datagram_a_message(small: SmallNode) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        running = trail(small.database, SyslogSink(f"udp://127.0.0.1:{server.getsockname()[1]}"))
        running.record(note(1))
        running.record(note(2))
        got = [server.recv(65536).partition(b"\xef\xbb\xbf")[2].decode() for _ in range(2)]
        running.stop()
    assert names(got) == ["n1", "n2"]


def test_a_record_that_no_datagram_holds_is_told_in_the_log_and_those_after_it_are_sent(
    small: SmallNode, caplog: pytest.LogCaptureFixture
) -> None:
    patients = [PATIENTS.subject("H", f"P{n}") for n in range(400)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        running = trail(small.database, SyslogSink(f"udp://127.0.0.1:{server.getsockname()[1]}"))
        running.record(note(1))
        running.record(audit_events.exported("ada", "10.0.0.1", "export with names", patients))
        running.record(note(2))
        got = [server.recv(65536).partition(b"\xef\xbb\xbf")[2].decode() for _ in range(2)]
        running.stop()
    assert names(got) == ["n1", "n2"]
    told = [message for message in caplog.messages if "audit-" in message]
    assert len(told) == 1 and told[0].startswith("action=audit-too-long id=2 ")


def test_a_repository_by_udp_that_nobody_serves_is_told_and_gets_its_messages_later(
    small: SmallNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("node.audit_courier.LOOK_SECONDS", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = server.getsockname()
    running = trail(small.database, SyslogSink(f"udp://127.0.0.1:{address[1]}"))
    for n in range(3):
        running.record(note(n))
        assert eventually(lambda count=n + 1: len(small.rows(AuditRecord)) == count)
    assert eventually(lambda: "audit-sink-down" in caplog.text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.settimeout(60)
        got: list[str] = []
        while len(set(got)) < 3:  # what was sent as the port opened may come twice
            got.append(server.recv(65536).partition(b"\xef\xbb\xbf")[2].decode())
        running.stop()
    assert {*names(got)} == {"n0", "n1", "n2"}


def test_a_repository_by_tls_that_was_restarted_misses_nothing(tmp_path: Path, small: SmallNode) -> None:
    ours = Authority(tmp_path / "ours")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ours.issue("repository", hosts=("localhost",)))
    first = Repository(tls=context)
    url = f"tls://localhost:{first.port}"
    running = audit_of(Settings(home=small.home, audit_syslog=url, tls_ca=ours.ca), small.database)
    running.start()
    running.record(note(0))
    assert names(first.wait_for(1)) == ["n0"]
    first.stop()
    second = Repository(first.port, tls=context)
    for n in (1, 2):
        running.record(note(n))
        assert names(second.wait_for(n)) == [f"n{m}" for m in range(1, n + 1)]
    second.stop()
    third = Repository(first.port, tls=context)
    running.record(note(3))
    running.stop()
    assert names(third.wait_for(1)) == ["n3"]
    third.stop()


def test_syslog_by_tls_goes_to_the_right_repository_only(tmp_path: Path, small: SmallNode) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    pair = ours.issue("repository", hosts=("localhost",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    repository = Repository(tls=context)
    url = f"tls://localhost:{repository.port}"
    for authority, expected in ((theirs, 0), (ours, 1)):
        settings = Settings(home=small.home, audit_syslog=url, tls_ca=authority.ca)
        running = audit_of(settings, small.database)
        running.start()
        running.record(note(1))
        if expected:
            repository.wait_for(1)
        running.stop()
        assert (len(repository.frames) > 0) is bool(expected)
    repository.stop()


@pytest.mark.parametrize(
    "url", ["host:514", "http://host", "tcp://", "tcp://h/x", "tcp://u:p@h", "udp://h:x"]
)
def test_a_repository_that_cannot_be_understood_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="udp://host:port"):
        parse_syslog(url)


def test_a_file_takes_one_line_of_json_a_message_and_may_be_moved_away(
    small: SmallNode, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    running = trail(small.database, FileSink(path))
    running.record(note(1))
    deadline = time.monotonic() + 60
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    path.rename(tmp_path / "audit.1")
    running.record(note(2))
    running.stop()
    lines = [json.loads((tmp_path / name).read_text()) for name in ("audit.1", "audit.jsonl")]
    assert names([line["message"] for line in lines]) == ["n1", "n2"]
    assert lines[1]["sha256"] == audit.link(lines[0]["sha256"], lines[1]["message"])
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_file_on_a_disk_that_fills_loses_no_record(
    tmp_path: Path, is_killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    at = datetime(2025, 3, 1, tzinfo=UTC)
    rows = [AuditRecord(id=n, at=at, sha256="0" * 64, message=f"n{n}") for n in range(1, 5)]
    sink, one_bytes = FileSink(path), len(line_of(rows[0]))
    sink.send(rows[:1])
    with monkeypatch.context() as patch:
        if is_killed:  # nobody takes back what was written
            patch.setattr("node.audit_sinks.os.ftruncate", lambda *_: None)
        with full_disk(5 * one_bytes // 2), pytest.raises(OSError, match="File too large"):
            sink.send(rows[1:])
    torn_bytes = one_bytes if not is_killed else 5 * one_bytes // 2
    assert path.stat().st_size == torn_bytes
    sink.send(rows[1:])
    lines = path.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines if line.endswith("}")] == (
        [1, 2, 2, 3, 4] if is_killed else [1, 2, 3, 4]
    )
    assert len(lines) == (6 if is_killed else 4)


def test_a_whole_node_tells_each_thing_once_and_names_no_patient(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = Settings(
        home=home,
        dicom_host="127.0.0.1",
        dicom_port=0,
        http_port=0,
        callers=("CT1",),
        audit_file=tmp_path / "a.jsonl",
    )
    node = Node(settings, ["listener", "web"])
    with node.database.transaction() as session:
        accounts.add_account(session, "ada", "viewer", "seven tall green tables", NOON)
    node.start()
    try:
        files = make_series(
            tmp_path / "s", np.zeros((3, 8, 8)), patient_id="CANARY-ID", patient_name="CANARY^NAME"
        )
        to = {"ae_title": "NADIR", "host": "127.0.0.1", "port": node.dicom_port}
        send_files(files, calling_ae="CT1", **to)
        with pytest.raises(NadirError):
            send_files(files, calling_ae="STRANGER", **to)
        with httpx.Client(base_url=f"http://127.0.0.1:{node.http_port}", trust_env=False) as client:
            client.get("/api/findings", params={"patient_id": "CANARY-ID"})
            client.post("/login", json={"name": "ada", "password": "wrong"})
            client.post("/login", json={"name": "ada", "password": "seven tall green tables"})
            token = client.get("/login").text.partition('name="csrf_token" value="')[2].partition('"')[0]
            client.post("/logout", headers={"X-CSRF-Token": token})
    finally:
        node.stop()
    lines = [json.loads(line)["message"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert sorted(told(message) for message in lines) == [
        ("Application Activity", "Application Start", "0"),
        ("Application Activity", "Application Stop", "0"),
        ("DICOM Instances Transferred", "", "0"),
        ("Security Alert", "Node Authentication", "4"),
        ("Security Alert", "Use of Restricted Function", "4"),
        ("User Authentication", "Login", "0"),
        ("User Authentication", "Login", "4"),
        ("User Authentication", "Logout", "0"),
    ]
    assert "CANARY" not in "".join(lines)
    (received,) = [message for message in lines if "110104" in message]
    assert 'NumberOfInstances="3"' in received


def test_the_trail_names_patients_where_the_setting_says_so(tmp_path: Path, small: SmallNode) -> None:
    settings = Settings(home=small.home, audit_patients="identity")
    made = audit_of(settings, small.database)
    assert made.patients.subject("", "P1", "DOE^JANE").id == "P1"
    assert audit_of(Settings(home=small.home), small.database).patients.subject("", "P1").id != "P1"

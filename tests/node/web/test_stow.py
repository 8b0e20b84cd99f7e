"""The node's own DICOMweb door: what is pushed to it by STOW-RS, well and badly, by real clients and raw bytes."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from dicom_series import make_series
from orthanc_server import orthanc
from ports import free_port
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless
from small_node import SmallNode

from node.audit import Audit
from node.audit_events import Patients
from node.intake import Intake
from node.multipart import FilesBody
from node.pacs import DicomWeb
from node.receipts import Receipts
from node.settings import Settings
from node.web import stow
from node.web.access import rule_of
from node.web.app import create_app
from node.web.server import WebServer
from node.web.stow_answer import JSON, XML, form_of
from plugins.errors import Unavailable
from store import accounts
from store.tables import Association, Event, Instance, Study

RELATED = 'multipart/related; type="application/dicom"; boundary=b0'
NATIVE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


class Door:
    """A node's HTTP port."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.node = SmallNode.make(home)
        self.settings = Settings(home=home, **{"reserve_bytes": 0, **settings})
        self.intake = Intake(self.node.database, self.node.objects)
        app = create_app(self.settings, self.node.database, routers=[stow.router(self.settings, self.intake)])
        self.server = WebServer(app, "127.0.0.1", free_port())
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.port}/dicom-web"

    def post(
        self, body: Any, *, path: str = "/studies", content_type: str = RELATED, **headers: str
    ) -> httpx.Response:
        fields = {"Content-Type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}
        return httpx.post(self.url + path, content=body, headers=fields, timeout=120, trust_env=False)

    def held(self) -> set[str]:
        return {row.sop_instance_uid for row in self.node.rows(Instance)}

    def stop(self) -> None:
        assert self.server.stop()
        self.node.database.dispose()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path / "node")
    yield made
    made.stop()


def parts(*contents: bytes) -> bytes:
    head = b"--b0\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + content + b"\r\n" for content in contents) + b"--b0--\r\n"


def files(folder: Path, count: int = 3, **more: Any) -> list[Path]:
    return make_series(folder, np.zeros((count, 8, 8)), **more)


def headers(paths: Sequence[Path]) -> list[Dataset]:
    return [dcmread(path, stop_before_pixels=True) for path in paths]


def uids(paths: Sequence[Path]) -> set[str]:
    return {str(header.SOPInstanceUID) for header in headers(paths)}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said(answer: httpx.Response, tag: str) -> dict[str, int | None]:
    """Return SOP Instance UID to failure reason of one sequence of an answer."""
    items = answer.json().get(tag, {}).get("Value", [])
    return {
        item.get("00081155", {}).get("Value", [""])[0]: item.get("00081197", {}).get("Value", [None])[0]
        for item in items
    }


def test_what_is_stored_lies_there_byte_for_byte_and_the_study_may_settle(door: Door, tmp_path: Path) -> None:
    paths = files(tmp_path / "a")
    answer = door.post(parts(*(path.read_bytes() for path in paths)))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == JSON
    assert said(answer, "00081199") == dict.fromkeys(uids(paths))
    assert "00081190" not in answer.text  # no RetrieveURL: nothing is served here
    assert {item["00081150"]["Value"][0] for item in answer.json()["00081199"]["Value"]} == {
        headers(paths)[0].SOPClassUID
    }
    assert door.node.check_whole() == 3
    sent = {dcmread(path).PixelData for path in paths}
    kept = {dcmread(door.node.objects.path(row.sha256)).PixelData for row in door.node.rows(Instance)}
    assert kept == sent
    (association,) = door.node.rows(Association)
    assert (association.calling_ae, association.address) == ("STOW-RS", "127.0.0.1")
    assert association.closed_at is not None
    assert [study.state for study in door.node.rows(Study)] == ["receiving"]
    assert {row.source for row in door.node.rows(Instance)} == {"STOW-RS@127.0.0.1"}
    assert door.node.incoming() == []


@pytest.mark.parametrize(
    "syntax", [JPEG2000Lossless, JPEGLSLossless, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"]
)
def test_any_encoding_is_kept_as_it_comes(door: Door, tmp_path: Path, syntax: str) -> None:
    paths = files(tmp_path / "a", transfer_syntax=syntax)
    body = FilesBody(paths)
    answer = door.post(iter(body), content_type=body.content_type)  # chunked
    assert answer.status_code == 200
    assert {row.transfer_syntax_uid for row in door.node.rows(Instance)} == {syntax}


def test_sending_again_is_a_success_and_keeps_one(door: Door, tmp_path: Path) -> None:
    paths = files(tmp_path / "a")
    for _ in range(2):
        with closing(DicomWeb(door.url)) as client:
            assert {a.sop_instance_uid: a.status for a in client.store(paths)} == dict.fromkeys(
                uids(paths), 0
            )
    assert door.node.check_whole() == 3


def test_of_an_instance_that_comes_twice_in_one_body_the_last_one_counts(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = (make_series(tmp_path / name, np.full((3, 8, 8), hu)) for name, hu in (("a", 0), ("b", 1)))
    of_first, take = {dcmread(path).PixelData for path in first}, door.intake.take

    def slow_at_first(path: Path, **more: Any) -> Any:
        if dcmread(path).PixelData in of_first:
            time.sleep(0.3)
        return take(path, **more)

    monkeypatch.setattr(door.intake, "take", slow_at_first)
    body = FilesBody([path for pair in zip(first, last, strict=True) for path in pair])
    answer = door.post(b"".join(body), content_type=body.content_type)
    assert (answer.status_code, len(answer.json()["00081199"]["Value"])) == (200, 6)
    current = [row for row in door.node.rows(Instance) if row.current]
    assert {row.sop_instance_uid for row in current} == uids(last)
    counting = {dcmread(door.node.objects.path(row.sha256)).PixelData for row in current}
    assert counting == {dcmread(path).PixelData for path in last}


def test_different_instances_of_one_body_are_taken_in_together(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, take = threading.Barrier(stow.TAKEN_AT_ONCE, timeout=60), door.intake.take

    def with_others(path: Path, **more: Any) -> Any:
        together.wait()
        return take(path, **more)

    monkeypatch.setattr(door.intake, "take", with_others)
    paths = files(tmp_path, stow.TAKEN_AT_ONCE)
    body = FilesBody(paths)
    assert door.post(b"".join(body), content_type=body.content_type).status_code == 200
    assert door.held() == uids(paths)


def test_of_a_mixed_body_each_part_has_its_own_answer(door: Door, tmp_path: Path) -> None:
    (good,), (other,) = files(tmp_path / "a", 1), files(tmp_path / "b", 1, patient_id="P2")
    collision = dcmread(good)
    collision.StudyInstanceUID, collision.PatientID = "1.2.3.4", "P3"
    collision.save_as(tmp_path / "collision")
    bodies = (good.read_bytes(), (tmp_path / "collision").read_bytes(), b"no DICOM", other.read_bytes())
    answer = door.post(parts(*bodies[:1], *bodies[3:]))
    assert answer.status_code == 200
    answer = door.post(parts(*bodies))
    assert answer.status_code == 202
    assert said(answer, "00081199") == dict.fromkeys(uids([good, other]))
    assert said(answer, "00081198") == {collision.SOPInstanceUID: 0xC000}
    assert said(answer, "0008119A") == {"": 0xC000}
    assert sorted(event.text for event in door.node.rows(Event)) == [
        "not-part10 from STOW-RS@127.0.0.1",
        "uid-collision from STOW-RS@127.0.0.1",
    ]


def test_an_instance_cut_within_its_pixel_data_fails_by_its_name(door: Door, tmp_path: Path) -> None:
    whole, cut = files(tmp_path / "in", 2)
    answer = door.post(parts(whole.read_bytes(), cut.read_bytes()[:-50]))
    assert answer.status_code == 202
    assert said(answer, "00081198") == {uid: 0xC000 for uid in uids([cut])}
    assert door.held() == uids([whole])


def test_instances_of_another_study_than_the_address_names_fail(door: Door, tmp_path: Path) -> None:
    right, wrong = files(tmp_path / "a", 2), files(tmp_path / "b", 2, patient_id="P2")
    path = f"/studies/{headers(right)[0].StudyInstanceUID}"
    answer = door.post(parts(*(p.read_bytes() for p in (*right, *wrong))), path=path)
    assert answer.status_code == 202
    assert said(answer, "00081198") == dict.fromkeys(uids(wrong), 0xA900)
    assert door.held() == uids(right)
    assert door.post(parts(wrong[0].read_bytes()), path=path).status_code == 409
    assert door.node.incoming() == []


def test_the_answer_is_xml_when_that_is_asked_for(door: Door, tmp_path: Path) -> None:
    (path,) = files(tmp_path / "a", 1)
    answer = door.post(parts(path.read_bytes(), b"none"), Accept=XML)
    assert (answer.status_code, answer.headers["content-type"]) == (202, XML)
    root = ElementTree.fromstring(answer.content)
    assert root.tag == f"{NATIVE}NativeDicomModel"
    found = {
        attribute.get("keyword"): [value.text for value in attribute.iter(f"{NATIVE}Value")]
        for attribute in root
    }
    assert found == {
        "ReferencedSOPSequence": [headers([path])[0].SOPClassUID, headers([path])[0].SOPInstanceUID],
        "OtherFailuresSequence": [str(0xC000)],
    }
    assert door.post(parts(path.read_bytes()), Accept="text/html").status_code == 406


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", JSON), ("*/*", JSON), (XML, XML), ("application/xml", XML), ("application/json", JSON),
        (f"{XML};q=0.5, {JSON}", JSON), (f"{XML}, {JSON};q=0.5", XML), ("image/png", None), (f"{XML};q=x", None),
    ],
)  # fmt: skip
def test_the_form_of_the_answer_is_the_best_that_is_accepted(accept: str, form: str | None) -> None:
    assert form_of(accept) == form


@pytest.mark.parametrize(
    "content_type",
    [
        "", "application/dicom", "application/json", 'multipart/related; type="application/dicom+json"; boundary=b0',
        "multipart/form-data; boundary=b0", "multipart/mixed; boundary=b0",
    ],
)  # fmt: skip
def test_another_type_of_body_is_refused(door: Door, tmp_path: Path, content_type: str) -> None:
    (path,) = files(tmp_path / "a", 1)
    assert door.post(parts(path.read_bytes()), content_type=content_type).status_code == 415
    assert door.held() == set()


def test_a_type_that_is_not_quoted_or_not_there_is_understood(door: Door, tmp_path: Path) -> None:
    (path,) = files(tmp_path / "a", 1)
    for kind in ("multipart/related; type=application/dicom; boundary=b0", "multipart/related; boundary=b0"):
        assert door.post(parts(path.read_bytes()), content_type=kind).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"x" * 100, b"--b0--\r\n", b"--b0\r\n" + b"h" * 20_000, parts(b"abc")[:-12]]
)
def test_what_is_no_multipart_body_is_refused_and_leaves_nothing(door: Door, body: bytes) -> None:
    assert door.post(body).status_code == 400
    assert door.held() == set()
    assert door.node.incoming() == []


def test_a_body_that_breaks_off_keeps_its_whole_parts_and_says_that_it_did(
    door: Door, tmp_path: Path
) -> None:
    paths = files(tmp_path / "a")
    body = parts(*(path.read_bytes() for path in paths))
    assert door.post(body[:-600]).status_code == 400
    assert door.held() == uids(paths[:2])
    assert door.node.incoming() == []


def test_a_client_that_goes_away_leaves_nothing_torn_behind(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.web.stow.BLOCK_BYTES", 100)
    paths = files(tmp_path / "a")
    body = parts(*(path.read_bytes() for path in paths))
    with socket.create_connection(("127.0.0.1", door.server.port)) as connection:
        head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {RELATED}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-600])
        wait_for(lambda: len(door.held()) == 2)
    wait_for(lambda: all(row.closed_at for row in door.node.rows(Association)))
    assert door.held() == uids(paths[:2])
    assert door.node.incoming() == []


def test_a_body_or_a_part_that_is_too_large_is_cut_off(tmp_path: Path) -> None:
    door = Door(tmp_path / "node", max_object_bytes=2000, max_request_bytes=100_000)
    try:
        paths = files(tmp_path / "a", 2)
        body = parts(paths[0].read_bytes(), b"x" * 3000, paths[1].read_bytes())
        assert door.post(body).status_code == 413
        assert door.held() <= uids(paths[:1])
        assert door.post(iter([b"--b0\r\n\r\n", *[b"x" * 1000] * 200])).status_code == 413
        with socket.create_connection(("127.0.0.1", door.server.port), timeout=120) as connection:
            head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {RELATED}\r\n"
            connection.sendall(f"{head}Content-Length: 100001\r\n\r\n".encode())
            assert b" 413 " in connection.recv(1000)  # before a byte of the body came
        assert door.node.incoming() == []
    finally:
        door.stop()


@pytest.mark.sec
def test_a_packed_body_as_bombs_are_is_refused_unread(door: Door, tmp_path: Path) -> None:
    bomb = gzip.compress(parts(bytes(1 << 20)))
    assert door.post(bomb, Content_Encoding="gzip").status_code == 415
    assert door.held() == set()


def test_a_disk_filled_to_its_reserve_is_told_before_and_between(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(tmp_path / "a")
    full = Door(tmp_path / "full", reserve_bytes=1000)
    try:
        free = [10_000]
        monkeypatch.setattr(full.intake.objects, "free_bytes", lambda: free[0])
        free[0] = 10
        answer = full.post(parts(paths[0].read_bytes()))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        room = iter([10_000, 10_000])
        monkeypatch.setattr(full.intake.objects, "free_bytes", lambda: next(room, 10))
        answer = full.post(parts(*(path.read_bytes() for path in paths)))
        assert answer.status_code == 202
        assert list(said(answer, "00081198").values()) == [0xA700, 0xA700]
        assert full.node.incoming() == []
    finally:
        full.stop()


def test_a_database_that_does_not_answer_is_no_success(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Unavailable("locked")

    (path,) = files(tmp_path / "a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(door.intake, "take", fail)
        answer = door.post(parts(path.read_bytes()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert said(answer, "00081198") == {next(iter(uids([path]))): 0xA700}
    assert door.post(parts(path.read_bytes())).status_code == 200


def test_what_a_request_brought_is_told_in_the_log_when_the_database_is_away_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("locked")

    small = SmallNode.make(tmp_path / "node")
    trail = Audit(small.database, source="NADIR", patients=Patients(key=b"k"))
    settings, intake = Settings(home=small.home, reserve_bytes=0), Intake(small.database, small.objects)
    routers = [stow.router(settings, intake, receipts=Receipts(trail, "NADIR"))]
    server = WebServer(create_app(settings, small.database, routers=routers), "127.0.0.1", free_port())
    server.start()
    monkeypatch.setattr(stow, "close_association", fail)
    body = parts(*(path.read_bytes() for path in files(tmp_path / "a", 2)))
    url = f"http://127.0.0.1:{server.port}/dicom-web/studies"
    answer = httpx.post(url, content=body, headers={"Content-Type": RELATED}, timeout=120, trust_env=False)
    assert server.stop()
    small.database.dispose()
    assert answer.status_code == 200
    (lost,) = [text for text in caplog.messages if text.startswith("action=association-not-closed")]
    assert lost.endswith("error=Unavailable source=STOW-RS@127.0.0.1 studies=1 instances=2 refused=0")


def test_more_requests_than_are_served_at_one_time_are_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(tmp_path / "node", max_stow_requests=1)
    begun, go_on = threading.Event(), threading.Event()
    free_bytes = door.intake.objects.free_bytes

    def asked() -> int:  # by who has a place
        begun.set()
        return free_bytes()

    monkeypatch.setattr(door.intake.objects, "free_bytes", asked)
    try:
        (path,) = files(tmp_path / "a", 1)

        def slow() -> Iterator[bytes]:
            yield b"--b0\r\n\r\n"
            go_on.wait(60)
            yield path.read_bytes() + b"\r\n--b0--"

        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(door.post(slow()).status_code))
        thread.start()
        assert begun.wait(60)
        refused = door.post(parts(path.read_bytes()))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        go_on.set()
        thread.join(60)
        assert answers == [200]
        assert door.post(parts(path.read_bytes())).status_code == 200
    finally:
        door.stop()


@pytest.mark.sec
def test_authz_matrix_only_a_token_with_the_scope_of_senders_may_store(tmp_path: Path) -> None:
    door = Door(tmp_path / "node")
    try:
        (path,) = files(tmp_path / "a", 1)
        with door.node.database.transaction() as session:
            now = door.node.database.now()
            sender, reader = (accounts.add_token(session, n, (n,), now, None) for n in ("sender", "api"))
        body = parts(path.read_bytes())
        assert door.post(body).status_code == 401
        assert door.post(body, Authorization=f"Bearer {reader}").status_code == 403
        assert door.held() == set()
        assert door.post(body, Authorization=f"Bearer {sender}").status_code == 200
    finally:
        door.stop()


def test_orthanc_pushes_a_study_as_a_stow_client(door: Door, tmp_path: Path) -> None:
    paths = files(tmp_path / "a", 12)
    servers = {"Servers": {"node": [f"{door.url}/"]}, "Enable": True, "Root": "/dicom-web/"}
    with orthanc(extra={"DicomWeb": servers}) as server:
        ids = [server.upload(path)["ID"] for path in paths]
        answer = httpx.post(
            f"{server.url}/dicom-web/servers/node/stow",
            content=json.dumps({"Resources": ids, "Synchronous": True}),
            timeout=120,
            trust_env=False,
        )
        assert answer.status_code == 200, server.log()
    assert door.held() == uids(paths)
    assert door.node.check_whole() == 12


def test_every_route_of_the_door_says_who_may_use_it(door: Door) -> None:
    routes = stow.router(door.settings, door.intake).routes
    rules = [rule_of(getattr(route, "endpoint", None)) for route in routes]
    assert [(rule.role, set(rule.scopes), rule.is_upload) for rule in rules if rule] == [
        ("physicist", {"sender"}, True)
    ] * 2
    assert len(routes) == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [("/studyes", 404), ("/studies/1.2.3/series", 404), ("/series", 404), ("/studies/", 307)],
)
def test_an_address_that_is_not_there_is_told_before_the_body_is_judged(
    door: Door, path: str, status: int
) -> None:
    for headers in ({}, {"Content-Encoding": "gzip"}):
        answer = door.post(b"x" * 30_000, path=path, **headers)
        assert answer.status_code == status
        assert answer.headers.get("location", "").endswith("/dicom-web/studies") == (status == 307)
    strange = door.post(b"x" * 30_000, path=path, x_forwarded_for="10.0.0.1")
    assert strange.status_code == 403  # who may not ask learns nothing
    with socket.create_connection(("127.0.0.1", door.server.port), timeout=120) as connection:
        head = f"POST /dicom-web{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {RELATED}\r\n"
        connection.sendall(f"{head}Content-Length: 30000\r\n\r\n".encode())
        assert f" {status} ".encode() in connection.recv(1000)  # before a byte of the body came


@pytest.mark.parametrize(
    ("size", "fault"), [(100, "ends before its last delimiter"), (20_000, "has an endless header")]
)
def test_a_body_whose_lines_end_with_lf_alone_is_refused_with_that_reason(
    door: Door, size: int, fault: str
) -> None:
    answer = door.post(parts(b"x" * size).replace(b"\r\n", b"\n"))
    assert answer.status_code == 400
    assert f"{fault}, or its lines do not end with CR LF" in answer.json()["error"]

"""DICOMweb on the node's own origin: what is passed on to the PACS, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicom_series import make_series
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from stub_pacs import StubPacs, stub_pacs
from web_site import WebSite

from node.audit_message import AuditMessage
from node.intake import Intake
from node.web import dicom_web
from node.web.asked import asked
from node.web.pacs_proxy import Addresses
from node.web.site import Site
from store import accounts
from store.objects import ObjectStore
from store.upload_files import source_of

INSTANCE = "studies/1.2.3/series/1.2.4/instances/1.2.5"
PART = b"--x\r\nContent-Type: application/octet-stream\r\n\r\n\x00\x01\r\n--x--\r\n"
MULTIPART = {"Content-Type": 'multipart/related; type="application/octet-stream"; boundary=x'}
STORED = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[StubPacs, WebSite, dict[str, httpx.Client]]]:
    with stub_pacs() as pacs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 10)
        site = WebSite(tmp_path_factory.mktemp("node"), pacs_url=pacs.url.replace("//", "//reader:hush@"))
        people = {"vera": "viewer", "phil": "physicist"}
        for name, role in people.items():
            site.account(name, role)
        yield pacs, site, {name: site.signed_in(name) for name in people}
        site.stop()


@pytest.fixture
def pacs(running: tuple[StubPacs, WebSite, dict[str, httpx.Client]]) -> StubPacs:
    running[0].status, running[0].headers = 200, {"Content-Type": "application/dicom+json"}
    running[0].body = b"[]"
    running[0].asked.clear()
    return running[0]


@pytest.fixture
def site(running: tuple[StubPacs, WebSite, dict[str, httpx.Client]]) -> WebSite:
    return running[1]


@pytest.fixture
def vera(running: tuple[StubPacs, WebSite, dict[str, httpx.Client]]) -> httpx.Client:
    """Return a viewer's client."""
    return running[2]["vera"]


@pytest.fixture
def phil(running: tuple[StubPacs, WebSite, dict[str, httpx.Client]]) -> httpx.Client:
    """Return a physicist's client."""
    return running[2]["phil"]


@pytest.mark.parametrize(
    "path",
    [
        "studies",
        "series",
        "studies/1.2.3/series",
        "studies/1.2.3/metadata",
        "studies/1.2.3/series/1.2.4/metadata",
        "studies/1.2.3/series/1.2.4/instances",
        INSTANCE,
        f"{INSTANCE}/frames/1,2",
        f"{INSTANCE}/frames/1/rendered",
        f"{INSTANCE}/rendered",
        f"{INSTANCE}/bulk/00420011",
        f"{INSTANCE}/bulkdata/52009229/1/00289145",
    ],
)
def test_queries_and_retrieves_are_asked(path: str) -> None:
    found = asked(path)
    assert found is not None and found.path == path
    if path.startswith(INSTANCE):
        assert (found.study, found.series, found.sop) == ("1.2.3", "1.2.4", "1.2.5")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "../system",
        "studies/..",
        "studies/1..2",
        "studies/1.2.3/../../system",
        "studies/1.2.3/archive",
        "studies/1.2.3?x=1",
        "studies/1.2.3#x",
        "studies//series",
        "studies/1.2.3/series/1.2.4/instances/1.2.5/bulk/../../..",
        f"{INSTANCE}/frames/1;2",
        "studies/" + "1" * 65,
        "studies/1.2.3\n",
        "instances/abc/file",
        "wado-uri",
    ],
)
def test_anything_else_is_not(path: str) -> None:
    assert asked(path) is None


@given(st.text(alphabet="./%studies1\\?#:@", max_size=40))
def test_no_accepted_path_leaves_the_root(path: str) -> None:
    found = asked(path)
    if found is not None:
        assert ".." not in path and "//" not in path and "%" not in path and "\\" not in path


@given(st.binary(max_size=200), st.lists(st.integers(1, 60), max_size=40), st.booleans())
def test_addresses_are_replaced_wherever_the_blocks_end(
    noise: bytes, sizes: list[int], escaped: bool
) -> None:
    address = b"http://10.0.0.7:8042/dicom-web/studies/1.2.3/series/1.2.4/instances/1.2.5/bulk/00420011"
    written = address.replace(b"/", b"\\/") if escaped else address
    clean = noise.replace(b'"', b"'").replace(b"http", b"")
    whole = (
        b'[{"BulkDataURI" : "'
        + written
        + b'"}, "'
        + clean
        + b'", "https://elsewhere.example/x"]'
        + b" " * 9000
    )
    addresses, out, at = Addresses("https://node.example/dicom-web"), b"", 0
    for size in (*sizes, len(whole)):
        out += addresses.feed(whole[at : at + size])
        at += size
    out += addresses.rest()
    tail = b"/studies/1.2.3/series/1.2.4/instances/1.2.5/bulk/00420011"
    new = b"https://node.example/dicom-web" + (tail.replace(b"/", b"\\/") if escaped else tail)
    assert out == whole.replace(written, new)


def test_a_query_goes_to_the_pacs_and_its_addresses_come_back_as_ours(
    site: WebSite, pacs: StubPacs, vera: httpx.Client
) -> None:
    pacs.body = json.dumps([{"00081190": {"vr": "UR", "Value": [f"{pacs.url}/studies/1.2.3"]}}]).encode()
    answer = vera.get("/dicom-web/studies?PatientID=7&limit=2")
    assert answer.json()[0]["00081190"]["Value"] == [f"{site.url}/dicom-web/studies/1.2.3"]
    method, target, _, _ = pacs.asked[-1]
    assert (method, target) == ("GET", "/pacs/rs/studies?PatientID=7&limit=2")


def test_the_pacs_learns_nothing_of_the_person_and_the_browser_nothing_of_the_password(
    pacs: StubPacs, vera: httpx.Client
) -> None:
    answer = vera.get("/dicom-web/studies", headers={"Range": "bytes=0-", "X-Forwarded-For": "10.1.1.1"})
    _, _, sent, _ = pacs.asked[-1]
    assert "cookie" not in sent and "x-csrf-token" not in sent and "x-forwarded-for" not in sent
    assert sent["authorization"].startswith("Basic ") and sent["range"] == "bytes=0-"
    assert "hush" not in answer.text + str(answer.headers)


def test_frames_come_back_byte_by_byte_with_their_header(pacs: StubPacs, vera: httpx.Client) -> None:
    pacs.headers, pacs.body = dict(MULTIPART), PART
    asked_for = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    answer = vera.get(f"/dicom-web/{INSTANCE}/frames/1", headers={"Accept": asked_for})
    assert answer.content == PART
    assert answer.headers["content-type"] == MULTIPART["Content-Type"]
    assert answer.headers["cache-control"] == "no-store"
    assert pacs.asked[-1][2]["accept"] == asked_for


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", ""])
def test_what_a_browser_would_run_as_a_page_is_not_passed_on(
    kind: str, pacs: StubPacs, vera: httpx.Client
) -> None:
    pacs.headers, pacs.body = ({"Content-Type": kind} if kind else {}), b"<script>alert(1)</script>"
    answer = vera.get(f"/dicom-web/{INSTANCE}/rendered")
    assert answer.status_code == 502
    assert "script" not in answer.text


@pytest.mark.parametrize(
    ("status", "told"), [(404, 404), (406, 406), (401, 502), (403, 502), (500, 502), (302, 502), (503, 502)]
)
def test_refusals_of_the_pacs_are_one_sentence(
    status: int, told: int, pacs: StubPacs, vera: httpx.Client
) -> None:
    pacs.status, pacs.headers["Location"] = status, "http://169.254.169.254/"
    answer = vera.get("/dicom-web/studies/1.2.3/metadata")
    assert answer.status_code == told
    assert set(answer.json()) == {"error", "code"} and "169.254" not in answer.text
    assert len(pacs.asked) == 1


def test_a_pacs_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    site = WebSite(tmp_path, pacs_url="http://127.0.0.1:9/dicom-web")
    answer = site.client().get("/dicom-web/studies")
    assert (answer.status_code, answer.json()["error"]) == (502, "the PACS does not answer")
    site.stop()


def test_what_a_physicist_stores_from_a_page_goes_to_the_pacs(pacs: StubPacs, phil: httpx.Client) -> None:
    answer = phil.post("/dicom-web/studies", content=PART, headers=STORED)
    assert answer.status_code == 200
    method, target, sent, body = pacs.asked[-1]
    assert (method, target, body) == ("POST", "/pacs/rs/studies", PART)
    assert sent["content-type"] == STORED["Content-Type"]


def test_a_viewer_stores_nothing_and_nobody_without_the_token_of_the_session(
    pacs: StubPacs, vera: httpx.Client, phil: httpx.Client
) -> None:
    for refused in (
        vera.post("/dicom-web/studies", content=PART, headers=STORED),
        phil.post("/dicom-web/studies", content=PART, headers={**STORED, "X-CSRF-Token": ""}),
    ):
        assert refused.status_code == 403
    assert pacs.asked == []


def test_what_a_program_stores_is_for_the_node_itself(site: WebSite, pacs: StubPacs) -> None:
    token = site.token("scanner", "sender")
    answer = site.client(Authorization=f"Bearer {token}").post(
        "/dicom-web/studies", content=PART, headers=STORED
    )
    assert answer.status_code == 409  # it is no DICOM, the node's own door says
    assert pacs.asked == []


def test_what_was_uploaded_comes_from_the_node(
    site: WebSite, pacs: StubPacs, vera: httpx.Client, tmp_path: Path
) -> None:
    (path,) = make_series(tmp_path, np.zeros((1, 4, 4)))
    study = dcmread(path).StudyInstanceUID
    objects = ObjectStore(site.settings.home / "store")
    incoming = objects.temporary()
    incoming.write_bytes(path.read_bytes())
    Intake(site.database, objects).take(incoming, source=source_of("ada"))
    (row,) = vera.get("/dicom-web/studies", params={"StudyInstanceUID": study}).json()
    assert row["0020000D"]["Value"] == [study]
    assert len(vera.get(f"/dicom-web/studies/{study}/metadata").json()) == 1
    assert pacs.asked == []


def test_opening_a_study_is_told_once_and_listing_it_is_not(tmp_path: Path, pacs: StubPacs) -> None:
    told: list[AuditMessage] = []
    whole = WebSite(tmp_path, pacs_url=pacs.url)
    site = Site(
        settings=whole.settings,
        database=whole.database,
        objects=None,  # type: ignore[arg-type]
        frame=None,  # type: ignore[arg-type]
        record=lambda message, once=None: told.append(message) is None,
    )
    whole.app.router.routes[:] = [
        r for r in whole.app.router.routes if getattr(r, "path", "") != "/dicom-web/{path:path}"
    ] + dicom_web.router(site).routes
    client: httpx.Client = whole.client()
    client.get("/dicom-web/studies/1.2.3/series")
    assert told == []
    pacs.headers = dict(MULTIPART)
    for number in (1, 2):
        client.get(f"/dicom-web/{INSTANCE}/frames/{number}")
    (message,) = told
    assert message.event.value == "110103"
    assert [subject.id for subject in message.subjects] == ["1.2.3"]
    whole.stop()

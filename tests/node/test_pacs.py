"""The DICOMweb client: against a real Orthanc, and against servers that misbehave."""

from __future__ import annotations

import errno
import gzip
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicom_series import make_series
from orthanc_server import OrthancServer, orthanc
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from scripted_pacs import Body, multipart, names, scripted
from small_node import SmallNode

from node.intake import Intake
from node.pacs import DicomWeb, HeldStudy, without_credentials
from node.prior_sources import open_source
from node.priors import PriorFetcher, request
from node.settings import Settings
from plugins.errors import NadirError, Refused, Unavailable
from store import priors

JSON = {"Content-Type": "application/dicom+json"}


@pytest.fixture(scope="module")
def server() -> Iterator[OrthancServer]:
    with orthanc() as running:
        yield running


@pytest.fixture
def pacs(server: OrthancServer) -> Iterator[DicomWeb]:
    client = DicomWeb(server.dicomweb)
    yield client
    client.close()


def dataset_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    meta = dcmread(path, stop_before_pixels=True).file_meta
    return content[132 + 12 + meta.FileMetaInformationGroupLength :]


# --- a real Orthanc ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_compressed_instance_comes_back_byte_for_byte(
    server: OrthancServer, pacs: DicomWeb, tmp_path: Path, syntax: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 500, (2, 32, 32))
    paths = make_series(tmp_path / "sent", noise, transfer_syntax=syntax, patient_id=f"Z{syntax}")
    for path in paths:
        server.upload(path)
    first = dcmread(paths[0])
    study, series = first.StudyInstanceUID, first.SeriesInstanceUID
    pacs.retrieve_instance(study, series, first.SOPInstanceUID, tmp_path / "one.dcm")
    assert dcmread(tmp_path / "one.dcm").file_meta.TransferSyntaxUID == syntax
    assert dataset_bytes(tmp_path / "one.dcm") == dataset_bytes(paths[0])
    came = {dcmread(p).SOPInstanceUID: p for p in pacs.retrieve_series(study, series, names(tmp_path))}
    assert {uid: dataset_bytes(p) for uid, p in came.items()} == {
        dcmread(p).SOPInstanceUID: dataset_bytes(p) for p in paths
    }


def test_query_finds_every_instance_over_many_pages(
    server: OrthancServer, pacs: DicomWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.pacs.PAGE", 4)
    paths = make_series(tmp_path, np.zeros((11, 8, 8)), patient_id="PAGES", study_date="20300102")
    for path in paths:
        server.upload(path)
    headers = [dcmread(path) for path in paths]
    listed = pacs.study_instances(headers[0].StudyInstanceUID)
    assert {i.sop_instance_uid for i in listed} == {h.SOPInstanceUID for h in headers}
    assert {i.series_instance_uid for i in listed} == {headers[0].SeriesInstanceUID}
    assert {i.sop_class_uid for i in listed} == {headers[0].SOPClassUID}
    recent = tuple(pacs.recent_studies(date(2030, 1, 2)))
    assert recent == (HeldStudy(study_instance_uid=headers[0].StudyInstanceUID, instances=11),)
    assert tuple(pacs.recent_studies(date(2030, 1, 3))) == ()


@pytest.mark.parametrize("patient_id", [*(f"E{sign}7" for sign in " /+&#%^*Ü"), "E.-_~7"])
def test_earlier_studies_are_found_whatever_the_patient_id_is_and_nobody_elses_are_taken(
    server: OrthancServer, tmp_path: Path, patient_id: str
) -> None:
    own, other = "20240101", "20250615"
    more = {"SpecificCharacterSet": "ISO_IR 192"}
    array = np.zeros((1, 4, 4))
    (earlier,) = make_series(tmp_path / "own", array, patient_id=patient_id, study_date=own, **more)
    (foreign,) = make_series(tmp_path / "other", array, patient_id="EX7", study_date=other, **more)
    (today,) = make_series(tmp_path / "today", array, patient_id=patient_id, study_date="20260301", **more)
    for path in (earlier, foreign):
        server.upload(path)
    node = SmallNode.make(tmp_path / "node")
    intake = Intake(node.database, node.objects)
    study = intake.take(today, source="CT1").study_pk
    source = open_source(server.dicomweb, Settings(home=node.home), node.objects)
    with node.database.transaction() as session:
        request(session, study, [source.name], now=node.database.now())
    fetcher = PriorFetcher(node.database, intake, source)
    while fetcher.tick(node.database.now()):
        pass
    source.close()
    with node.database.reading() as session:
        (found,) = priors.earlier(session, study)
    assert {one.sop_instance_uid for one in found.objects} == {str(dcmread(earlier).SOPInstanceUID)}
    node.database.dispose()


def test_a_pacs_that_finds_a_patient_by_his_id_is_asked_for_nobody_else() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.query.decode().split("&")[0])
        found = "E%2B7" in asked[-1] and "offset=0" in str(request.url)
        row = {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "00100020": {"vr": "LO", "Value": ["E+7"]}}
        return httpx.Response(200, headers=JSON, content=json.dumps([row] if found else []))

    pacs, since, until = scripted(handle), date(2024, 1, 1), date(2026, 1, 1)
    assert [one.patient_id for one in pacs.patient_studies("E+7", since, until)] == ["E+7"]
    assert asked == ["PatientID=E%2B7"] * 2
    asked.clear()
    assert list(pacs.patient_studies("E 1/2 Ü", since, until)) == []
    assert asked == ["PatientID=E%201/2%20%C3%9C", "PatientID=E?1?2?*"]
    asked.clear()
    assert list(pacs.patient_studies("患者", since, until)) == []
    assert asked == ["PatientID=%E6%82%A3%E8%80%85"]  # the wildcards would be everybody


def test_a_study_that_the_pacs_does_not_know_has_no_instances(pacs: DicomWeb, tmp_path: Path) -> None:
    assert pacs.study_instances("1.2.3.4") == ()
    with pytest.raises(Refused) as refused:
        pacs.retrieve_instance("1.2.3.4", "1.2.3.5", "1.2.3.6", tmp_path / "x")
    assert refused.value.code in ("pacs-unknown", "pacs-refused")
    assert not (tmp_path / "x").exists()


def test_stow_stores_each_instance_once_however_often_it_is_sent(
    server: OrthancServer, pacs: DicomWeb, tmp_path: Path
) -> None:
    paths = make_series(tmp_path, np.zeros((3, 8, 8)), patient_id="STOW")
    uids = [dcmread(path).SOPInstanceUID for path in paths]
    for _ in range(2):
        answers = {answer.sop_instance_uid: answer.status for answer in pacs.store(paths)}
        assert answers == dict.fromkeys(uids, 0)
    assert len(pacs.study_instances(dcmread(paths[0]).StudyInstanceUID)) == 3


def test_a_password_in_the_url_is_presented_and_shown_nowhere() -> None:
    secret = {"RegisteredUsers": {"nadir": "s3cr@t"}, "AuthenticationEnabled": True}
    with orthanc(extra=secret, user=("nadir", "s3cr@t")) as server:
        address = server.dicomweb.removeprefix("http://")
        with (
            closing(DicomWeb(f"http://nadir:s3cr%40t@{address}")) as known,
            closing(DicomWeb(server.dicomweb)) as unknown,
        ):
            assert known.answers() and not unknown.answers()
            assert known.root_url == server.dicomweb
            with pytest.raises(Refused, match="pacs-denied"):
                unknown.study_instances("1.2")
    assert without_credentials("AE@host:104") == "AE@host:104"
    assert without_credentials("https://a:b/c@h/x") == "https://h/x"


def test_answers_says_whether_the_pacs_is_there(pacs: DicomWeb) -> None:
    assert pacs.answers()
    for url in ("http://127.0.0.1:9/dicom-web", pacs.root_url + "/nothing"):
        with closing(DicomWeb(url)) as nobody:
            assert not nobody.answers()


# --- servers that misbehave -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (500, Unavailable, None),
        (503, Unavailable, None),
        (408, Unavailable, None),
        (429, Unavailable, None),
        (400, Refused, "pacs-refused"),
        (401, Refused, "pacs-denied"),
        (403, Refused, "pacs-denied"),
        (404, Refused, "pacs-unknown"),
        (302, Refused, "pacs-moved"),
        (407, Refused, "pacs-denied"),
    ],
)
def test_http_errors_divide_by_whether_asking_again_helps(
    status: int, error: type[NadirError], code: str | None, tmp_path: Path
) -> None:
    pacs = scripted(lambda _: httpx.Response(status, headers={"Location": "http://elsewhere/"}))
    for ask in (
        lambda: pacs.study_instances("1.2"),
        lambda: list(pacs.recent_studies(date(2025, 1, 1))),
        lambda: pacs.retrieve_instance("1.2", "1.3", "1.4", tmp_path / "x"),
        lambda: pacs.store([]),
    ):
        with pytest.raises(error) as caught:
            ask()
        assert getattr(caught.value, "code", None) == code
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>", b"{", b"{}", b"[1]", b"[" * 100_000, b"\xff\xfe"])
def test_an_answer_that_is_not_dicom_json_is_not_taken_for_an_empty_one(content: bytes) -> None:
    with pytest.raises(Unavailable):
        scripted(lambda _: httpx.Response(200, content=content, headers=JSON)).study_instances("1.2")


def test_a_server_that_ignores_paging_or_caps_pages_is_read_to_the_end() -> None:
    rows = [
        {"0020000D": {"vr": "UI", "Value": [f"1.2.{n}"]}, "00201208": {"vr": "IS", "Value": ["7"]}}
        for n in range(9)
    ]

    def capped(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        page = rows[offset : offset + 2]
        return httpx.Response(200, json=page) if page else httpx.Response(204)

    for handle in (capped, lambda _: httpx.Response(200, json=rows)):
        found = list(scripted(handle).recent_studies(date(2025, 1, 1)))
        assert found == [HeldStudy(study_instance_uid=f"1.2.{n}", instances=7) for n in range(9)]


def test_a_count_that_is_beyond_every_number_is_none() -> None:
    page = b'[{"0020000D": {"Value": ["1.2"]}, "00201208": {"Value": [1e999]}}]'

    def handle(request: httpx.Request) -> httpx.Response:
        is_first = request.url.params["offset"] == "0"
        return httpx.Response(200, content=page, headers=JSON) if is_first else httpx.Response(204)

    assert list(scripted(handle).recent_studies(date(2025, 1, 1))) == [
        HeldStudy(study_instance_uid="1.2", instances=None)
    ]


@pytest.mark.parametrize("uid", ["../../admin", "1.2/../3", "", "1" * 65, "1.2?x=1"])
def test_a_uid_that_is_none_never_gets_into_a_url(uid: str, tmp_path: Path) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        row = {"00080018": {"Value": ["1.9"]}, "0020000E": {"Value": [uid]}}
        return httpx.Response(200, json=[row])

    with pytest.raises(Refused, match="invalid-uid"):
        scripted(handle).study_instances("1.2")
    with pytest.raises(Refused, match="invalid-uid"):
        scripted(handle).retrieve_instance("1.2", "1.3", uid, tmp_path / "x")


def test_a_retrieve_that_breaks_off_gives_the_whole_parts_and_leaves_no_torn_one(tmp_path: Path) -> None:
    body = multipart([b"first", b"second" * 100])[:-50]
    header = {"Content-Type": 'multipart/related; type="application/dicom"; boundary="b0"'}
    pacs = scripted(lambda _: httpx.Response(200, stream=Body(body), headers=header))
    came: list[bytes] = []
    with pytest.raises(Unavailable, match="broke off"):
        came.extend(path.read_bytes() for path in pacs.retrieve_series("1.2", "1.3", names(tmp_path)))
    assert came == [b"first"]
    assert [path.name for path in tmp_path.iterdir()] == ["part0"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {},
        {"Content-Type": "multipart/related"},
        {"Content-Type": "multipart/related; boundary=b0", "Content-Encoding": "gzip"},
    ],
)
def test_a_retrieve_that_is_not_plain_multipart_is_an_error(headers: dict[str, str], tmp_path: Path) -> None:
    pacs = scripted(lambda _: httpx.Response(200, stream=Body(multipart([b"x"])), headers=headers))
    with pytest.raises(Unavailable):
        pacs.retrieve_instance("1.2", "1.3", "1.4", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("packed", [("gzip, gzip",), ("gzip", "gzip")])
def test_an_answer_that_is_packed_more_than_once_is_not_unpacked(packed: tuple[str, ...]) -> None:
    header = [("Content-Type", "application/dicom+json"), *(("Content-Encoding", one) for one in packed)]
    body = Body(gzip.compress(gzip.compress(b"[]")))
    pacs = scripted(lambda _: httpx.Response(200, stream=body, headers=header))
    with pytest.raises(Unavailable, match="packed more than once"):
        pacs.study_instances("1.2")


def test_a_full_disk_while_retrieving_is_unavailable(tmp_path: Path) -> None:
    header = {"Content-Type": "multipart/related; boundary=b0"}
    pacs = scripted(lambda _: httpx.Response(200, stream=Body(multipart([b"x"])), headers=header))

    def full() -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Unavailable, match="No space left"):
        list(pacs.retrieve_series("1.2", "1.3", full))


def test_an_object_larger_than_allowed_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.pacs.MAX_OBJECT_BYTES", 1000)
    header = {"Content-Type": "multipart/related; boundary=b0"}
    pacs = scripted(lambda _: httpx.Response(200, stream=Body(multipart([b"x" * 2000])), headers=header))
    with pytest.raises(Unavailable, match="larger than"):
        pacs.retrieve_instance("1.2", "1.3", "1.4", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("no"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("?")]
)
def test_a_pacs_that_does_not_answer_is_unavailable(failure: Exception) -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        raise failure

    with pytest.raises(Unavailable, match="does not answer"):
        scripted(handle).study_instances("1.2")

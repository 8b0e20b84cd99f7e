"""DICOMweb from the node's own store: what was stored is found and comes back as it was."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from email import message_from_bytes
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicom_series import make_series
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    SegmentationStorage,
    generate_uid,
)
from sqlmodel import select
from starlette.exceptions import HTTPException
from web_site import WebSite

from node.multipart import FilesBody
from node.web import own_dicom_web
from plugins.errors import Refused
from store import accounts
from store.dicom.pixel_parts import Pixels, bulk, frame, pixels
from store.tables import Instance

ARRAY = np.arange(3 * 6 * 5).reshape(3, 6, 5).astype(np.float64)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(make_series(tmp_path_factory.mktemp("series"), ARRAY))


@pytest.fixture(scope="module")
def site(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 10)
        made = WebSite(tmp_path_factory.mktemp("node"))
        body = FilesBody(files)
        headers = {"Content-Type": body.content_type}
        made.client().post("/dicom-web/studies", content=b"".join(body), headers=headers).raise_for_status()
        yield made
        made.stop()


@pytest.fixture
def client(site: WebSite) -> httpx.Client:
    return site.client()


@pytest.fixture
def first(files: list[Path]) -> Dataset:
    return dcmread(files[0])


def _address(dataset: Dataset) -> str:
    return (
        f"/dicom-web/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}"
    )


def _parts(answer: httpx.Response) -> list[tuple[str, bytes]]:
    whole = b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    return [
        (part.get_content_type(), part.get_payload(decode=True))  # type: ignore[misc]
        for part in message_from_bytes(whole).get_payload()
    ]


def test_studies_are_found_by_patient_name_date_and_modality(client: httpx.Client, first: Dataset) -> None:
    found = [
        {},
        {"PatientID": first.PatientID},
        {"00100020": first.PatientID},
        {"PatientName": str(first.PatientName)[:3].lower() + "*"},
        {"StudyDate": f"{first.StudyDate}-"},
        {"ModalitiesInStudy": first.Modality},
        {"StudyInstanceUID": first.StudyInstanceUID},
    ]
    for query in found:
        (row,) = client.get("/dicom-web/studies", params=query).json()
        assert row["0020000D"]["Value"] == [first.StudyInstanceUID]
        assert row["00201208"]["Value"] == [3]
        assert row["00080030"]["Value"] == [first.StudyTime]
    for query in ({"PatientID": "nobody"}, {"PatientID": "%"}, {"StudyDate": "19000101"}, {"offset": "1"}):
        assert client.get("/dicom-web/studies", params=query).json() == []
    assert client.get("/dicom-web/studies", params={"StudyDate": "yesterday"}).status_code == 400


def test_what_cannot_be_matched_is_not_answered_as_if_it_were(client: httpx.Client, first: Dataset) -> None:
    answer = client.get("/dicom-web/studies", params={"StudyID": "17"})
    assert answer.status_code == 400 and "cannot be searched by StudyID" in answer.json()["error"]
    of_another = {"PatientID": first.PatientID, "IssuerOfPatientID": "somebody else"}
    assert client.get("/dicom-web/studies", params=of_another).json() == []
    at = f"/dicom-web/studies/{first.StudyInstanceUID}"
    assert client.get(f"{at}/series", params={"SeriesDescription": "x"}).status_code == 400
    assert len(client.get(f"{at}/series", params={"0020000e": first.SeriesInstanceUID}).json()) == 1
    assert client.get(f"{at}/series", params={"0020000e": "9.9"}).json() == []


def test_a_key_that_stands_twice_is_answered_with_400_whatever_its_values_and_a_field_to_include_may(
    client: httpx.Client, first: Dataset
) -> None:
    at = f"/dicom-web/studies/{first.StudyInstanceUID}/series"
    for address, query in (
        ("/dicom-web/studies", "PatientID=somebody&PatientID="),
        ("/dicom-web/studies", f"PatientID=somebody&PatientID={first.PatientID}"),
        ("/dicom-web/studies", "PatientID=somebody&00100020=*"),
        ("/dicom-web/studies", "limit=1&limit=2"),
        (at, "SeriesInstanceUID=9.9&0020000e="),
    ):
        answer = client.get(f"{address}?{query}")
        assert (answer.status_code, "stands twice" in answer.text) == (400, True)
    fields = "includefield=00081030&includefield=00100010&includefield=all"
    (row,) = client.get(f"/dicom-web/studies?{fields}").json()
    assert row["0020000D"]["Value"] == [first.StudyInstanceUID]


def test_series_and_instances_are_listed(client: httpx.Client, first: Dataset) -> None:
    at = f"/dicom-web/studies/{first.StudyInstanceUID}"
    (series,) = client.get(f"{at}/series").json()
    assert series["0020000E"]["Value"] == [first.SeriesInstanceUID]
    assert series["00201209"]["Value"] == [3]
    assert client.get(f"{at}/series", params={"Modality": "PT"}).json() == []
    rows = client.get(f"{at}/series/{first.SeriesInstanceUID}/instances", params={"limit": "2"}).json()
    assert len({row["00080018"]["Value"][0] for row in rows}) == 2
    (row,) = client.get(f"{at}/instances", params={"SOPInstanceUID": first.SOPInstanceUID}).json()
    assert row["00280010"]["Value"] == [6] and row["00081190"]["Value"][0].endswith(_address(first))


def test_a_list_that_is_cut_says_how_many_more_there_are(client: httpx.Client, first: Dataset) -> None:
    study = f"/dicom-web/studies/{first.StudyInstanceUID}"
    series = f"{study}/series/{first.SeriesInstanceUID}"
    some = {"StudyInstanceUID": first.StudyInstanceUID}
    for address, query, listed, more in (
        (f"{study}/instances", {"limit": "2"}, 2, 1),
        (f"{series}/instances", {"limit": "1", "Modality": first.Modality}, 1, 2),
        (f"{study}/instances", {"limit": "1", "offset": "2"}, 1, 0),
        (f"{study}/instances", {"limit": "9" * 500}, 3, 0),
        (f"{study}/instances", {"offset": "9" * 500}, 0, 0),
        (f"{study}/instances", {"limit": "00000000000000000000002"}, 2, 1),
        (f"{study}/series", {"limit": "0"}, 0, 1),
        ("/dicom-web/studies", {"limit": "0", **some}, 0, 1),
        ("/dicom-web/studies", {"offset": "9" * 30, **some}, 0, 0),
        ("/dicom-web/studies", {"limit": "1", **some}, 1, 0),
    ):
        answer = client.get(address, params=query)
        assert (answer.status_code, len(answer.json())) == (200, listed), query
        root = f"{client.base_url}".rstrip("/") + "/dicom-web"
        said = f"299 {root}: There are {more} additional results that can be requested" if more else None
        assert answer.headers.get("warning") == said, query


def test_a_list_of_studies_is_cut_at_its_most_and_one_within_a_study_is_whole(
    client: httpx.Client, first: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_dicom_web, "MOST_STUDIES", 0)
    study = f"/dicom-web/studies/{first.StudyInstanceUID}"
    answer = client.get("/dicom-web/studies", params={"StudyInstanceUID": first.StudyInstanceUID})
    assert answer.json() == [] and " There are 1 additional results" in answer.headers["warning"]
    answer = client.get(f"{study}/instances")
    assert len(answer.json()) == 3 and "warning" not in answer.headers


@pytest.mark.parametrize("value", ["-1", "abc", "1.5", "+1", "\u0663"])
@pytest.mark.parametrize("name", ["limit", "offset"])
def test_a_limit_or_offset_that_is_no_unsigned_integer_is_answered_with_400(
    client: httpx.Client, first: Dataset, name: str, value: str
) -> None:
    for path in ("", f"/{first.StudyInstanceUID}/series", f"/{first.StudyInstanceUID}/instances"):
        answer = client.get(f"/dicom-web/studies{path}", params={name: value})
        assert answer.status_code == 400 and answer.json()["error"] == f"{name} is a number without a sign"


def test_metadata_is_all_but_the_pixels(client: httpx.Client, first: Dataset) -> None:
    answer = client.get(_address(first) + "/metadata")
    assert answer.headers["content-type"] == "application/dicom+json"
    (model,) = answer.json()
    assert model.pop("00083002")["Value"] == [first.file_meta.TransferSyntaxUID]
    read = Dataset.from_json(json.dumps(model))
    del first.PixelData
    for element in first:
        if element.keyword != "SpecificCharacterSet":
            assert read[element.tag].value == element.value


def test_frames_and_instances_are_the_bytes_that_came(
    client: httpx.Client, files: list[Path], first: Dataset
) -> None:
    ((kind, content),) = _parts(client.get(_address(first) + "/frames/1"))
    assert (kind, content) == ("application/octet-stream", first.PixelData)
    assert client.get(_address(first) + "/frames/2").status_code == 400
    whole = client.get(_address(first))
    assert len(_parts(whole)) == 1
    assert dcmread(BytesIO(_parts(whole)[0][1])).to_json() == dcmread(files[0]).to_json()
    study = client.get(f"/dicom-web/studies/{first.StudyInstanceUID}")
    assert len(_parts(study)) == 3


def test_what_is_not_here_is_said_not_to_be_here(client: httpx.Client) -> None:
    for path in ("studies/9.9.9/series", "studies/9.9.9/metadata", "studies/9.9.9/series/1.2"):
        assert client.get(f"/dicom-web/{path}").status_code == 404
    assert client.get("/dicom-web/series").status_code == 400


def test_a_study_with_an_image_that_is_gone_is_told_as_that_before_anything_is_sent(
    site: WebSite, client: httpx.Client, first: Dataset
) -> None:
    with site.database.reading() as session:
        sha256 = str(session.exec(select(Instance.sha256)).first())
    path = site.settings.home / "store" / sha256[:2] / f"{sha256}.dcm"
    path = path if path.is_file() else next(site.settings.home.rglob(f"{sha256}*"))
    away = path.rename(path.with_name("away"))
    for what in ("", "/metadata"):
        answer = client.get(f"/dicom-web/studies/{first.StudyInstanceUID}{what}")
        assert answer.status_code == 404 and "fsck" in answer.json()["error"]
    away.rename(path)


def test_frames_are_asked_for_in_portions(
    client: httpx.Client, first: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_dicom_web, "MOST_FRAME_BYTES", 100)
    assert client.get(f"{_address(first)}/frames/1").status_code == 200
    answer = client.get(f"{_address(first)}/frames/1,1")
    assert answer.status_code == 413 and "fewer frames" in answer.json()["error"]


def test_nothing_is_rendered(client: httpx.Client, first: Dataset) -> None:
    assert client.get(_address(first) + "/rendered").status_code == 406


JPEG_FILE = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50'
OF_AN_INSTANCE = (
    ("", "*/*", 200),
    ("", 'multipart/related; type="application/dicom"; transfer-syntax=*', 200),
    ("", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1', 200),
    ("", f"{JPEG_FILE}, */*;q=0.1", 200),
    ("", JPEG_FILE, 406),
    ("", "image/jpeg", 406),
    ("", "application/json", 406),
    ("/metadata", "application/dicom+json", 200),
    ("/metadata", "application/json", 200),
    ("/metadata", 'multipart/related; type="application/dicom+xml"', 406),
    ("/metadata", "application/dicom+xml", 406),
    ("/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*", 200),
    ("/frames/1", 'multipart/related; type="application/octet-stream"', 200),
    ("/frames/1", 'multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.50', 406),
    ("/bulkdata/7FE00010", 'multipart/related; type="application/octet-stream"', 200),
    ("/bulkdata/7FE00010", "*/*", 200),
    ("/bulkdata/7FE00010", "application/pdf", 406),
)


@pytest.mark.parametrize(("what", "accept", "status"), OF_AN_INSTANCE)
def test_what_is_not_given_in_the_form_that_is_asked_for_is_refused(
    client: httpx.Client, first: Dataset, what: str, accept: str, status: int
) -> None:
    assert first.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    answer = client.get(_address(first) + what, headers={"Accept": accept})
    assert answer.status_code == status
    if status == 406:
        assert answer.json()["error"].startswith("this is given as ")


def test_searches_are_answered_in_json_or_not_at_all(client: httpx.Client, first: Dataset) -> None:
    for path in ("studies", f"studies/{first.StudyInstanceUID}/series"):
        for accept, status in (("application/dicom+json", 200), ("application/json", 200), ("text/csv", 406)):
            assert client.get(f"/dicom-web/{path}", headers={"Accept": accept}).status_code == status


def test_compressed_frames_are_given_to_who_takes_their_image_or_octets_in_any_syntax(
    first: Dataset, tmp_path: Path
) -> None:
    first.PixelData, first.file_meta.TransferSyntaxUID = encapsulate([b"\xff\xd8\xff\xd9"]), JPEGBaseline8Bit
    first["PixelData"].VR, first["PixelData"].is_undefined_length = "OB", True
    held = _kept(first, tmp_path / "compressed.dcm")
    for accept in ("octet-stream; transfer-syntax=*", "octet-stream"):
        assert len(own_dicom_web.frames(held, [1], f"multipart/related; type=application/{accept}")) == 1
    for accept in ("image/*", "image/jpeg", "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"):
        assert len(own_dicom_web.frames(held, [1], f"multipart/related; type={accept}")) == 1
    for accept in ("image/jls", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"):
        with pytest.raises(HTTPException, match='type="image/jpeg"; transfer-syntax=1'):
            own_dicom_web.frames(held, [1], f"multipart/related; type={accept}")


def _bits(count: int) -> Dataset:
    """Return an object of one bit a pixel, 3 x 3, whose frames do not end with an octet."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = SegmentationStorage, generate_uid()
    made.Rows = made.Columns = 3
    made.BitsAllocated, made.SamplesPerPixel, made.NumberOfFrames = 1, 1, count
    rng = np.random.default_rng(7)
    made.truth = rng.integers(0, 2, (count, 9)).astype(np.uint8)
    made.add_new("PixelData", "OB", np.packbits(made.truth.ravel(), bitorder="little").tobytes())
    return made


def _kept(made: Dataset, path: Path) -> Pixels:
    made.save_as(path, enforce_file_format=True)
    return pixels(path)


def test_frames_of_single_bits_are_cut_where_they_begin(tmp_path: Path) -> None:
    made = _bits(5)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        made.file_meta.TransferSyntaxUID = syntax
        held = _kept(made, tmp_path / "bits.dcm")
        for number in range(1, 6):
            octets = np.frombuffer(frame(held, number).content, np.uint8)
            assert (np.unpackbits(octets, bitorder="little")[:9] == made.truth[number - 1]).all()
        for number in (0, 6):
            with pytest.raises(Refused, match=f"no frame {number}"):
                frame(held, number)


@pytest.mark.parametrize("table", ["basic", "extended", "none", "fragments"])
def test_a_compressed_frame_is_given_as_it_is_whatever_tells_where_it_lies(
    first: Dataset, tmp_path: Path, table: str
) -> None:
    frames = [bytes([number]) * 2 * (5 - number) + b"\xff\xd9" for number in range(4)]
    first.NumberOfFrames, first.file_meta.TransferSyntaxUID = 4, JPEGBaseline8Bit
    if table == "extended":
        (
            first.PixelData,
            first.ExtendedOffsetTable,
            first.ExtendedOffsetTableLengths,
        ) = encapsulate_extended(frames)
    else:
        pieces = 2 if table == "fragments" else 1
        first.PixelData = encapsulate(frames, fragments_per_frame=pieces, has_bot=table == "basic")
    first["PixelData"].VR, first["PixelData"].is_undefined_length = "OB", True
    held = _kept(first, tmp_path / "compressed.dcm")
    for number, content in enumerate(frames, start=1):
        part = frame(held, number)
        assert part.content == content
        assert part.kind == "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"


def test_one_frame_of_many_is_read_without_the_others(tmp_path: Path) -> None:
    made = _bits(1)
    made.Rows = made.Columns = 256
    made.BitsAllocated, made.NumberOfFrames = 8, 500
    made.PixelData = bytes(256 * 256) * 500
    held = _kept(made, tmp_path / "many.dcm")
    tracemalloc.start()
    assert len(frame(pixels(held.path), 400).content) == 256 * 256
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 1 << 20


def test_an_object_that_ends_too_soon_is_told_as_that(first: Dataset, tmp_path: Path) -> None:
    held = _kept(first, tmp_path / "short.dcm")
    held.path.write_bytes(held.path.read_bytes()[:-9])
    with pytest.raises(Refused, match="ends before its frame 1 does"):
        frame(held, 1)
    first.compress(RLELossless)
    held = _kept(first, tmp_path / "cut.dcm")
    held.path.write_bytes(held.path.read_bytes()[: held.offset + 10])
    with pytest.raises(Refused, match="frame 1 cannot be read"):
        frame(pixels(held.path), 1)
    (tmp_path / "none.dcm").write_bytes(b"")
    with pytest.raises(Refused, match="cannot be read"):
        pixels(tmp_path / "none.dcm")
    del first.PixelData
    with pytest.raises(Refused, match="no frame 1"):
        frame(_kept(first, tmp_path / "no.dcm"), 1)


def test_a_document_is_given_with_its_type() -> None:
    made = Dataset()
    made.EncapsulatedDocument, made.MIMETypeOfEncapsulatedDocument = b"%PDF-1.4", "application/pdf"
    assert bulk(made, "00420011").kind == "application/pdf"
    for tag in ("00420012", "x", "00100010"):
        with pytest.raises(Refused):
            bulk(made, tag)

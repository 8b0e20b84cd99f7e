"""Uploads over HTTP: files one by one or in pieces, until they end, expire or are cancelled, and lists of them."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicom_series import make_series
from pydantic import ValidationError
from sqlmodel import col, select
from uploading import begin, counts, desk_of, put, settle, uploading, work_off, zipped
from web_site import WebSite

from node.uploads import EXPIRES
from node.web import upload as upload_page
from node.web.api import form
from node.web.api.upload_form import ImageSaid
from node.web.api.upload_results import _Pieces
from plugins.errors import Refused
from store import jobs, uploads
from store.objects import ObjectStore
from store.tables import Instance, Study
from store.upload_tables import CANCELLED, CLOSING, EXPIRED, OPEN, WHOLE

# One site for all of them: what one leaves, the next one finds.
pytestmark = pytest.mark.xdist_group("upload")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    with uploading(tmp_path_factory.mktemp("uploads")) as made:
        yield made


@pytest.fixture(scope="module")
def pia(site: WebSite) -> httpx.Client:
    return site.signed_in("pia")


@pytest.fixture
def images(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    """Return four images of a study that no other test has."""
    return make_series(tmp_path / "images", np.zeros((4, 8, 8)), patient_id=request.node.name[-50:])


def test_images_are_kept_with_their_source_and_settle_at_once_when_this_is_all(
    site: WebSite, pia: httpx.Client, images: list[Path]
) -> None:
    upload = begin(pia)
    for number, path in enumerate(images, start=1):
        said = put(pia, upload, number, path.read_bytes(), "b%C3%A4uch%F0%9F%AB%81.dcm")
        assert (said.status_code, said.json()["state"]) == (200, "kept")
        assert said.json()["name"] == "bäuch🫁.dcm"
    with site.database.reading() as session:
        study = session.exec(select(Study).order_by(col(Study.id).desc())).first()
        sources = set(session.exec(select(Instance.source)))
    assert study is not None
    assert settle(site) == []
    assert sources == {"upload by pia"}
    said = pia.post(f"{upload}/finish")
    assert (said.json()["state"], said.json()["studies"]) == ("whole", [study.study_instance_uid])
    assert settle(site) == [study.id]
    assert pia.post(f"{upload}/finish").json()["state"] == "whole"
    assert put(pia, upload, 9, b"x").json()["code"] == "upload-ended"
    assert put(pia, upload, 9, b"x").status_code == 409


def test_what_was_sent_before_is_not_taken_twice_and_a_known_study_is_not_analysed_again(
    site: WebSite, pia: httpx.Client, images: list[Path]
) -> None:
    first = begin(pia)
    data = images[0].read_bytes()
    assert put(pia, first, 1, data).json()["state"] == "kept"
    assert put(pia, first, 1, data).json()["state"] == "kept"
    assert put(pia, first, 2, data).json()["code"] == "duplicate"
    pia.post(f"{first}/finish")
    assert len(settle(site)) == 1
    second = begin(pia)
    assert put(pia, second, 1, data).json()["code"] == "already-here"
    said = pia.post(f"{second}/finish").json()
    assert (said["state"], said["counts"]) == ("whole", {"known": 1})
    assert said["reasons"][0]["sentence"] == "this node has it already"
    assert settle(site) == []


def test_a_large_file_comes_in_pieces_and_goes_on_where_it_was(
    site: WebSite, pia: httpx.Client, images: list[Path]
) -> None:
    upload = begin(pia)
    data = zipped({path.name: path.read_bytes() for path in images})
    middle, whole = len(data) // 2, len(data)
    said = put(pia, upload, 1, data[:middle], "a.zip", Content_Range=f"bytes 0-{middle - 1}/{whole}").json()
    assert (said["state"], said["received_bytes"], said["size_bytes"]) == ("arriving", middle, whole)
    wrong = put(pia, upload, 1, data[:5], "a.zip", Content_Range=f"bytes 0-4/{whole}")
    assert (wrong.status_code, f"{middle} bytes" in wrong.json()["error"]) == (409, True)
    assert wrong.json()["code"] == "another-piece"
    assert pia.post(f"{upload}/finish").json()["code"] == "still-arriving"
    assert pia.get(f"{upload}/files/1").json()["received_bytes"] == middle
    said = put(
        pia, upload, 1, data[middle:], "a.zip", Content_Range=f"bytes {middle}-{whole - 1}/{whole}"
    ).json()
    assert said["state"] == "unpacking"
    assert pia.post(f"{upload}/finish").json()["state"] == "closing"
    work_off(site)
    assert counts(pia, upload) == {"unpacked": 1, "kept": 4}
    assert pia.get(upload).json()["state"] == "whole"
    assert not (site.settings.home / "uploads" / upload.rpartition("/")[2]).exists()
    assert len(settle(site)) == 1


@pytest.mark.parametrize("day", ["0001-01-01", "1899-12-31"])
def test_a_date_that_no_image_can_have_is_refused(day: str) -> None:
    with pytest.raises(ValidationError, match="study_date"):
        ImageSaid.model_validate({"modality": "CT", "study_date": day})


@pytest.mark.parametrize(("name", "size"), [("b/IM1", 8), ("a/IM1", 12)])
def test_pieces_of_two_files_never_become_one(pia: httpx.Client, name: str, size: int) -> None:
    upload = begin(pia)
    put(pia, upload, 1, b"abcd", "a/IM1", Content_Range="bytes 0-3/8")
    said = put(pia, upload, 1, bytes(size - 4), name, Content_Range=f"bytes 4-{size - 1}/{size}")
    assert (said.status_code, said.json()["code"]) == (409, "another-file")
    assert pia.get(f"{upload}/files/1").json()["received_bytes"] == 4


def test_a_file_is_known_again_by_its_bytes_and_not_by_name_and_size(
    pia: httpx.Client, images: list[Path]
) -> None:
    upload = begin(pia)
    data = images[0].read_bytes()
    assert put(pia, upload, 1, data, "a/IM1").json()["sha256"] == sha256(data).hexdigest()
    other = put(pia, upload, 1, data[:-1] + b"x", "a/IM1")
    assert (other.status_code, other.json()["code"]) == (409, "another-file")
    put(pia, upload, 2, b"abcd", "b/IM1", Content_Range="bytes 0-3/8")
    assert pia.get(f"{upload}/files/2").json()["sha256"] == sha256(b"abcd").hexdigest()
    assert [one["sha256"] for one in pia.get(f"{upload}/files").json()["files"]] == [
        sha256(data).hexdigest(),
        "",
    ]
    skipped = {"number": 3, "name": ".x", "size_bytes": 1, "code": "hidden"}
    pia.post(f"{upload}/skipped", json={"files": [skipped]})
    assert put(pia, upload, 3, b"x", ".x").json()["sha256"] == ""


def test_what_has_to_be_dealt_with_later_is_not_taken_by_an_upload_that_has_ended_meanwhile(
    site: WebSite, pia: httpx.Client, tmp_path: Path
) -> None:
    pk = int(begin(pia).rpartition("/")[2])
    with site.database.reading() as session:
        upload = uploads.get(session, pk)
    assert pia.post(f"/api/uploads/{pk}/finish").json()["state"] == "whole"
    (tmp_path / "late").write_bytes(zipped({"a": b"a"}))
    with pytest.raises(Refused, match="has ended"):
        desk_of(site).receive(upload, 1, "late.zip", tmp_path / "late")
    assert not (site.settings.home / "uploads" / str(pk)).exists() and counts(pia, f"/api/uploads/{pk}") == {}


@pytest.mark.parametrize("said", ["bytes 5-4/9", "bytes 0-9/9", "bytes x", "0-4/9", f"bytes 0-1/{1 << 40}"])
def test_a_piece_that_says_nothing_sensible_is_refused(pia: httpx.Client, said: str) -> None:
    assert put(pia, begin(pia), 1, b"x", "a.zip", Content_Range=said).status_code == 422


def test_a_disk_that_is_full_is_told_as_that_and_nothing_is_lost(
    site: WebSite, pia: httpx.Client, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(pia)
    put(pia, upload, 1, images[0].read_bytes())
    monkeypatch.setattr(ObjectStore, "free_bytes", lambda self: -1)
    said = put(pia, upload, 2, images[1].read_bytes())
    assert (said.status_code, "full" in said.json()["error"]) == (507, True)
    monkeypatch.undo()
    assert put(pia, upload, 2, images[1].read_bytes()).json()["state"] == "kept"
    assert counts(pia, upload) == {"kept": 2}


def test_a_body_of_no_told_length_stops_at_the_reserve_of_the_disk(
    pia: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = iter([1, 1, 1])
    monkeypatch.setattr(ObjectStore, "free_bytes", lambda self: next(room, -1))
    blocks = (bytes(1 << 20) for _ in range(9))
    said = pia.put(f"{begin(pia)}/files/1", content=blocks, headers={"X-File-Name": "a"})
    assert (said.status_code, "full" in said.json()["error"]) == (507, True)


def test_an_upload_that_nobody_goes_on_with_expires_with_what_lies_about_of_it(
    site: WebSite, pia: httpx.Client, images: list[Path]
) -> None:
    upload = begin(pia)
    put(pia, upload, 1, images[0].read_bytes())
    put(pia, upload, 2, b"PK\3\4....", "a.zip", Content_Range="bytes 0-7/100")
    folder = site.settings.home / "uploads" / upload.rpartition("/")[2]
    assert folder.is_dir()
    desk_of(site).tick(site.database.now() + EXPIRES + timedelta(minutes=1))
    said = pia.get(upload).json()
    assert (said["state"], said["counts"], folder.exists()) == ("expired", {"kept": 1, "skipped": 1}, False)


def test_a_cancelled_upload_takes_nothing_more_and_keeps_what_it_acknowledged(
    pia: httpx.Client, images: list[Path]
) -> None:
    upload = begin(pia)
    put(pia, upload, 1, images[0].read_bytes())
    assert pia.delete(upload).json()["state"] == "cancelled"
    assert pia.delete(upload).status_code == 409
    assert pia.post(f"{upload}/finish").status_code == 409
    assert counts(pia, upload) == {"kept": 1}
    assert pia.get("/api/uploads/999999").status_code == 404


def test_the_words_of_the_documentation_work_as_they_stand(
    site: WebSite, images: list[Path], tmp_path: Path
) -> None:
    token = site.token("script", "api")
    (tmp_path / "study.zip").write_bytes(zipped({p.name: p.read_bytes() for p in images}))
    bearer = ["curl", "-sS", "-f", "-H", f"Authorization: Bearer {token}"]
    base = f"{site.url}/api/uploads"

    def curl(*more: str) -> bytes:
        return subprocess.run([*bearer, *more], capture_output=True, check=True, cwd=tmp_path).stdout

    pk = json.loads(curl("-X", "POST", base))["id"]
    curl("-H", "X-File-Name: study.zip", "-T", "study.zip", f"{base}/{pk}/files/1")
    assert b'"closing"' in curl("-X", "POST", f"{base}/{pk}/finish")
    work_off(site)
    assert b'"kept":4' in curl(f"{base}/{pk}")
    assert curl(f"{base}/{pk}/report.pdf").startswith(b"%PDF-")


@pytest.mark.parametrize("path", ["files", ""])
def test_a_cursor_that_somebody_made_up_is_the_beginning(pia: httpx.Client, path: str) -> None:
    at = f"{begin(pia)}/{path}" if path else "/api/uploads"
    assert pia.get(at, params={"cursor": form.cursor_of(None)}).status_code == 200


def test_lists_are_walked_through_and_a_viewer_may_look_and_not_send(
    site: WebSite, pia: httpx.Client, images: list[Path]
) -> None:
    begin(pia)
    upload = begin(pia)
    for number, path in enumerate(images, start=1):
        put(pia, upload, number, path.read_bytes())
    vic = site.signed_in("vic")
    first = vic.get(f"{upload}/files?limit=3").json()
    rest = vic.get(f"{upload}/files?limit=3&cursor={first['next']}").json()
    assert [f["number"] for f in first["files"] + rest["files"]] == [1, 2, 3, 4]
    assert rest["next"] is None
    newest = vic.get("/api/uploads?limit=1").json()
    assert newest["uploads"][0]["id"] == int(upload.rpartition("/")[2])
    assert newest["next"]
    assert put(vic, upload, 5, b"x").status_code == 403
    assert vic.get("/upload").status_code == 403


def test_the_page_has_words_for_every_state() -> None:
    assert set(upload_page.STAGES) == set(jobs.STATES)
    assert set(upload_page.STATES) == {OPEN, CLOSING, WHOLE, CANCELLED, EXPIRED}


def test_a_zip_file_of_results_is_given_piece_by_piece() -> None:
    out = _Pieces()
    given = b""
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(3):
            with archive.open(zipfile.ZipInfo(f"{number}"), "w", force_zip64=True) as member:
                member.write(bytes([number]) * 1000)
            piece = out.taken()
            assert 1000 < len(piece) < 1200
            given += piece
    given += out.taken()
    with zipfile.ZipFile(io.BytesIO(given)) as archive:
        assert archive.testzip() is None
        assert archive.read("2") == b"\2" * 1000


def test_settings_of_the_node_bound_what_one_image_may_be(tmp_path: Path, images: list[Path]) -> None:
    (tmp_path / "small").mkdir()
    made = WebSite(tmp_path / "small", reserve_bytes=0, max_object_bytes=500)
    client = made.client()
    said = put(client, begin(client), 1, images[0].read_bytes()).json()
    assert (said["state"], said["code"]) == ("refused", "too-large")
    made.stop()

"""Uploads over HTTP: files one by one or in pieces, zips, images without identity; what became of each is told."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from dicom_series import make_series
from pydantic import ValidationError
from sqlmodel import col, select
from web_site import WebSite

from node.intake import Intake
from node.settle import Settler
from node.uploads import EXPIRES, Uploads
from node.web import upload as upload_page
from node.web.api import form
from node.web.api.upload_form import ImageSaid
from node.web.api.upload_results import _Pieces
from plugins.errors import Refused, Unavailable
from store import accounts, jobs, uploads
from store.objects import ObjectStore
from store.tables import Instance, Patient, Revision, Study
from store.upload_tables import CANCELLED, CLOSING, EXPIRED, OPEN, WHOLE

# One site for all of them: what one leaves, the next one finds.
pytestmark = pytest.mark.xdist_group("upload")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 10)
        made = WebSite(tmp_path_factory.mktemp("uploads"), reserve_bytes=0)
        made.account("pia", "physicist")
        made.account("vic", "viewer")
        yield made
        made.stop()


@pytest.fixture(scope="module")
def pia(site: WebSite) -> httpx.Client:
    return site.signed_in("pia")


@pytest.fixture
def images(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    """Return four images of a study that no other test has."""
    return make_series(tmp_path / "images", np.zeros((4, 8, 8)), patient_id=request.node.name[-50:])


def desk_of(site: WebSite) -> Uploads:
    return Uploads(site.settings, Intake(site.database, ObjectStore(site.settings.home / "store")))


def work_off(site: WebSite) -> None:
    desk = desk_of(site)
    while desk.tick(site.database.now()):
        pass


def begin(client: httpx.Client, **said: Any) -> str:
    return f"/api/uploads/{client.post('/api/uploads', json=said).json()['id']}"


def put(
    client: httpx.Client, upload: str, number: int, data: bytes, name: str = "a.dcm", **headers: str
) -> httpx.Response:
    named = {"X-File-Name": name, **{key.replace("_", "-"): value for key, value in headers.items()}}
    return client.put(f"{upload}/files/{number}", content=data, headers=named)


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def counts(client: httpx.Client, upload: str) -> dict[str, int]:
    return dict(client.get(upload).json()["counts"])


def settle(site: WebSite) -> list[int]:
    """Return the studies that settle now, with a quiet time that nobody waits for."""
    settler = Settler(site.database, [], quiet_seconds=3600, hard_cap_seconds=36000)
    return [one.study_pk for one in settler.tick(site.database.now())]


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


def test_unpacking_that_was_interrupted_goes_on_and_tells_the_same(
    site: WebSite, pia: httpx.Client, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(pia)
    put(pia, upload, 1, zipped({path.name: path.read_bytes() for path in images}), "a.zip")
    pia.post(f"{upload}/finish")
    desk = desk_of(site)
    note = Uploads._note
    left = [2]

    def killed(self: Uploads, *arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Unavailable("killed between keeping it and saying so")
        return note(self, *arguments, **more)

    monkeypatch.setattr(Uploads, "_note", killed)
    with pytest.raises(Unavailable):
        desk.tick(site.database.now())
    monkeypatch.undo()
    assert counts(pia, upload) == {"unpacking": 1, "kept": 2}
    monkeypatch.setattr(Uploads, "complete", lambda self, upload_pk: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        desk.tick(site.database.now())
    monkeypatch.undo()
    assert pia.get(upload).json()["state"] == "closing"
    work_off(site)
    assert pia.get(upload).json()["state"] == "whole"
    assert counts(pia, upload) == {"unpacked": 1, "kept": 4}


def test_junk_is_passed_over_with_its_reason_and_leaves_nothing(
    site: WebSite, pia: httpx.Client, images: list[Path], tmp_path: Path
) -> None:
    upload = begin(pia)
    cut = images[1].read_bytes()[:300]
    for number, (data, name, code) in enumerate(
        (
            (b"hello", "a.dcm", "misnamed"),
            (b"hello", "a.txt", "not-dicom"),
            (b"", "b.dcm", "empty"),
            (b"x", ".hidden/x.dcm", "hidden"),
            (images[0].read_bytes(), "DICOMDIR", "dicomdir"),
            (b"7z", "a.7z", "archive"),
            (cut, "cut.dcm", ""),
        ),
        start=1,
    ):
        said = put(pia, upload, number, data, name).json()
        assert said["state"] in ("skipped", "refused"), name
        assert said["sentence"]
        assert said["code"] == code or not code
    rows = [{"number": 99, "name": "Thumbs.db", "size_bytes": 3, "code": "hidden"}]
    assert pia.post(f"{upload}/skipped", json={"files": rows}).status_code == 204
    put(pia, upload, 8, zipped({"a.txt": b"hi", "b.dcm": b"hi", "c.zip": b"PK", "d.jpg": b"PK\3\4"}), "j.zip")
    put(pia, upload, 10, zipped({"a": b"1" * 100})[:-30], "half.zip")
    pia.post(f"{upload}/finish")
    work_off(site)
    said = pia.get(upload).json()
    codes = {reason["code"]: reason["count"] for reason in said["reasons"]}
    assert (said["state"], said["studies"]) == ("whole", [])
    assert (
        codes.items() >= {"nested-zip": 2, "bad-zip": 1, "not-dicom": 2, "misnamed": 2, "hidden": 2}.items()
    )
    page = pia.get(f"/uploads/{said['id']}", headers={"Accept": "text/html"}).text
    assert "There was no image among the files" in page
    assert list((site.settings.home / "store" / "incoming").iterdir()) == []


def test_an_image_without_identity_waits_until_it_is_said_what_it_is(
    site: WebSite, pia: httpx.Client, tmp_path: Path
) -> None:
    values = np.random.default_rng(5).normal(-300, 300, (6, 5, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 2, 3, 1])), tmp_path / "ct.nii.gz")
    data = (tmp_path / "ct.nii.gz").read_bytes()
    upload = begin(pia)
    one = put(pia, upload, 1, data, "ct.nii.gz").json()
    put(pia, upload, 2, zipped({"x/ct2.nii.gz": data}), "a.zip")
    assert (one["state"], pia.post(f"{upload}/finish").json()["state"]) == ("waiting", "closing")
    work_off(site)
    assert counts(pia, upload) == {"waiting": 2, "unpacked": 1}
    (other,) = (f for f in pia.get(f"{upload}/files?state=waiting").json()["files"] if f["member"])
    bad = pia.put(f"{upload}/images/{one['id']}", json={"modality": "MR", "study_date": "2024-03-04"})
    assert bad.status_code == 422
    page = pia.get(upload.removeprefix("/api"), headers={"Accept": "text/html"}).text
    assert "never a real name" in page
    label = page.partition('name="patient_label" value="')[2].partition('"')[0]
    fields = {"what": "CT", "study_date": "2024-03-04", "patient_label": label}
    token = pia.headers["X-CSRF-Token"]
    form = f"{upload.removeprefix('/api')}/images/{one['id']}"
    assert pia.post(form, data={**fields, "csrf_token": token}).status_code == 303
    assert (
        pia.put(f"{upload}/images/{one['id']}", json={"modality": "CT", "study_date": "2024-03-04"}).json()[
            "code"
        ]
        == "not-waiting"
    )
    assert pia.delete(f"{upload}/images/{other['id']}").json()["code"] == "left-out"
    work_off(site)
    said = pia.get(upload).json()
    assert (said["state"], said["counts"]) == ("whole", {"kept": 1, "skipped": 1, "unpacked": 1})
    (file,) = pia.get(f"{upload}/files?state=kept").json()["files"]
    assert file["sentence"].startswith("written as 4 CT images; values were rounded")
    with site.database.reading() as session:
        patient = session.exec(select(Patient).where(Patient.patient_id == label)).one()
    assert (patient.issuer, label[:3]) == (uploads.ISSUER, "UP-")
    again = begin(pia)
    file = put(pia, again, 1, data, "renamed.nii.gz").json()
    body = {"modality": "CT", "study_date": "2024-03-04", "patient_label": label, "is_aligned": False}
    pia.put(f"{again}/images/{file['id']}", json=body)
    pia.post(f"{again}/finish")
    work_off(site)
    assert counts(pia, again) == {"known": 1}


def test_images_become_one_study_within_an_upload_and_beyond_it_only_when_it_is_said(
    site: WebSite, pia: httpx.Client, tmp_path: Path
) -> None:
    def image(seed: int) -> bytes:
        values = np.random.default_rng(seed).normal(0, 9, (4, 4, 4)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"{seed}.nii")
        return (tmp_path / f"{seed}.nii").read_bytes()

    def studies(*seeds: int, **more: bool) -> set[str]:
        upload = begin(pia)
        for number, seed in enumerate(seeds, start=1):
            file = put(pia, upload, number, image(seed), "ct.nii").json()["id"]
            body = {"modality": "CT", "study_date": "2024-03-04", "patient_label": "two volumes", **more}
            assert pia.put(f"{upload}/images/{file}", json=body).status_code == 200
        pia.post(f"{upload}/finish")
        work_off(site)
        return set(pia.get(upload).json()["studies"])

    (first,) = studies(1, 2)
    (second,) = studies(3)
    assert second != first
    assert studies(2) == {first}  # the very image is known again
    assert studies(4, joins_earlier=True) == {second}
    lonely = begin(pia)
    file = put(pia, lonely, 1, image(5), "ct.nii").json()["id"]
    body = {"modality": "CT", "study_date": "2024-03-05", "patient_label": "x", "joins_earlier": True}
    assert pia.put(f"{lonely}/images/{file}", json=body).json()["code"] == "no-such-study"


def test_results_stay_here_when_it_was_said_so_or_when_the_patient_was_made_up(
    site: WebSite, pia: httpx.Client, images: list[Path]
) -> None:
    def settled(delivered: bool, *paths: Path) -> bool:
        upload = begin(pia, delivered=True)
        for number, path in enumerate(paths, start=1):
            put(pia, upload, number, path.read_bytes())
        pia.post(f"{upload}/finish", json={"delivered": delivered})
        settle(site)
        with site.database.reading() as session:
            newest = select(Revision.id).order_by(col(Revision.id).desc())
            return uploads.is_withheld(session, int(session.exec(newest).first() or 0))

    assert settled(False, images[0])
    assert settled(False, images[1])
    objects = ObjectStore(site.settings.home / "store")
    sent = objects.temporary()
    sent.write_bytes(images[2].read_bytes())
    Intake(site.database, objects).take(sent, source="CT@10.0.0.1")
    assert not settled(False, images[3]), "a part of it came from the scanner"
    assert not settled(True, images[3])


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

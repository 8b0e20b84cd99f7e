"""What becomes of uploaded files: unpacked, passed over as junk, kept, or waiting for who the patient is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from dicom_series import make_series
from sqlmodel import col, select
from uploading import begin, counts, desk_of, put, settle, uploading, work_off, zipped
from web_site import WebSite

from node.intake import Intake
from node.uploads import Uploads
from plugins.errors import Unavailable
from store import uploads
from store.objects import ObjectStore
from store.tables import Patient, Revision

# One site for all of them: what one leaves, the next one finds.
pytestmark = pytest.mark.xdist_group("uploaded-files")


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

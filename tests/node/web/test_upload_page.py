"""The pages of uploads in a real browser: folders dropped, breaks survived, images named, findings shown."""

from __future__ import annotations

import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import nibabel
import numpy as np
import pytest
from browser import TABLET, Sight, picture, sign_in
from demo_run import DemoRun
from dicom_series import make_series
from node_process import node as running_node
from playwright.sync_api import Page, expect
from pydicom import dcmread
from web_site import PASSWORD, WebSite

from node.intake import Intake
from node.uploads import Uploads
from store import accounts
from store.objects import ObjectStore

Look = Callable[..., Sight]
SECONDS = 30_000


class Worked:
    """A site whose zip files and images are dealt with, as in a node."""

    def __init__(self, home: Path) -> None:
        self.site = WebSite(home, reserve_bytes=0)
        self.site.account("pia", "physicist")
        self._desk = Uploads(self.site.settings, Intake(self.site.database, ObjectStore(home / "store")))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            self._desk.tick(self.site.database.now())

    def counts(self, upload: int) -> dict[str, int]:
        return dict(self.site.signed_in("pia").get(f"/api/uploads/{upload}").json()["counts"])

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self.site.stop()


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worked]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 10)
        made = Worked(tmp_path_factory.mktemp("pages"))
        yield made
        made.stop()


def folder_of(root: Path, patient_id: str, slices: int = 6) -> Path:
    make_series(root / "study" / "CT", np.zeros((slices, 8, 8)), patient_id=patient_id)
    return root / "study"


def drop(page: Page, *paths: Path) -> None:
    """Drop files or folders as a hand does: the browser's own drag and drop, not an event made up by a script."""
    devtools = page.context.new_cdp_session(page)
    box = page.locator("#drop").bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        where = {"x": box["x"] + 20, "y": box["y"] + 20}
        devtools.send("Input.dispatchDragEvent", {"type": kind, **where, "data": data})


def all_sent(page: Page) -> None:
    expect(page.locator("#total-words")).to_have_text(re.compile(r"^(\d+) of \1 file"), timeout=SECONDS)


def finish(page: Page) -> int:
    page.get_by_role("button", name="That is all: analyse").click()
    page.wait_for_url(re.compile(r"/uploads/\d+$"), timeout=SECONDS)
    return int(page.url.rpartition("/")[2])


def test_the_browser_hashes_as_the_node_does(worked: Worked, look: Look) -> None:
    sight = look(worked.site.url)
    sign_in(sight, "pia")
    page = sight.open("/upload")
    digest = "(n) => nadirSha256(new Blob([new Uint8Array(n).map((_, i) => (i * i) % 251)]))"
    for size in (0, 55, 56, 64, 119, (4 << 20) + 65):
        values = np.arange(size, dtype=np.int64) ** 2 % 251
        assert page.evaluate(digest, size) == sha256(values.astype(np.uint8).tobytes()).hexdigest(), size


def test_a_folder_is_dropped_and_what_is_no_image_in_it_is_told(
    worked: Worked, look: Look, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, "dropped")
    (folder / "fake.dcm").write_text("text")
    (folder / "DICOMDIR").write_text("list")
    (folder / ".git").mkdir()
    (folder / ".git" / "x").write_text("x")
    (folder / "ünï 🫁").mkdir()
    (folder / "CT" / "slice_0001.dcm").rename(folder / "ünï 🫁" / "é.dcm")
    (folder / "copy.dcm").write_bytes((folder / "CT" / "slice_0002.dcm").read_bytes())
    with zipfile.ZipFile(folder / "junk.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    sight = look(worked.site.url, size=TABLET, dark=True)
    sign_in(sight, "pia")
    page = sight.open("/upload")
    sight.require_clean()
    drop(page, folder)
    all_sent(page)
    expect(page.locator("#outcome")).to_contain_text("6 taken")
    expect(page.locator("#outcome")).to_contain_text("called DICOM, and is none: study/fake.dcm")
    sight.require_clean()
    picture(page, "upload-dropped")
    upload = finish(page)
    expect(page.locator("#live")).to_contain_text("whole", timeout=SECONDS)
    assert worked.counts(upload) == {"kept": 6, "known": 1, "skipped": 4, "unpacked": 1}
    expect(page.get_by_role("row", name="hidden files")).to_contain_text("study/.git/x")
    sight.require_clean()
    picture(page, "upload-whole")


@pytest.mark.long
def test_what_breaks_off_is_sent_again_and_after_a_reload_only_what_is_missing(
    worked: Worked, look: Look, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, "broken off")
    sight = look(worked.site.url)
    sign_in(sight, "pia")
    page = sight.open("/upload")
    sent: list[str] = []
    broken: list[str] = []

    def meet(route: Any) -> None:
        name = route.request.headers["x-file-name"]
        if len(broken) < 2 and not sent:
            broken.append(name)
            route.abort("connectionreset")
        elif len(sent) < 3:
            sent.append(name)
            route.continue_()
        else:
            route.fulfill(status=503, json={"error": "later"})

    page.route("**/files/*", meet)
    page.locator("#folder").set_input_files(folder)
    expect(page.locator("#outcome")).to_contain_text("3 taken", timeout=SECONDS)
    assert len(broken) == 2
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    page.unroute("**/files/*")
    page.on("dialog", lambda dialog: dialog.accept())
    changed = folder.parent / unquote(sent[0])
    edit = dcmread(changed)
    edit.SOPInstanceUID = edit.file_meta.MediaStorageSOPInstanceUID = edit.SOPInstanceUID[:-1] + (
        "1" if edit.SOPInstanceUID[-1] != "1" else "2"
    )
    size_bytes = changed.stat().st_size
    edit.save_as(changed)
    assert changed.stat().st_size == size_bytes
    page = sight.open("/upload")
    page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    page.get_by_role("button", name="Go on with it").click()
    expect(page.locator("#told")).to_contain_text("3 are here")
    del sent[:]
    page.locator("#folder").set_input_files(folder)
    all_sent(page)
    assert len(sent) == 4  # one that was here is another one now
    assert worked.counts(finish(page)) == {"kept": 7}
    assert sight.problems == [problem for problem in sight.problems if "503" in problem]


@pytest.mark.long
def test_a_session_that_ends_on_the_way_costs_a_sign_in_and_nothing_else(
    worked: Worked, look: Look, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, "signed out")
    sight = look(worked.site.url)
    sign_in(sight, "pia")
    page = sight.open("/upload")
    page.locator("#files").set_input_files(folder / "CT" / "slice_0001.dcm")
    all_sent(page)
    page.context.clear_cookies()
    page.locator("#files").set_input_files(
        [folder / "CT" / f"slice_{number:04d}.dcm" for number in range(2, 7)]
    )
    expect(page.get_by_role("alert")).to_contain_text("Sign in again in another tab", timeout=SECONDS)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Sign in again").click()
    other = opened.value
    other.get_by_label("Name").fill("pia")
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_role("button", name="Sign in").click()
    other.wait_for_url("**/worklist")
    other.close()
    page.get_by_role("button", name="Go on").click()
    all_sent(page)
    assert worked.counts(finish(page)) == {"kept": 6}


@pytest.mark.long
def test_a_nifti_image_is_named_in_a_form_and_everything_is_reached_by_keys(
    worked: Worked, look: Look, tmp_path: Path
) -> None:
    values = np.random.default_rng(8).normal(-300, 300, (6, 5, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 2, 3, 1])), tmp_path / "ct.nii.gz")
    sight = look(worked.site.url)
    sign_in(sight, "pia")
    page = sight.open("/upload")
    page.get_by_role("link", name="Upload", exact=True).focus()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached.index("folder") == reached.index("files") + 1
    page.locator("#files").set_input_files(tmp_path / "ct.nii.gz")
    all_sent(page)
    upload = finish(page)
    sight.require_clean()
    page.get_by_label("Made on").fill("2024-03-04")
    assert page.get_by_label("Label of the patient").input_value().startswith("UP-")
    page.get_by_role("button", name="Keep").click()
    expect(page.locator("#live")).to_contain_text("written as 4 CT images", timeout=SECONDS)
    assert worked.counts(upload) == {"kept": 1}


@pytest.mark.xdist_group("demo")
def test_findings_pictures_words_and_results_of_an_upload_are_on_its_page(
    demo_site: WebSite, demo: DemoRun, look: Look
) -> None:
    sight = look(demo_site.url)
    page = sight.open("/upload")
    first = next(iter(sorted((demo.out / "input").rglob("*.dcm"))))
    page.locator("#files").set_input_files(first)
    all_sent(page)
    expect(page.locator("#outcome")).to_contain_text("this node has it already")
    upload = finish(page)
    shown = page.locator("figure img").first
    shown.scroll_into_view_if_needed()
    expect(page.locator("figcaption").first).to_contain_text("Long Axis")
    expect(page.locator("#live")).to_contain_text("lung_nodule")
    for _ in range(50):
        if shown.evaluate("(image) => image.complete && image.naturalWidth"):
            break
        page.wait_for_timeout(100)
    assert shown.evaluate("(image) => image.naturalWidth") == 480
    sight.require_clean()
    picture(page, "upload-findings")
    whole = httpx.get(f"{demo_site.url}/api/uploads/{upload}/results.zip", trust_env=False, timeout=120)
    with zipfile.ZipFile(BytesIO(whole.content)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    kinds = {name.partition("/")[2].rpartition("-")[0] for name in names}
    assert kinds >= {"lung_nodule-seg", "lung_nodule-sr-planar", "pet_lesion-seg"}
    assert any(name.endswith("/report.pdf") for name in names)


@pytest.mark.long
@pytest.mark.xdist_group("demo")
def test_a_dropped_folder_is_analysed_by_a_running_node_and_its_results_are_taken_away(
    demo: DemoRun, look: Look, tmp_path: Path
) -> None:
    with running_node(tmp_path / "home", environment={"NADIR_QUIET_SECONDS": "3600"}) as node:
        sight = look(f"http://127.0.0.1:{node.http_port}")
        page = sight.open("/upload")
        drop(page, min((demo.out / "input").iterdir()))
        all_sent(page)
        upload = finish(page)
        expect(page.locator("#live")).to_contain_text("lung_nodule", timeout=SECONDS)
        expect(page.get_by_role("link", name="All results as one zip file")).to_be_visible(timeout=600_000)
        expect(page.locator("figcaption").filter(has_text="Nodule 1")).to_contain_text("Long Axis")
        sight.require_clean()
        address = f"http://127.0.0.1:{node.http_port}/api/uploads/{upload}/results.zip"
        whole = httpx.get(address, trust_env=False, timeout=120)
    with zipfile.ZipFile(BytesIO(whole.content)) as archive:
        made = [dcmread(archive.open(name)) for name in archive.namelist() if name.endswith(".dcm")]
        (report,) = (name for name in archive.namelist() if name.endswith("report.pdf"))
        assert archive.read(report).startswith(b"%PDF-")
    assert {str(one.Modality) for one in made} == {"SEG", "SR"}

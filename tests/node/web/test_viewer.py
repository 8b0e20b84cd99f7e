"""OHIF at /viewer: its files, its policy, and a node without it."""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from browser import Sight, sign_in
from demo_run import DemoRun
from ohif_pages import require_pages
from web_site import WebSite

from node.settings import Settings
from node.web import links
from node.web.frame import frame_of
from node.web.viewer_files import PUBLIC_PATH, find_pages, how_to_bring, read_file, read_index
from store import accounts

pytestmark = pytest.mark.xdist_group("demo")
INDEX = (
    '<!doctype html><html><head><meta charset="UTF-8"><script>window.PUBLIC_URL="/"</script>'
    '<script defer src="/app.bundle.0123456789abcdef.js"></script></head><body></body></html>'
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ohif") / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(INDEX)
    (folder / "app.bundle.0123456789abcdef.js").write_text(
        '(() => { __webpack_require__.p = "/"; })(); import(\'/dicom-microscopy-viewer/a.js\'); x = "/other";'
    )
    (folder / "app.bundle.css").write_text("@font-face{src:url(/a34f9d1faa5f3315.woff2)}")
    (folder / "google.js").write_text("x")
    (folder / "secret.txt").write_text("x")
    (folder.parent / "secret.js").write_text("x")
    (folder / "linked.js").symlink_to(folder.parent / "secret.js")
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, pages: Path) -> Iterator[tuple[WebSite, httpx.Client]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 10)
        made = WebSite(tmp_path_factory.mktemp("node"), viewer_pages=pages)
        made.account("vera", "viewer")
        yield made, made.signed_in("vera")
        made.stop()


@pytest.fixture
def site(running: tuple[WebSite, httpx.Client]) -> WebSite:
    return running[0]


@pytest.fixture
def vera(running: tuple[WebSite, httpx.Client]) -> httpx.Client:
    """Return the client of somebody who may look at studies."""
    return running[1]


def test_the_page_and_its_files_are_moved_below_the_viewer(vera: httpx.Client) -> None:
    page = vera.get("/viewer/viewer?StudyInstanceUIDs=1.2.3")
    assert 'src="/viewer/app.bundle.0123456789abcdef.js"' in page.text
    assert 'window.PUBLIC_URL="/viewer/"' in page.text
    script = vera.get("/viewer/app.bundle.0123456789abcdef.js").text
    assert (
        '__webpack_require__.p = "/viewer/";' in script and "'/viewer/dicom-microscopy-viewer/a.js'" in script
    )
    assert '"/other"' in script
    assert "url(/viewer/a34f9d1faa5f3315.woff2)" in vera.get("/viewer/app.bundle.css").text


def test_files_named_by_their_content_are_kept_for_long_and_others_asked_again(vera: httpx.Client) -> None:
    named = vera.get("/viewer/app.bundle.0123456789abcdef.js")
    assert named.headers["cache-control"].startswith("private, max-age=")
    assert named.headers["content-type"].startswith("text/javascript")
    style = vera.get("/viewer/app.bundle.css")
    assert style.headers["cache-control"] == "private, no-cache"
    again = vera.get("/viewer/app.bundle.css", headers={"If-None-Match": style.headers["etag"]})
    assert again.status_code == 304
    plain = vera.get("/viewer/app.bundle.css", headers={"Accept-Encoding": "identity"})
    assert plain.content == style.content and "content-encoding" not in plain.headers


def test_the_viewer_has_a_policy_of_its_own_that_lets_no_other_host_in(vera: httpx.Client) -> None:
    page = vera.get("/viewer/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"https?:|\*", policy)
    assert "script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval' 'sha256-" in policy
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]
    assert page.headers["cross-origin-embedder-policy"] == "require-corp"
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert page.headers["cache-control"] == "no-store"


def test_only_files_of_the_viewer_are_given(vera: httpx.Client) -> None:
    for name in ("google.js", "secret.txt", "..%2fsecret.js", "linked.js", "%00.js", "a/b.js", "index.html"):
        assert vera.get(f"/viewer/{name}").status_code == 404


def test_ohifs_own_address_of_a_study_works_too(vera: httpx.Client) -> None:
    answer = vera.get("/viewer?StudyInstanceUIDs=1.2.3")
    assert answer.headers["location"] == "/viewer/viewer?StudyInstanceUIDs=1.2.3"
    assert vera.get("/viewer?modalities=CT").headers["location"] == "/viewer/?modalities=CT"


def test_nobody_sees_it_without_signing_in_and_comes_back_to_it_afterwards(site: WebSite) -> None:
    stranger = site.client(Accept="text/html")
    answer = stranger.get(links.viewer("1.2.3", "1.2.4", "1.2.5"))
    assert answer.status_code == 303
    assert "%2Fviewer%2Fviewer%3FStudyInstanceUIDs%3D1.2.3" in answer.headers["location"]
    assert stranger.get("/viewer/app.bundle.css", headers={"Accept": "text/css"}).status_code == 401


def test_the_page_carries_the_token_of_the_session(vera: httpx.Client) -> None:
    assert f'content="{vera.headers["X-CSRF-Token"]}"' in vera.get("/viewer/").text


def test_a_node_without_ohif_says_what_to_do(tmp_path: Path) -> None:
    site = WebSite(tmp_path, viewer_pages=tmp_path / "nowhere")
    answer = site.client(Accept="text/html").get("/viewer/viewer")
    assert answer.status_code == 404
    assert "make viewer" in answer.text and "viewer_pages" in answer.text
    site.stop()


def test_an_installed_node_is_told_where_to_copy_the_viewer_to_and_a_checkout_to_make_it(
    tmp_path: Path,
) -> None:
    assert how_to_bring() == "make viewer, or name the folder of OHIF's pages in viewer_pages"
    assert how_to_bring(tmp_path) == (
        "make viewer in Nadir's folder, and copy node_modules/@ohif/app/dist from there to /usr/share/nadir/viewer, "
        "or name it in viewer_pages"
    )


def test_pages_link_to_the_viewer_only_where_it_is(tmp_path: Path, pages: Path) -> None:
    there, not_there = (Settings(home=tmp_path, viewer_pages=p) for p in (pages, tmp_path))
    assert find_pages(there) == pages and find_pages(not_there) is None
    assert frame_of(there).has_viewer and not frame_of(not_there).has_viewer


def test_the_real_pages_have_no_address_left_at_the_root_of_the_host(tmp_path: Path) -> None:
    pages = require_pages()
    assert not re.search(r'(?:src|href)="/(?!viewer/)', read_index(pages).html)
    script = next(path.name for path in pages.glob("app.bundle.*.js"))
    names = [script, "app.bundle.css", *(p.name for p in pages.glob("*.js") if PUBLIC_PATH in p.read_bytes())]
    for name in names:
        file = read_file(pages, name)
        assert file is not None
        content = gzip.decompress(file.content)
        assert not re.search(rb'__webpack_require__\.p\s*=\s*"/"|url\(/(?!viewer/)', content)
    assert PUBLIC_PATH in (pages / script).read_bytes()


@pytest.mark.long
def test_ohif_shows_a_lesions_slice_and_stores_from_there(
    demo_site: WebSite, look: Callable[..., Sight], demo: DemoRun
) -> None:
    require_pages()
    demo_site.account("phil", "physicist")
    client = demo_site.signed_in("phil")
    study = _uids(client, "/dicom-web/studies?limit=1", "0020000D")[0]
    (series,) = _uids(client, f"/dicom-web/studies/{study}/series?Modality=CT", "0020000E")
    sop = _uids(client, f"/dicom-web/studies/{study}/series/{series}/instances", "00080018")[40]
    sight = look(demo_site.url)
    sign_in(sight, "phil")
    page = sight.open(links.viewer(study, series, sop))
    page.wait_for_function(
        "sop => { const viewport = window.cornerstone?.getRenderingEngines?.()[0]?.getViewports?.()[0];"
        " const shown = viewport?.getCurrentImageId?.();"
        " return shown?.includes(sop) && window.cornerstone.cache.getImage(shown); }",
        arg=sop,
        timeout=60_000,
    )
    assert page.evaluate("window.crossOriginIsolated")
    seg = next((demo.out / "dicom").glob("*/SEG_lung_nodule.dcm"))
    status = page.evaluate(
        "async text => { const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer;"
        " const request = new XMLHttpRequest();"
        " await window.extensionManager.getActiveDataSource()[0].store.dicom(bytes, request);"
        " return request.status; }",
        b64encode(seg.read_bytes()).decode(),
    )
    assert status == 200
    assert sight.outside == []
    assert [said for said in sight.problems if "Content Security Policy" in said] == []


def _uids(client: httpx.Client, path: str, tag: str) -> list[str]:
    return [row[tag]["Value"][0] for row in client.get(path).json()]

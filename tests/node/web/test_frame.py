from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from browser import TABLET, Sight
from web_site import PASSWORD, WebSite

from node.web.frame import Frame, number, size, span


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    made = WebSite(tmp_path)
    made.account("ANNA", "viewer")
    yield made
    made.stop()


def test_times_are_written_in_the_zone_of_the_site() -> None:
    frame = Frame(ZoneInfo("Europe/Berlin"))
    assert frame.when(datetime(2026, 7, 1, 22, 30, tzinfo=UTC)) == "2026-07-02 00:30"
    assert frame.when(datetime(2026, 12, 1, 22, 30, tzinfo=UTC)) == "2026-12-01 23:30"
    assert frame.when(None) == "–"


def test_sizes_and_spans_are_written_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 52_400_000, 3e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "52.4 MB",
        "3.0 TB",
    ]
    assert [span(n) for n in (0, 59, 61, 7500, 200000)] == [
        "0 s",
        "59 s",
        "1 min 1 s",
        "2 h 5 min",
        "2 d 7 h",
    ]
    assert number(-1.25, 1) == "−1.2" and number(None) == "–"


def test_who_is_not_signed_in_is_sent_to_sign_in_and_from_there_to_the_page_he_wanted(
    site: WebSite, look: Callable[..., Sight]
) -> None:
    sight = look(site.url)
    page = sight.open("/nothing?a=1")
    assert page.url == site.url + "/login?next=%2Fnothing%3Fa%3D1"
    sight.require_clean()
    page.get_by_label("Name").fill("ANNA")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(site.url + "/nothing?a=1")
    assert page.get_by_role("alert").inner_text() == "Not Found"
    sight.require_clean()


@pytest.mark.parametrize(
    "next_page", ["//evil.example/", "/\\evil.example", "https://evil.example", "javascript:1"]
)
def test_signing_in_leads_to_no_other_host(site: WebSite, next_page: str) -> None:
    answer = site.client().post(
        "/login", params={"next": next_page}, data={"name": "ANNA", "password": PASSWORD}
    )
    assert answer.status_code == 303 and answer.headers["location"] == "/worklist"


def test_the_theme_is_kept_and_keys_are_told(site: WebSite, look: Callable[..., Sight]) -> None:
    sight = look(site.url, TABLET)
    page = sight.open("/login")
    page.locator("h1").click()
    page.keyboard.press("t")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    sight.require_clean()
    page.locator("h1").click()
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    sight.require_clean()


def test_programs_get_json_and_files_are_kept_by_browsers(site: WebSite) -> None:
    assert site.client().get("/nothing").json() == {
        "error": "sign in, or present a bearer token of this node",
        "code": "not-signed-in",
    }
    answer = site.client().get("/static/nadir.css")
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"].startswith("text/css")
    assert site.client().get("/static/frame.py").status_code == 404
    assert site.client().get("/static/..%2Fframe.py").status_code == 401

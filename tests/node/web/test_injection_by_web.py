"""What people and programs may put into every field of the HTTP port: it is data, and stays data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from urllib.parse import quote, quote_plus
from zoneinfo import ZoneInfo

import pytest
from markupsafe import escape
from outbox_rows import waiting_results
from sqlalchemy import func
from sqlmodel import SQLModel, select
from starlette.requests import Request
from web_site import WebSite

from node.settings import Settings
from node.web import guard
from node.web.frame import TEMPLATES, Frame
from store import accounts
from store.objects import ObjectStore

pytestmark = pytest.mark.sec

SQL = [
    text.format(quote)
    for quote in ("'", '"', "`", "\\'", "%27", "ʼ", "')", "'))")
    for text in (
        "{0} OR 1=1 --",
        "{0}; DROP TABLE finding; --",
        "{0} UNION SELECT password FROM account --",
        "x{0}; UPDATE account SET role='administrator' --",
        "{0}||(SELECT sha256 FROM access_token)||{0}",
    )
]
HTML = [
    text.format(script)
    for script in ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>")
    for text in ("{0}", "'{0}", '">{0}', "</title>{0}", "--></textarea>{0}", "{{{{7*7}}}}{0}", "\x00{0}")
] + ["javascript:alert(1)", "{{ identity.csrf_token }}", "{% include '/etc/passwd' %}", "<a href='x'>"]
ELSEWHERE = [
    "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd",
    "//evil.example/studies",
    "gopher://127.0.0.1:6379/_",
    "1.2.3@evil.example",
    "1.2.3/../../evil",
    "..%2f..%2fsystem",
]


NOTHING = "no-such-thing"
FEW = 2
HTML_PAGE = "text/html; charset=utf-8"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    made = WebSite(tmp_path, pacs_url="http://127.0.0.1:9/dicom-web")
    waiting_results(made.database, ObjectStore(tmp_path / "store"), tmp_path, ["P@h:104"], count=2)
    yield made
    made.stop()


def counts(site: WebSite) -> dict[str, int]:
    with site.database.reading() as session:
        return {
            name: session.exec(select(func.count()).select_from(table)).one()
            for name, table in SQLModel.metadata.tables.items()
            if name not in ("login_failure", "cohort_row")  # the second is reckoned from the others
        }


def fields(site: WebSite) -> list[tuple[str, str]]:
    """Return path and name of every query parameter of every route that gives something."""
    return [
        (re.sub(r"\{[^}]*\}", "1.2.3", route.path), name)  # type: ignore[attr-defined]
        for route in site.app.router.routes
        if "GET" in route.methods  # type: ignore[attr-defined]
        for name in signature(route.endpoint).parameters  # type: ignore[attr-defined]
        if name != "request" and f"{{{name}" not in route.path  # type: ignore[attr-defined]
    ]


def some_of(payloads: list[str], number: int) -> list[str]:
    """Return a few payloads, others for each number: all parameters see some, and together they see all."""
    return [payloads[(number * FEW + step) % len(payloads)] for step in range(FEW)]


def test_sqli_in_every_parameter_changes_and_shows_nothing(site: WebSite) -> None:
    before, usual = counts(site), {}
    assert len(fields(site)) * FEW >= len(SQL)
    client = site.client()
    for number, (path, name) in enumerate(fields(site)):
        usual[path, name] = client.get(path, params={name: NOTHING}).text
        for payload in some_of(SQL, number):
            answer = client.get(path, params={name: payload})
            assert answer.status_code in (200, 400, 404, 422), (path, name, payload)
            shown = answer.text.replace(str(escape(payload)), NOTHING).replace(quote_plus(payload), NOTHING)
            assert answer.status_code != 200 or shown == usual[path, name], (path, name, payload)
    assert counts(site) == before


def test_sqli_in_names_passwords_and_bodies_lets_nobody_in(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 4)
    monkeypatch.setattr("store.sessions.FREE_TRIES", 1000)
    site.account("ada", "administrator")
    before = counts(site)
    for payload in SQL[::4]:
        for given in (
            {"name": payload, "password": "x"},
            {"name": "ada", "password": payload},
            {"name": f"ada{payload}", "password": payload},
        ):
            assert site_post(site, given) in (401, 422)
    assert counts(site) == before


def site_post(site: WebSite, given: dict[str, str]) -> int:
    with site.client() as client:
        return client.post("/login", json=given).status_code


def test_xss_no_answer_gives_back_what_a_browser_would_run(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 4)
    client = site.client()
    answers = []
    assert len(fields(site)) * FEW >= len(HTML)
    for number, (path, name) in enumerate(fields(site)):
        for payload in some_of(HTML, number):
            answers.append(client.get(path, params={name: payload}))
            is_page = answers[-1].headers["content-type"].startswith("text/html")
            assert not is_page or payload not in answers[-1].text, (path, name, payload)
    for payload in HTML:
        answers.append(client.get(f"/{quote(payload, safe='')}"))
        answers.append(client.get("/login", params={"problem": payload}))
        answers.append(client.post("/intake/study", json={"study_instance_uid": payload, payload: 1}))
        form = {"name": payload, "password": payload, "csrf_token": payload}
        answers.append(client.post("/login", data=form))
    assert len(answers) > 100
    for answer in answers:
        assert answer.status_code < 500
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if answer.headers["content-type"].startswith("text/html"):
            assert "<script>alert" not in answer.text and "root:" not in answer.text
            assert answer.headers["Content-Security-Policy"] == guard.PAGE_POLICY
        else:
            assert answer.headers["content-type"].startswith(("application/json", "text/plain"))
    assert "unsafe" not in guard.PAGE_POLICY and "*" not in guard.PAGE_POLICY


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.name)
def test_xss_templates_hold_no_script_no_style_and_nothing_marked_as_safe(template: Path) -> None:
    text = re.sub(r'<script src="\{\{ static\("[^"]+"\) \}\}" defer></script>', "", template.read_text())
    assert re.findall(r"<script|<style|\sstyle=|\son\w+\s*=|\|\s*safe|autoescape", text) == []


def test_xss_what_a_person_typed_is_shown_as_text() -> None:
    request = Request({"type": "http", "method": "GET", "path": "/login", "headers": [], "query_string": b""})
    given = {"problem": "<script>alert(1)</script>", "next": "", "outside": ""}
    page = Frame(ZoneInfo("UTC")).text(request, "login.html", **given)
    assert "&lt;script&gt;alert(1)" in page and "<script>" not in page


def test_ssrf_no_request_names_a_place_to_ask(site: WebSite) -> None:
    before = counts(site)
    client = site.client()
    for place in ELSEWHERE:
        for body in (
            {"study_instance_uid": place},
            {"study_instance_uid": "1.2.3", "orthanc_id": place},
            {"study_instance_uid": "1.2.3", "pacs_url": place},
        ):
            assert client.post("/intake/study", json=body).status_code == 422
        headers = {"X-Forwarded-Host": place, "X-Original-URL": place, "Content-Type": "application/json"}
        assert client.post("/dicom-web/studies", content=place, headers=headers).status_code == 415
    assert counts(site) == before


def test_ssrf_addresses_come_from_the_settings_alone_and_are_of_the_web(tmp_path: Path) -> None:
    for place in ("file:///etc/passwd", "gopher://h", "ftp://h/x"):
        for name in ("pacs_url", "destinations"):
            with pytest.raises(ValueError, match=name):
                Settings(home=tmp_path, **{name: place})

"""Accounts and tokens on their page and as JSON: who may change them, what is refused, and what the trail is told."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from browser import Sight, sign_in
from sqlmodel import col, select
from web_site import PASSWORD, WebSite

from store import accounts, outside_people
from store.audit_tables import AuditRecord

pytestmark = pytest.mark.sec
OTHER = "nine grey wooden doors"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebSite]:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 10)
    made = WebSite(tmp_path)
    made.account("ada", "administrator")
    made.account("vera", "viewer")
    yield made
    made.stop()


def trail(site: WebSite) -> list[str]:
    """Return who changed what of whom, as the trail holds it, oldest first."""
    with site.database.reading() as session:
        rows = session.exec(select(AuditRecord.message).order_by(col(AuditRecord.id))).all()
    said = []
    for row in rows:
        by = re.search(r'UserID="([^"]*)"', row)
        of = re.search(r'ParticipantObjectID="([^"]*)"', row)
        what = re.search(r'type="Alert Description" value="([^"]*)"', row)
        assert by and of and what
        said.append(f"{by[1]}: {b64decode(what[1]).decode()}: {of[1]}")
    return said


def test_the_page_adds_changes_and_shuts_out_and_the_trail_says_who_did(site: WebSite) -> None:
    ada, at = site.signed_in("ada"), "/system/accounts"
    assert ada.post(at, data={"name": "paul", "role": "physicist", "password": OTHER}).status_code == 303
    assert ada.post(f"{at}/paul/role", data={"role": "viewer"}).status_code == 303
    assert ada.post(f"{at}/paul/password", data={"password": PASSWORD}).status_code == 303
    paul = site.signed_in("paul")
    assert paul.get("/models").status_code == 200
    assert ada.post(f"{at}/paul/disabled", data={"disabled": "yes"}).status_code == 303
    assert paul.get("/models").status_code == 401
    assert trail(site) == [
        "ada: account added as physicist: paul",
        "ada: role changed to viewer: paul",
        "ada: password changed: paul",
        "ada: account disabled: paul",
    ]
    shown = ada.get(at, headers={"Accept": "text/html"}).text
    assert PASSWORD not in shown and "scrypt" not in shown


def test_what_is_refused_changes_nothing_and_is_told_on_the_page(site: WebSite) -> None:
    ada, at, page = site.signed_in("ada"), "/system/accounts", {"Accept": "text/html"}
    for path, given, status, said in (
        ("", {"name": "x y", "role": "viewer", "password": OTHER}, 400, "a name is 1 to 64 letters"),
        (
            "",
            {"name": "vera", "role": "viewer", "password": OTHER},
            409,
            "there is an account 'vera' already",
        ),
        ("", {"name": "x", "role": "viewer", "password": "short"}, 400, "a password has 12 to 256"),
        ("/vera/role", {"role": "king"}, 400, "there is no role 'king'"),
        ("/ada/role", {"role": "viewer"}, 409, "'ada' is the only administrator"),
        ("/ada/disabled", {"disabled": "yes"}, 409, "'ada' is the only administrator"),
        ("/nobody/role", {"role": "viewer"}, 404, "there is no account 'nobody'"),
    ):
        answer = ada.post(f"{at}{path}", data=given, headers=page)
        assert (answer.status_code, said in unescape(answer.text)) == (status, True), path
        assert OTHER not in answer.text
    bad = ada.post("/system/tokens", data={"name": "t", "for-api": "yes", "days": "1e9"}, headers=page)
    assert bad.status_code == 400 and "a token lasts whole days" in bad.text
    assert trail(site) == []


def test_whom_a_provider_vouches_for_has_role_and_password_there(site: WebSite) -> None:
    with site.database.transaction() as session:
        outside_people.account_of(session, "https://x.org", "s", "grace", "viewer", site.database.now())
    ada = site.signed_in("ada")
    for change in ({"role": "physicist"}, {"password": OTHER}, {"role": "physicist", "disabled": True}):
        answer = ada.patch("/api/accounts/grace", json=change)
        assert (answer.status_code, answer.json()["code"]) == (409, "by-provider")
    assert ada.patch("/api/accounts/grace", json={"disabled": True}).status_code == 200
    (grace,) = [one for one in ada.get("/api/accounts").json()["accounts"] if one["name"] == "grace"]
    assert (grace["issuer"], grace["disabled"]) == ("https://x.org", True)


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_a_name_ends_where_it_seems_to(site: WebSite, end: str) -> None:
    ada = site.signed_in("ada")
    person = ada.post("/api/accounts", json={"name": f"vera{end}", "role": "viewer", "password": OTHER})
    program = ada.post("/api/tokens", json={"name": f"report{end}", "scopes": ["api"]})
    assert (person.status_code, person.json()["code"]) == (400, "bad-account")
    assert (program.status_code, program.json()["code"]) == (400, "bad-token")
    assert trail(site) == []


def test_a_change_of_several_things_is_done_whole_or_not_at_all(site: WebSite) -> None:
    ada = site.signed_in("ada")
    answer = ada.patch("/api/accounts/vera", json={"role": "physicist", "password": "short"})
    assert answer.status_code == 400 and answer.json()["code"] == "weak-password"
    (vera,) = [one for one in ada.get("/api/accounts").json()["accounts"] if one["name"] == "vera"]
    assert vera["role"] == "viewer" and trail(site) == []


def test_a_token_is_shown_once_works_for_its_scope_and_ends_when_it_is_revoked(site: WebSite) -> None:
    ada = site.signed_in("ada")
    made = ada.post("/api/tokens", json={"name": "report", "scopes": ["api"], "days": 30})
    assert made.status_code == 201
    program = site.client(Authorization=f"Bearer {made.json()['token']}")
    assert program.get("/api/models").status_code == 200
    assert program.get("/api/accounts").status_code == 403
    listed = ada.get("/api/tokens")
    assert made.json()["token"] not in listed.text
    assert listed.json()["tokens"][0] | {"created_at": "", "expires_at": ""} == {
        "name": "report",
        "scopes": ["api"],
        "state": "valid",
        "created_at": "",
        "expires_at": "",
    }
    assert ada.delete("/api/tokens/report").status_code == 200
    assert program.get("/api/models").status_code == 401
    assert trail(site)[-2:] == ["ada: token added for api: report", "ada: token revoked: report"]


@pytest.mark.long
def test_in_a_browser_an_administrator_adds_a_person_and_makes_a_token(
    site: WebSite, look: Callable[..., Sight]
) -> None:
    sight = look(site.url, dark=True)
    page = sign_in(sight, "ada")
    sight.open("/system/accounts")
    sight.require_clean()
    page.get_by_role("button", name="Add a person …").click()
    page.get_by_label("Add a person").get_by_label("Name").fill("paul")
    page.get_by_role("dialog").get_by_label("Role").select_option("physicist")
    page.get_by_label("Password, 12 characters or more").fill(OTHER)
    assert sight.serious_faults() == []
    page.get_by_role("button", name="Add", exact=True).click()
    assert page.get_by_label("Role of paul").input_value() == "physicist"
    page.get_by_role("button", name="Make a token …").click()
    page.get_by_label("Make a token").get_by_label("Name").fill("report")
    page.get_by_role("button", name="Make", exact=True).click()
    token = page.locator("section .mono").inner_text()
    assert token.startswith("nadir_")
    sight.require_clean()
    assert (
        httpx.get(f"{site.url}/api/models", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    )

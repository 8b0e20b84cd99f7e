"""Who signs in: sessions and their cookies, how they end, pauses for who guesses, and what a refusal tells."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from empty_database import empty_database
from sqlmodel import select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from web_site import PASSWORD, WebSite

from node.access_desk import AccessDesk
from node.audit import Audit
from node.audit_events import Patients
from node.settings import Settings
from node.web.access import Gate
from node.web.login import Credentials, SignInDesk
from store import accounts, sessions
from store.access_tables import LoginFailure, WebSession

pytestmark = pytest.mark.sec


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 10)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    made = WebSite(tmp_path, pacs_url="http://127.0.0.1:9/dicom-web")
    made.account("ada", "administrator")
    yield made
    made.stop()


def test_login_gives_a_cookie_that_scripts_and_foreign_pages_do_not_get(site: WebSite) -> None:
    client = site.client()
    answer = client.post("/login", data={"name": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/worklist")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    assert "secure" not in cookie.replace("nadir_session", "")
    assert client.get("/api/jobs").json()["jobs"] == []
    page = client.get("/login")
    assert "Signed in as ada (administrator)" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]


@pytest.mark.parametrize("proxies", [("127.0.0.1",), ("10.1.2.3", "127.0.0.0/8")])
def test_login_cookies_are_secure_and_redirects_stay_with_tls_behind_a_proxy_that_speaks_it(
    tmp_path: Path, proxies: tuple[str, ...]
) -> None:
    site = WebSite(tmp_path, http_proxies=proxies)
    site.account("ada", "viewer")
    client = site.client(**{"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.7"})
    answer = client.post("/login", json={"name": "ada", "password": PASSWORD})
    assert "; secure" in answer.headers["set-cookie"].lower()
    assert "max-age" in answer.headers["strict-transport-security"]
    cookie = answer.headers["set-cookie"].partition(";")[0]
    for proto in ("https", "http"):
        asked = {"X-Forwarded-Proto": proto, "Host": "nadir.example", "Cookie": cookie}
        sent_on = client.get("/worklist/", headers=asked)
        assert (sent_on.status_code, sent_on.headers["location"]) == (
            307,
            f"{proto}://nadir.example/worklist",
        )
    site.stop()


def test_of_two_lines_that_say_for_whom_is_forwarded_that_of_the_proxy_counts(tmp_path: Path) -> None:
    gate = Gate(Settings(home=tmp_path, http_proxies=("10.0.0.1",)), empty_database(tmp_path))
    for lines, address, is_https in (
        ((("for", "6.6.6.6"), ("for", "10.9.9.9"), ("proto", "https"), ("proto", "http")), "10.9.9.9", False),
        ((("for", "6.6.6.6, 7.7.7.7"), ("proto", "http,https")), "7.7.7.7", True),
        ((), "10.0.0.1", False),
    ):
        headers = [(f"x-forwarded-{name}".encode(), value.encode()) for name, value in lines]
        request = Request(
            {
                "type": "http",
                "headers": headers,
                "client": ("10.0.0.1", 5),
                "scheme": "http",
                "path": "/",
                "server": ("h", 80),
            }
        )
        assert (gate.address(request), gate.is_https(request)) == (address, is_https)


def test_login_makes_a_new_session_and_ends_the_one_before(site: WebSite) -> None:
    client = site.client()
    cookies = []
    for _ in range(2):
        client.post("/login", json={"name": "ada", "password": PASSWORD})
        cookies.append(client.cookies["nadir_session"])
    assert cookies[0] != cookies[1]
    stolen = site.client(Cookie=f"nadir_session={cookies[0]}")
    assert stolen.get("/api/jobs").status_code == 401
    fixed = site.client(Cookie="nadir_session=chosen-by-an-attacker")
    fixed.post("/login", json={"name": "ada", "password": PASSWORD})
    assert site.client(Cookie="nadir_session=chosen-by-an-attacker").get("/api/jobs").status_code == 401


def test_login_ends_by_signing_out_by_a_new_password_and_by_being_shut_out(site: WebSite) -> None:
    out, changed, shut = (site.signed_in("ada") for _ in range(3))
    cookie = out.cookies["nadir_session"]
    assert out.post("/logout").json() == {"status": "signed out"}
    assert site.client(Cookie=f"nadir_session={cookie}").get("/api/jobs").status_code == 401
    with site.database.transaction() as session:
        accounts.set_password(session, "ada", PASSWORD)
    assert changed.get("/api/jobs").status_code == 401
    shut = site.signed_in("ada")
    with site.database.transaction() as session:
        accounts.set_disabled(session, "ada", disabled=True)
    assert shut.get("/api/jobs").status_code == 401
    assert site.client().post("/login", json={"name": "ada", "password": PASSWORD}).status_code == 401


@pytest.mark.parametrize("way", ["password", "disabled"])
def test_login_that_is_under_way_during_a_new_password_or_a_disabling_begins_no_session(
    site: WebSite, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    desk, real = AccessDesk(site.database, site.settings), accounts.is_password
    changes = {"password": "nine grey wooden doors"} if way == "password" else {"disabled": True}

    def slow(password: str, hashed: str | None) -> bool:
        found = real(password, hashed)
        desk.change("bea", by="ada", **changes)  # type: ignore[arg-type]
        return found

    site.account("bea", "viewer")
    monkeypatch.setattr(accounts, "is_password", slow)
    client = site.client()
    answer = client.post("/login", json={"name": "bea", "password": PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (401, "not-signed-in")
    assert "nadir_session" not in client.cookies
    with site.database.reading() as session:
        assert session.exec(select(WebSession)).all() == []
        assert [row.failures for row in session.exec(select(LoginFailure)) if "address" in row.subject] == [1]


def test_login_ends_when_nothing_is_done_and_when_the_day_is_over(site: WebSite) -> None:
    now = site.database.now()
    idle, whole = timedelta(minutes=30), timedelta(hours=12)
    with site.database.transaction() as session:
        account = accounts.require_account(session, "ada")
        cookie = sessions.begin(session, account.id, now)

    def is_in(minutes: float) -> bool:
        at = now + timedelta(minutes=minutes)
        with site.database.transaction() as session:
            found = sessions.find(session, cookie, at, idle=idle, whole=whole)
            if found is not None and found.is_stale:
                sessions.touch(session, cookie, at)
        return found is not None

    assert [is_in(m) for m in (0, 29, 58, 87, 118)] == [True, True, True, True, False]
    with site.database.transaction() as session:
        sessions.touch(session, cookie, now + timedelta(minutes=719))
    assert [is_in(m) for m in (719.5, 720)] == [True, False]


def test_login_after_five_wrong_tries_waits_and_the_wait_grows_and_outlives_a_restart(tmp_path: Path) -> None:
    site = WebSite(tmp_path)
    site.account("ada", "viewer")
    said = [site.client().post("/login", json={"name": "ada", "password": "wrong"}) for _ in range(6)]
    assert [answer.status_code for answer in said] == [401] * 5 + [429]
    assert 1 <= int(said[-1].headers["Retry-After"]) <= 30
    site.stop()
    again = WebSite(tmp_path)
    right = again.client().post("/login", json={"name": "ada", "password": PASSWORD})
    assert right.status_code == 429
    page = again.client().post("/login", data={"name": "ada", "password": PASSWORD})
    assert page.status_code == 429 and "too many failed tries" in page.text and "Retry-After" in page.headers
    again.stop()


def test_login_pauses_double_from_30_s_to_15_min_per_name_and_address_and_are_forgotten_after_an_hour(
    site: WebSite,
) -> None:
    now = site.database.now()
    waits = []
    with site.database.transaction() as session:
        for _ in range(5):
            assert not sessions.try_once(session, ["account x", "address 1"], now)
        for _ in range(8):
            wait = sessions.try_once(session, ["account x", "address 2"], now)
            waits.append(wait.total_seconds())
            now += wait
            assert not sessions.try_once(session, ["account x", "address 2"], now)
        assert waits == [30, 60, 120, 240, 480, 900, 900, 900]
        assert sessions.try_once(session, ["account y", "address 2"], now).total_seconds() == 240
        assert not sessions.try_once(session, ["account x", "address 3"], now + timedelta(hours=1))
        sessions.forgive(session, "account x")
        assert not sessions.try_once(session, ["account x", "address 4"], now)


def test_login_where_a_person_signed_in_before_is_not_shut_by_who_guesses_elsewhere(site: WebSite) -> None:
    desk = SignInDesk(site.settings, site.database)
    right, wrong = (Credentials(name="ada", password=word) for word in (PASSWORD, "wrong password"))

    def tried(given: Credentials, address: str) -> int:
        try:
            desk.sign_in(given, address, "")
        except HTTPException as error:
            return error.status_code
        return 200

    assert tried(right, "10.0.0.1") == 200
    for n in range(5):  # from an address each
        assert tried(wrong, f"10.0.1.{n}") == 401
    assert (tried(wrong, "10.0.1.9"), tried(right, "10.0.0.2")) == (429, 429)
    assert tried(right, "10.0.0.1") == 200
    assert tried(right, "10.0.0.2") == 429  # who got in there has forgiven nobody elsewhere
    assert [tried(wrong, "10.0.0.1") for _ in range(6)] == [401] * 5 + [429]
    with site.database.transaction() as session:
        accounts.set_password(session, "ada", PASSWORD)
        for row in session.exec(select(LoginFailure)):
            assert row.failures == 0 or row.subject.startswith("address ")
    assert tried(right, "10.0.0.2") == 200


def test_login_an_address_is_known_for_ninety_days_and_a_failure_counts_for_an_hour(site: WebSite) -> None:
    now, whole_seconds = site.database.now(), 43_200.0
    with site.database.transaction() as session:
        sessions.welcome(session, "ada", "10.0.0.1", now)
        sessions.try_once(session, sessions.subjects_of(session, "bea", "10.0.0.2"), now)
        sessions.sweep(session, now + timedelta(minutes=61), whole_seconds)
        here = sessions.subjects_of(session, "ada", "10.0.0.1")[1]
        assert session.exec(select(LoginFailure.subject)).all() == [here]
        assert here == f"{sessions.name_subject('ada')} from 10.0.0.1"
        sessions.sweep(session, now + timedelta(days=90, minutes=1), whole_seconds)
        assert sessions.subjects_of(session, "ada", "10.0.0.1")[1] == sessions.name_subject("ada")


def test_login_that_is_tried_again_and_again_is_told_once_a_minute_and_makes_no_rows_of_made_up_names(
    site: WebSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.trail = Audit(site.database, source="NADIR", patients=Patients(key=b"k"))
    site.account("bea", "viewer")
    client = site.client()
    for name in ["ada", "ada", "bea", "nobody", "no one", *(f"name {n}" for n in range(20)), "ada", "bea"]:
        client.post("/login", json={"name": name, "password": "wrong password"})
    told = [(message.participants[0].user_id, message.description) for message in site.heard]
    wrong = "wrong name or password"
    assert told == [
        ("ada", wrong),
        ("bea", wrong),
        ("unknown", wrong),
        ("unknown", "too many failed tries"),
    ]
    assert sum("sign-in-failed" in message for message in caplog.messages) == 4
    with site.database.reading() as session:
        assert len(session.exec(select(LoginFailure)).all()) == 5  # four names and the address


def test_login_does_not_tell_whether_an_account_exists(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str | None] = []
    real = accounts.is_password
    monkeypatch.setattr(accounts, "is_password", lambda p, h: hashed.append(h) or real(p, h))
    with site.database.transaction() as session:
        accounts.add_account(session, "gone", "viewer", PASSWORD, site.database.now())
        accounts.set_disabled(session, "gone", disabled=True)
    answers = [
        site.client().post("/login", json={"name": name, "password": "wrong password"})
        for name in ("ada", "nobody", "gone")
    ]
    said = '{"error":"wrong name or password","code":"not-signed-in"}'
    assert {(a.status_code, a.text) for a in answers} == {(401, said)}
    assert len(hashed) == 3  # a hash each time, so that the answer takes as long


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"name": "ada"}',
        b'{"name": 1, "password": "x"}',
        b"\xff",
        b'{"name":"a","password":"%s"}' % (b"x" * 300),
    ],
)
def test_login_with_half_of_it_is_one_sentence_and_quotes_nothing(site: WebSite, content: bytes) -> None:
    answer = site.client().post("/login", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (
        422,
        {"error": "give name and password", "code": "not-valid"},
    )

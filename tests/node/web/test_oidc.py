"""Signing in by an OpenID provider: who gets in and as what, and everything that must not get anybody in."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from browser import sign_in
from identity_provider import CLIENT, SECRET, IdentityProvider
from pydantic import ValidationError
from sqlmodel import select
from web_site import WebSite

from node import oidc_provider, oidc_token
from node.audit_message import ROLES_CHANGED, SECURITY_ALERT
from node.oidc_settings import OidcSettings
from store import accounts, outside_people
from store.outside_people import OutsideAttempt

# One site for all of them: what one leaves, the next one finds.
pytestmark = [pytest.mark.sec, pytest.mark.xdist_group("oidc")]


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    made = IdentityProvider()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def site(provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    home = tmp_path_factory.mktemp("oidc")
    secret = home / "client-secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    made = WebSite(
        home,
        oidc={
            "issuer": provider.issuer,
            "client_id": CLIENT,
            "client_secret_file": secret,
            "viewers": ("radiology",),
            "physicists": ("medical physics",),
            "administrators": ("nadir-admins",),
        },
    )
    made.account("ada", "administrator")
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "SCRYPT_N", 1 << 10)


@pytest.fixture(autouse=True)
def as_usual(provider: IdentityProvider) -> None:
    provider.claims = {"sub": "u-1", "preferred_username": "grace", "groups": ["radiology"]}
    provider.user_info, provider.faults = {}, {}
    provider.key, provider.kid, provider.has_page = "first", "k1", False


def to_provider(client: httpx.Client, then: str = "") -> str:
    """Return the address of the way back, as the provider's redirect has it."""
    begun = client.get("/oidc/sign-in", params={"next": then} if then else None)
    assert begun.status_code == 303, begun.text
    return str(httpx.get(begun.headers["location"], trust_env=False).headers["location"])


def come_back(client: httpx.Client, then: str = "") -> httpx.Response:
    return client.get(to_provider(client, then))


def sentence(answer: httpx.Response) -> str:
    found = re.search(r'role="alert">([^<]*)<', answer.text)
    assert found, answer.text
    return unescape(found[1])


def test_who_the_provider_knows_gets_a_session_and_the_page_that_was_wanted(site: WebSite) -> None:
    client = site.client()
    page = come_back(client, "/models?x=1")
    assert page.status_code == 200
    assert '<meta http-equiv="refresh" content="0;url=/models?x=1">' in page.text
    cookies = page.headers.get_list("set-cookie")
    assert any(c.startswith("nadir_session=") and "HttpOnly" in c and "SameSite=strict" in c for c in cookies)
    assert any(c.startswith('nadir_oidc=""') and "Max-Age=0" in c for c in cookies)
    shown = client.get("/models", headers={"Accept": "text/html"})
    assert shown.status_code == 200 and 'title="viewer">grace<' in shown.text
    csrf = shown.text.partition('name="csrf_token" value="')[2].partition('"')[0]
    assert client.post("/logout", headers={"X-CSRF-Token": csrf}).status_code == 200
    assert client.get("/models").status_code == 401


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        ("radiology", "viewer"),
        ("medical physics", "physicist"),
        ("visitors of radiology", None),
        ("former,nadir-admins", None),
        ("radiology nadir-admins", None),
        (["visitors of radiology", "no\tnadir-admins"], None),
        (["x", "medical physics", "radiology"], "physicist"),
        (["nadir-admins"], "administrator"),
        (["Radiology"], None),
        ([], None),
        (None, None),
        ({"radiology": True}, None),
    ],
)
def test_the_role_follows_the_claim_at_each_sign_in_and_without_one_nobody_gets_in(
    site: WebSite, provider: IdentityProvider, groups: Any, role: str | None
) -> None:
    provider.claims["groups"] = groups
    client = site.client()
    answer = come_back(client)
    if role is None:
        assert answer.status_code == 403 and "have no role on this node" in sentence(answer)
        assert client.get("/models").status_code == 401
    else:
        assert f'title="{role}">grace<' in client.get("/login").text


def test_who_has_no_role_any_more_is_signed_out_everywhere_at_the_next_try(
    site: WebSite, provider: IdentityProvider
) -> None:
    provider.claims["groups"] = "radiology"
    before = site.client()
    assert come_back(before).status_code == 200 and before.get("/models").status_code == 200
    provider.claims["groups"] = []
    assert come_back(site.client()).status_code == 403
    assert before.get("/models").status_code == 401


def test_groups_that_only_the_provider_itself_tells_are_asked_for_and_must_be_of_the_same_person(
    site: WebSite, provider: IdentityProvider
) -> None:
    del provider.claims["groups"]
    provider.user_info = {"groups": ["medical physics"]}
    client = site.client()
    assert come_back(client).status_code == 200
    assert 'title="physicist">grace<' in client.get("/login").text
    provider.user_info = {"groups": ["medical physics"], "sub": "somebody-else"}
    assert come_back(site.client()).status_code == 403


def past(seconds: int) -> int:
    return int(time.time()) - seconds


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"claims": {"nonce": "another"}}, "not for this sign-in (nonce)"),
        ({"claims": {"nonce": None}}, "not for this sign-in (nonce)"),
        ({"claims": {"aud": "another-program"}}, "not for this sign-in (aud)"),
        ({"claims": {"aud": [CLIENT, "another"]}}, "for another program (azp)"),
        ({"claims": {"aud": [CLIENT, "another"], "azp": "another"}}, "for another program (azp)"),
        ({"claims": {"iss": "https://evil.example"}}, "not for this sign-in (iss)"),
        ({"claims": {"exp": past(300)}}, "not for this sign-in (exp)"),
        ({"claims": {"exp": None}}, "not for this sign-in (exp)"),
        ({"claims": {"iat": past(-86400)}}, "not for this sign-in (iat)"),
        ({"claims": {"sub": None}}, "not for this sign-in (sub)"),
        ({"signed": {"alg": "none"}}, "not signed as it has to be"),
        ({"signed": {"alg": "HS256"}}, "not signed as it has to be"),
        ({"signed": {"key": "second"}}, "not signed as it has to be"),
        ({"signed": {"key": "second", "kid": "k9"}}, "a key that it does not publish"),
        ({"error": "access_denied"}, "did not sign you in (access_denied)"),
        ({"error": "<script>"}, "the provider did not sign you in"),
        ({"state": "made-up"}, "was not begun in this browser"),
        ({"iss": "https://evil.example"}, "another provider answered"),
    ],
)
def test_what_is_not_as_it_has_to_be_gets_nobody_in(
    site: WebSite, provider: IdentityProvider, faults: dict[str, Any], said: str
) -> None:
    provider.faults = faults
    client = site.client()
    answer = come_back(client)
    assert answer.status_code in (400, 403) and said in sentence(answer)
    assert "nadir_session" not in client.cookies
    assert "<script>" not in sentence(answer)


def test_a_clock_that_is_a_little_off_keeps_nobody_out(site: WebSite, provider: IdentityProvider) -> None:
    provider.faults = {"claims": {"exp": past(20), "iat": past(-20)}}
    assert come_back(site.client()).status_code == 200


def test_a_way_back_is_good_once_and_in_the_browser_that_began_it(site: WebSite) -> None:
    client, thief = site.client(), site.client()
    back = to_provider(client)
    stolen = thief.get(back)
    assert stolen.status_code == 400 and "not begun in this browser" in sentence(stolen)
    assert "nadir_session" not in thief.cookies
    jar = dict(client.cookies)
    assert client.get(back).status_code == 200
    again = site.client()
    again.cookies.update(jar)
    assert again.get(back).status_code == 400
    assert "nadir_session" not in again.cookies


def test_a_code_of_another_sign_in_is_refused_by_its_pkce(site: WebSite) -> None:
    ours, other = site.client(), site.client()
    code = parse_qs(urlsplit(to_provider(other)).query)["code"][0]
    state = parse_qs(urlsplit(to_provider(ours)).query)["state"][0]
    answer = ours.get("/oidc/callback", params={"code": code, "state": state})
    assert answer.status_code == 400 and "does not confirm this sign-in" in sentence(answer)


@pytest.mark.parametrize(
    "then", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x"]
)
def test_no_address_but_one_of_this_node_is_gone_on_to(site: WebSite, then: str) -> None:
    page = come_back(site.client(), then)
    assert 'content="0;url=/worklist"' in page.text and "evil" not in page.text


def test_a_name_of_this_node_is_not_taken_over_and_a_disabled_person_stays_out(
    site: WebSite, provider: IdentityProvider
) -> None:
    provider.claims |= {"sub": "u-2", "preferred_username": "ada", "groups": ["nadir-admins"]}
    answer = come_back(site.client())
    assert answer.status_code == 409 and "'ada' of this node is somebody else's" in sentence(answer)
    provider.claims |= {"sub": "u-3", "preferred_username": "Mary Élise / x"}
    client = site.client()
    assert come_back(client).status_code == 200
    assert ">Mary-lise-x<" in client.get("/login").text
    for subject, name in (("u-4", "Иван"), ("u-5", "李明")):
        provider.claims |= {"sub": subject, "preferred_username": name}
        assert come_back(site.client()).status_code == 200
    with site.database.transaction() as session:
        accounts.set_disabled(session, "Mary-lise-x", disabled=True)
    provider.claims["sub"] = "u-3"
    assert client.get("/models").status_code == 401
    assert "is disabled on this node" in sentence(come_back(site.client()))


def test_a_new_key_of_the_provider_is_found_and_unknown_ones_do_not_make_us_ask_again_and_again(
    site: WebSite, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    come_back(site.client())
    monkeypatch.setattr(oidc_provider, "ASKED_AGAIN_SECONDS", 0.0)
    provider.key, provider.kid = "second", "k2"
    assert come_back(site.client()).status_code == 200
    monkeypatch.setattr(oidc_provider, "ASKED_AGAIN_SECONDS", 60.0)
    provider.faults = {"signed": {"key": "third", "kid": "k3"}}
    before = provider.asked.count("/realms/x/jwks")
    for _ in range(3):
        assert come_back(site.client()).status_code == 400
    assert provider.asked.count("/realms/x/jwks") == before
    provider.key, provider.kid, provider.faults = "first", "k1", {}
    monkeypatch.setattr(oidc_provider, "ASKED_AGAIN_SECONDS", 0.0)
    assert come_back(site.client()).status_code == 200


def test_the_audit_trail_tells_who_came_in_and_that_somebody_did_not(
    site: WebSite, provider: IdentityProvider
) -> None:
    come_back(site.client())
    site.heard.clear()
    come_back(site.client())
    provider.claims["groups"] = []
    come_back(site.client())
    told = [(message.description, message.participants[0].user_id) for message in site.heard]
    assert told == [("", "grace"), ("", provider.issuer), ("oidc: no-role", "unknown")]


def test_the_audit_trail_tells_the_role_that_the_provider_gives_and_each_change_of_it(
    site: WebSite, provider: IdentityProvider
) -> None:
    site.heard.clear()
    provider.claims |= {"sub": "u-risen", "preferred_username": "ruth"}
    for groups in (["radiology"], ["radiology"], ["nadir-admins"], ["radiology"], [], []):
        provider.claims["groups"] = groups
        come_back(site.client())
    changed = [message for message in site.heard if message.event == SECURITY_ALERT]
    assert {message.types for message in changed} == {(ROLES_CHANGED,)}
    assert {message.participants[0].user_id for message in changed} == {provider.issuer}
    assert [(one.id, one.details[0][1]) for message in changed for one in message.subjects] == [
        ("ruth", "account added as viewer"),
        ("ruth", "role changed to administrator"),
        ("ruth", "role changed to viewer"),
        ("ruth", "no role any more, sessions ended"),
        ("ruth", "no role any more, sessions ended"),
    ]


def test_settings_that_would_let_nobody_or_anybody_in_are_refused() -> None:
    usual = {"issuer": "https://login.example.org/x", "client_id": "nadir", "viewers": "staff, guests"}
    assert OidcSettings(**usual).roles[-1] == ("viewer", ("staff", "guests"))
    for bad in (
        {"viewers": ""},
        {"client_id": ""},
        {"issuer": "http://login.example.org"},
        {"issuer": "https://x/?a=b"},
    ):
        with pytest.raises(ValidationError):
            OidcSettings(**usual | bad)


def test_a_claim_inside_an_object_is_found_by_its_path() -> None:
    claims = {"realm_access": {"roles": ["a"]}, "https://x.org/roles": ["b"]}
    assert oidc_token.claim(claims, "realm_access.roles") == ["a"]
    assert oidc_token.claim(claims, "https://x.org/roles") == ["b"]
    assert oidc_token.claim(claims, "realm_access.roles.x") is None


def test_attempts_of_strangers_never_grow_without_bound(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_people, "MOST_ATTEMPTS", 3)
    for _ in range(5):
        assert site.client().get("/oidc/sign-in").status_code == 303
    with site.database.reading() as session:
        assert len(session.exec(select(OutsideAttempt)).all()) == 3


def test_the_button_is_there_with_a_provider_and_the_password_beside_it(
    site: WebSite, provider: IdentityProvider, look: Any
) -> None:
    sight = look(site.url)
    page = sight.open("/login?next=/models")
    provider.has_page = True
    page.get_by_role("link", name="Sign in with the account of the institute").click()
    page.get_by_role("link", name="Go on").click()
    page.wait_for_url("**/models")
    assert page.get_by_role("heading", name="Models").is_visible()
    assert sight.problems == []
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
    assert sight.serious_faults() == []
    assert sign_in(sight, "ada")

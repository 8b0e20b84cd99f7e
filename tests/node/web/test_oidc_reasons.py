"""Why nobody gets in by an OpenID provider: told to the person, in the log and by the doctor."""

from __future__ import annotations

import html
import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from identity_provider import CLIENT, SECRET, IdentityProvider
from web_site import WebSite

from node import oidc_provider
from node.audit import Audit
from node.audit_events import Patients
from node.doctor_peers import peers
from node.examined import Line
from node.oidc_settings import OidcSettings
from node.settings import Settings
from plugins.errors import Unavailable
from store import accounts

pytestmark = [pytest.mark.sec, pytest.mark.xdist_group("oidc")]


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    made = IdentityProvider()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def oidc(provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    secret = tmp_path_factory.mktemp("secret") / "client-secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    return {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "client_secret_file": secret,
        "viewers": ("radiology",),
    }


@pytest.fixture(scope="module")
def site(oidc: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    made = WebSite(tmp_path_factory.mktemp("oidc"), oidc=oidc)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def as_usual(provider: IdentityProvider) -> None:
    provider.claims = {"sub": "u-1", "preferred_username": "grace", "groups": ["radiology"]}
    provider.faults, provider.secret, provider.key, provider.kid = {}, SECRET, "first", "k1"


def sign_in(site: WebSite) -> httpx.Response:
    client = site.client()
    begun = client.get("/oidc/sign-in")
    return client.get(str(httpx.get(begun.headers["location"], trust_env=False).headers["location"]))


def sentence(answer: httpx.Response) -> str:
    found = re.search(r'role="alert">([^<]*)<', answer.text)
    assert found, answer.text
    return html.unescape(found[1])


def logged(caplog: pytest.LogCaptureFixture) -> str:
    (said,) = [r.getMessage() for r in caplog.records if "sign-in-failed" in r.getMessage()]
    return said


def test_a_client_secret_that_the_provider_refuses_is_told_as_the_setting_that_is_wrong(
    site: WebSite, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.secret = "another"
    with caplog.at_level(logging.WARNING):
        answer = sign_in(site)
    assert answer.status_code == 503
    assert "refuses this node's own client_id or client secret (invalid_client)" in sentence(answer)
    assert "oidc.client_secret_file" in sentence(answer)
    assert "why=client-refused" in logged(caplog) and "(invalid_client)" in logged(caplog)
    assert SECRET not in logged(caplog)


def test_a_provider_that_is_silent_is_asked_once_in_ten_seconds_for_all_who_wait_and_then_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, asked = [0.0], list[float]()

    def ask(method: str, address: str) -> tuple[int, dict[str, str]]:
        asked.append(now[0])
        if len(asked) == 3:
            named = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            return 200, {"issuer": "https://x.org", **dict.fromkeys(named, "https://x.org/there")}
        now[0] += 10.0
        raise Unavailable("the provider cannot be reached")

    settings = OidcSettings(issuer="https://x.org", client_id="nadir", viewers=("staff",))
    provider = oidc_provider.Provider(settings, clock=lambda: now[0])
    monkeypatch.setattr(provider, "_ask", ask)

    def click(_: int = 0) -> str:
        try:
            return provider.sign_in_address(redirect="r", state="s", nonce="n", verifier="v")
        except Unavailable as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(click, range(16))) == {"the provider cannot be reached"}
    now[0] = 19.9
    assert (click(), asked) == ("the provider cannot be reached", [0.0])
    now[0] = 20.0
    assert (click(), asked) == ("the provider cannot be reached", [0.0, 20.0])
    now[0] = 40.0
    assert click().startswith("https://x.org/there?response_type=code")


def test_who_comes_back_again_and_again_without_an_attempt_is_told_once_a_minute(
    oidc: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = WebSite(tmp_path, oidc=oidc)
    site.trail = Audit(site.database, source="NADIR", patients=Patients(key=b"k"))
    client = site.client()
    assert {client.get(f"/oidc/callback?state={n}").status_code for n in range(20)} == {400}
    assert [message.description for message in site.heard] == ["oidc: unknown-attempt"]
    assert "why=unknown-attempt" in logged(caplog)
    site.stop()


@pytest.mark.parametrize(
    ("status", "error", "code", "said"),
    [
        (400, "invalid_grant", "code-refused", "(invalid_grant); sign in again"),
        (400, "<script>", "code-refused", "(HTTP 400); sign in again"),
        (500, None, "code-refused", "(HTTP 500); sign in again"),
        (401, None, "client-refused", "(HTTP 401): see oidc.client_id"),
        (400, "unauthorized_client", "client-refused", "(unauthorized_client): see oidc.client_id"),
    ],
)
def test_the_error_of_a_token_answer_is_told_where_it_is_a_word_of_the_standard(
    status: int, error: object, code: str, said: str
) -> None:
    refused = oidc_provider._not_exchanged(status, error)
    assert refused.code == code and said in refused.sentence


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"claims": {"aud": "another-program"}}, "(aud)"),
        ({"claims": {"iss": "https://evil.example"}}, "(iss)"),
        ({"signed": {"key": "second"}}, "not signed as it has to be"),
        ({"signed": {"key": "second", "kid": "k9"}}, "a key that it does not publish"),
    ],
)
def test_the_log_tells_what_is_wrong_with_an_id_token_and_nothing_that_it_holds(
    site: WebSite,
    provider: IdentityProvider,
    caplog: pytest.LogCaptureFixture,
    faults: dict[str, Any],
    said: str,
) -> None:
    provider.faults = faults
    with caplog.at_level(logging.WARNING):
        sign_in(site)
    assert "why=bad-id-token" in logged(caplog) and said in logged(caplog)
    for held in ("grace", "another-program", "evil.example"):
        assert held not in logged(caplog)


@pytest.mark.parametrize("subject", ["\ud800", "ü", "", 7, "u" * 256])
def test_a_subject_that_openid_does_not_know_is_refused_and_makes_nobody(
    site: WebSite, provider: IdentityProvider, caplog: pytest.LogCaptureFixture, subject: object
) -> None:
    provider.claims = {"sub": subject, "preferred_username": "eve", "groups": ["radiology"]}
    with caplog.at_level(logging.WARNING):
        assert sign_in(site).status_code < 500
    assert "why=bad-id-token" in logged(caplog)
    with site.database.reading() as session:
        assert "eve" not in {row["name"] for row in accounts.list_accounts(session)}


def test_the_log_names_nobody_whose_name_is_taken(
    site: WebSite, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    site.account("ada", "administrator")
    provider.claims |= {"sub": "u-2", "preferred_username": "ada"}
    with caplog.at_level(logging.WARNING):
        answer = sign_in(site)
    assert "'ada'" in sentence(answer)
    assert "why=account-exists" in logged(caplog) and "ada" not in logged(caplog)


def looked_at(oidc: dict[str, Any]) -> Line:
    (found,) = [line for line in peers(Settings(oidc=oidc)) if line.what.startswith("OpenID")]
    return found


def test_the_doctor_finds_a_provider_that_is_as_it_has_to_be(oidc: dict[str, Any]) -> None:
    found = looked_at(oidc)
    assert (found.ok, found.what) == (True, f"OpenID provider {oidc['issuer']}")
    assert found.says == "describes itself, and publishes 1 keys for signatures"


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "RSA", "kid": "half"},
        {"kty": "EC", "crv": "BP-256", "kid": "brainpool", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "crv": "P-256", "kid": "no point", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "crv": ["P-256"], "kid": 5, "x": 1, "y": None},
        {"kty": "OKP", "crv": "Ed25519", "kid": "short", "x": "AQ"},
    ],
    ids=lambda key: str(key["kid"]),
)
def test_a_published_key_that_this_node_cannot_read_keeps_nobody_out_and_is_not_counted(
    oidc: dict[str, Any], site: WebSite, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch, key: Any
) -> None:
    monkeypatch.setattr(oidc_provider, "KEPT_SECONDS", 0.0)
    provider.faults = {"keys": [key]}
    assert sign_in(site).status_code == 200
    assert "publishes 1 keys" in looked_at(oidc).says


def test_the_doctor_tells_what_keeps_everybody_from_signing_in(
    oidc: dict[str, Any], provider: IdentityProvider, tmp_path: Path
) -> None:
    assert "(HTTP 404)" in looked_at({**oidc, "issuer": f"{oidc['issuer']}y"}).says
    no_bundle = {**oidc, "ca_file": tmp_path / "none.pem"}
    assert "none.pem of oidc.ca_file cannot be read" in looked_at(no_bundle).says
    no_secret = {**oidc, "client_secret_file": tmp_path / "none"}
    assert "oidc.client_secret_file cannot be read" in looked_at(no_secret).says
    provider.faults = {"described": {"issuer": "https://other.example"}}
    assert "calls itself otherwise than oidc.issuer says" in looked_at(oidc).says
    provider.faults = {"described": {"jwks_uri": f"{oidc['issuer']}/nosuch"}}
    assert "(HTTP 404)" in looked_at(oidc).says
    provider.faults = {"described": {"jwks_uri": f"{oidc['issuer']}/userinfo"}}
    assert "publishes no key that signs" in looked_at(oidc).says
    assert not looked_at(oidc).ok and SECRET not in json.dumps(looked_at(oidc).plain())


def test_a_new_key_without_a_name_is_found_and_strange_ones_do_not_make_us_ask_again(
    site: WebSite, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_provider, "ASKED_AGAIN_SECONDS", 0.0)
    provider.key, provider.kid = "second", ""
    assert sign_in(site).status_code == 200
    provider.key = "third"
    assert sign_in(site).status_code == 200
    monkeypatch.setattr(oidc_provider, "ASKED_AGAIN_SECONDS", 60.0)
    provider.faults = {"signed": {"key": "first"}}
    before = provider.asked.count("/realms/x/jwks")
    for _ in range(3):
        assert sign_in(site).status_code == 400
    assert provider.asked.count("/realms/x/jwks") == before

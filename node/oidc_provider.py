"""The OpenID provider over HTTPS: what it says of itself, its keys, and the exchange of a code for claims."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx

from models.extras import how_to_install
from node import oidc_token
from node.oidc_settings import LOOPBACK, OidcSettings
from node.oidc_token import UnknownKey
from node.paced_http import is_packed_twice
from node.secrets import read_secret
from plugins.errors import Refused, Unavailable

TIMEOUT_SECONDS = 10.0
LARGEST_BYTES = 1 << 20
KEPT_SECONDS = 3600.0
ASKED_AGAIN_SECONDS = 60.0
"""New keys are looked for at most this often: whoever sends unknown keys does not make us ask."""
FAILED_SECONDS = 10.0
"""A failure answers everybody for so long: a provider that is silent is not waited for by one after the other."""
ERROR = re.compile(r"[a-z_]{1,64}")
"""What is repeated of an error that comes from outside."""
CLIENT_ERRORS = ("invalid_client", "unauthorized_client")
NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Provider:
    """One provider. What it publishes is kept for an hour; safe to share between threads.

    Parameters
    ----------
    settings
        Who it is, and who we are there.
    clock
        Seconds since 1970.

    """

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._context: ssl.SSLContext | None = None

    def sign_in_address(self, *, redirect: str, state: str, nonce: str, verifier: str) -> str:
        """Return where a browser is sent to sign in. Raises Unavailable; refuses `bad-provider`."""
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        address = str(self._described()["authorization_endpoint"])
        return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(asked)}"

    def claims(self, *, code: str, redirect: str, verifier: str, nonce: str) -> Mapping[str, Any]:
        """Return who signed in, as the verified ID token says it, and as the provider tells where that is silent.

        Refuses `bad-id-token`, `bad-provider`, `client-refused` and `code-refused`. Raises Unavailable.
        """
        described = self._described()
        answer = self._exchange(described, code, redirect, verifier)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Refused("bad-id-token", "the provider's answer says nothing of who signed in")
        claims = self._verified(token, described, nonce)
        wanted = (self._settings.role_claim, self._settings.name_claim)
        if all(oidc_token.claim(claims, name) is not None for name in wanted):
            return claims
        return {**self._user_info(described, answer.get("access_token"), claims["sub"]), **claims}

    def look(self) -> int:
        """Return how many keys for signatures the provider publishes, once it was found as a sign-in needs it.

        Refuses `no-oidc`, `bad-secret-file` and `bad-provider`. Raises Unavailable. Whether it takes client_id and
        secret only a sign-in shows.
        """
        require_package()
        if self._settings.client_secret_file is not None:
            read_secret(self._settings.client_secret_file, "oidc.client_secret_file")
        keys = self._published(str(self._described()["jwks_uri"]))
        if not (count := oidc_token.usable(keys)):
            raise Refused("bad-provider", "the provider publishes no key that signs ID tokens")
        return count

    def _exchange(
        self, described: Mapping[str, Any], code: str, redirect: str, verifier: str
    ) -> Mapping[str, Any]:
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": verifier,
            "client_id": settings.client_id,
        }
        headers = {}
        if settings.client_secret_file is not None:
            secret = read_secret(settings.client_secret_file, "oidc.client_secret_file")
            if "client_secret_basic" in described.get(
                "token_endpoint_auth_methods_supported", ["client_secret_basic"]
            ):
                pair = f"{quote(settings.client_id, safe='')}:{quote(secret, safe='')}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            else:
                form["client_secret"] = secret
        status, answer = self._ask("POST", str(described["token_endpoint"]), data=form, headers=headers)
        if status != 200:
            raise _not_exchanged(status, answer.get("error"))
        return answer

    def _verified(self, token: str, described: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        address = str(described["jwks_uri"])

        def verified(keys: Mapping[str, Any]) -> Mapping[str, Any]:
            return oidc_token.verified(
                token,
                keys,
                issuer=self._settings.issuer,
                client_id=self._settings.client_id,
                nonce=nonce,
                now=self._clock(),
                skew_seconds=self._settings.skew_seconds,
            )

        try:
            return verified(self._published(address))
        except UnknownKey:
            return verified(self._published(address, ASKED_AGAIN_SECONDS))

    def _user_info(self, described: Mapping[str, Any], token: object, subject: str) -> Mapping[str, Any]:
        """Return what the provider tells of the same person; nothing when it tells nothing (Core 5.3)."""
        address = described.get("userinfo_endpoint")
        if not isinstance(address, str) or not isinstance(token, str):
            return {}
        status, told = self._ask("GET", address, headers={"Authorization": f"Bearer {token}"})
        return told if status == 200 and told.get("sub") == subject else {}

    def _described(self) -> Mapping[str, Any]:
        issuer = self._settings.issuer
        told = self._published(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if told.get("issuer") != issuer:
            raise Refused("bad-provider", "the provider calls itself otherwise than oidc.issuer says")
        for name in NEEDED:
            self._require_safe(told.get(name), name)
        return told

    def _require_safe(self, address: object, name: str) -> None:
        """Refuse (`bad-provider`) an address without TLS; this machine's own may do without."""
        is_safe = isinstance(address, str) and (address.startswith("https://") or LOOPBACK.match(address))
        if not is_safe:
            raise Refused("bad-provider", f"the provider names no {name} that is reached by https")

    def _published(self, address: str, kept_seconds: float = KEPT_SECONDS) -> Mapping[str, Any]:
        with self._lock:
            at, told = self._kept.get(address, (0.0, {}))
            if told and self._clock() - at < kept_seconds:
                return told
            failed_at, why = self._failed.get(address, (0.0, ""))
            if why and abs(self._clock() - failed_at) < FAILED_SECONDS:
                raise Unavailable(why)
            try:
                status, told = self._ask("GET", address)
                if status != 200 or not told:
                    sentence = (
                        f"the provider that signs people in does not answer as it has to (HTTP {status})"
                    )
                    raise Unavailable(sentence)
            except Unavailable as error:
                self._failed[address] = (self._clock(), str(error))
                raise
            self._kept[address] = (self._clock(), told)
            return told

    def _ask(self, method: str, address: str, **how: Any) -> tuple[int, Mapping[str, Any]]:
        """Return status and JSON object of an answer, empty for any other answer. Raises Unavailable."""
        self._require_safe(address, "address")
        if self._context is None:
            try:
                self._context = ssl.create_default_context(cafile=self._settings.ca_file)
            except OSError as error:
                sentence = f"the file {self._settings.ca_file} of oidc.ca_file cannot be read or holds no certificate"
                raise Refused("bad-provider", sentence) from error
        try:
            with (
                httpx.Client(
                    verify=self._context, timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False
                ) as client,
                client.stream(method, address, **how) as answer,
            ):
                if is_packed_twice(answer):
                    raise Unavailable("the provider that signs people in packs its answers more than once")
                body = b""
                for block in answer.iter_bytes():
                    body += block
                    if len(body) > LARGEST_BYTES:
                        raise Unavailable("the provider that signs people in answers without end")
                told = httpx.Response(answer.status_code, content=body).json() if body else {}
                return answer.status_code, told if isinstance(told, dict) else {}
        except (httpx.HTTPError, OSError) as error:
            sentence = f"the provider that signs people in cannot be reached ({type(error).__name__})"
            raise Unavailable(sentence) from error
        except (ValueError, RecursionError):
            return answer.status_code, {}


def require_package() -> None:
    """Return when what judges ID tokens is installed. Refuses `no-oidc`."""
    if find_spec("joserfc") is None:
        raise Refused("no-oidc", f"the setting oidc.issuer needs another package: {how_to_install('oidc')}")


def _not_exchanged(status: int, error: object) -> Refused:
    """Return why there is no token for a code, of the status and the error that RFC 6749 (5.2) names."""
    known = error if isinstance(error, str) and ERROR.fullmatch(error) else f"HTTP {status}"
    if known in CLIENT_ERRORS or status == 401:
        sentence = (
            f"the provider refuses this node's own client_id or client secret ({known}): see oidc.client_id and "
            "oidc.client_secret_file"
        )
        return Refused("client-refused", sentence)
    return Refused("code-refused", f"the provider does not confirm this sign-in ({known}); sign in again")


__all__ = ["ERROR", "Provider", "require_package"]

"""A small OpenID provider on the loopback, made of the standards alone, which can be told to do wrong.

It signs with `cryptography`, not with what the node verifies by, checks PKCE, client secret, address and the single use
of a code as RFC 6749, RFC 7636 and OpenID Connect Core want it, and keeps what it was asked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from functools import cache
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

CLIENT, SECRET = "nadir-node", "s3cret: with/signs"


@cache
def key_of(name: str) -> rsa.RSAPrivateKey:
    """Return a key, made once."""
    assert name
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def encoded(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token_of(claims: dict[str, Any], *, key: str, alg: str = "RS256", kid: str = "k1") -> str:
    """Return a signed JWT; with `none` one without signature, with `HS256` one signed with the public key as secret."""
    head = encoded(json.dumps({"alg": alg, "typ": "JWT", **({"kid": kid} if kid else {})}).encode())
    signed = f"{head}.{encoded(json.dumps(claims).encode())}"
    if alg == "none":
        return f"{signed}."
    if alg == "HS256":
        import hmac

        secret = json.dumps(public_jwk(key, kid)).encode()
        return f"{signed}.{encoded(hmac.new(secret, signed.encode(), 'sha256').digest())}"
    return f"{signed}.{encoded(key_of(key).sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"


def public_jwk(name: str, kid: str) -> dict[str, str]:
    """Return the public part of a key as JWK."""
    numbers = key_of(name).public_key().public_numbers()
    n, e = (value.to_bytes((value.bit_length() + 7) // 8) for value in (numbers.n, numbers.e))
    made = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": encoded(n), "e": encoded(e)}
    return {name: value for name, value in made.items() if value}


class IdentityProvider:
    """The provider. What it says of who signs in is in `claims`, what it does wrong in `faults`."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {"sub": "u-1", "preferred_username": "grace", "groups": ["radiology"]}
        self.user_info: dict[str, Any] = {}
        self.faults: dict[str, Any] = {}
        self.key, self.kid, self.has_page = "first", "k1", False
        self.secret = SECRET
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                provider.asked.append(urlsplit(self.path).path)
                provider._get(self)

            def do_POST(self) -> None:
                provider.asked.append(urlsplit(self.path).path)
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                provider._exchange(self, {k: v[0] for k, v in parse_qs(body).items()})

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Another site than a node on 127.0.0.1: browsers withhold its strict cookies on the way back from here.
        self.issuer = f"http://localhost:{self._server.server_port}/realms/x"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _get(self, to: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(to.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match parts.path.removeprefix("/realms/x"):
            case "/.well-known/openid-configuration":
                described = {
                    "issuer": self.issuer,
                    "authorization_endpoint": f"{self.issuer}/authorize",
                    "token_endpoint": f"{self.issuer}/token",
                    "jwks_uri": f"{self.issuer}/jwks",
                    "userinfo_endpoint": f"{self.issuer}/userinfo",
                }
                _json(to, 200, {**described, **self.faults.get("described", {})})
            case "/jwks":
                _json(to, 200, {"keys": [*self.faults.get("keys", []), public_jwk(self.key, self.kid)]})
            case "/userinfo":
                _json(to, 200, {"sub": self.claims["sub"], **self.user_info})
            case "/authorize":
                self._authorize(to, asked)
            case _:
                _json(to, 404, {})

    def _authorize(self, to: BaseHTTPRequestHandler, asked: dict[str, str]) -> None:
        """Sign whoever comes in, at once."""
        assert (asked["client_id"], asked["response_type"]) == (CLIENT, "code")
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        back = {"state": asked["state"], **({"code": code} if "error" not in self.faults else {})}
        back |= {name: self.faults[name] for name in ("error", "state", "iss") if name in self.faults}
        address = f"{asked['redirect_uri']}?{urlencode(back)}"
        if self.has_page:  # a person goes on by himself: to a browser this site is where the way back begins
            _answer(to, 200, "text/html", f'<a href="{escape(address)}">Go on</a>'.encode())
            return
        to.send_response(302)
        to.send_header("Location", address)
        to.end_headers()

    def _exchange(self, to: BaseHTTPRequestHandler, form: dict[str, str]) -> None:
        pair = base64.b64decode(to.headers.get("authorization", "Basic ").removeprefix("Basic ")).decode()
        asked = self._codes.pop(form.get("code", ""), None)
        challenge = encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if [unquote(part) for part in pair.split(":")] != [CLIENT, self.secret]:
            _json(to, 401, {"error": "invalid_client"})
            return
        if (
            asked is None
            or form["redirect_uri"] != asked["redirect_uri"]
            or challenge != asked["code_challenge"]
        ):
            _json(to, 400, {"error": "invalid_grant"})
            return
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims |= self.claims | self.faults.get("claims", {})
        claims = {name: value for name, value in claims.items() if value is not None}
        how = {"key": self.key, "kid": self.kid, **self.faults.get("signed", {})}
        _json(to, 200, {"id_token": token_of(claims, **how), "access_token": "a", "token_type": "Bearer"})


def _json(to: BaseHTTPRequestHandler, status: int, content: object) -> None:
    _answer(to, status, "application/json", json.dumps(content).encode())


def _answer(to: BaseHTTPRequestHandler, status: int, kind: str, body: bytes) -> None:
    to.send_response(status)
    to.send_header("Content-Type", kind)
    to.send_header("Content-Length", str(len(body)))
    to.end_headers()
    to.wfile.write(body)


__all__ = ["CLIENT", "SECRET", "IdentityProvider", "token_of"]

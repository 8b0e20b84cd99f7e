"""Who may ask what over HTTP: people by role, programs by the scope of their token, and each route by its rule.

A route says with `allow` who may ask; one that says nothing is shut, and a test finds it. The roles rise: viewer,
physicist, administrator. While there is no hook_token, no provider of identities, no account and no token, this machine
itself may ask everything, and nobody else anything.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from node.logs import line
from node.networks import is_among, network_of
from node.settings import Settings
from plugins.errors import Refused
from store import accounts, sessions
from store.accounts import ROLES, SCOPES
from store.database import Database

COOKIE = "nadir_session"
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf_token"
SMALL_BODY_BYTES = 1 << 14
JSON_BODY_BYTES = 1 << 20
POLL = "x-nadir-poll"
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
LOCAL_NAMES = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
log = logging.getLogger(__name__)
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Who may ask a route, and how much they may send."""

    role: str | None = None
    """The lowest role that may; None for no person."""
    scopes: frozenset[str] = frozenset()
    """Tokens that may."""
    is_open: bool = False
    """True when everybody may."""
    from_loopback: bool = False
    """True when this machine itself may without saying who it is."""
    body_bytes: int = SMALL_BODY_BYTES
    """Largest body."""
    is_upload: bool = False
    """True when the setting `max_request_bytes` bounds the body instead."""
    always: bool = False
    """True when it is answered however busy the node is."""


SHUT = Rule()
"""The rule of a route that declares none, and of no route."""


def allow(
    role: Literal["viewer", "physicist", "administrator"] | None = None,
    *,
    scopes: tuple[Literal["hook", "sender", "metrics", "api"], ...] = (),
    is_open: bool = False,
    from_loopback: bool = False,
    body_bytes: int = SMALL_BODY_BYTES,
    is_upload: bool = False,
    always: bool = False,
) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator that declares the rule of a route; it stands below the route's own decorator."""
    rule = Rule(
        role=role,
        scopes=frozenset(scopes),
        is_open=is_open,
        from_loopback=from_loopback,
        body_bytes=body_bytes,
        is_upload=is_upload,
        always=always,
    )

    def declare(endpoint: Endpoint) -> Endpoint:
        endpoint.access_rule = rule  # type: ignore[attr-defined]
        return endpoint

    return declare


def rule_of(endpoint: object) -> Rule | None:
    """Return the rule that an endpoint declares; None when it declares none."""
    rule = getattr(endpoint, "access_rule", None)
    return rule if isinstance(rule, Rule) else None


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who asks."""

    kind: Literal["nobody", "machine", "person", "program"]
    """Nobody known; this machine while nothing is configured; an account; a token."""
    name: str = ""
    """Name of the account or token."""
    role: str | None = None
    """Role of a person."""
    scopes: frozenset[str] = frozenset()
    """Scopes of a token."""
    csrf_token: str = ""
    """What forms and scripts of this session's pages send with a change."""

    def may(self, rule: Rule) -> bool:
        """Return True when the rule lets this one in."""
        if rule.is_open:
            return True
        if self.kind == "person":
            return (
                rule.role is not None
                and self.role in ROLES
                and ROLES.index(self.role) >= ROLES.index(rule.role)
            )
        if self.kind == "program":
            return bool(self.scopes & rule.scopes)
        return self.kind == "machine" and rule != SHUT


NOBODY = Identity(kind="nobody")
STRANGER = Identity(kind="nobody", name="from elsewhere, while nothing is configured")


class Gate:
    """Finds out who asks, and decides.

    Parameters
    ----------
    settings
        Of them: `hook_token`, `metrics_token`, `http_proxies`, `http_names`, and how long sessions last.
    database
        Where accounts, tokens and sessions are.

    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._hook_token = settings.hook_token.encode("utf-8")
        self._is_configured = bool(settings.hook_token) or settings.oidc.is_on
        self._metrics_token = settings.metrics_token.encode("utf-8")
        self._proxies = tuple(map(network_of, settings.http_proxies))
        self._names = frozenset(name.lower() for name in settings.http_names)
        self._idle = timedelta(seconds=settings.session_idle_seconds)
        self._whole = timedelta(seconds=settings.session_seconds)
        self._database = database

    def address(self, request: Request) -> str:
        """Return the IP address that asks; what a proxy of the settings forwards for is believed."""
        peer = request.client.host if request.client else ""
        forwarded = _last(request, "x-forwarded-for")
        return forwarded if forwarded and is_among(peer, self._proxies) else peer

    def is_https(self, request: Request) -> bool:
        """Return True when the browser speaks TLS, with us or with a proxy of the settings."""
        peer = request.client.host if request.client else ""
        if "x-forwarded-proto" in request.headers and is_among(peer, self._proxies):
            return _last(request, "x-forwarded-proto") == "https"
        return request.url.scheme == "https"

    def identify(self, request: Request) -> Identity:
        """Return who asks. Raises 401 for a bearer token that is none of ours; asks the database.

        A foreign Host is refused where it would matter: a page in a browser on this machine that calls itself so.
        """
        given, now = request.headers.get("authorization", ""), self._database.now()
        if self._metrics_token and hmac.compare_digest(
            given.encode("utf-8", "replace"), b"Bearer " + self._metrics_token
        ):
            return Identity(kind="program", name="metrics_token", scopes=frozenset({"metrics"}))
        with self._database.reading() as session:
            is_configured = self._is_configured or accounts.has_any(session)
            if not is_configured:
                return Identity(kind="machine", name="this machine") if is_this_machine(request) else STRANGER
            if given[:7].lower() == "bearer ":
                token = given[7:].strip()
                if self._hook_token and hmac.compare_digest(
                    token.encode("utf-8", "replace"), self._hook_token
                ):
                    return Identity(kind="program", name="hook_token", scopes=frozenset(SCOPES))
                row = accounts.find_token(session, token, now)
                if row is None:
                    raise HTTPException(401, "this token is not known here, or its time is over")
                return Identity(kind="program", name=row.name, scopes=frozenset(row.scopes.split()))
            cookie = request.cookies.get(COOKIE, "")
            found = (
                sessions.find(session, cookie, now, idle=self._idle, whole=self._whole) if cookie else None
            )
        if found is None:
            return NOBODY
        if found.is_stale and POLL not in request.headers:  # a page that is left open keeps nobody signed in
            self._touch(cookie, now)
        account = found.account
        return Identity(
            kind="person", name=account.name, role=account.role, csrf_token=csrf_token(cookie, account.name)
        )

    def decide(self, request: Request, identity: Identity, rule: Rule) -> None:
        """Return when this one may ask this. Raises 401 for nobody, 403 for who may not, 421 for a foreign Host."""
        self._check_host(request)
        if identity.may(rule) or (rule.from_loopback and is_this_machine(request)):
            return
        if identity.kind != "nobody":
            raise HTTPException(403, f"{identity.name} may not do this")
        if identity == STRANGER:
            raise HTTPException(
                403, "only this machine may ask while there is no hook_token, no account and no token"
            )
        raise HTTPException(
            401, "sign in, or present a bearer token of this node", {"WWW-Authenticate": "Bearer"}
        )

    def _check_host(self, request: Request) -> None:
        host = request.headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._names and name not in self._names and not LOCAL_NAMES.fullmatch(host):
            raise HTTPException(421, "this node does not go by that name; http_names lists its names")

    def _touch(self, cookie: str, now: datetime) -> None:
        with self._database.transaction() as session:
            sessions.touch(session, cookie, now)


def _last(request: Request, name: str) -> str:
    """Return the last value of a header, which the nearest proxy wrote: some add a line, others to the line."""
    return ",".join(request.headers.getlist(name)).rpartition(",")[2].strip()


def require_authentication(settings: Settings, database: Database) -> None:
    """Return when the HTTP port may be opened. Refuses `open-http`: the network could reach it and nobody sign in.

    Warns when passwords and tokens would cross the network unencrypted.
    """
    if is_loopback(settings.http_host):
        return
    with database.reading() as session:
        has_any = accounts.has_any(session)
    require_keys(settings, has_any=has_any)
    if settings.http_tls_certificate is None and not settings.http_proxies:
        text = "passwords cross the network unencrypted: set http_tls_certificate, or http_proxies behind a proxy"
        log.warning(line("plain-http", host=settings.http_host, text=text))


def require_keys(settings: Settings, *, has_any: bool) -> None:
    """Return when the settings let the HTTP port be opened. Refuses `open-http`.

    `has_any` tells whether there is, or was, an account or a token.
    """
    is_configured = bool(settings.hook_token) or settings.oidc.is_on or has_any
    if not is_configured and not is_loopback(settings.http_host):
        sentence = (
            f"the HTTP port on {settings.http_host} would be open to the network: set hook_token, add an account "
            "(nadir users add) or a token (nadir tokens add), or keep http_host on 127.0.0.1"
        )
        raise Refused("open-http", sentence)


def check_origin(request: Request) -> None:
    """Return when a page of this node, or no page at all, asks for a change. Raises 403 for a foreign page.

    Browsers send both headers by themselves and let no page forge them; programs send neither.
    """
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise HTTPException(403, "a page of another site may not change anything here")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != request.headers.get("host", "").lower():
        raise HTTPException(403, "a page of another site may not change anything here")


def csrf_token(cookie: str, name: str) -> str:
    """Return what a page of this session shows and a foreign one cannot know: a keyed hash of the cookie."""
    return hmac.new(cookie.encode(), b"csrf " + name.encode(), "sha256").hexdigest()


def is_this_machine(request: Request) -> bool:
    """Return True for a direct request from the loopback; what a proxy forwards comes from elsewhere.

    A foreign Host is a page in a browser on this machine whose name was bound to the loopback.
    """
    host = request.client.host if request.client else ""
    is_forwarded = any(name in request.headers for name in FORWARDED)
    return (
        not is_forwarded
        and is_loopback(host)
        and bool(LOCAL_NAMES.fullmatch(request.headers.get("host", "")))
    )


def is_loopback(host: str) -> bool:
    """Return True for an address, or the name, of this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


__all__ = [
    "COOKIE",
    "CSRF_FIELD",
    "CSRF_HEADER",
    "JSON_BODY_BYTES",
    "NOBODY",
    "SAFE_METHODS",
    "SHUT",
    "Gate",
    "Identity",
    "Rule",
    "allow",
    "check_origin",
    "csrf_token",
    "is_loopback",
    "is_this_machine",
    "require_authentication",
    "rule_of",
]

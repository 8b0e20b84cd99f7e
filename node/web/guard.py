"""What stands before every route: who may ask, how much and how slowly they may send, and how errors look.

A plain ASGI middleware, so that uploads stream through it. It decides before a byte of the body is read.
`node.web.problem` says how errors look.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qs

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node import audit_events
from node.audit import Record, unheard
from node.web.access import (
    CSRF_FIELD,
    CSRF_HEADER,
    NOBODY,
    SAFE_METHODS,
    SHUT,
    Gate,
    Identity,
    Rule,
    check_origin,
    rule_of,
)
from node.web.frame import Frame
from node.web.problem import answer, status_of
from plugins.errors import Refused, Unavailable
from store.accounts import SCOPES

log = logging.getLogger(__name__)

BODY_SECONDS = 10.0
SLOWEST_BYTES_PER_SECOND = 1 << 16
LONGEST_TARGET = 4096
MOST_HEADERS, HEADER_BYTES = 64, 1 << 14
PLACES_KNOWN, PLACES_OPEN = 64, 16
FORM_BYTES = 1 << 20
# Where there is nothing, everybody who is let in at all learns so.
NO_ROUTE = Rule(role="viewer", scopes=frozenset(SCOPES))
ROUTE = "nadir.route"
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
FORM = "application/x-www-form-urlencoded"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Guard:
    """The middleware.

    Parameters
    ----------
    app
        What it stands before.
    routes
        The route table, whose endpoints declare their rules.
    gate
        Finds out who asks, and decides.
    upload_bytes
        Largest body of a route that declares `is_upload`.
    record
        Takes what the audit trail is told: who was not let in.
    frame
        Makes the pages that tell people of errors; without it everybody gets JSON.
    served
        Told of each request: its method, the template of its route, the status, and the seconds it took.

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[BaseRoute],
        gate: Gate,
        upload_bytes: int,
        record: Record = unheard,
        frame: Frame | None = None,
        served: Callable[[str, str, int, float], None] | None = None,
    ) -> None:
        self._served = served
        self._app = app
        self._routes = routes
        self._gate = gate
        self._upload_bytes = upload_bytes
        self._record = record
        self._frame = frame
        self._busy: Counter[bool] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # no web sockets here
        method, is_head = scope["method"], scope["method"] == "HEAD"
        if is_head:  # wherever GET is: the same answer without its body (RFC 9110 9.3.2)
            scope = {**scope, "method": "GET"}
        request = Request(scope)
        is_started, status, began = False, 500, time.perf_counter()

        async def send_guarded(message: Message) -> None:
            nonlocal is_started, status
            if message["type"] == "http.response.start":
                is_started, status = True, message["status"]
                _set_headers(MutableHeaders(scope=message), is_https=self._gate.is_https(request))
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._pass(request, receive, send_guarded)
        except Exception as error:  # the border of the web: a caller sees one sentence, the log the rest
            if is_started:
                raise
            await _answer(request, self._frame, error)(scope, receive, send_guarded)
        finally:
            if self._served is not None:
                self._served(
                    method if method in METHODS else "other",
                    scope.get(ROUTE, "none"),
                    status,
                    time.perf_counter() - began,
                )

    async def _pass(self, request: Request, receive: Receive, send: Send) -> None:
        _check_framing(request)
        rule, methods = self._rule(request.scope)
        with self._place(rule):
            _check_size_of_head(request)
            identity = await self._identity(request, rule)
            if methods:
                raise HTTPException(405, "Method Not Allowed", {"Allow": ", ".join(methods)})
            request.scope["state"]["identity"] = identity
            request.scope["state"]["address"] = self._gate.address(request)
            is_https = request.scope["state"]["is_https"] = self._gate.is_https(request)
            request.scope["scheme"] = "https" if is_https else "http"  # of what a redirect names
            limit = self._upload_bytes if rule.is_upload else rule.body_bytes
            if rule is not NO_ROUTE:  # whose body nobody reads
                _check_declared(request, limit)
            incoming = _bounded(receive, limit)
            if request.method not in SAFE_METHODS and identity.kind != "program":
                check_origin(request)
                if identity.kind == "person" and not rule.is_open:
                    incoming = await _check_token(request, incoming, identity, limit)
            await self._app(request.scope, incoming, send)

    def _rule(self, scope: Scope) -> tuple[Rule, list[str]]:
        """Return the rule of the route that will answer, and the methods that the place knows when it lacks this one.

        Who asks for no route learns only after he was let in that there is none.
        """
        rule, methods = NO_ROUTE, set[str]()
        for route in self._routes:
            match = route.matches(scope)[0]
            if match is Match.NONE:
                continue
            if match is Match.FULL or not methods:
                scope[ROUTE] = getattr(route, "path", "none")
                rule = rule_of(getattr(route, "endpoint", None)) or SHUT
            if match is Match.FULL:
                return rule, []
            methods |= getattr(route, "methods", None) or set()
        return rule, sorted(methods | ({"HEAD"} if "GET" in methods else set()))

    async def _identity(self, request: Request, rule: Rule) -> Identity:
        if rule.is_open and rule.always:
            return NOBODY
        name = ""
        try:
            identity = await run_in_threadpool(self._gate.identify, request)
            name = identity.name
            self._gate.decide(request, identity, rule)
        except HTTPException as error:
            address = self._gate.address(request)
            what = f"{request.method} {_shown(request.url.path)}"
            self._record(
                audit_events.request_denied(error.status_code, name, address, what),
                once=("denied", error.status_code, name, address),
            )
            raise
        return identity

    @contextmanager
    def _place(self, rule: Rule) -> Iterator[None]:
        """Keep strangers from taking all places: those whom everybody may ask have a few of their own."""
        if rule.always:
            yield
            return
        if self._busy[rule.is_open] >= (PLACES_OPEN if rule.is_open else PLACES_KNOWN):
            raise HTTPException(503, "too many requests are under way; ask again", {"Retry-After": "5"})
        self._busy[rule.is_open] += 1
        try:
            yield
        finally:
            self._busy[rule.is_open] -= 1


def _shown(path: str) -> str:
    """Return the first part of a path: what follows may be somebody's identifier."""
    return "/" + path.lstrip("/").partition("/")[0][:32]


def _answer(request: Request, frame: Frame | None, problem: Exception) -> Response:
    if isinstance(problem, HTTPException):
        return answer(request, frame, problem.status_code, str(problem.detail), headers=problem.headers)
    if isinstance(problem, Refused):
        return answer(request, frame, status_of(problem.code), problem.sentence, problem.code)
    if isinstance(problem, Unavailable):
        return answer(request, frame, 503, problem.outside, "unavailable", {"Retry-After": "10"})
    log.error("a request failed", exc_info=problem)
    return answer(request, frame, 500, "the node failed to answer; its log says why", "broken")


def _set_headers(headers: MutableHeaders, *, is_https: bool) -> None:
    """Add what every answer carries; a route may say itself how long it is kept and what its page may load."""
    headers.update(HEADERS)
    headers.setdefault("Cache-Control", "no-store")
    is_page = headers.get("content-type", "").startswith("text/html")
    headers.setdefault("Content-Security-Policy", PAGE_POLICY if is_page else DATA_POLICY)
    if is_https:
        headers["Strict-Transport-Security"] = "max-age=31536000"


def _check_framing(request: Request) -> None:
    """Refuse a body of two lengths and close: a proxy before the node may have taken its end for the next request."""
    if "content-length" in request.headers and "transfer-encoding" in request.headers:
        sentence = "Content-Length and Transfer-Encoding contradict each other"
        raise HTTPException(400, sentence, {"Connection": "close"})


def _check_size_of_head(request: Request) -> None:
    target = len(request.scope["raw_path"]) + len(request.scope["query_string"])
    if target > LONGEST_TARGET:
        raise HTTPException(414, f"the address is longer than {LONGEST_TARGET} bytes")
    if "\0" in request.scope["path"]:
        raise HTTPException(404, "Not Found")
    if b"%00" in request.scope["query_string"]:
        raise HTTPException(
            422, "a value holds a null, which is no character of a text"
        )  # PostgreSQL takes none
    headers = request.scope["headers"]
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        raise HTTPException(431, f"the header is longer than {MOST_HEADERS} fields or {HEADER_BYTES} bytes")


def _check_declared(request: Request, limit: int) -> None:
    """Refuse a body that says of itself that it is packed or too long."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "send the body as it is, without Content-Encoding")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise HTTPException(413, f"the body is longer than {limit} bytes")


def _bounded(receive: Receive, limit: int) -> Receive:
    """Return a `receive` that gives up on a body that is too long, or too slow in coming."""
    received, waited, is_whole = 0, 0.0, False

    async def bounded() -> Message:
        nonlocal received, waited, is_whole
        if is_whole:
            return await receive()
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(BODY_SECONDS + received / SLOWEST_BYTES_PER_SECOND - waited):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, "the body did not come in time") from None
        waited += clock() - began
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"the body is longer than {limit} bytes")
        is_whole = not message.get("more_body", False)
        return message

    return bounded


async def _check_token(request: Request, receive: Receive, identity: Identity, limit: int) -> Receive:
    """Return what is left to receive once the session's token was found in a header or a form. Raises 403."""
    given = request.headers.get(CSRF_HEADER, "")
    messages: list[Message] = []
    if not given and request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
        if limit > FORM_BYTES:
            raise HTTPException(403, f"send the token of this session in {CSRF_HEADER}")
        body = b""
        while not messages or messages[-1].get("more_body", False):
            messages.append(await receive())
            body += messages[-1].get("body", b"")
        given = form_field(body, CSRF_FIELD)
    if not hmac.compare_digest(given.encode("utf-8", "replace"), identity.csrf_token.encode()):
        raise HTTPException(403, "this change does not come from a page of this session; load the page again")

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return again


def form_field(body: bytes, name: str) -> str:
    """Return one field of a form as a browser sends it; empty when it is not there."""
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=64)
    except ValueError:
        return ""
    return fields.get(name, [""])[0]


__all__ = ["Guard", "form_field"]

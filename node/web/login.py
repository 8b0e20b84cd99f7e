"""Signing in and out: a page and JSON, a session kept in SQL, and growing pauses for who guesses."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Hashable
from datetime import datetime
from urllib.parse import parse_qs

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from node import audit_events
from node.audit import Record, unheard
from node.logs import line
from node.settings import Settings
from node.web.access import COOKIE, allow
from node.web.frame import Frame
from store import accounts, sessions
from store.access_tables import Account
from store.database import Database

log = logging.getLogger(__name__)

FORM = "application/x-www-form-urlencoded"
# A path of this node: `//host` and `/\\host` are other hosts to a browser.
PATH_HERE = re.compile(r"/(?![/\\])[\x21-\x7e]*")
# Two hashes at one time: each takes 32 MiB, and strangers may ask for them.
HASHES_AT_ONCE = 2


class Credentials(BaseModel):
    """What a person gives to sign in."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    name: str = Field(max_length=64)
    password: str = Field(max_length=accounts.MOST_CHARACTERS)


def router(settings: Settings, database: Database, frame: Frame, record: Record = unheard) -> APIRouter:
    """Return the routes `/login` and `/logout`."""
    made = APIRouter()
    desk = SignInDesk(settings, database, record)
    hashing = anyio.CapacityLimiter(HASHES_AT_ONCE)

    def page(request: Request, status: int = 200, problem: str = "") -> Response:
        return sign_in_page(frame, settings, request, status, problem)

    @made.get("/login")
    @allow(is_open=True)
    def show(request: Request) -> Response:
        """Give the form, or who is signed in."""
        return page(request)

    @made.post("/login")
    @allow(is_open=True)
    async def sign_in(request: Request) -> Response:
        """Begin a session; 401 for a wrong name or password alike, 429 after five of them."""
        given = await _credentials(request)
        before = request.cookies.get(COOKIE, "")
        try:
            cookie = await anyio.to_thread.run_sync(
                desk.sign_in, given, request.state.address, before, limiter=hashing
            )
        except HTTPException as error:
            if _content_type(request) != FORM:
                raise
            answer = page(request, error.status_code, str(error.detail))
            answer.headers.update(error.headers or {})
            return answer
        done = _done(request, "signed in", wanted_page(request) or "/worklist")
        is_https: bool = request.state.is_https
        done.set_cookie(COOKIE, cookie, path="/", secure=is_https, httponly=True, samesite="strict")
        return done

    @made.post("/logout")
    @allow("viewer")
    def sign_out(request: Request) -> Response:
        """End the session."""
        desk.sign_out(request.cookies.get(COOKIE, ""), request.state.identity.name, request.state.address)
        done = _done(request, "signed out", "/login")
        done.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return done

    return made


def sign_in_page(
    frame: Frame, settings: Settings, request: Request, status: int = 200, problem: str = ""
) -> Response:
    """Return the page to sign in by, with the button of the OpenID provider when there is one."""
    outside = settings.oidc.label if settings.oidc.is_on else ""
    return frame.page(
        request, "login.html", status, problem=problem, next=wanted_page(request), outside=outside
    )


class SignInDesk:
    """Checks names and passwords and keeps the sessions."""

    def __init__(self, settings: Settings, database: Database, record: Record = unheard) -> None:
        self._database = database
        self._record = record
        self._whole = settings.session_seconds

    def sign_in(self, given: Credentials, address: str, before: str) -> str:
        """Return the cookie of a new session and end the one before. Raises 401 and 429; takes as long for both names.

        A try counts as failed until it has not: who sends a hundred at once has five.
        """
        now = self._database.now()
        with self._database.transaction() as session:
            sessions.sweep(session, now, self._whole)
            wait = sessions.try_once(session, sessions.subjects_of(session, given.name, address), now)
        if wait:
            seconds = max(1, math.ceil(wait.total_seconds()))
            self._tell(given.name, address, "too many failed tries", once=("sign-in-paused", address))
            sentence = f"too many failed tries; try again in {seconds} s"
            raise HTTPException(429, sentence, {"Retry-After": str(seconds)})
        with self._database.reading() as session:
            account = accounts.check_sign_in(session, given.name)
        is_right = accounts.is_password(given.password, account.password if account else None)
        cookie = self._begin(account, address, before, now) if is_right and account else None
        if account is None or cookie is None:
            self._tell(given.name, address, "wrong name or password")
            raise HTTPException(401, "wrong name or password")
        log.info(line("signed-in", account=account.name, address=address))
        self._record(audit_events.signed_in(account.name, address))
        return cookie

    def _begin(self, account: Account, address: str, before: str, now: datetime) -> str | None:
        """Return the cookie of a new session; None when password or right were changed while the hash was made."""
        with self._database.transaction() as session:
            if not accounts.is_still(session, account):
                return None
            sessions.welcome(session, account.name, address, now)
            sessions.end(session, before)
            return sessions.begin(session, account.id, now)

    def sign_out(self, cookie: str, name: str, address: str) -> None:
        """End a session."""
        with self._database.transaction() as session:
            sessions.end(session, cookie)
        log.info(line("signed-out", account=name, address=address))
        self._record(audit_events.signed_out(name, address))

    def _tell(self, name: str, address: str, why: str, *, once: Hashable = None) -> None:
        """Tell a failure, once a minute, with its account when there is one: what else was typed may be a password."""
        with self._database.reading() as session:
            is_known = accounts.check_sign_in(session, name) is not None
        account = name if is_known else "unknown"
        message = audit_events.signed_in(account, address, failure=why)
        if self._record(message, once=once or ("sign-in", address, account)):
            log.warning(line("sign-in-failed", why=why, account=account, address=address))


async def _credentials(request: Request) -> Credentials:
    kind = _content_type(request)
    body = await request.body()
    try:
        if kind == FORM:
            fields = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=8)
            return Credentials.model_validate({name: values[0] for name, values in fields.items()})
        if kind == "application/json":
            return Credentials.model_validate(json.loads(body))
    except (ValidationError, ValueError, RecursionError):
        raise HTTPException(422, "give name and password") from None
    raise HTTPException(415, "send a form or application/json")


def _done(request: Request, said: str, then: str) -> Response:
    """Return the answer to a change: another page for a form, JSON for a program."""
    is_form = _content_type(request) == FORM
    return RedirectResponse(then, 303) if is_form else JSONResponse({"status": said})


def wanted_page(request: Request) -> str:
    """Return the page of this node that a person wanted before signing in; empty for any other address."""
    asked = request.query_params.get("next", "")
    return asked if PATH_HERE.fullmatch(asked) else ""


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


__all__ = ["SignInDesk", "router", "sign_in_page", "wanted_page"]

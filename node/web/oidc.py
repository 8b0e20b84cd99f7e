"""Signing in by an OpenID provider: authorization code with PKCE, state and nonce; then a session like any other.

The cookie of a session is SameSite=Strict, so that no link on a foreign page acts in it. What comes back from the
provider is a navigation from a foreign page, too: it finds the attempt by a cookie of its own, which is Lax, lasts ten
minutes and is good for nothing else; and it is answered with a page of ours that goes on by itself, since a redirect
would still count as the foreign page's and come without the session.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from node import audit_events, oidc_token
from node.logs import line
from node.oidc_provider import ERROR, Provider, require_package
from node.web.access import COOKIE, allow
from node.web.login import sign_in_page, wanted_page
from node.web.problem import status_of
from node.web.site import Site
from plugins.errors import NadirError, Refused, Unavailable
from store import outside_people, sessions
from store.outside_people import ATTEMPT_LASTS, OutsideAttempt

log = logging.getLogger(__name__)

ROOT = "/oidc"
ATTEMPT_COOKIE = "nadir_oidc"
LONGEST = 4096


def router(site: Site) -> APIRouter:
    """Return the routes `/oidc/sign-in` and `/oidc/callback`; none without a provider.

    Refuses `no-oidc`: the settings name a provider and the packages that it needs are not installed.
    """
    made = APIRouter(include_in_schema=False)
    if not site.settings.oidc.is_on:
        return made
    require_package()
    desk = OutsideDesk(site)

    @made.get(f"{ROOT}/sign-in")
    @allow(is_open=True)
    def begin(request: Request) -> Response:
        """Send the browser to the provider."""
        return desk.begin(request)

    @made.get(f"{ROOT}/callback")
    @allow(is_open=True)
    def come_back(request: Request) -> Response:
        """Begin the session of whom the provider vouches for."""
        return desk.come_back(request)

    return made


class OutsideDesk:
    """Begins sign-ins at the provider, and ends them."""

    def __init__(self, site: Site) -> None:
        self._site, self._settings = site, site.settings.oidc
        self._provider = Provider(self._settings)

    def begin(self, request: Request) -> Response:
        """Return the way to the provider, with the cookie that the way back needs."""
        database = self._site.database
        try:
            with database.transaction() as session:
                begun = outside_people.begin(session, wanted_page(request), database.now())
            address = self._provider.sign_in_address(
                redirect=_redirect(request), state=begun.state, nonce=begun.nonce, verifier=begun.verifier
            )
        except (Refused, Unavailable) as error:
            return self._failed(request, error)
        answer = RedirectResponse(address, 303)
        answer.set_cookie(
            ATTEMPT_COOKIE, begun.browser, max_age=int(ATTEMPT_LASTS.total_seconds()), **_cookie(request)
        )
        return answer

    def come_back(self, request: Request) -> Response:
        """Return the page that goes on to what was wanted, with the session's cookie."""
        try:
            attempt = self._attempt(request)
            cookie = self._sign_in(request, attempt)
        except (Refused, Unavailable) as error:
            return self._failed(request, error)
        then = attempt.then or "/worklist"
        answer = self._site.frame.page(request, "signed_in.html", then=then)
        is_https: bool = request.state.is_https
        answer.set_cookie(COOKIE, cookie, path="/", secure=is_https, httponly=True, samesite="strict")
        answer.delete_cookie(ATTEMPT_COOKIE, **_cookie(request))
        return answer

    def _attempt(self, request: Request) -> OutsideAttempt:
        """Return the attempt that comes back, and end it. Refuses `unknown-attempt` and `not-signed-in`."""
        asked, database = request.query_params, self._site.database
        with database.transaction() as session:
            browser = request.cookies.get(ATTEMPT_COOKIE, "")
            attempt = outside_people.end(session, asked.get("state", ""), browser, database.now())
        if asked.get("iss", self._settings.issuer) != self._settings.issuer:  # RFC 9207
            raise Refused("not-signed-in", "another provider answered than the one that was asked")
        if "error" in asked or not asked.get("code"):
            said = asked.get("error", "")
            why = f" ({said})" if ERROR.fullmatch(said) else ""
            raise Refused("not-signed-in", f"the provider did not sign you in{why}")
        return attempt

    def _sign_in(self, request: Request, attempt: OutsideAttempt) -> str:
        """Return the cookie of a new session. Refuses and raises what makes it impossible."""
        settings, database, address = self._settings, self._site.database, request.state.address
        claims = self._provider.claims(
            code=request.query_params["code"][:LONGEST],
            redirect=_redirect(request),
            verifier=attempt.verifier,
            nonce=attempt.nonce,
        )
        subject = str(claims["sub"])
        role = oidc_token.role(oidc_token.claim(claims, settings.role_claim), settings.roles)
        if role is None:
            raise self._without_role(subject)
        named = oidc_token.claim(claims, settings.name_claim)
        with database.transaction() as session:
            now = database.now()
            sessions.sweep(session, now, self._site.settings.session_seconds)
            account, before = outside_people.account_of(
                session, settings.issuer, subject, named if isinstance(named, str) else subject, role, now
            )
            sessions.end(session, request.cookies.get(COOKIE, ""))
            cookie = sessions.begin(session, account.id, now)
            name = account.name
        if role != before:
            what = f"account added as {role}" if before is None else f"role changed to {role}"
            self._site.record(audit_events.access_changed(what, name, settings.issuer, is_role=True))
        log.info(line("signed-in", account=name, address=address, by="oidc"))
        self._site.record(audit_events.signed_in(name, address))
        return cookie

    def _without_role(self, subject: str) -> Refused:
        """Return the refusal of whom the provider gives no role, once the sessions have ended and that is told."""
        issuer = self._settings.issuer
        with self._site.database.transaction() as session:
            name = outside_people.sign_out(session, issuer, subject)
        if name is not None:
            ended = audit_events.access_changed(
                "no role any more, sessions ended", name, issuer, is_role=True
            )
            self._site.record(ended, once=("no-role", name))
        sentence = (
            "you are known, and have no role on this node; who looks after the accounts of the institute can give you "
            "one"
        )
        return Refused("no-role", sentence)

    def _failed(self, request: Request, error: NadirError) -> Response:
        """Return the sign-in page with a sentence; nobody is named, who he says he is may be made up.

        A failure of one kind from one address is told once a minute: everybody may come here, as often as he likes.
        """
        code = error.code if isinstance(error, Refused) else "unavailable"
        sentence = error.sentence if isinstance(error, Refused) else str(error)
        told = {} if code in OF_PERSONS else {"told": sentence}
        address = request.state.address
        message = audit_events.signed_in("unknown", address, failure=f"oidc: {code}")
        if self._site.record(message, once=("oidc", code, address)):
            log.warning(line("sign-in-failed", why=code, address=address, by="oidc", **told))
        status = STATUSES.get(code) or status_of(code)
        answer = sign_in_page(self._site.frame, self._site.settings, request, status, sentence)
        answer.delete_cookie(ATTEMPT_COOKIE, **_cookie(request))
        return answer


STATUSES = {
    "unavailable": 503,
    "bad-provider": 503,
    "client-refused": 503,
    "no-role": 403,
    "account-disabled": 403,
}
"""Status of the page for each code that is not 400 or 409."""
OF_PERSONS = ("account-disabled", "account-exists")
"""Codes whose sentences name somebody: the log does not."""


def _redirect(request: Request) -> str:
    """Return where the provider sends the browser back to: it has to be registered there, so no Host forges it."""
    scheme = "https" if request.state.is_https else "http"
    return f"{scheme}://{request.headers.get('host', '')}{ROOT}/callback"


def _cookie(request: Request) -> dict[str, Any]:
    return {"path": ROOT, "secure": request.state.is_https, "httponly": True, "samesite": "lax"}


__all__ = ["OutsideDesk", "router"]

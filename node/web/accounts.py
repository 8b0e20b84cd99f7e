"""The page of accounts and tokens, for administrators: who may sign in as what, and which programs may ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from node.access_desk import AccessDesk
from node.web.access import allow
from node.web.fields import Fields
from node.web.problem import status_of
from node.web.site import Site
from plugins.errors import Refused
from store import accounts, outside_people
from store.accounts import MOST_DAYS, ROLES, SCOPES

ADDRESS = "/system/accounts"


def router(site: Site) -> APIRouter:
    """Return the routes of the page."""
    made = APIRouter(include_in_schema=False)
    page = _Page(site)
    desk = page.desk

    @made.get(ADDRESS)
    @allow("administrator")
    def show(request: Request) -> Response:
        """Show who may sign in, and the tokens without themselves."""
        return page.show(request)

    @made.post(ADDRESS)
    @allow("administrator")
    def add(request: Request, given: Fields) -> Response:
        """Add a person."""
        name, role, password = (given.get(key, "") for key in ("name", "role", "password"))
        return page.change(request, lambda by: desk.add_account(name, role, password, by=by))

    @made.post(f"{ADDRESS}/{{name}}/role")
    @allow("administrator")
    def role(request: Request, name: str, given: Fields) -> Response:
        """Give a person another role."""
        return page.change(request, lambda by: desk.change(name, role=given.get("role", ""), by=by))

    @made.post(f"{ADDRESS}/{{name}}/password")
    @allow("administrator")
    def password(request: Request, name: str, given: Fields) -> Response:
        """Give a person another password."""
        return page.change(request, lambda by: desk.change(name, password=given.get("password", ""), by=by))

    @made.post(f"{ADDRESS}/{{name}}/disabled")
    @allow("administrator")
    def disabled(request: Request, name: str, given: Fields) -> Response:
        """Shut a person out, or let them in again."""
        is_out = given.get("disabled") == "yes"
        return page.change(request, lambda by: desk.change(name, disabled=is_out, by=by))

    @made.post("/system/tokens")
    @allow("administrator")
    def add_token(request: Request, given: Fields) -> Response:
        """Make a token and show it, this once."""
        scopes = [scope for scope in SCOPES if given.get(f"for-{scope}")]
        return page.make_token(request, given.get("name", ""), scopes, given.get("days", ""))

    @made.post("/system/tokens/{name}/revoke")
    @allow("administrator")
    def revoke_token(request: Request, name: str) -> Response:
        """End a token."""
        return page.change(request, lambda by: desk.revoke_token(name, by=by))

    return made


class _Page:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.desk = AccessDesk(site.database, site.settings)

    def show(self, request: Request, status: int = 200, **more: Any) -> Response:
        with self._site.database.reading() as session:
            people = accounts.list_accounts(session)
            tokens = accounts.list_tokens(session, self._site.database.now())
            outside = outside_people.vouched_for(session)
        shown = {"problem": "", "token": "", **more}
        return self._site.frame.page(
            request,
            "accounts.html",
            status,
            people=people,
            tokens=tokens,
            outside=outside,
            roles=ROLES,
            scopes=SCOPES,
            **shown,
        )

    def change(self, request: Request, change: Callable[[str], None]) -> Response:
        """Return the page after a change, or with the sentence why there was none."""
        try:
            change(request.state.identity.name)
        except Refused as refused:
            return self.show(request, status_of(refused.code), problem=refused.sentence)
        return RedirectResponse(ADDRESS, 303)

    def make_token(self, request: Request, name: str, scopes: list[str], days: str) -> Response:
        try:
            lasts = _days(days)
            token = self.desk.add_token(name, scopes, lasts, by=request.state.identity.name)
        except Refused as refused:
            return self.show(request, status_of(refused.code), problem=refused.sentence)
        return self.show(request, token=token)


def _days(said: str) -> float | None:
    """Return how many days a token lasts; None for ever. Refuses `bad-token`."""
    if said.strip() in ("", "0"):
        return None
    if not (said.strip().isascii() and said.strip().isdecimal() and int(said) <= MOST_DAYS):
        raise Refused(
            "bad-token", "a token lasts whole days, at most a hundred years; leave it empty for ever"
        )
    return float(said)


__all__ = ["router"]

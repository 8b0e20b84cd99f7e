"""Accounts and tokens as JSON, for administrators who are signed in; no program gives itself or others access."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from node.access_desk import AccessDesk
from node.web.access import allow
from node.web.api import form
from node.web.site import Site
from store import accounts, outside_people

Role = Literal["viewer", "physicist", "administrator"]
Scope = Literal["hook", "sender", "metrics", "api"]
Name = Annotated[str, Path(max_length=64, description="Name of the account or token")]


class Person(BaseModel):
    """An account."""

    name: str
    role: Role
    disabled: bool
    created_at: form.Instant
    issuer: str | None = Field(
        description="The provider that vouches for the person; null for one with a password"
    )


class People(form.Listed):
    """Every account."""

    accounts: list[Person]


class NewPerson(BaseModel):
    """A person to be added."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str = Field(max_length=64)
    role: Role
    password: str = Field(max_length=accounts.MOST_CHARACTERS, description="12 characters or more")


class Change(BaseModel):
    """What changes of a person; what is left out stays."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    role: Role | None = None
    disabled: bool | None = None
    password: str | None = Field(default=None, max_length=accounts.MOST_CHARACTERS)


class TokenRow(BaseModel):
    """A token, without itself."""

    name: str
    scopes: list[Scope]
    state: Literal["valid", "expired", "revoked"]
    created_at: form.Instant
    expires_at: form.Instant | None


class Tokens(form.Listed):
    """Every token."""

    tokens: list[TokenRow]


class NewToken(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=64)
    scopes: list[Scope] = Field(min_length=1, max_length=4)
    days: int | None = Field(default=365, ge=1, le=36_500, description="Days until it ends; null for never")


class Made(BaseModel):
    """The new token."""

    token: str = Field(description="Shown this once; kept as a hash only")


class Done(BaseModel):
    """That it was done."""

    status: Literal["done"] = "done"


def router(site: Site) -> APIRouter:
    """Return the routes `/api/accounts` and `/api/tokens`."""
    made = form.routes("accounts")
    desk = AccessDesk(site.database, site.settings)
    _of_people(made, site, desk)
    _of_tokens(made, site, desk)
    return made


def _of_people(made: APIRouter, site: Site, desk: AccessDesk) -> None:
    @made.get("/accounts")
    @allow("administrator")
    def list_accounts() -> People:
        """List who may sign in."""
        with site.database.reading() as session:
            issuers = outside_people.vouched_for(session)
            rows = [Person(**row, issuer=issuers.get(row["name"])) for row in accounts.list_accounts(session)]
        return People(accounts=rows, total=len(rows))

    @made.post("/accounts", status_code=201, responses=form.problems(400, 409))
    @allow("administrator")
    def add_account(request: Request, person: NewPerson) -> Done:
        """Add a person who may sign in."""
        desk.add_account(person.name, person.role, person.password, by=request.state.identity.name)
        return Done()

    @made.patch("/accounts/{name}", responses=form.problems(400, 404, 409))
    @allow("administrator")
    def change_account(request: Request, name: Name, change: Change) -> Done:
        """Change role or password of a person, or shut one out."""
        desk.change(
            name,
            role=change.role,
            password=change.password,
            disabled=change.disabled,
            by=request.state.identity.name,
        )
        return Done()


def _of_tokens(made: APIRouter, site: Site, desk: AccessDesk) -> None:
    @made.get("/tokens")
    @allow("administrator")
    def list_tokens() -> Tokens:
        """List the tokens of programs, without themselves."""
        with site.database.reading() as session:
            found = accounts.list_tokens(session, site.database.now())
        rows = [TokenRow(**{**row, "scopes": row["scopes"].split()}) for row in found]
        return Tokens(tokens=rows, total=len(rows))

    @made.post("/tokens", status_code=201, responses=form.problems(400, 409))
    @allow("administrator")
    def add_token(request: Request, token: NewToken) -> Made:
        """Make a token for a program."""
        by = request.state.identity.name
        return Made(token=desk.add_token(token.name, token.scopes, token.days, by=by))

    @made.delete("/tokens/{name}", responses=form.problems(404))
    @allow("administrator")
    def revoke_token(request: Request, name: Name) -> Done:
        """End a token for good."""
        desk.revoke_token(name, by=request.state.identity.name)
        return Done()


__all__ = ["router"]

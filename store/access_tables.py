"""The SQL tables of who may come in: accounts, tokens, sessions and failed sign-ins."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel

from store.tables import UtcDateTime


class Account(SQLModel, table=True):
    """A person who may sign in. Only `store.accounts` writes it."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    role: str = Field(description="viewer, physicist or administrator")
    password: str = Field(description="scrypt: parameters, salt and hash; never the password")
    disabled: bool = False
    created_at: datetime = Field(sa_type=UtcDateTime)


class AccessToken(SQLModel, table=True):
    """What a program presents to be let in. Only `store.accounts` writes it."""

    __tablename__ = "access_token"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    sha256: str = Field(unique=True, description="of the token, which was shown once and is kept nowhere")
    scopes: str = Field(description="hook, sender, metrics, api: one or several, with blanks between")
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class WebSession(SQLModel, table=True):
    """A person who is signed in. Only `store.sessions` writes it."""

    __tablename__ = "web_session"
    id: int | None = Field(default=None, primary_key=True)
    sha256: str = Field(unique=True, description="of the cookie, which is kept nowhere")
    account_pk: int = Field(foreign_key="account.id", index=True)
    created_at: datetime = Field(sa_type=UtcDateTime)
    used_at: datetime = Field(sa_type=UtcDateTime)


class LoginFailure(SQLModel, table=True):
    """Failed sign-ins in a row, of an account name, from an address, or of a name at an address where it got in.

    Only `store.sessions` writes it.
    """

    __tablename__ = "login_failure"
    id: int | None = Field(default=None, primary_key=True)
    subject: str = Field(
        unique=True, description="address, or sha256 of an account name, which may be a password"
    )
    failures: int
    last_at: datetime = Field(sa_type=UtcDateTime)

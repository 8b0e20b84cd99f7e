"""Persons whom an OpenID provider vouches for, and their signing in while it is under way.

Only this file writes `outside_person` and `outside_attempt`. An account belongs to one subject of one issuer, or has a
password here: a name alone makes nobody the same person.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import not_
from sqlmodel import Field, Session, SQLModel, UniqueConstraint, col, delete, select

from plugins.errors import Refused
from store import accounts, sessions
from store.access_tables import Account
from store.database import aware_utc
from store.due import is_over
from store.tables import UtcDateTime

ATTEMPT_LASTS = timedelta(minutes=10)
MOST_ATTEMPTS = 10_000
"""Attempts that are kept: everybody may begin one. The oldest give way, so that nobody can shut others out."""
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._@-]+")


class OutsidePerson(SQLModel, table=True):
    """Whose an account is, when a provider vouches for the person."""

    __tablename__ = "outside_person"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)
    id: int | None = Field(default=None, primary_key=True)
    issuer: str = Field(max_length=255)
    subject: str = Field(max_length=255, description="`sub`: what the issuer never gives to another person")
    account_pk: int = Field(foreign_key="account.id", unique=True)


class OutsideAttempt(SQLModel, table=True):
    """A sign-in that was begun here and has not come back; what is secret of it is a hash, or of use to nobody else."""

    __tablename__ = "outside_attempt"
    state_sha256: str = Field(primary_key=True)
    browser_sha256: str = Field(description="of the cookie of the browser that began it")
    nonce: str
    verifier: str = Field(description="PKCE")
    then: str = Field(description="the page of this node that was wanted")
    at: datetime = Field(sa_type=UtcDateTime, index=True)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What a sign-in goes to the provider with."""

    state: str
    """Comes back in the address."""
    browser: str
    """Cookie of this browser; both have to come back together."""
    nonce: str
    """Comes back in the ID token."""
    verifier: str
    """PKCE: its hash goes to the provider now, itself with the code."""


def begin(session: Session, then: str, now: datetime) -> Begun:
    """Return a new attempt."""
    session.exec(delete(OutsideAttempt).where(is_over(OutsideAttempt.at, now, ATTEMPT_LASTS)))
    newest = (
        select(OutsideAttempt.state_sha256).order_by(col(OutsideAttempt.at).desc()).offset(MOST_ATTEMPTS - 1)
    )
    session.exec(delete(OutsideAttempt).where(col(OutsideAttempt.state_sha256).in_(newest)))
    begun = Begun(
        state=secrets.token_urlsafe(32),
        browser=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(48),
    )
    session.add(
        OutsideAttempt(
            state_sha256=_sha256(begun.state),
            browser_sha256=_sha256(begun.browser),
            nonce=begun.nonce,
            verifier=begun.verifier,
            then=then,
            at=aware_utc(now),
        )
    )
    return begun


def end(session: Session, state: str, browser: str, now: datetime) -> OutsideAttempt:
    """Return an attempt that came back, which nobody can come back with again. Refuses `unknown-attempt`."""
    begun = select(OutsideAttempt).where(
        OutsideAttempt.state_sha256 == _sha256(state),
        OutsideAttempt.browser_sha256 == _sha256(browser),
        not_(is_over(OutsideAttempt.at, now, ATTEMPT_LASTS)),
    )
    row = session.exec(begun.with_for_update()).first()
    if row is None:
        raise Refused(
            "unknown-attempt", "this sign-in was not begun in this browser, or is over; sign in again"
        )
    session.expunge(row)
    session.exec(delete(OutsideAttempt).where(col(OutsideAttempt.state_sha256) == row.state_sha256))
    return row


def account_of(
    session: Session, issuer: str, subject: str, name: str, role: str, now: datetime
) -> tuple[Account, str | None]:
    """Return the account of a person with the role that the provider's claims give now, and the role before.

    That is None for a new account.
    Refuses `account-disabled`, and `account-exists` when the name is that of an account with another owner.
    """
    if (known := _person(session, issuer, subject)) is not None:
        account = session.get_one(Account, known.account_pk, with_for_update={"key_share": True})
        if account.disabled:
            raise Refused("account-disabled", f"the account '{account.name}' is disabled on this node")
        before, account.role = account.role, role
        session.add(account)
        return account, before
    # A name in another script leaves nothing: it must not be the same for everybody.
    shown = NOT_IN_NAMES.sub("-", name).strip(".-_@")[:64] or f"person-{_sha256(f'{issuer} {subject}')[:8]}"
    if shown in {row["name"] for row in accounts.list_accounts(session)}:
        sentence = (
            f"the account '{shown}' of this node is somebody else's, or has a password; ask its administrator"
        )
        raise Refused("account-exists", sentence)
    # A password that nobody has: this account is signed in by its provider only.
    accounts.add_account(session, shown, role, secrets.token_urlsafe(32), now)
    session.flush()
    account = accounts.require_account(session, shown)
    assert account.id is not None  # it came out of the database
    session.add(OutsidePerson(issuer=issuer, subject=subject, account_pk=account.id))
    return account, None


def sign_out(session: Session, issuer: str, subject: str) -> str | None:
    """End every session of a person whom the provider gives no role any more.

    Returns the name of the account, None for whom there is none.
    """
    if (known := _person(session, issuer, subject)) is None:
        return None
    sessions.end_all(session, known.account_pk)
    return session.get_one(Account, known.account_pk).name


def vouched_for(session: Session) -> dict[str, str]:
    """Return the issuer of each account that a provider vouches for, by the account's name."""
    statement = select(Account.name, OutsidePerson.issuer).join(
        OutsidePerson, col(OutsidePerson.account_pk) == col(Account.id)
    )
    return dict(session.exec(statement).all())


def require_ours(session: Session, name: str) -> None:
    """Return when role and password of an account are given here. Refuses `by-provider`."""
    if name in vouched_for(session):
        raise Refused("by-provider", f"role and password of '{name}' are the provider's to change")


def _person(session: Session, issuer: str, subject: str) -> OutsidePerson | None:
    statement = select(OutsidePerson).where(
        col(OutsidePerson.issuer) == issuer, col(OutsidePerson.subject) == subject
    )
    return session.exec(statement).first()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


__all__ = [
    "ATTEMPT_LASTS",
    "Begun",
    "OutsideAttempt",
    "OutsidePerson",
    "account_of",
    "begin",
    "end",
    "require_ours",
    "sign_out",
    "vouched_for",
]

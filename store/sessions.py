"""Who is signed in, and how often signing in has failed: both in SQL, so that a restart forgets neither."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import not_, or_
from sqlmodel import Session, col, delete, select, update

from store.access_tables import Account, LoginFailure, WebSession
from store.database import insert_new
from store.due import AHEAD, is_over

FREE_TRIES = 5
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=15)
FORGOTTEN_AFTER = timedelta(hours=1)
KNOWN_FOR = timedelta(days=90)
"""How long an address counts as one that a person signs in from."""
FROM = " from "
TOUCH_AFTER = timedelta(seconds=60)


def begin(session: Session, account_pk: int | None, now: datetime) -> str:
    """Return the cookie of a new session, which is kept as a hash only."""
    assert account_pk is not None  # it came out of the database
    cookie = secrets.token_urlsafe(32)
    session.add(WebSession(sha256=_sha256(cookie), account_pk=account_pk, created_at=now, used_at=now))
    return cookie


@dataclass(frozen=True, kw_only=True)
class SignedIn:
    """Whom a cookie speaks for."""

    account: Account
    """The person."""
    is_stale: bool
    """True when the use of the session is worth a write: `touch`."""


def find(
    session: Session, cookie: str, now: datetime, *, idle: timedelta, whole: timedelta
) -> SignedIn | None:
    """Return who is signed in by this cookie: not idle for too long, not for too long in all, not disabled."""
    over = or_(is_over(WebSession.used_at, now, idle), is_over(WebSession.created_at, now, whole))
    row = session.exec(select(WebSession).where(WebSession.sha256 == _sha256(cookie), not_(over))).first()
    if row is None:
        return None
    account = session.get(Account, row.account_pk)
    if account is None or account.disabled:
        return None
    return SignedIn(account=account, is_stale=now - row.used_at >= TOUCH_AFTER)


def touch(session: Session, cookie: str, now: datetime) -> None:
    """Note that a session was used."""
    session.exec(update(WebSession).where(col(WebSession.sha256) == _sha256(cookie)).values(used_at=now))


def end(session: Session, cookie: str) -> None:
    """End one session."""
    session.exec(delete(WebSession).where(col(WebSession.sha256) == _sha256(cookie)))


def end_all(session: Session, account_pk: int | None) -> None:
    """End every session of an account."""
    session.exec(delete(WebSession).where(col(WebSession.account_pk) == account_pk))


def sweep(session: Session, now: datetime, whole_seconds: float) -> None:
    """Delete sessions and failures that mean nothing any more."""
    whole = timedelta(seconds=whole_seconds)
    over = (is_over(at, now, whole) for at in (WebSession.created_at, WebSession.used_at))
    session.exec(delete(WebSession).where(or_(*over)))
    is_meant_still = col(LoginFailure.subject).contains(FROM) & not_(
        is_over(LoginFailure.last_at, now, KNOWN_FOR)
    )
    is_old = is_over(LoginFailure.last_at, now, FORGOTTEN_AFTER)
    session.exec(delete(LoginFailure).where(is_old, not_(is_meant_still)))


def name_subject(name: str) -> str:
    """Return what failures of an account are counted under; hashed, for people type passwords where names belong."""
    return "account " + _sha256(name)


def subjects_of(session: Session, name: str, address: str) -> tuple[str, str]:
    """Return what a try counts under: the address, and the account everywhere, or at this address alone.

    Alone where the person has signed in at this address before: so who guesses elsewhere keeps nobody out here.
    """
    here = _name_at(name, address)
    is_known = session.exec(select(LoginFailure.id).where(LoginFailure.subject == here)).first() is not None
    return f"address {address}", here if is_known else name_subject(name)


def _name_at(name: str, address: str) -> str:
    return f"{name_subject(name)}{FROM}{address}"


def welcome(session: Session, name: str, address: str, now: datetime) -> None:
    """Forgive what `subjects_of` names, once a person has signed in, and know the address from now on."""
    address_subject, account_subject = subjects_of(session, name, address)
    forgive(session, address_subject, tries=1)
    forgive(session, account_subject)
    here = {"subject": _name_at(name, address), "failures": 0, "last_at": now}
    insert_new(session, LoginFailure, here)
    session.exec(update(LoginFailure).where(col(LoginFailure.subject) == here["subject"]).values(last_at=now))


def try_once(session: Session, subjects: Iterable[str], now: datetime) -> timedelta:
    """Return how long signing in must wait; zero when it may be tried, which counts as a failure until `forgive`.

    Five tries are free; then 30 s, doubling to 15 min. Counting first lets a hundred tries at once not be a hundred.
    The first subject that waits is the answer: of those after it, names that strangers make up, no row is made.
    """
    rows = []
    for subject in subjects:
        rows.append(_failures(session, subject, now))
        if (wait := _wait(rows[-1], now)) > timedelta(0):
            return wait
    for row in rows:
        row.failures, row.last_at = row.failures + 1, now
        session.add(row)
    return timedelta(0)


def forgive(session: Session, subject: str, *, tries: int | None = None) -> None:
    """Take back the last `tries` failures of a subject, all of them when None."""
    row = session.exec(select(LoginFailure).where(LoginFailure.subject == subject)).first()
    if row is not None:
        row.failures = 0 if tries is None else max(0, row.failures - tries)
        session.add(row)


def forgive_everywhere(session: Session, name: str) -> None:
    """Take back all failures of an account, at whatever address."""
    account = name_subject(name)
    its = or_(col(LoginFailure.subject) == account, col(LoginFailure.subject).startswith(account + FROM))
    session.exec(update(LoginFailure).where(its).values(failures=0))


def _failures(session: Session, subject: str, now: datetime) -> LoginFailure:
    insert_new(session, LoginFailure, {"subject": subject, "failures": 0, "last_at": now})
    row = session.exec(select(LoginFailure).where(LoginFailure.subject == subject).with_for_update()).one()
    if not now - FORGOTTEN_AFTER < row.last_at <= now + AHEAD:
        row.failures = 0
    row.last_at = min(row.last_at, now)  # by another machine's clock, a wait begins now
    return row


def _wait(row: LoginFailure, now: datetime) -> timedelta:
    if row.failures < FREE_TRIES:
        return timedelta(0)
    pause = min(FIRST_WAIT * (1 << min(row.failures - FREE_TRIES, 10)), LONGEST_WAIT)
    return max(timedelta(0), row.last_at + pause - now)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


__all__ = [
    "SignedIn",
    "begin",
    "end",
    "end_all",
    "find",
    "forgive",
    "forgive_everywhere",
    "name_subject",
    "subjects_of",
    "sweep",
    "touch",
    "try_once",
    "welcome",
]

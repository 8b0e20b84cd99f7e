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
    session.exec(delete(LoginFailure).where(is_over(LoginFailure.last_at, now, FORGOTTEN_AFTER)))


def name_subject(name: str) -> str:
    """Return what failures of an account are counted under; hashed, for people type passwords where names belong."""
    return "account " + _sha256(name)


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
    "name_subject",
    "sweep",
    "touch",
    "try_once",
]

"""Who may sign in and which programs may ask: accounts and access tokens, their secrets kept as hashes only."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from plugins.errors import Refused
from store import sessions
from store.access_tables import AccessToken, Account

ROLES = ("viewer", "physicist", "administrator")
"""Roles of people, rising: each may do what those before it may."""
SCOPES = ("hook", "sender", "metrics", "api")
"""What a token may be for: Orthanc's hook, STOW-RS, Prometheus, reading jobs and findings."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
LEAST_CHARACTERS, MOST_CHARACTERS = 12, 256
# RFC 7914; 32 MiB and about a quarter of a second, so that a stolen table is slow to guess from.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 15, 8, 3
MOST_DAYS = 36_500
TOKEN_PREFIX = "nadir_"  # noqa: S105 - lets scanners of leaked secrets know one


def hash_password(password: str) -> str:
    """Return `scrypt:N:r:p:salt:hash` of a password."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    return f"scrypt:{SCRYPT_N}:{SCRYPT_R}:{SCRYPT_P}:{salt.hex()}:{digest.hex()}"


def is_password(password: str, hashed: str | None) -> bool:
    """Return True when `hashed` was made of this password; takes as long for None, an account that is not there."""
    if hashed is None:
        _scrypt(password, bytes(16), SCRYPT_N, SCRYPT_R, SCRYPT_P)
        return False
    _, n, r, p, salt, digest = hashed.split(":")
    found = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, bytes.fromhex(digest))


def add_account(session: Session, name: str, role: str, password: str, now: datetime) -> None:
    """Add a person. Refuses `bad-account`, `weak-password` and `account-exists`."""
    if not NAME.fullmatch(name):
        raise Refused("bad-account", "a name is 1 to 64 letters, digits, points, dashes, underscores or @")
    if role not in ROLES:
        raise Refused("bad-account", f"there is no role '{role}'; the roles are {', '.join(ROLES)}")
    _check_strength(name, password)
    if _account(session, name) is not None:
        raise Refused("account-exists", f"there is an account '{name}' already")
    session.add(Account(name=name, role=role, password=hash_password(password), created_at=now))


def set_password(session: Session, name: str, password: str) -> None:
    """Change a password, end the person's sessions and forgive the failed tries. Refuses `no-such-account`."""
    account = require_account(session, name)
    _check_strength(name, password)
    account.password = hash_password(password)
    session.add(account)
    sessions.end_all(session, account.id)
    sessions.forgive_everywhere(session, name)


def set_role(session: Session, name: str, role: str) -> None:
    """Give a person another role, from the next request on.

    Refuses `bad-account`, `no-such-account` and `last-administrator` (nobody would be left who may give roles).
    """
    account = require_account(session, name)
    if role not in ROLES:
        raise Refused("bad-account", f"there is no role '{role}'; the roles are {', '.join(ROLES)}")
    if role != ROLES[-1]:
        _require_another_administrator(session, account)
    account.role = role
    session.add(account)


def require_another_administrator(session: Session, name: str) -> None:
    """Return when somebody else may give roles too. Refuses `no-such-account` and `last-administrator`."""
    _require_another_administrator(session, require_account(session, name))


def _require_another_administrator(session: Session, account: Account) -> None:
    if is_last_administrator(session, account.name):
        raise Refused(
            "last-administrator", f"'{account.name}' is the only administrator; make another one first"
        )


def is_last_administrator(session: Session, name: str) -> bool:
    """Return True when nobody else may give roles; who may stays as it is before the transaction ends."""
    who = select(Account.name).where(col(Account.role) == ROLES[-1], col(Account.disabled).is_(False))
    return session.exec(who.order_by(col(Account.id)).with_for_update(key_share=True)).all() == [name]


def set_disabled(session: Session, name: str, *, disabled: bool) -> None:
    """Shut a person out, sessions included, or let them in again. Refuses `no-such-account`."""
    account = require_account(session, name)
    account.disabled = disabled
    session.add(account)
    if disabled:
        sessions.end_all(session, account.id)


def check_sign_in(session: Session, name: str) -> Account | None:
    """Return the account that may sign in under this name, if there is one."""
    account = _account(session, name)
    return None if account is None or account.disabled else account


def is_still(session: Session, checked: Account) -> bool:
    """Return True when this person may sign in with the password that was checked, until the transaction ends."""
    statement = select(Account).where(col(Account.id) == checked.id).with_for_update(key_share=True)
    row = session.exec(statement).first()
    return row is not None and not row.disabled and row.password == checked.password


def list_accounts(session: Session) -> list[dict[str, Any]]:
    """Return the accounts, without anything secret."""
    rows = session.exec(select(Account).order_by(Account.name)).all()
    return [
        {"name": r.name, "role": r.role, "disabled": r.disabled, "created_at": r.created_at} for r in rows
    ]


def add_token(
    session: Session, name: str, scopes: Sequence[str], now: datetime, days: float | None = None
) -> str:
    """Return a new token, this once only. Refuses `bad-token` and `token-exists`."""
    if not NAME.fullmatch(name):
        raise Refused("bad-token", "a name is 1 to 64 letters, digits, points, dashes, underscores or @")
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise Refused("bad-token", f"a token is for one or several of {', '.join(SCOPES)}")
    if session.exec(select(AccessToken).where(AccessToken.name == name)).first() is not None:
        raise Refused("token-exists", f"there is a token '{name}' already; give another name")
    if days is not None and not days <= MOST_DAYS:
        raise Refused("bad-token", f"a token lasts at most {MOST_DAYS} days; 0 days are for ever")
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    expires = None if days is None else now + timedelta(days=days)
    row = AccessToken(
        name=name,
        sha256=_sha256(token),
        scopes=" ".join(dict.fromkeys(scopes)),
        created_at=now,
        expires_at=expires,
    )
    session.add(row)
    return token


def find_token(session: Session, token: str, now: datetime) -> AccessToken | None:
    """Return the row of a token that is neither revoked nor expired."""
    row = session.exec(select(AccessToken).where(AccessToken.sha256 == _sha256(token))).first()
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    return row


def revoke_token(session: Session, name: str, now: datetime) -> None:
    """End a token for good. Refuses `no-such-token`."""
    row = session.exec(select(AccessToken).where(AccessToken.name == name)).first()
    if row is None:
        raise Refused("no-such-token", f"there is no token '{name}'")
    row.revoked_at = row.revoked_at or now
    session.add(row)


def list_tokens(session: Session, now: datetime) -> list[dict[str, Any]]:
    """Return the tokens, without anything secret."""
    rows = session.exec(select(AccessToken).order_by(AccessToken.name)).all()
    return [
        {
            "name": r.name,
            "scopes": r.scopes,
            "created_at": r.created_at,
            "expires_at": r.expires_at,
            "state": _token_state(r, now),
        }
        for r in rows
    ]


def has_any(session: Session) -> bool:
    """Return True once there was an account or a token: then nobody is let in for being on this machine."""
    return any(session.exec(select(col(table.id)).limit(1)).first() for table in (Account, AccessToken))


def _token_state(row: AccessToken, now: datetime) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "valid"


def require_account(session: Session, name: str) -> Account:
    """Return an account. Refuses `no-such-account`."""
    account = _account(session, name)
    if account is None:
        raise Refused("no-such-account", f"there is no account '{name}'")
    return account


def _account(session: Session, name: str) -> Account | None:
    return session.exec(select(Account).where(Account.name == name)).first()


def _check_strength(name: str, password: str) -> None:
    if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
        raise Refused(
            "weak-password",
            f"a password has {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters; take more words",
        )
    if password.lower() == name.lower() or len(set(password)) < 5:
        raise Refused("weak-password", "this password is guessed at once; take several words")


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    memory = 128 * r * (n + p + 2) + (1 << 20)
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"), salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=32
    )


def _sha256(token: str) -> str:
    # A token is 256 random bits: unlike a password it needs no slow hash.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


__all__ = [
    "MOST_DAYS",
    "ROLES",
    "SCOPES",
    "add_account",
    "add_token",
    "check_sign_in",
    "find_token",
    "has_any",
    "hash_password",
    "is_last_administrator",
    "is_password",
    "is_still",
    "list_accounts",
    "list_tokens",
    "require_account",
    "require_another_administrator",
    "revoke_token",
    "set_disabled",
    "set_password",
    "set_role",
]

"""Accounts and tokens as pages and JSON change them: a change and its line in the audit trail are one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlmodel import Session

from node import audit_events
from node.settings import Settings
from store import accounts, audit, outside_people
from store.database import Database

Tell = Callable[..., None]


class AccessDesk:
    """Changes who may sign in and what may ask.

    Parameters
    ----------
    database
        Of the node.
    settings
        Of them the AE title, which the trail names.

    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._ae_title = database, settings.ae_title

    def add_account(self, name: str, role: str, password: str, *, by: str) -> None:
        """Add a person. Refuses what `store.accounts.add_account` does."""
        with self._changing(by) as (session, now, tell):
            accounts.add_account(session, name, role, password, now)
            tell(f"account added as {role}", name, is_role=True)

    def change(
        self,
        name: str,
        *,
        by: str,
        role: str | None = None,
        password: str | None = None,
        disabled: bool | None = None,
    ) -> None:
        """Change what is given of a person, all of it or nothing.

        Refuses `no-such-account`, `last-administrator`, `by-provider` (role and password of whom a provider vouches
        for are the provider's), and what `store.accounts` does.
        """
        with self._changing(by) as (session, _, tell):
            if (role, password) != (None, None):
                outside_people.require_ours(session, name)
            if role is not None:
                accounts.set_role(session, name, role)
                tell(f"role changed to {role}", name, is_role=True)
            if password is not None:
                accounts.set_password(session, name, password)
                tell("password changed", name)
            if disabled is not None:
                if disabled:
                    accounts.require_another_administrator(session, name)
                accounts.set_disabled(session, name, disabled=disabled)
                tell("account disabled" if disabled else "account enabled", name)

    def add_token(self, name: str, scopes: Sequence[str], days: float | None, *, by: str) -> str:
        """Return a new token, this once only. Refuses what `store.accounts.add_token` does."""
        with self._changing(by) as (session, now, tell):
            token = accounts.add_token(session, name, scopes, now, days)
            tell(f"token added for {', '.join(scopes)}", name, is_role=True)
        return token

    def revoke_token(self, name: str, *, by: str) -> None:
        """End a token for good. Refuses `no-such-token`."""
        with self._changing(by) as (session, now, tell):
            accounts.revoke_token(session, name, now)
            tell("token revoked", name)

    @contextmanager
    def _changing(self, by: str) -> Iterator[tuple[Session, datetime, Tell]]:
        now = self._database.now()
        with self._database.transaction() as session:

            def tell(what: str, subject: str, *, is_role: bool = False) -> None:
                message = audit_events.access_changed(what, subject, by, is_role=is_role)
                audit.append(session, [(now, message.xml(now, self._ae_title))])

            yield session, now, tell


__all__ = ["AccessDesk"]

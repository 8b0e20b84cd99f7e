"""A person's decision which model of a family counts, and its line in the audit trail: for commands and pages alike."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlmodel import Session

from node import audit_events, model_view
from node.logs import line
from node.model_view import Entry
from node.settings import Settings
from plugins.errors import Refused
from store import asked_runs, audit, leases, registry
from store.database import Database
from store.leases import SCHEDULER
from training.recipe import FAMILIES

log = logging.getLogger(__name__)


@contextmanager
def _deciding(database: Database, settings: Settings, family: str) -> Iterator[tuple[Session, datetime]]:
    """Give one transaction and its time; what was decided in it is told to the audit trail before it is committed."""
    now = database.now()
    with database.transaction() as session:
        model_view.require_family(session, family)
        yield session, now
        made = registry.history(session, family)[-1]
        entry = counts(session, family)
        number, sha256 = (entry.number, entry.manifest_sha256) if entry else (model_view.SHIPPED, "")
        what = f"{model_view.DONE[made.kind]}, counts now"
        message = audit_events.model_changed(what, f"{family}/{number}", sha256, made.author)
        audit.append(session, [(now, message.xml(now, settings.ae_title))])


def approve(
    database: Database, settings: Settings, family: str, number: int, *, author: str, note: str = ""
) -> Entry | None:
    """Let a model count, and return it. Refuses `no-family`, and what `training.promotion.approve` does."""
    from training import promotion

    with _deciding(database, settings, family) as (session, now):
        promotion.approve(session, settings.home, family, number, author=author, now=now, note=note)
    return _counts(database, family)


def rollback(
    database: Database,
    settings: Settings,
    family: str,
    *,
    author: str,
    note: str = "",
    to_release: bool = False,
    in_place_of: str = "",
) -> Entry | None:
    """Let the model before count again, or the release's; return it, None when the release has none.

    Refuses `no-family`, and what `store.registry.rollback` does.
    """
    with _deciding(database, settings, family) as (session, now):
        registry.rollback(
            session,
            settings.home,
            family,
            author=author,
            now=now,
            note=note,
            to_release=to_release,
            in_place_of=in_place_of,
        )
    return _counts(database, family)


def ask_for_run(database: Database, settings: Settings, family: str, author: str) -> None:
    """Ask the scheduler for a run of retraining.

    Refuses `no-family`, `unknown-family` (nobody knows how to retrain it), `no-scheduler` (nobody would begin it) and
    `already-running`.
    """
    now = database.now()
    with database.transaction() as session:
        model_view.require_family(session, family)
        if family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise Refused("unknown-family", f"nobody knows how to retrain '{family}'; known: {known}")
        if leases.holder(session, SCHEDULER, now) is None:
            sentence = (
                "no scheduler of this node runs: start one (nadir serve with the role scheduler), or run "
                f"'nadir models retrain {family}' on a machine that has the time"
            )
            raise Refused("no-scheduler", sentence)
        asked_runs.ask(session, family, author, now)
        message = audit_events.model_changed("retraining asked for", family, "", author)
        audit.append(session, [(now, message.xml(now, settings.ae_title))])
    log.info(line("retraining-asked", family=family, by=author))


def counts(session: Session, family: str) -> Entry | None:
    """Return the model of a family that counts."""
    return next((one for one in model_view.entries(session, family) if one.state == "active"), None)


def _counts(database: Database, family: str) -> Entry | None:
    with database.reading() as session:
        return counts(session, family)


__all__ = ["approve", "ask_for_run", "counts", "rollback"]

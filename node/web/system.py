"""The page of administrators: destinations and their outbox, queue, disk, processes, versions, events, audit trail."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from node import audit_events
from node.machine import GpuWatch
from node.web import system_view
from node.web.access import allow
from node.web.fields import Fields
from node.web.site import Site
from store import audit, operations
from store.tables import Event

PAGE = 50
MOST_DIGITS = 15


def router(site: Site) -> APIRouter:
    """Return the page `/system`, its parts that refresh themselves, events and the audit trail."""
    made = APIRouter(include_in_schema=False)
    watch = GpuWatch()

    @made.get("/system")
    @allow("administrator")
    def page(request: Request) -> Response:
        """Give the whole page."""
        values = {**_now(site), **system_view.still_of(site), "times": _times}
        return site.frame.page(request, "system.html", **values)

    @made.get("/system/now")
    @allow("administrator")
    def now(request: Request) -> Response:
        """Give what changes from minute to minute."""
        return site.frame.page(request, "system_now.html", **_now(site))

    @made.get("/system/machine")
    @allow("administrator")
    def machine(request: Request) -> Response:
        """Give what takes a while to find out: the graphics cards, and what the store fills."""
        gpus = watch.gpus()
        with site.database.reading() as session:
            filled = operations.stored_bytes(session)
        return site.frame.page(request, "system_machine.html", gpus=gpus, stored_bytes=filled)

    @made.get("/system/events")
    @allow("administrator")
    def events(request: Request, kind: str = "", before: str = "") -> Response:
        """Give a page of events, of one kind or of all."""
        with site.database.reading() as session:
            total, rows = operations.events(session, kind=kind, before=_number(before), limit=PAGE + 1)
            kinds = operations.states(session, Event.kind)
        values: dict[str, Any] = {
            "rows": rows[:PAGE],
            "total": total,
            "kinds": kinds,
            "kind": kind,
            "has_more": len(rows) > PAGE,
        }
        return site.frame.page(request, "system_events.html", **values)

    _trail(made, site)
    return made


def _trail(made: APIRouter, site: Site) -> None:
    """Add the pages of the audit trail. Who reads it is told in it."""

    def values(request: Request, words: str, before: int | None) -> dict[str, Any]:
        with site.database.reading() as session:
            total, rows = operations.trail(session, words=words, before=before, limit=PAGE + 1)
        by = request.state.identity.name
        site.record(audit_events.trail_read(by), once=("trail-read", by))
        shown = [system_view.told(row) for row in rows[:PAGE]]
        return {"rows": shown, "total": total, "words": words, "has_more": len(rows) > PAGE}

    @made.get("/system/audit")
    @allow("administrator")
    def trail(request: Request) -> Response:
        """Give the newest records."""
        return site.frame.page(request, "system_audit.html", **values(request, "", None))

    @made.post("/system/audit/rows")
    @allow("administrator")
    def rows(request: Request, fields: Fields) -> Response:
        """Give the records that match, before one of them; names are sent as a form, since addresses are logged."""
        words, before = fields.get("words", "")[:200], _number(fields.get("before", ""))
        return site.frame.page(request, "system_audit_rows.html", **values(request, words, before))

    @made.post("/system/audit/verify")
    @allow("administrator")
    def verify(request: Request) -> Response:
        """Walk along the whole chain and say whether it holds."""
        with site.database.reading() as session:
            found = audit.verify(session)
        return site.frame.page(request, "system_audit_verdict.html", found=found, at=site.database.now())


def _now(site: Site) -> dict[str, Any]:
    now = system_view.now_of(site)
    most = {
        name: max([1, *(getattr(hour, name) for hour in now.hours)]) for name in ("studies", "jobs", "images")
    }
    return {"now": now, "reserve": site.settings.reserve_bytes, "most": most}


def _times(text: str) -> str:
    """Return when something comes again, as its row says it."""
    try:
        said = json.loads(text)
        return f"{said['cron']} ({said['timezone']})"
    except (ValueError, KeyError, TypeError):
        return "not readable"


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= MOST_DIGITS else None


__all__ = ["router"]

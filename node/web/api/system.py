"""The state of the node as JSON, and what an administrator does about destinations and earlier studies."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from node import audit_events
from node.deliveries import key_of
from node.web import system_view
from node.web.access import allow
from node.web.api import form
from node.web.api.worklist import Done
from node.web.site import Site
from plugins.errors import Refused
from store import operations, outbox, priors


class DestinationState(BaseModel):
    """The outbox of one destination."""

    name: str = Field(description="Its address, without password")
    in_settings: bool = Field(description="False for one that was taken out of the settings")
    counts: dict[str, int] = Field(description="Deliveries by state")
    waiting: int = Field(description="Deliveries on their way")
    oldest_at: form.Instant | None = Field(description="Since when the oldest one waits")
    next_at: form.Instant | None = Field(description="When the next one is tried")
    delivered_at: form.Instant | None = Field(description="When it last took something")
    error: str = Field(description="Why the newest that failed did")


class HourOf(BaseModel):
    """What went through in one hour."""

    at: form.Instant = Field(description="When it began")
    studies: int = Field(description="Revisions that settled")
    jobs: int = Field(description="Jobs that ended")
    images: int = Field(description="Objects that came")


class ProcessOf(BaseModel):
    """One process of the node."""

    name: str = Field(description="Host and number of the process")
    roles: list[str] = Field(description="What it does")
    version: str = Field(description="Version of Nadir")
    started_at: form.Instant = Field(description="When it began")
    alive_at: form.Instant = Field(description="Its last sign of life")
    is_alive: bool = Field(description="False when that is too long ago")


class AnalysisOf(BaseModel):
    """One analysis."""

    name: str = Field(description="Its name")
    package: str = Field(description="The package that it came with; empty when it is not installed")
    is_enabled: bool = Field(description="Whether it runs on new studies")
    version: str = Field(description="Version of its newest job")
    model_sha256: str = Field(description="Hash of the model of its newest job")


class System(BaseModel):
    """The state of the node."""

    at: form.Instant = Field(description="When this was so")
    destinations: list[DestinationState] = Field(description="Where results go")
    jobs: dict[str, int] = Field(description="Jobs by state")
    pulls: dict[str, int] = Field(description="Studies that the PACS told of, by state")
    processes: list[ProcessOf] = Field(description="The processes of the node")
    missing_roles: list[str] = Field(description="Roles that no living process does")
    associations: int = Field(description="DICOM associations that are open and brought something")
    disk_free_bytes: int | None = Field(description="What is left of the disk of the home folder")
    disk_total_bytes: int | None = Field(description="How large that disk is")
    reserve_bytes: int = Field(description="Free disk below which nothing is accepted")
    hours: list[HourOf] = Field(description="The last 24 hours, the oldest first")
    analyses: list[AnalysisOf] = Field(description="What is installed, or ever ran")


class EventOf(BaseModel):
    """One event."""

    number: int = Field(description="Its number")
    at: form.Instant = Field(description="When")
    kind: str = Field(description="What kind of thing happened")
    subject: str = Field(description="What it speaks of, by an identifier of this node")
    text: str = Field(description="What happened")


class Events(form.Listed):
    """A part of the events."""

    events: list[EventOf]


class AuditRecordOf(BaseModel):
    """One record of the audit trail."""

    number: int = Field(description="Its number")
    at: form.Instant = Field(description="When")
    sha256: str = Field(description="Hash of the chain up to this record")
    message: str = Field(description="The message as DICOM defines it, XML (PS3.15 A.5)")


class AuditRecords(form.Listed):
    """A part of the audit trail."""

    records: list[AuditRecordOf]


class WhichDestination(BaseModel):
    """A destination."""

    model_config = ConfigDict(extra="forbid")

    destination: str = Field(max_length=400, description="As the list names it")


def router(site: Site) -> APIRouter:
    """Return the routes of the state of the node."""
    made = form.routes("system")

    @made.get("/system")
    @allow("administrator", scopes=("api",))
    def system() -> System:
        """Tell the state of the node."""
        return _system(site)

    @made.get("/events")
    @allow("administrator", scopes=("api",))
    def events(limit: form.Limit = 100, cursor: form.Cursor = "") -> Events:
        """List what happened that an administrator may ask for, the newest first."""
        (before,) = form.values_of(cursor, int) or (None,)
        with site.database.reading() as session:
            total, rows = operations.events(session, before=before, limit=limit + 1)
        shown = [
            EventOf(number=row.id or 0, at=row.at, kind=row.kind, subject=row.subject, text=row.text)
            for row in rows[:limit]
        ]
        more = form.cursor_of(shown[-1].number) if len(rows) > limit else None
        return Events(events=shown, total=total, next=more)

    @made.get("/audit")
    @allow("administrator")
    def audit(request: Request, limit: form.Limit = 100, cursor: form.Cursor = "") -> AuditRecords:
        """List the audit trail, the newest first; the reading is a record too."""
        (before,) = form.values_of(cursor, int) or (None,)
        with site.database.reading() as session:
            total, rows = operations.trail(session, before=before, limit=limit + 1)
        by = request.state.identity.name
        site.record(audit_events.trail_read(by), once=("trail-read", by))
        shown = [
            AuditRecordOf(number=row.id or 0, at=row.at, sha256=row.sha256, message=row.message)
            for row in rows[:limit]
        ]
        more = form.cursor_of(shown[-1].number) if len(rows) > limit else None
        return AuditRecords(records=shown, total=total, next=more)

    _changes(made, site)
    return made


def _changes(made: APIRouter, site: Site) -> None:
    """Add what can be done."""

    def told(request: Request, said: str, subject: str) -> Done:
        site.record(audit_events.operated(said, subject, request.state.identity.name, request.state.address))
        return Done(said=said)

    @made.post("/system/destinations/retry", responses=form.problems(404))
    @allow("administrator")
    def retry(request: Request, which: WhichDestination) -> Done:
        """Send everything that is parked for a destination again."""
        with site.database.transaction() as session:
            count = outbox.retry_parked(session, site.database.now(), destination=which.destination)
        if not count:
            raise Refused("no-such-delivery", f"nothing is parked for {which.destination}")
        return told(
            request, f"{count} results for {which.destination} wait to be sent again.", which.destination
        )

    @made.post("/system/destinations/abandon", responses=form.problems(404, 409))
    @allow("administrator")
    def abandon(request: Request, which: WhichDestination) -> Done:
        """Give up what waits for a destination that was taken out of the settings."""
        key = key_of(which.destination)
        if key in map(key_of, site.settings.destinations):
            sentence = f"{key} is a destination of the settings: take it out first"
            raise Refused("destination-in-use", sentence)
        with site.database.transaction() as session:
            count = outbox.abandon(session, key, site.database.now())
        if not count:
            raise Refused("no-such-delivery", f"nothing waits for {key}")
        return told(request, f"{count} results for {key} are given up.", key)

    @made.post("/system/priors/retry")
    @allow("administrator")
    def retry_priors(request: Request) -> Done:
        """Ask again for all earlier studies that were given up."""
        with site.database.transaction() as session:
            count = priors.retry_parked(session, site.database.now())
        return told(request, f"{count} searches and earlier studies are asked for again.", "priors")


def _system(site: Site) -> System:
    now = system_view.now_of(site)
    return System(
        at=now.at,
        destinations=[
            DestinationState(**asdict(one), waiting=one.waiting, in_settings=one.name in now.in_settings)
            for one in now.destinations
        ],
        jobs=dict(now.jobs),
        pulls=dict(now.pulls),
        processes=[ProcessOf(**asdict(one)) for one in now.processes],
        missing_roles=list(now.missing_roles),
        associations=len(now.associations),
        disk_free_bytes=now.disk.free_bytes if now.disk else None,
        disk_total_bytes=now.disk.total_bytes if now.disk else None,
        reserve_bytes=site.settings.reserve_bytes,
        hours=[HourOf(**asdict(one)) for one in now.hours],
        analyses=[AnalysisOf(**asdict(one)) for one in system_view.analyses(site)],
    )


__all__ = ["router"]

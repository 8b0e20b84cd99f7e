"""The state of the node for the page of administrators and for programs: one look at SQL, the disk and the settings."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

from node import machine
from node.deliveries import key_of
from node.machine import Disk
from node.web.site import Site
from store import accounts, operations, processes, registry
from store.audit_tables import AuditRecord
from store.leases import holder
from store.operations import Destination, Hour, PriorsOf
from store.processes import Process
from store.tables import Association, Job, Pull

EVENTS = 12
ROLES = ("listener", "worker", "sender", "web", "scheduler")


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One analysis that is installed, or was."""

    name: str
    """Its name."""
    package: str
    """The package that it came with; empty when it is no longer installed."""
    is_enabled: bool
    """Whether it runs on new studies."""
    version: str
    """Version of its newest job; empty before it ever ran."""
    model_sha256: str
    """Hash of the model of its newest job."""


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """Something that comes again and again."""

    name: str
    """What."""
    next_at: datetime | None
    """When next."""
    times: str
    """Its crontab and time zone, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Now:
    """What changes from minute to minute."""

    at: datetime
    """When this was so."""
    destinations: tuple[Destination, ...]
    """Their outboxes."""
    in_settings: frozenset[str]
    """Those of them that are in the settings."""
    jobs: Mapping[str, int]
    """Jobs by state."""
    oldest_job_at: datetime | None
    """Since when the oldest job waits."""
    running: tuple[Job, ...]
    """What runs."""
    parked_studies: int
    """Studies that people have parked."""
    pulls: Mapping[str, int]
    """Studies that the PACS told of, by state."""
    processes: tuple[Process, ...]
    """The processes of the node."""
    associations: tuple[Association, ...]
    """Who is connected."""
    disk: Disk | None
    """The disk of the home folder; None when it cannot be read."""
    hours: tuple[Hour, ...]
    """What went through."""
    priors: tuple[PriorsOf, ...]
    """Sources of earlier studies."""

    @property
    def gave_up_priors(self) -> bool:
        """Return whether earlier studies were given up that a person may ask for again."""
        return any(one.counts.get("parked") for one in self.priors)

    @property
    def missing_roles(self) -> tuple[str, ...]:
        """Return the roles that no process does that gives a sign of life."""
        there = {role for process in self.processes if process.is_alive for role in process.roles}
        return tuple(role for role in ROLES if role not in there)


@dataclass(frozen=True, kw_only=True)
class Told:
    """One record of the audit trail, in words."""

    pk: int
    """Its number."""
    at: datetime
    """When."""
    event: str
    """What happened: EventID, and its type."""
    is_failure: bool
    """Whether it did not succeed."""
    description: str
    """What went wrong, or was done."""
    who: str
    """Who began it, and from where."""
    what: str
    """What it happened to."""


def now_of(site: Site) -> Now:
    """Return what changes from minute to minute."""
    settings, now = site.settings, site.database.now()
    known = tuple(map(key_of, settings.destinations))
    with site.database.reading() as session:
        return Now(
            at=now,
            destinations=operations.destinations(session, known),
            in_settings=frozenset(known),
            jobs=operations.states(session, Job.state),
            oldest_job_at=operations.waiting_longest(session),
            running=operations.running(session),
            parked_studies=operations.parked_studies(session),
            pulls=operations.states(session, Pull.state),
            processes=processes.processes(session, now),
            associations=operations.associations(session, now),
            disk=_disk(site),
            hours=operations.hours(session, now),
            priors=operations.prior_sources(session, tuple(map(key_of, settings.prior_sources))),
        )


def still_of(site: Site) -> dict[str, Any]:
    """Return what does not change from minute to minute, for the page."""
    settings, now = site.settings, site.database.now()
    count, filled, newest = site.objects.quarantined()
    with site.database.reading() as session:
        total, events = operations.events(session, limit=EVENTS)
        return {
            "versions": machine.versions(),
            "analyses": analyses(site),
            "models": {
                family: place.sha256 for family, place in registry.active(session, settings.home).items()
            },
            "scheduled": tuple(map(_scheduled, operations.scheduled(session))),
            "scheduler": holder(session, "scheduler", now),
            "quarantine": {"count": count, "bytes": filled, "newest": newest},
            "events": events,
            "events_total": total,
            "accounts": accounts.list_accounts(session),
            "tokens": accounts.list_tokens(session, now),
            "settings": settings.redacted(),
            "database": "SQLite" if site.database.is_sqlite else "PostgreSQL",
        }


def analyses(site: Site) -> tuple[Analysis, ...]:
    """Return the analyses: what is installed, and what ever ran."""
    installed, enabled = machine.installed_analyses(), site.settings.enabled
    with site.database.reading() as session:
        newest = operations.newest_analyses(session)
    return tuple(
        Analysis(
            name=name,
            package=installed.get(name, ""),
            is_enabled=name in installed and (enabled is None or name in enabled),
            version=newest.get(name, ("", ""))[0],
            model_sha256=newest.get(name, ("", ""))[1],
        )
        for name in sorted({*installed, *newest} - {"response"})
    )


def told(row: AuditRecord) -> Told:
    """Return a record of the audit trail in words; one that somebody spoilt is told as that."""
    try:
        message = ElementTree.fromstring(row.message)  # noqa: S314  # entities of SQL's own rows are bounded by expat
    except ElementTree.ParseError:
        event = "this record is no audit message any more"
        return Told(pk=row.id or 0, at=row.at, event=event, is_failure=True, description="", who="", what="")
    said = message.find("EventIdentification")
    names = (
        [] if said is None else [code.get("originalText", "") for code in said if code.get("originalText")]
    )
    description = "" if said is None else said.findtext("EventOutcomeDescription", "")
    people = message.findall("ActiveParticipant")
    began = [one for one in people if one.get("UserIsRequestor") == "true"] or people
    return Told(
        pk=row.id or 0,
        at=row.at,
        event=", ".join(names),
        is_failure=said is not None and said.get("EventOutcomeIndicator") != "0",
        description=" ".join([description, *_alerts(message)]).strip(),
        who=", ".join(filter(None, (" at ".join(filter(None, _person(one))) for one in began))),
        what=", ".join(
            one.get("ParticipantObjectID", "") for one in message.findall("ParticipantObjectIdentification")
        ),
    )


def _alerts(message: ElementTree.Element) -> list[str]:
    """Return what the details of a message say, which are kept in base 64."""
    details = message.iterfind("ParticipantObjectIdentification/ParticipantObjectDetail")
    return [
        b64decode(detail.get("value", "")).decode("utf-8", "replace")
        for detail in details
        if detail.get("type") == "Alert Description"
    ]


def _person(one: ElementTree.Element) -> tuple[str, str]:
    return one.get("UserID", ""), one.get("NetworkAccessPointID", "")


def _scheduled(row: Any) -> Scheduled:
    at = None if row.next_run_time is None else datetime.fromtimestamp(row.next_run_time, tz=UTC)
    return Scheduled(name=row.id, next_at=at, times=row.job_state.decode("utf-8", "replace"))


def _disk(site: Site) -> Disk | None:
    try:
        return machine.disk(site.settings.home)
    except OSError:
        return None


__all__ = ["Analysis", "Now", "Scheduled", "Told", "analyses", "now_of", "still_of", "told"]

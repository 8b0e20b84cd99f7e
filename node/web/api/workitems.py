"""What a worklist of the PACS asked of this node, as JSON, and ending one of it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from node import audit_events
from node.web.access import allow
from node.web.api import form
from node.web.site import Site
from store import workitems

State = Literal[
    "claiming", "claimed", "fetching", "analysing", "completing",
    "cancelling", "completed", "cancelled", "lost", "forgotten",
]  # fmt: skip


class WorkitemOf(BaseModel):
    """One workitem of the worklist."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Its number")
    worklist: str = Field(description="Root of the worklist")
    workitem_uid: str = Field(description="SOP Instance UID of the Unified Procedure Step")
    state: State = Field(description="How it stands here")
    label: str = Field(description="Procedure Step Label")
    study_instance_uid: str = Field(description="The study; empty until it is known")
    asked: list[str] = Field(description="Analyses that it asks for")
    source: str = Field(description="The archive that gave the input; empty when all was here")
    progress: int = Field(description="Percent, as the worklist was told last")
    told: str = Field(description="How it stands or ended, in a sentence")
    attempt: int = Field(description="Failures in a row")
    error_code: str | None = Field(description="Code of the last of them")
    reason: str = Field(description="Why it is cancelled; empty when it is not")
    created_at: form.Instant = Field(description="When it was found")
    claimed_at: form.Instant | None = Field(description="When it became ours")
    told_at: form.Instant | None = Field(description="When the worklist last took what it was told")
    ended_at: form.Instant | None = Field(description="When it ended")


class Cancelled(WorkitemOf):
    """A workitem that is being cancelled."""

    said: str = Field(description="One sentence")


class Workitems(form.Listed):
    """A part of the workitems."""

    workitems: list[WorkitemOf]


class Why(BaseModel):
    """Why a workitem is cancelled."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(
        default="It is no longer wanted.", max_length=400, description="As the worklist is told it"
    )


def router(site: Site) -> APIRouter:
    """Return the routes of the workitems."""
    made = form.routes("workitems")

    @made.get("/workitems")
    @allow("viewer", scopes=("api",))
    def listed(state: State | None = None, limit: form.Limit = 100, cursor: form.Cursor = "") -> Workitems:
        """List what the worklist asked for, the newest first."""
        (before,) = form.values_of(cursor, int) or (None,)
        with site.database.reading() as session:
            total = workitems.count(session, state)
            rows = workitems.listed(session, state, before=before, limit=limit + 1)
        more = rows[limit - 1].id if len(rows) > limit else None
        found = [_of(row) for row in rows[:limit]]
        return Workitems(workitems=found, total=total, next=form.cursor_of(more) if more else None)

    @made.get("/workitems/{workitem}", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def one(workitem: form.Pk) -> WorkitemOf:
        """Show one workitem."""
        with site.database.reading() as session:
            return _of(workitems.get(session, workitem))

    @made.post("/workitems/{workitem}/cancel", responses=form.problems(404, 409))
    @allow("physicist")
    def cancel(request: Request, workitem: form.Pk, why: Why | None = None) -> Cancelled:
        """Stop what a workitem asked for, and tell the worklist that it is CANCELED."""
        by = request.state.identity.name
        told = f"{by} cancelled it: {(why or Why()).reason}"
        with site.database.transaction() as session:
            row = workitems.stop(session, workitem, site.database.now(), reason="requested", told=told)
        said = f"workitem {workitem} cancelled"
        subject = row.study_instance_uid or row.workitem_uid
        site.record(audit_events.operated(said, subject, by, request.state.address))
        return Cancelled(**_of(row).model_dump(), said=f"Workitem {workitem} is being cancelled.")

    return made


def _of(row: workitems.Workitem) -> WorkitemOf:
    plain = {name: getattr(row, name) for name in WorkitemOf.model_fields}
    return WorkitemOf.model_validate({**plain, "asked": sorted(row.plugins)})

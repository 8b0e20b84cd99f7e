"""Jobs, and searches for earlier studies, as JSON."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from node.web.access import allow
from node.web.api import form
from store import jobs, priors
from store.database import Database

InState = Annotated[str | None, Query(max_length=32, description="Only those in this state")]


class JobRow(BaseModel):
    """One analysis of one revision of a study."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    revision_pk: int = Field(description="Number of the study's revision")
    key: str = Field(description="Stands for everything that decides the result")
    run: int = Field(description="How often a person had asked for the same work again")
    plugin: str
    plugin_version: str
    model_sha256: str
    config_sha256: str
    state: str = Field(description="queued, running, delivering, done, parked, dead, ...", examples=["done"])
    attempt: int
    max_attempts: int
    run_after: form.Instant
    lease_until: form.Instant | None
    owner: str | None
    error_code: str | None
    error_text: str | None = Field(description="Why it failed or was refused, for people")
    created_at: form.Instant
    started_at: form.Instant | None
    finished_at: form.Instant | None


class Jobs(form.Listed):
    """Jobs, oldest first."""

    jobs: list[JobRow]


class PriorRow(BaseModel):
    """A search for earlier studies of a patient, or one study that it found."""

    for_study: str = Field(description="Study Instance UID for which it was searched")
    source: str = Field(description="The PACS that was asked")
    study_instance_uid: str | None = Field(description="The study that was found; null for the search itself")
    state: str
    attempt: int
    requested_at: form.Instant
    done_at: form.Instant | None
    error_code: str | None
    error_text: str | None


class Priors(form.Listed):
    """Searches, oldest first, after each what it found."""

    priors: list[PriorRow]


def router(database: Database) -> APIRouter:
    """Return the routes `/api/jobs` and `/api/priors`."""
    made = form.routes("jobs")

    @made.get("/jobs", responses=form.problems(400))
    @allow("viewer", scopes=("api",))
    def list_jobs(state: InState = None, limit: form.Limit = 100, cursor: form.Cursor = "") -> Jobs:
        """List the jobs, all or those in one state."""
        (after,) = form.values_of(cursor, int) or (0,)
        with database.reading() as session:
            found, total = jobs.page(session, state=state, after=after or 0, limit=limit + 1)
        rows = [JobRow.model_validate(job) for job in found[:limit]]
        more = form.cursor_of(rows[-1].id) if len(found) > limit else None
        return Jobs(jobs=rows, total=total, next=more)

    @made.get("/priors", responses=form.problems(400))
    @allow("viewer", scopes=("api",))
    def list_priors(state: InState = None, limit: form.Limit = 100, cursor: form.Cursor = "") -> Priors:
        """List the searches for earlier studies and what they found, all or those in one state."""
        (passed,) = form.values_of(cursor, int) or (0,)
        first = max(0, passed or 0)
        with database.reading() as session:
            found = priors.listed(session, state)
        rows = [PriorRow(**row) for row in found[first : first + limit]]
        more = form.cursor_of(first + limit) if first + limit < len(found) else None
        return Priors(priors=rows, total=len(found), next=more)

    return made


__all__ = ["router"]

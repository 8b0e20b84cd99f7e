"""The worklist as JSON: studies and where they stand, and what can be done about a job or a study."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session, col, select
from starlette.exceptions import HTTPException

from node import audit_events
from node.web.access import JSON_BODY_BYTES, allow
from node.web.api import form
from node.web.readings import tell_list
from node.web.site import Site
from node.web.worklist_words import TaskSaid, said
from plugins.errors import Refused
from store import jobs, outbox, studies
from store import worklist as listing
from store.database import aware_utc
from store.parking import park_job, park_study, unpark_job, unpark_study
from store.rerun import rerun
from store.tables import Job, Revision, Study
from store.worklist import Listed

Stage = Literal[
    "", "receiving", "waiting", "running", "delivering", "failed", "refused", "parked", "done", "earlier"
]
Uid = Annotated[str, Path(max_length=64, pattern=r"^[0-9.]+$", description="Study Instance UID")]


class SentTo(BaseModel):
    """How far the results of an analysis are on the way to one destination."""

    destination: str = Field(description="Its address, without password")
    total: int = Field(description="Results that go there")
    delivered: int = Field(description="Of them those that it took")
    confirmed: int = Field(description="Of these those that it is proved to keep")
    parked: int = Field(description="Those that a person has to look after")
    error: str = Field(description="Why one of them is not there yet; empty when nothing failed")


class Analysis(BaseModel):
    """The newest job of one analysis."""

    job: int = Field(description="Number of the job")
    plugin: str = Field(description="The analysis")
    stage: str = Field(description="Where it stands")
    why: list[str] = Field(description="Sentences: why it waits or failed, what it did not accept")
    elapsed_seconds: float | None = Field(description="How long it has run; null when it does not")
    usual_seconds: float | None = Field(description="How long it usually takes on this node, an estimate")
    findings: int = Field(description="Findings that count")
    run: int = Field(description="How often it was asked for again")
    destinations: list[SentTo] = Field(description="Where its results go")


class ListedStudy(BaseModel):
    """One study and where it stands."""

    study_instance_uid: str = Field(description="Study Instance UID")
    patient_pk: int = Field(description="Number of the patient")
    patient_id: str = Field(description="PatientID")
    patient_name: str = Field(description="PatientName")
    study_date: date | None = Field(description="StudyDate")
    study_description: str = Field(description="StudyDescription")
    accession_number: str = Field(description="AccessionNumber")
    modalities: list[str] = Field(description="Modalities of its series")
    images: int = Field(description="Objects that others sent")
    arrived_at: form.Instant = Field(description="When the latest new content came")
    revision: int = Field(description="Number of the latest settled revision; 0 before the first")
    stage: str = Field(description="Where it stands")
    why: list[str] = Field(description="Sentences: why it waits or failed")
    analyses: list[Analysis] = Field(description="Its analyses")


class ListedStudies(form.Listed):
    """A part of the worklist."""

    studies: list[ListedStudy]


class Search(BaseModel):
    """What to look for; a body, because names do not belong into addresses."""

    model_config = ConfigDict(extra="forbid")

    words: str = Field(
        default="", max_length=200, description="Parts of PatientID, name, accession or description"
    )
    stage: Stage = Field(default="", description="Only studies of this stage")
    limit: int = Field(default=100, ge=1, le=form.MOST_ROWS, description="Most rows of this answer")
    cursor: str = Field(
        default="", max_length=form.MOST_CHARACTERS, description="`next` of the answer before"
    )


class Done(BaseModel):
    """What a change did."""

    said: str = Field(description="One sentence")
    job: int | None = Field(default=None, description="Number of the job that it speaks of")


def router(site: Site) -> APIRouter:
    """Return the routes of the worklist and of what can be done with jobs and studies."""
    made = form.routes("worklist")

    @made.get("/worklist")
    @allow("viewer", scopes=("api",))
    def worklist(
        request: Request, stage: Stage = "", limit: form.Limit = 100, cursor: form.Cursor = ""
    ) -> ListedStudies:
        """List studies and where they stand, the one with the latest new content first."""
        return _list(site, request, Search(stage=stage, limit=limit, cursor=cursor))

    @made.post("/worklist/search")
    @allow("viewer", scopes=("api",), body_bytes=JSON_BODY_BYTES)
    def search(request: Request, asked: Search) -> ListedStudies:
        """List the studies that match."""
        return _list(site, request, asked)

    _of_jobs(made, site)
    _parked_jobs(made, site)
    _of_studies(made, site)
    return made


def _of_jobs(made: APIRouter, site: Site) -> None:
    """Add what a physicist does with one job."""

    @made.post("/jobs/{job}/retry", responses=form.problems(404, 409))
    @allow("physicist")
    def retry(request: Request, job: form.Pk) -> Done:
        """Try a job again that was given up."""

        def do(session: Session, now: datetime, by: str) -> Done:
            row = jobs.retry(session, job, now)
            return Done(said=f"Job {job}, {row.plugin}, is {_waits(row)}.", job=job)

        return _change_job(site, request, job, do)

    @made.post("/jobs/{job}/rerun", responses=form.problems(404, 409))
    @allow("physicist")
    def again(request: Request, job: form.Pk) -> Done:
        """Run an analysis that is done once more; its results supersede those that are there."""

        def do(session: Session, now: datetime, by: str) -> Done:
            row = rerun(session, job, now, site.settings.max_attempts)
            return Done(said=f"Job {row.id} runs {row.plugin} again; it is {_waits(row)}.", job=row.id)

        return _change_job(site, request, job, do)


def _parked_jobs(made: APIRouter, site: Site) -> None:
    """Add what an administrator does with one job."""

    @made.post("/jobs/{job}/park", responses=form.problems(404, 409))
    @allow("administrator")
    def park(request: Request, job: form.Pk) -> Done:
        """Let a job not run until it is unparked."""

        def do(session: Session, now: datetime, by: str) -> Done:
            return Done(said=f"Job {job}, {park_job(session, job, by).plugin}, is parked.", job=job)

        return _change_job(site, request, job, do)

    @made.post("/jobs/{job}/unpark", responses=form.problems(404, 409))
    @allow("administrator")
    def unpark(request: Request, job: form.Pk) -> Done:
        """Put a parked job back into the queue."""

        def do(session: Session, now: datetime, by: str) -> Done:
            return Done(
                said=f"Job {job}, {unpark_job(session, job, now).plugin}, waits in the queue.", job=job
            )

        return _change_job(site, request, job, do)

    @made.post("/jobs/{job}/send", responses=form.problems(404, 409))
    @allow("administrator")
    def send(request: Request, job: form.Pk) -> Done:
        """Send the parked results of a job again."""

        def do(session: Session, now: datetime, by: str) -> Done:
            jobs.get(session, job)
            count = outbox.retry_parked(session, now, job_pk=job)
            if not count:
                raise Refused("illegal-transition", f"No result of job {job} is parked.")
            return Done(said=f"{count} results of job {job} wait to be sent.", job=job)

        return _change_job(site, request, job, do)


def _of_studies(made: APIRouter, site: Site) -> None:
    """Add what can be done with one study."""

    def change(request: Request, uid: str, do: Callable[[Session, datetime, str], str]) -> Done:
        by = request.state.identity.name
        with site.database.transaction() as session:
            told = do(session, site.database.now(), by)
        site.record(audit_events.operated(told, uid, by, request.state.address))
        return Done(said=told)

    @made.post("/studies/{uid}/park", responses=form.problems(404, 409))
    @allow("administrator")
    def park(request: Request, uid: Uid) -> Done:
        """Let nothing of a study run until it is unparked; what runs is stopped."""

        def do(session: Session, now: datetime, by: str) -> str:
            return f"The study is parked, with {park_study(session, uid, by, now)} jobs."

        return change(request, uid, do)

    @made.post("/studies/{uid}/unpark", responses=form.problems(404, 409))
    @allow("administrator")
    def unpark(request: Request, uid: Uid) -> Done:
        """Let a study be analysed again."""

        def do(session: Session, now: datetime, by: str) -> str:
            return f"The study is unparked; {unpark_study(session, uid, now)} jobs wait in the queue."

        return change(request, uid, do)

    @made.post("/studies/{uid}/settle", responses=form.problems(404, 409))
    @allow("physicist")
    def settle(request: Request, uid: Uid) -> Done:
        """Call a study whole, without waiting for the quiet time; who still sends it, and the PACS, is waited for."""

        def do(session: Session, now: datetime, by: str) -> str:
            if not studies.hint_complete(session, uid):
                known = session.exec(select(Study.id).where(col(Study.study_instance_uid) == uid)).first()
                if known is None:
                    raise Refused("no-such-study", f"There is no study {uid}.")
                raise Refused("illegal-transition", "The study is not being received.")
            return "The study settles now."

        return change(request, uid, do)


def _change_job(site: Site, request: Request, job: int, do: Callable[[Session, datetime, str], Done]) -> Done:
    """Do something with a job and tell the audit trail of its study."""
    by = request.state.identity.name
    with site.database.transaction() as session:
        done = do(session, site.database.now(), by)
        study = _study_of(session, job)
    site.record(audit_events.operated(done.said, study, by, request.state.address))
    return done


def _list(site: Site, request: Request, asked: Search) -> ListedStudies:
    ended = form.values_of(asked.cursor, str, int)
    try:
        after = (aware_utc(datetime.fromisoformat(ended[0])), ended[1] or 0) if ended else None
    except (ValueError, TypeError, OverflowError):
        raise HTTPException(422, "cursor: this is no 'next' of an answer of this node") from None
    now = site.database.now()
    with site.database.reading() as session:
        found = listing.worklist(
            session,
            now,
            words=asked.words,
            stage=asked.stage,
            limit=asked.limit,
            after=after,
            priors_wait_seconds=site.settings.priors_wait_seconds,
        )
    whose = {(one.patient.issuer, one.patient.patient_id) for one in found.rows}
    tell_list(site, request, "worklist", whose)
    last = found.rows[-1].study if found.has_more else None
    return ListedStudies(
        studies=[_study(one, now, site) for one in found.rows],
        total=found.total,
        next=None if last is None else form.cursor_of(last.last_arrival_at.isoformat(), last.id),
    )


def _study(one: Listed, now: datetime, site: Site) -> ListedStudy:
    study, patient = one.study, one.patient
    told = said(one, now, site.settings)
    return ListedStudy(
        study_instance_uid=study.study_instance_uid,
        patient_pk=study.patient_pk,
        patient_id=patient.patient_id,
        patient_name=patient.patient_name,
        study_date=study.study_date,
        study_description=study.study_description,
        accession_number=study.accession_number,
        modalities=list(one.standing.modalities),
        images=one.standing.images,
        arrived_at=study.last_arrival_at,
        revision=study.revision,
        stage=told.stage,
        why=list(told.why),
        analyses=[_analysis(task) for task in told.tasks],
    )


def _analysis(task: TaskSaid) -> Analysis:
    return Analysis(
        job=task.job,
        plugin=task.plugin,
        stage=task.stage,
        why=list(task.why),
        elapsed_seconds=task.elapsed_seconds,
        usual_seconds=task.usual_seconds,
        findings=task.findings,
        run=task.run,
        destinations=[SentTo.model_validate(one, from_attributes=True) for one in task.sent],
    )


def _study_of(session: Session, job: int) -> str:
    statement = (
        select(Study.study_instance_uid)
        .join(Revision, col(Revision.study_pk) == col(Study.id))
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .where(col(Job.id) == job)
    )
    return session.exec(statement).one()


def _waits(job: Job) -> str:
    return "parked, as its study is" if job.state == "parked" else "in the queue"


__all__ = ["router"]

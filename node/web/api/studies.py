"""One study as JSON: where it stands, its series and results, its findings, and what people decide of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from node.web import choices
from node.web.access import allow
from node.web.api import form
from node.web.readings import tell_study
from node.web.result_files import result_file
from node.web.site import Site
from store.chosen import chosen
from store.finding_view import FindingView, Missed, findings_of
from store.sighting import Decision
from store.study_head import study_head
from store.study_view import StudyView, study_view

Uid = Annotated[str, Path(max_length=64, pattern=r"^[0-9.]+$", description="Study Instance UID")]


class StudyFindings(form.Listed):
    """Findings of a study, lesions first."""

    findings: list[FindingView]
    missed: list[Missed] = Field(
        description="Lesions of earlier dates that were looked for and not drawn here"
    )


class MadeChoice(BaseModel):
    """A choice of a person."""

    number: int = Field(description="Its number, by which it is taken back")
    at: form.Instant = Field(description="When")
    author: str = Field(description="Who")
    kind: str = Field(description="What it is about")
    value: str = Field(description="What was decided")
    tracking_uid: str = Field(description="The lesion, as it was called when it was decided")
    study_instance_uid: str = Field(description="The study that it speaks of; empty for all of the patient's")
    source: str = Field(description="command, page, or the SOP Instance UID of the object that told it")
    note: str = Field(description="Why, in words")
    counts: bool = Field(description="False once it was taken back")

    @classmethod
    def of(cls, one: Decision, *, counts: bool = True) -> MadeChoice:
        """Return a choice of the store."""
        return cls(**vars(one), counts=counts)


class Choices(form.Listed):
    """Choices about a study, oldest first."""

    choices: list[MadeChoice]


class Why(BaseModel):
    """Why a choice is taken back."""

    note: str = Field(default="", max_length=2000, description="In words")


def router(site: Site) -> APIRouter:
    """Return the routes of single studies."""
    made = form.routes("studies")

    @made.get("/studies/{study_instance_uid}", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def study(request: Request, study_instance_uid: Uid) -> StudyView:
        """Give where a study stands, its series, its analyses and their results."""
        with site.database.reading() as session:
            found = study_view(session, study_instance_uid)
        tell_study(site, request, study_instance_uid)
        return found

    @made.get("/studies/{study_instance_uid}/findings", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def findings(
        request: Request,
        study_instance_uid: Uid,
        superseded: Annotated[bool, Query(description="What counts no longer instead")] = False,
        limit: form.Limit = 100,
        cursor: form.Cursor = "",
    ) -> StudyFindings:
        """List the findings of a study with their numbers, identities, and what people decided."""
        (offset,) = form.values_of(cursor, int) or (0,)
        start = max(offset or 0, 0)
        with site.database.reading() as session:
            head = study_head(session, study_instance_uid)
            page = findings_of(
                session, head.study_pk, site.objects, superseded=superseded, offset=start, limit=limit
            )
        tell_study(site, request, study_instance_uid)
        end = start + len(page.findings)
        return StudyFindings(
            findings=list(page.findings),
            missed=list(page.missed),
            total=page.total,
            next=form.cursor_of(end) if end < page.total and page.findings else None,
        )

    @made.get(
        "/studies/{study_instance_uid}/results/{result_pk}",
        responses={
            **form.problems(404),
            200: {"content": {"application/dicom": {}, "application/pdf": {}}, "description": "The object"},
        },
        response_class=Response,
    )
    @allow("viewer", scopes=("api",))
    def result(
        request: Request,
        study_instance_uid: Uid,
        result_pk: form.Pk,
        document: Annotated[bool, Query(description="The PDF inside instead")] = False,
    ) -> Response:
        """Give an object that was written of the study."""
        return result_file(site, request, study_instance_uid, result_pk, document=document)

    _choices(site, made)
    return made


def _choices(site: Site, made: APIRouter) -> None:
    @made.get("/studies/{study_instance_uid}/choices", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def listed(request: Request, study_instance_uid: Uid) -> Choices:
        """List what people decided of the lesions of a study, also what was taken back."""
        with site.database.reading() as session:
            known = chosen(session, study_head(session, study_instance_uid).patient_pk)
        tell_study(site, request, study_instance_uid)
        standing = {one.number for one in known.standing}
        found = [
            MadeChoice.of(one, counts=one.number in standing)
            for one in sorted(known.decisions, key=lambda one: one.number)
            if one.study_instance_uid in ("", study_instance_uid)
        ]
        return Choices(choices=found, total=len(found))

    @made.post(
        "/studies/{study_instance_uid}/choices", status_code=201, responses=form.problems(400, 404, 409)
    )
    @allow("physicist")
    def choose(request: Request, study_instance_uid: Uid, said: choices.Said) -> MadeChoice:
        """Decide something of a lesion; the author is who is signed in."""
        return MadeChoice.of(choices.choose(site, request, study_instance_uid, said))

    @made.post(
        "/studies/{study_instance_uid}/choices/{number}/undo",
        status_code=201,
        responses=form.problems(400, 404, 409),
    )
    @allow("physicist")
    def undo(
        request: Request,
        study_instance_uid: Uid,
        number: form.Pk,
        why: Annotated[Why, Body()] = Why(),  # noqa: B008
    ) -> MadeChoice:
        """Take a choice back, or back again what took it back; nothing is deleted."""
        return MadeChoice.of(choices.undo(site, request, study_instance_uid, number, why.note))


__all__ = ["router"]

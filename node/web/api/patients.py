"""Patients as JSON: who is here, and the longitudinal report of one."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from node.patient_course import Courses
from node.report.longitudinal.tables import write_json
from node.report.longitudinal.view import Correction, LesionCourse, Made, SumCourse, When, Who
from node.web import links
from node.web.access import allow
from node.web.api import form
from node.web.patient import USUAL, Criteria, Reading
from node.web.readings import tell_list
from node.web.site import Site
from store.patient_list import listed


class Patient(BaseModel):
    """One person."""

    patient_pk: int = Field(description="Number of the patient")
    patient_id: str = Field(description="PatientID")
    issuer: str = Field(description="IssuerOfPatientID, or empty")
    name: str = Field(description="PatientName as received")
    sex: str = Field(description="PatientSex")
    birth_date: date | None = Field(description="PatientBirthDate")
    studies: int = Field(description="Studies that are here")
    first: date | None = Field(description="First Study Date")
    last: date | None = Field(description="Last Study Date")
    findings: int = Field(description="Findings that count")
    others: tuple[str, ...] = Field(description="PatientIDs that were declared to be the same person")
    address: str = Field(description="Where the patient's page is")


class Patients(form.Listed):
    """Persons, in the order in which they came."""

    patients: list[Patient]


class Event(BaseModel):
    """What happened to a lesion besides growing and shrinking."""

    date: date
    words: str


class PatientCourse(BaseModel):
    """The longitudinal report: the numbers of the page, the document and the CSV."""

    research_use: str
    software: str = Field(description="Nadir and its version")
    made_at: datetime
    patient: Who
    visits: list[When]
    responses: list[dict[str, Any]] = Field(
        description="The verdicts by each set of criteria, as `nadir response --format json` gives them"
    )
    margins: list[str] = Field(description="How near the last verdict is to another one, nearest first")
    sums: list[SumCourse] = Field(
        description="The sums of each set of criteria, with what they are judged by"
    )
    lesions: list[LesionCourse]
    events: list[Event]
    corrections: list[Correction] = Field(description="What people decided, by time")
    made: list[Made] = Field(description="The analyses whose numbers these are")
    densities: list[dict[str, Any]] = Field(
        description="How dense the lungs were, by region, number and date"
    )
    missing: list[str] = Field(description="What could not be shown")


def router(site: Site) -> APIRouter:
    """Return the routes under `/api/patients`."""
    made = form.routes("patients")
    courses = Courses(site.database, site.objects)
    reading = Reading(site)

    @made.get("/patients")
    @allow("viewer", scopes=("api",))
    def patients(
        request: Request,
        search: Annotated[str, Query(max_length=64, description="Part of a PatientID or a name")] = "",
        limit: form.Limit = 100,
        cursor: form.Cursor = "",
    ) -> Patients:
        """List the patients; those who were declared to be one person are one."""
        (after,) = form.values_of(cursor, int) or (0,)
        with site.database.reading() as session:
            total, found = listed(session, search, after_pk=after or 0, limit=limit + 1)
        shown = found[:limit]
        tell_list(site, request, "patients", {(one.issuer, one.patient_id) for one in shown})
        return Patients(
            total=total,
            next=form.cursor_of(shown[-1].patient_pk) if len(found) > limit else None,
            patients=[Patient(**vars(one), address=links.patient(one.patient_pk)) for one in shown],
        )

    @made.get(
        "/patients/{patient_pk}/course",
        response_model=PatientCourse,
        responses={**form.problems(404, 409), 304: {"description": "It is that of the ETag"}},
    )
    @allow("viewer", scopes=("api",))
    def course(request: Request, response: Response, patient_pk: form.Pk, criteria: Criteria = USUAL) -> Any:
        """Give the longitudinal report of a patient; 304 when it is that of the ETag that is sent."""
        told = courses.told(patient_pk, criteria)
        tag = f'"{told.known.state}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        if told.report is None:
            raise HTTPException(409, " ".join(f"{sentence}." for _, sentence in told.refused))
        reading.tell(request, told.known.course.patient)
        response.headers["ETag"] = tag
        return json.loads(write_json(told.report))

    return made


__all__ = ["router"]

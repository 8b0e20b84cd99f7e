"""The cohort as JSON and as files: courses in short, all numbers, and exports with or without names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from node import audit_events, export
from node.audit import MOST_NAMED, named, pseudonym_key
from node.reckoning import Reckoner
from node.web import links
from node.web.access import allow
from node.web.api import form
from node.web.cohort_filter import Asked, query_of
from node.web.readings import tell_list
from node.web.site import Site
from store import measured
from store.cohort import Member, members
from store.measured import Chosen

RECKON_SECONDS = 1.0
Kind = Annotated[Literal["csv", "parquet"], Path(description="Format of the file")]
MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {media: {} for media in MEDIA.values()}},
    **form.problems(400),
}


class Verdict(BaseModel):
    """The verdict of one visit."""

    day: int = Field(description="Days since the baseline")
    verdict: str = Field(description="The verdict, as the criteria call it")


class CohortPatient(BaseModel):
    """One person's course in short."""

    patient_pk: int = Field(description="Number of the patient")
    patient_id: str = Field(description="PatientID")
    issuer: str = Field(description="IssuerOfPatientID, or empty")
    address: str = Field(description="Where the patient's page is")
    baseline: date | None = Field(description="First visit that the criteria judged")
    days: int = Field(description="From the baseline to the last visit")
    lesions: int = Field(description="Lesions of the course")
    best_percent: float | None = Field(description="Smallest sum up to progression, change to the baseline")
    best_overall: str = Field(description="Best overall response; empty when there is none yet")
    best_overall_confirmed: str = Field(description="The same when responses need confirmation")
    progressed: bool = Field(
        description="Whether there was a progression; by iRECIST one that was not taken back"
    )
    verdicts: list[Verdict] = Field(description="One for each visit after the baseline")
    new_days: list[int] = Field(description="Days at which an unequivocal new lesion was first told")
    refusal: str = Field(description="Why there is no verdict; empty when there is one")


class CohortPatients(form.Listed):
    """Persons, those followed longest first."""

    left: int = Field(description="Persons whose course is not reckoned yet; ask again", ge=0)
    patients: list[CohortPatient]


class Number(BaseModel):
    """One number with unit, convention and provenance."""

    measurement_pk: int = Field(description="Number of the row")
    patient_pk: int = Field(description="Number of the patient")
    patient_id: str = Field(description="PatientID")
    issuer: str = Field(description="IssuerOfPatientID, or empty")
    study_instance_uid: str
    study_date: date | None
    series_instance_uid: str
    sop_instance_uid: str = Field(description="Image of the end points of a length, or empty")
    modality: str
    tracking_uid: str
    label: str
    type_scheme: str
    type_code: str
    type: str
    site_scheme: str
    site_code: str
    site: str
    laterality: str
    confidence: float | None
    automatic: bool = Field(description="False when a person drew the region")
    name: str = Field(description="Our name of the number")
    concept_scheme: str
    concept_code: str
    concept: str
    derivation: str
    value: float
    standard_deviation: float | None
    unit: str = Field(description="UCUM code")
    method: str = Field(description="The convention, in words")
    analysis: str
    analysis_version: str
    model_sha256: str
    rejected: bool = Field(description="Whether people said that it is no lesion")
    tracking_uid_now: str = Field(description="The lesion, as people relinked it")
    site_now: str = Field(description="The organ, as people corrected it")


class Numbers(form.Listed):
    """Numbers, the newest first."""

    measurements: list[Number]


def router(site: Site) -> APIRouter:
    """Return the routes under `/api/cohort`."""
    made = form.routes("cohort")
    reckoner = Reckoner(site.database, site.objects)
    files = _Files(site)

    @made.get("/cohort/patients")
    @allow("viewer", scopes=("api",))
    def patients(
        request: Request, chosen: Asked, limit: form.Limit = 1000, cursor: form.Cursor = ""
    ) -> CohortPatients:
        """List the courses of all patients in short, by one set of criteria."""
        (passed,) = form.values_of(cursor, int) or (0,)
        start = max(passed or 0, 0)
        progress = reckoner.reckon(chosen.criteria, 0 if cursor else RECKON_SECONDS)
        with site.database.reading() as session:
            found = members(session, chosen, "time")
        end = start + limit
        tell_list(
            site, request, "courses in short", {(one.issuer, one.patient_id) for one in found[start:end]}
        )
        return CohortPatients(
            total=len(found),
            next=form.cursor_of(end) if end < len(found) else None,
            left=progress.left,
            patients=[_patient(one) for one in found[start:end]],
        )

    @made.get("/cohort/measurements")
    @allow("viewer", scopes=("api",))
    def measurements(
        request: Request, chosen: Asked, limit: form.Limit = 100, cursor: form.Cursor = ""
    ) -> Numbers:
        """List all numbers that were measured, with unit, convention and provenance."""
        (before,) = form.values_of(cursor, int) or (None,)
        with site.database.reading() as session:
            found = measured.before(session, chosen, before, limit + 1, site.objects)
            total = measured.count(session, chosen)
        shown = found[:limit]
        tell_list(site, request, "measurements", {(one.issuer, one.patient_id) for one in shown})
        return Numbers(
            total=total,
            next=form.cursor_of(shown[-1].pk) if len(found) > limit else None,
            measurements=[_number(one) for one in shown],
        )

    @made.get("/cohort/export.{kind}", response_class=Response, responses=FILE)
    @allow("physicist", scopes=("api",))
    def exported(request: Request, kind: Kind, chosen: Asked) -> Response:
        """Give all numbers as a file without names: keyed pseudonyms, days since the first study, no UIDs."""
        return files.answer(request, kind, chosen, identified=False)

    @made.get("/cohort/identified.{kind}", response_class=Response, responses=FILE)
    @allow("administrator")
    def identified(request: Request, kind: Kind, chosen: Asked) -> Response:
        """Give all numbers as a file with PatientIDs, dates and UIDs."""
        return files.answer(request, kind, chosen, identified=True)

    return made


class _Files:
    """Makes files of numbers, and tells the audit trail who took which."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def answer(self, request: Request, kind: str, chosen: Chosen, *, identified: bool) -> Response:
        """Return a file that is sent while it is being made."""
        content = self._content(kind, chosen, identified=identified)
        what = f"{'identified' if identified else 'de-identified'} measurements as {kind}: {query_of(chosen)}"
        self._tell(request, what, chosen, identified=identified)
        name = f"measurements-{'identified' if identified else 'deidentified'}.{kind}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(content, media_type=MEDIA[kind], headers=headers)

    def _tell(self, request: Request, what: str, chosen: Chosen, *, identified: bool) -> None:
        """Tell who took which numbers and, with names, of whom: some patients a message, so that each fits syslog."""
        with self._site.database.reading() as session:
            people = measured.whose(session, chosen) if identified else []
        for first in range(0, max(1, len(people)), MOST_NAMED):
            subjects = named(self._site.settings, people[first : first + MOST_NAMED])
            name, address = request.state.identity.name, request.state.address
            self._site.record(audit_events.exported(name, address, what, subjects))

    def _content(self, kind: str, chosen: Chosen, *, identified: bool) -> Iterator[bytes]:
        database = self._site.database
        if identified:
            columns, row = export.IDENTIFIED, export.with_names
        else:
            with database.reading() as session:
                disguise = export.disguise(session, pseudonym_key(self._site.settings))
            columns, row = export.DISGUISED, disguise.row
        pieces = export.rows(database, chosen, row, self._site.objects)
        return (
            export.as_parquet(columns, pieces) if kind == "parquet" else export.as_csv(list(columns), pieces)
        )


def _patient(one: Member) -> CohortPatient:
    short = one.short
    return CohortPatient(
        patient_pk=short.patient_pk,
        patient_id=one.patient_id,
        issuer=one.issuer,
        address=links.patient(short.patient_pk),
        baseline=short.baseline,
        days=short.days,
        lesions=short.lesions,
        best_percent=short.best_percent,
        best_overall=short.best_overall,
        best_overall_confirmed=short.best_overall_confirmed,
        progressed=short.progressed,
        verdicts=[Verdict(day=day, verdict=verdict) for day, verdict in short.verdicts],
        new_days=list(short.new_days),
        refusal=short.refusal,
    )


def _number(one: measured.Measured) -> Number:
    named = export.with_names(one)
    return Number(measurement_pk=one.pk, patient_pk=one.patient_pk, **named)


__all__ = ["router"]

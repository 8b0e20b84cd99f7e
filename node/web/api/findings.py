"""Findings as JSON: every number with what made it, what people decided, and what they made of each result."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from node.web.access import allow
from node.web.api import form
from node.web.readings import tell_list, tell_study
from node.web.site import Site
from store.assessment import Verdict
from store.assessments import assessments
from store.finding_view import FindingView, finding_view
from store.findings import Wanted, findings_page

Uids = Annotated[str, Query(max_length=64, pattern=r"^[0-9.]*$")]


class FindingRow(BaseModel):
    """One number of a finding, or the finding alone when it has none."""

    patient_id: str = Field(description="PatientID")
    issuer: str = Field(description="IssuerOfPatientID, or empty")
    study_date: date | None = Field(description="StudyDate")
    study_instance_uid: str = Field(description="Study Instance UID")
    revision: int = Field(description="Revision of the study that was analysed")
    job: int = Field(description="Number of the job")
    plugin: str = Field(description="Analysis")
    plugin_version: str = Field(description="Its version")
    model_sha256: str = Field(description="Hash of its model; empty when it has none")
    finding: int = Field(description="Number of the finding")
    superseded: bool = Field(description="Whether a newer analysis counts instead")
    series_instance_uid: str = Field(description="Series that it was drawn on")
    segment_number: int = Field(description="Its segment in the SEG")
    label: str = Field(description="What people read")
    tracking_identifier: str = Field(description="Tracking Identifier")
    tracking_uid: str = Field(description="Tracking UID as it is written in SEG and SR")
    type_meaning: str = Field(description="What it is")
    site_meaning: str | None = Field(description="Organ")
    laterality_meaning: str | None = Field(description="Side")
    confidence: float | None = Field(description="0 to 1: how sure the analysis was that it is one")
    automatic: bool = Field(description="False when a person drew it")
    centroid_x_mm: float = Field(description="Centre, LPS mm")
    centroid_y_mm: float = Field(description="Centre, LPS mm")
    centroid_z_mm: float = Field(description="Centre, LPS mm")
    name: str | None = Field(description="Our name of the number; null when there is none")
    value: float | None = Field(description="The number, in `unit`")
    unit: str | None = Field(description="UCUM code")
    method: str | None = Field(description="The convention in words")
    concept_value: str | None = Field(description="Code of what was measured")
    concept_scheme: str | None = Field(description="Scheme of that code")
    concept_meaning: str | None = Field(description="Meaning of that code")
    derivation_meaning: str | None = Field(description="Mean, Maximum, ...")
    uncertainty: float | None = Field(
        description="One standard deviation, in `unit`; null when it is not known"
    )
    x1_mm: float | None = Field(description="Where a length begins, LPS mm")
    y1_mm: float | None = Field(description="Where a length begins, LPS mm")
    z1_mm: float | None = Field(description="Where a length begins, LPS mm")
    x2_mm: float | None = Field(description="Where a length ends, LPS mm")
    y2_mm: float | None = Field(description="Where a length ends, LPS mm")
    z2_mm: float | None = Field(description="Where a length ends, LPS mm")
    sop_instance_uid: str | None = Field(description="Image on which the end points lie")
    link: str | None = Field(description="What became of the lesion since the time before")
    link_confidence: float | None = Field(description="0 to 1")
    link_reason: str | None = Field(description="The numbers that decided it")


class FindingRows(form.Listed):
    """Numbers of findings; `limit` and `total` count findings, each of which has one row or several."""

    findings: list[FindingRow]


class Assessed(BaseModel):
    """What people made of one finding."""

    finding: int = Field(description="Number of the finding")
    patient_id: str = Field(description="PatientID")
    issuer: str = Field(description="IssuerOfPatientID, or empty")
    study_instance_uid: str = Field(description="Study")
    series_instance_uid: str = Field(description="Series that it was drawn on")
    label: str = Field(description="What people read")
    tracking_uid: str = Field(description="Tracking UID as it is written in SEG and SR")
    plugin: str = Field(description="Analysis")
    plugin_version: str = Field(description="Its version")
    model_sha256: str = Field(description="Hash of its model; empty when it has none")
    results: list[str] = Field(description="SOP Instance UIDs of what the analysis wrote of it")
    verdict: Verdict = Field(
        description="rejected: no lesion; supplemented: changed, drawn or measured anew by a person; "
        "accepted: right as it is"
    )
    author: str = Field(description="Who said so last; empty when nobody did, or who is not known")
    at: form.Instant | None = Field(description="When")
    note: str = Field(description="Why, in words")


class Assessments(form.Listed):
    """Assessments of lesions that analyses found and that count, in the order in which they were found."""

    assessments: list[Assessed]
    counts: dict[Verdict, int] = Field(description="How many of this answer's rows there are of each")


def router(site: Site) -> APIRouter:
    """Return the routes of findings."""
    made = form.routes("findings")

    @made.get("/findings")
    @allow("viewer", scopes=("api",))
    def listed(
        request: Request,
        patient_id: Annotated[str | None, Query(max_length=64, description="As received")] = None,
        study: Uids = "",
        tracking_uid: Uids = "",
        plugin: Annotated[str, Query(max_length=64, description="Analysis")] = "",
        superseded: Annotated[bool, Query(description="Also what counts no longer")] = False,
        limit: form.Limit = 500,
        cursor: form.Cursor = "",
    ) -> FindingRows:
        """List findings, one row for each of their numbers, in the order in which they were kept."""
        (after,) = form.values_of(cursor, int) or (0,)
        wanted = Wanted(
            patient_id=patient_id,
            study_instance_uid=study,
            tracking_uid=tracking_uid,
            plugin=plugin,
            superseded=superseded,
        )
        with site.database.reading() as session:
            rows, total, last = findings_page(session, wanted, after=after or 0, limit=limit)
        tell_list(site, request, "findings", {(row["issuer"], row["patient_id"]) for row in rows})
        return FindingRows(
            findings=[FindingRow(**row) for row in rows],
            total=total,
            next=None if last is None else form.cursor_of(last),
        )

    @made.get("/findings/{finding_pk}", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def one(request: Request, finding_pk: form.Pk) -> FindingView:
        """Give one finding with its numbers, its identity, and what people decided of it."""
        with site.database.reading() as session:
            found = finding_view(session, finding_pk, site.objects)
        tell_study(site, request, found.study_instance_uid)
        return found

    @made.get("/assessments")
    @allow("viewer", scopes=("api",))
    def assessed(
        request: Request,
        study: Uids = "",
        patient_id: Annotated[str | None, Query(max_length=64, description="As received")] = None,
        plugin: Annotated[str, Query(max_length=64, description="Analysis")] = "",
        limit: form.Limit = 100,
        cursor: form.Cursor = "",
    ) -> Assessments:
        """List what people made of each lesion: accepted, rejected or supplemented."""
        (after,) = form.values_of(cursor, int) or (0,)
        wanted = Wanted(patient_id=patient_id, study_instance_uid=study, plugin=plugin)
        with site.database.reading() as session:
            rows, total, last = assessments(session, wanted, site.objects, after=after or 0, limit=limit)
        tell_list(site, request, "assessments", {(row["issuer"], row["patient_id"]) for row in rows})
        made_of = [Assessed(**row) for row in rows]
        return Assessments(
            assessments=made_of,
            total=total,
            next=None if last is None else form.cursor_of(last),
            counts=Counter(one.verdict for one in made_of),
        )

    return made


__all__ = ["router"]

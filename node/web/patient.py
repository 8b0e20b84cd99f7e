"""The page of a patient: the longitudinal report as it is now, and its files."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from node import audit_events
from node.audit import patients_of
from node.patient_course import Courses, Told
from node.report.longitudinal import words
from node.report.longitudinal.charts import curve, spider
from node.report.longitudinal.document import write_pdf
from node.report.longitudinal.page import png_uri, svg, write_html
from node.report.longitudinal.tables import write_csv, write_json
from node.report.longitudinal.view import LongitudinalReport
from node.web import links, plots
from node.web.access import allow
from node.web.api.form import Pk
from node.web.site import Site
from store.course import CoursePatient
from store.patients import Merged
from store.response.criteria import CRITERIA

CriteriaName = Literal["recist1.1", "irecist", "percist", "lugano", "who", "volume"]
Criteria = Annotated[
    list[CriteriaName], Query(max_length=12, description="Criteria; the first that gives a verdict leads")
]
Uid = Annotated[str, Path(max_length=128, pattern=r"^[0-9]+(\.[0-9]+)*$", description="Tracking UID")]
USUAL: Final[list[CriteriaName]] = ["recist1.1"]
AT_ONCE: Final = 12
"""Lesions whose pictures are asked for as soon as the page is there; those of others when they are looked at."""
KINDS: Final[dict[str, tuple[str, Callable[[LongitudinalReport, ZoneInfo], str | bytes]]]] = {
    "pdf": ("application/pdf", write_pdf),
    "html": ("text/html; charset=utf-8", write_html),
    "json": ("application/json", lambda report, _: write_json(report)),
    "csv": ("text/csv; charset=utf-8", lambda report, _: write_csv(report)),
}


def router(site: Site) -> APIRouter:
    """Return the routes under `/patients`."""
    made = APIRouter(include_in_schema=False)
    courses = Courses(site.database, site.objects)
    reading = Reading(site)

    @made.get("/patients/{patient_pk}")
    @allow("viewer")
    def page(request: Request, patient_pk: Pk, criteria: Criteria = USUAL) -> Response:
        """Give the page."""
        told = courses.told(patient_pk, criteria)
        reading.tell(request, told.known.course.patient)
        return site.frame.page(request, "patient.html", **_shown(told, patient_pk, criteria))

    @made.get("/patients/{patient_pk}/state")
    @allow("viewer")
    def state(request: Request, patient_pk: Pk, shown: Annotated[str, Query(max_length=64)] = "") -> Response:
        """Say whether the page that shows a state still shows what is; nothing when it does."""
        if courses.state(patient_pk) == shown:
            return Response(status_code=204)
        return site.frame.page(request, "patient_changed.html")

    @made.get("/patients/{patient_pk}/lesions/{tracking_uid}/pictures")
    @allow("viewer")
    def pictures(request: Request, patient_pk: Pk, tracking_uid: Uid, criteria: Criteria = USUAL) -> Response:
        """Give the pictures of a lesion, one a date."""
        patient, lesion, shown = courses.pictures(patient_pk, tracking_uid, criteria[0])
        reading.tell(request, patient)
        return site.frame.page(
            request, "lesion_pictures.html", lesion=lesion, shown=shown, words=words, picture=png_uri,
            links=links,
        )  # fmt: skip

    @made.get("/patients/{patient_pk}/course.{kind}")
    @allow("viewer")
    def file(
        request: Request,
        patient_pk: Pk,
        kind: Literal["pdf", "html", "json", "csv"],
        criteria: Criteria = USUAL,
    ) -> Response:
        """Give the report as a file, with the numbers of the page."""
        told = courses.told(patient_pk, criteria, with_pictures=kind in ("pdf", "html"))
        if told.report is None:
            raise HTTPException(409, " ".join(sentence for _, sentence in told.refused))
        reading.tell(request, told.known.course.patient, exported=kind)
        media, write = KINDS[kind]
        written = write(told.report, site.frame.zone)
        # A name may hold halves of characters that are no text.
        content = written if isinstance(written, bytes) else written.encode("utf-8", "replace")
        name = f'attachment; filename="course-{patient_pk}.{kind}"'
        return Response(content, media_type=media, headers={"Content-Disposition": name})

    return made


class Reading:
    """Tells the audit trail who read whose course."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def tell(self, request: Request, patient: CoursePatient, *, exported: str = "") -> None:
        subject = patients_of(self._site.settings).subject(patient.issuer, patient.patient_id, patient.name)
        name, address = request.state.identity.name, request.state.address
        if exported:
            what = f"course of a patient as {exported}"
            self._site.record(audit_events.exported(name, address, what, [subject]))
        else:
            message = audit_events.patient_read(name, address, subject)
            self._site.record(message, once=("patient-read", name, address, patient.pk))


def _shown(told: Told, patient_pk: int, criteria: list[CriteriaName]) -> dict[str, Any]:
    """Return what the template of the page is given."""
    report, course = told.report, told.known.course
    judged = [one.criteria for one in report.responses] if report else []
    return {
        "told": told,
        "report": report,
        "patient": course.patient,
        "studies": sorted(course.visits, key=lambda one: one.study_date, reverse=True),
        "patient_pk": patient_pk,
        "all_criteria": list(CRITERIA),
        "leading": judged[0] if judged else criteria[0],
        "beside": judged[1:],
        "query": "&".join(f"criteria={name}" for name in dict.fromkeys(criteria)),
        "charts": _charts(report) if report else {},
        "undo": [(one, undo(one)) for one in course.merges],
        "at_once": AT_ONCE,
        "words": words,
        "plots": plots,
        "links": links,
    }


def _charts(report: LongitudinalReport) -> dict[str, object]:
    """Return the charts as SVG, which is what is printed and what is there without scripts."""
    return {
        "curves": [
            svg(curve(course), f"curve{number}", words.sentence(course.quantity), words.curve_words(course))
            if any(point.sum is not None for point in course.points)
            else None
            for number, course in enumerate(report.sums)
        ],
        "spider": svg(
            spider(report.lesions, report.visits),
            "spider",
            "Change of each lesion",
            words.spider_words(report),
        )
        if words.changes(report)
        else None,
    }


def undo(made: Merged) -> str:
    """Return the command that takes back that a patient is another one."""
    issuer = ["--issuer", made.issuer] if made.issuer else []
    return shlex.join(["nadir", "patients", "part", made.patient_id, *issuer])


__all__ = ["USUAL", "Criteria", "CriteriaName", "Reading", "router", "undo"]

"""The page of a study: where it stands, its series and results, its findings with pictures, and what people decide."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from sqlmodel import Session

from node.web import choices, links, study_words
from node.web.access import allow
from node.web.api.form import Pk
from node.web.fields import Fields
from node.web.readings import tell_study
from node.web.result_files import result_file
from node.web.site import Site
from node.web.worklist_words import StudySaid, said
from plugins.errors import Refused
from store.choices import VALUES
from store.finding_view import FindingPage, FindingView, finding_view, findings_mark, findings_of
from store.standing import standings
from store.study_head import study_head
from store.study_view import StudyView, study_view
from store.tables import Patient, Study
from store.worklist import Listed

EACH = 40
"""Findings on a page."""
Uid = Annotated[str, Path(max_length=64, pattern=r"^[0-9.]+$", description="Study Instance UID")]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]


def router(site: Site) -> APIRouter:
    """Return the routes under `/studies`."""
    made, pages = APIRouter(include_in_schema=False), _Pages(site)

    @made.get("/studies/{study_instance_uid}")
    @allow("viewer")
    def page(
        request: Request, study_instance_uid: Uid, superseded: bool = False, offset: Offset = 0
    ) -> Response:
        """Give the page."""
        shown = pages.shown(study_instance_uid, superseded, offset)
        tell_study(site, request, study_instance_uid)
        return site.frame.page(request, "study.html", **shown)

    @made.get("/studies/{study_instance_uid}/progress")
    @allow("viewer")
    def progress(
        request: Request, study_instance_uid: Uid, seen: Annotated[str, Query(max_length=64)] = ""
    ) -> Response:
        """Give where the study stands, and say whether there are other findings than those that were seen."""
        shown = pages.standing(study_instance_uid)
        return site.frame.page(request, "study_progress.html", seen=seen, **shown)

    @made.get("/studies/{study_instance_uid}/findings/{finding_pk}/choose")
    @allow("physicist")
    def chooser(request: Request, study_instance_uid: Uid, finding_pk: Pk) -> Response:
        """Give the forms by which a finding is decided of."""
        shown = pages.one(study_instance_uid, finding_pk)
        tell_study(site, request, study_instance_uid)
        return site.frame.page(request, "study_choose.html", **shown)

    @made.post("/studies/{study_instance_uid}/choices")
    @allow("physicist")
    def choose(request: Request, study_instance_uid: Uid, fields: Fields, offset: Offset = 0) -> Response:
        """Keep a choice and give the findings as they are then."""
        one = choices.choose(site, request, study_instance_uid, choices.said(fields))
        return pages.changed(request, study_instance_uid, offset, f"Kept as choice {one.number}.")

    @made.post("/studies/{study_instance_uid}/choices/{number}/undo")
    @allow("physicist")
    def undo(request: Request, study_instance_uid: Uid, number: Pk, offset: Offset = 0) -> Response:
        """Take a choice back and give the findings as they are then."""
        choices.undo(site, request, study_instance_uid, number)
        return pages.changed(request, study_instance_uid, offset, f"Choice {number} was taken back.")

    @made.get("/studies/{study_instance_uid}/results/{result_pk}")
    @allow("viewer", scopes=("api",))
    def result(request: Request, study_instance_uid: Uid, result_pk: Pk, document: bool = False) -> Response:
        """Give an object that was written, or the PDF inside."""
        return result_file(site, request, study_instance_uid, result_pk, document=document)

    return made


class _Pages:
    """Reads what the page and its parts show."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def shown(self, study_instance_uid: str, superseded: bool, offset: int) -> dict[str, Any]:
        """Return what the templates are given. Refuses `no-such-study`."""
        with self._site.database.reading() as session:
            standing = self._standing(session, study_instance_uid)
            view = standing["view"]
            page = findings_of(
                session,
                view.head.study_pk,
                self._site.objects,
                superseded=superseded,
                offset=offset,
                limit=EACH,
            )
        return {
            **standing,
            "page": page,
            "groups": _groups(view, page),
            "superseded": superseded,
            "offset": offset,
            "each": EACH,
        }

    def standing(self, study_instance_uid: str) -> dict[str, Any]:
        """Return what tells where the study stands. Refuses `no-such-study`."""
        with self._site.database.reading() as session:
            return self._standing(session, study_instance_uid)

    def _standing(self, session: Session, study_instance_uid: str) -> dict[str, Any]:
        view = study_view(session, study_instance_uid)
        return {
            **_words(),
            "view": view,
            "head": view.head,
            "stage": self._stage(session, view),
            "mark": findings_mark(session, view.head.study_pk),
        }

    def _stage(self, session: Session, view: StudyView) -> StudySaid:
        settings, now = self._site.settings, self._site.database.now()
        study = session.get_one(Study, view.head.study_pk)
        patient = session.get_one(Patient, study.patient_pk)
        standing = standings(session, [study], now, settings.priors_wait_seconds)[view.head.study_pk]
        return said(Listed(study=study, patient=patient, standing=standing), now, settings)

    def one(self, study_instance_uid: str, finding_pk: int) -> dict[str, Any]:
        """Return what the forms for one finding are given. Refuses `no-such-study` and `no-such-finding`."""
        with self._site.database.reading() as session:
            head = study_head(session, study_instance_uid)
            one = finding_view(session, finding_pk, self._site.objects)
            page = findings_of(session, head.study_pk, self._site.objects, limit=1)
        if one.study_instance_uid != study_instance_uid:
            raise Refused("no-such-finding", "the study has no such finding")
        return {**_words(), "head": head, "one": one, "page": page}

    def changed(self, request: Request, study_instance_uid: str, offset: int, told: str) -> Response:
        """Return the parts of the page that a choice changes."""
        answer = self._site.frame.page(
            request, "study_decided.html", **self.shown(study_instance_uid, False, offset)
        )
        answer.headers["HX-Trigger"] = json.dumps({"told": told, "nadir:chosen": ""})
        return answer


def _words() -> dict[str, Any]:
    from node.report import overlays

    return {"links": links, "words": study_words, "main": _main, "rounded": overlays.rounded,
            "unit": overlays.pretty_unit, "values": VALUES, "shown_numbers": choices.shown_numbers}  # fmt: skip


def _main(one: FindingView) -> list[tuple[str, Any]]:
    """Return the numbers that are looked at first, with what they are called."""
    from node.report.overlays import MAIN_NUMBERS

    found = [(words, one.measurement(name)) for name, words in MAIN_NUMBERS]
    return [(words, measured) for words, measured in found if measured is not None][:6]


def _groups(view: StudyView, page: FindingPage) -> list[tuple[Any, list[FindingView]]]:
    """Return the analyses with their findings of this page; those that found nothing are not among them."""
    by_job = {one.job_pk: one for one in view.analyses}
    groups: dict[int, list[FindingView]] = {}
    for one in page.findings:
        groups.setdefault(one.job_pk, []).append(one)
    return [(by_job[job_pk], found) for job_pk, found in groups.items() if job_pk in by_job]


__all__ = ["router"]

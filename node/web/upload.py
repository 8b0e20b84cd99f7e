"""The pages of uploads: where files are dropped, and one upload from its first file to what was found in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError
from sqlmodel import Session

from node.deliveries import without_credentials
from node.intake import Intake
from node.report.overlays import pretty_unit, rounded
from node.uploads import Uploads, pseudonym
from node.web import links, problem
from node.web.access import allow
from node.web.api import form
from node.web.api.upload_form import ImageSaid, keep_said
from node.web.fields import Fields
from node.web.readings import tell_study
from node.web.site import Site
from plugins.errors import Refused
from plugins.flag_codes import INTERVAL, NOTHING_HERE
from store import upload_files, upload_tables, uploads
from store.finding_view import FindingView, findings_of
from store.study_view import AnalysisView, StudyView, study_view
from store.upload_files import Tally
from store.upload_tables import Upload, UploadFile

TOLD_ELSEWHERE = frozenset({INTERVAL, NOTHING_HERE})
MOST_FINDINGS = 24
MOST_IMAGES = 50
RECENT = 12
STAGES = {
    "queued": ("wait", "waits for a worker"),
    "running": ("run", "is being analysed"),
    "delivering": ("run", "done; results are on their way"),
    "done": ("good", "done"),
    "dead": ("bad", "failed"),
    "superseded": ("plain", "taken over by a newer one"),
    "parked": ("plain", "parked: it runs when an administrator says so"),
}
"""Chip and words of each state of a job."""
STATES = {
    "open": ("run", "open"),
    "closing": ("run", "being dealt with"),
    "whole": ("good", "whole"),
    "cancelled": ("plain", "cancelled"),
    "expired": ("plain", "expired"),
}
"""Chip and words of each state of an upload."""
KINDS = {
    "seg": "Segmentation (SEG)",
    "sr-volumetric": "Measurements (SR, by volume)",
    "sr-planar": "Measurements (SR, for viewers)",
    "sr-response": "Response (SR)",
    "pdf-response": "Response (PDF in DICOM)",
    "capture": "Key image",
    "pdf": "Report (PDF in DICOM)",
}
"""What each kind of result is called."""
NUMBERS = ("long_axis", "short_axis", "volume", "hu_mean", "suv_max", "suv_peak", "mtv", "laa_950", "perc_15")


@dataclass(frozen=True, kw_only=True)
class StudyOfUpload:
    """A study of an upload as the page tells it."""

    view: StudyView
    """The study with its analyses."""
    findings: tuple[FindingView, ...]
    """The first of its findings."""
    total: int
    """How many findings there are."""

    @property
    def counting(self) -> tuple[AnalysisView, ...]:
        """Return the analyses that count."""
        return tuple(one for one in self.view.analyses if not one.is_superseded)

    @property
    def is_moving(self) -> bool:
        """Return whether something of it will change by itself."""
        return self.view.is_moving

    def is_idle(self, analysis: AnalysisView) -> bool:
        """Return whether an analysis found nothing in the study that it looks at."""
        return not analysis.findings and any(said.code == NOTHING_HERE for said in analysis.said)

    @property
    def is_measured(self) -> bool:
        """Return whether an analysis that had something to look at came to its end."""
        return any(one.state in ("done", "delivering") and not self.is_idle(one) for one in self.counting)

    @property
    def says(self) -> tuple[tuple[bool, str, str], ...]:
        """Return (is a refusal, analyses, sentence) of all that the analyses say of the study, each sentence once."""
        told: dict[tuple[bool, str], dict[str, None]] = {}
        for one in self.counting:
            for said in one.said:
                if said.code not in TOLD_ELSEWHERE and said.sentence != one.error_text:
                    told.setdefault((said.is_refused, said.sentence), {})[one.plugin] = None
        return tuple((is_refused, ", ".join(who), said) for (is_refused, said), who in told.items())


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An upload as the page tells it."""

    upload: Upload
    """The upload."""
    tally: Tally
    """Its files, counted."""
    waiting: tuple[UploadFile, ...]
    """Images of which somebody has to say what they are."""
    images: tuple[UploadFile, ...]
    """Images that were written as DICOM, or not."""
    studies: tuple[StudyOfUpload, ...]
    """Its studies."""

    @property
    def is_moving(self) -> bool:
        """Return whether something of it will change by itself."""
        return self.upload.state in (upload_tables.OPEN, upload_tables.CLOSING) or any(
            s.is_moving for s in self.studies
        )


def shown(session: Session, upload_pk: int) -> Shown:
    """Return an upload with its studies and what was found in them. Refuses `no-such-upload`."""
    upload = uploads.get(session, upload_pk)
    waiting = upload_files.files(session, upload_pk, limit=MOST_IMAGES, states=(upload_tables.WAITING,))
    images = upload_files.images(session, upload_pk, limit=MOST_IMAGES)
    studies = []
    for study_pk, uid in upload_files.studies(session, upload_pk):
        page = findings_of(session, study_pk, limit=MOST_FINDINGS)
        studies.append(StudyOfUpload(view=study_view(session, uid), findings=page.findings, total=page.total))
    return Shown(
        upload=upload,
        tally=upload_files.tally(session, upload_pk),
        waiting=tuple(waiting),
        images=tuple(images),
        studies=tuple(studies),
    )


def numbers_of(finding: FindingView) -> list[str]:
    """Return the main numbers of a finding as people read them, with how sure they are."""
    found = []
    for name in NUMBERS:
        measured = finding.measurement(name)
        if measured is not None:
            unit = pretty_unit(measured.unit)
            doubt = f" ± {rounded(measured.uncertainty)}" if measured.uncertainty else ""
            found.append(f"{measured.meaning} {rounded(measured.value)}{doubt} {unit}".rstrip())
    return found[:5]


def sure(finding: FindingView) -> str:
    """Return how sure the analysis was, in words."""
    return "" if finding.confidence is None else f"confidence {finding.confidence:.0%}"


WORDS: dict[str, Any] = {
    "STAGES": STAGES,
    "STATES": STATES,
    "KINDS": KINDS,
    "links": links,
    "numbers_of": numbers_of,
    "sure": sure,
}


def router(site: Site) -> APIRouter:
    """Return the routes of the pages."""
    made = APIRouter(include_in_schema=False)
    _shown(made, site)
    _sent(made, site, Uploads(site.settings, Intake(site.database, site.objects), site.record))
    return made


def _shown(made: APIRouter, site: Site) -> None:
    """Add the pages."""
    destinations = [without_credentials(one) for one in site.settings.destinations]

    @made.get("/upload")
    @allow("physicist")
    def drop(request: Request) -> Response:
        """Show where files are dropped."""
        with site.database.reading() as session:
            recent = [
                (upload, upload_files.tally(session, int(upload.id or 0)))
                for upload in uploads.recent(session, limit=RECENT)
            ]
        return site.frame.page(request, "upload.html", recent=recent, destinations=destinations, **WORDS)

    @made.get("/uploads/{upload_pk}")
    @allow("viewer")
    def one(request: Request, upload_pk: form.Pk) -> Response:
        """Show one upload."""
        return _page(request, upload_pk, "upload_one.html")

    @made.get("/uploads/{upload_pk}/live")
    @allow("viewer")
    def live(request: Request, upload_pk: form.Pk) -> Response:
        """Give the part of the page that changes by itself."""
        return _page(request, upload_pk, "upload_live.html")

    def _page(request: Request, upload_pk: int, template: str) -> Response:
        with site.database.reading() as session:
            what = shown(session, upload_pk)
        for one in what.studies:
            tell_study(site, request, one.view.head.study_instance_uid)
        return site.frame.page(
            request,
            template,
            shown=what,
            destinations=destinations,
            label=pseudonym(what.upload),
            last=json.loads(what.images[-1].said) if what.images else {},
            today=site.database.now().astimezone(site.frame.zone).date(),
            **WORDS,
        )


def _sent(made: APIRouter, site: Site, desk: Uploads) -> None:
    """Add what the forms on the pages ask for."""

    @made.post("/uploads/{upload_pk}/images/{file_pk}")
    @allow("physicist")
    def say(upload_pk: form.Pk, file_pk: form.Pk, fields: Fields) -> Response:
        """Keep what a person says that an image is."""
        with site.database.transaction() as session:
            if fields.get("what") == "none":
                upload_files.leave_out(session, upload_files.file_of(session, upload_pk, file_pk))
            else:
                keep_said(session, upload_pk, file_pk, _said(fields))
        desk.complete(upload_pk)
        return RedirectResponse(f"/uploads/{upload_pk}", 303)

    @made.post("/uploads/{upload_pk}/finish")
    @allow("physicist")
    def finish(upload_pk: form.Pk) -> Response:
        """Take what is here for all."""
        with site.database.transaction() as session:
            uploads.close(session, upload_pk)
        desk.complete(upload_pk)
        return RedirectResponse(f"/uploads/{upload_pk}", 303)

    @made.post("/uploads/{upload_pk}/cancel")
    @allow("physicist")
    def cancel(upload_pk: form.Pk) -> Response:
        """Cancel an upload."""
        desk.cancel(upload_pk)
        return RedirectResponse("/upload", 303)


def _said(fields: Mapping[str, str]) -> ImageSaid:
    """Return what a form says of an image. Refuses `bad-image`."""
    given = {name: fields[name] for name in ("study_date", "patient_label") if fields.get(name)}
    try:
        return ImageSaid.model_validate(
            {
                **given,
                "modality": fields.get("what"),
                "is_aligned": "is_aligned" in fields,
                "joins_earlier": "joins_earlier" in fields,
            }
        )
    except ValidationError as error:
        raise Refused("bad-image", problem.first_problem(error.errors())) from None


__all__ = ["Shown", "StudyOfUpload", "router", "shown"]

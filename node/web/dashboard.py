"""The pages and their JSON, put together."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from node.web import (
    accounts,
    cohort,
    dicom_web,
    evaluations,
    models,
    oidc,
    patient,
    pictures,
    reference,
    static_files,
    study,
    system,
    upload,
    viewer,
    worklist,
)
from node.web.access import allow
from node.web.api import accounts as api_accounts
from node.web.api import cohort as api_cohort
from node.web.api import evaluations as api_evaluations
from node.web.api import findings as api_findings
from node.web.api import models as api_models
from node.web.api import patients as api_patients
from node.web.api import studies as api_studies
from node.web.api import system as api_system
from node.web.api import upload_results
from node.web.api import uploads as api_uploads
from node.web.api import workitems as api_workitems
from node.web.api import worklist as api_worklist
from node.web.site import Site

ROUTERS: tuple[Callable[[Site], APIRouter], ...] = (
    worklist.router,
    api_worklist.router,
    api_workitems.router,
    system.router,
    api_system.router,
    viewer.router,
    dicom_web.router,
    upload.router,
    api_uploads.router,
    upload_results.router,
    patient.router,
    cohort.router,
    api_cohort.router,
    api_patients.router,
    models.router,
    api_models.router,
    evaluations.router,
    api_evaluations.router,
    study.router,
    pictures.router,
    api_studies.router,
    api_findings.router,
    accounts.router,
    api_accounts.router,
    reference.router,
    oidc.router,
)
"""What makes the routes of each page and each part of the JSON."""


def routers(site: Site) -> list[APIRouter]:
    """Return all routes that people and programs read the node by."""
    return [_home(), static_files.router(), *(make(site) for make in ROUTERS)]


def _home() -> APIRouter:
    made = APIRouter(include_in_schema=False)

    @made.get("/")
    @allow("viewer")
    def home() -> Response:
        """Send a person to the worklist."""
        return RedirectResponse("/worklist", 303)

    return made


__all__ = ["ROUTERS", "routers"]

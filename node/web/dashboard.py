"""The pages and their JSON, put together."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from node.web import cohort, dicom_web, models, patient, static_files, viewer
from node.web.access import allow
from node.web.api import cohort as api_cohort
from node.web.api import uploads as api_uploads
from node.web.site import Site

ROUTERS: tuple[Callable[[Site], APIRouter], ...] = (
    viewer.router,
    dicom_web.router,
    api_uploads.router,
    patient.router,
    cohort.router,
    api_cohort.router,
    models.router,
)
"""What makes the routes of each page and each part of the JSON."""


def routers(site: Site) -> list[APIRouter]:
    """Return all routes that people and programs read the node by."""
    return [_home(), static_files.router(), *(make(site) for make in ROUTERS)]


def _home() -> APIRouter:
    made = APIRouter(include_in_schema=False)

    @made.get("/")
    @allow("viewer")
    def home(request: Request) -> Response:
        """Send a person to the worklist."""
        return RedirectResponse("/worklist", 303)

    return made


__all__ = ["ROUTERS", "routers"]

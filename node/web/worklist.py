"""The worklist: every study, where it stands and why, and what can be done about it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from node.web import links
from node.web.access import allow
from node.web.fields import Fields
from node.web.site import Site
from node.web.worklist_words import WORDS, said
from store import workitems
from store import worklist as listing
from store.worklist import STAGES

PAGE = 40
MOST_PAGES = 100_000


def router(site: Site) -> APIRouter:
    """Return the page `/worklist` and its rows, which refresh themselves.

    What is searched for is sent as a form: names do not belong into addresses.
    """
    made = APIRouter(include_in_schema=False)

    @made.get("/worklist")
    @allow("viewer")
    def page(request: Request) -> Response:
        """Give the newest studies."""
        return site.frame.page(request, "worklist.html", **_values(site, {}))

    @made.post("/worklist/rows")
    @allow("viewer")
    def rows(request: Request, fields: Fields) -> Response:
        """Give the rows that match, as they stand now."""
        return site.frame.page(request, "worklist_rows.html", **_values(site, fields))

    return made


def _values(site: Site, fields: Any) -> dict[str, Any]:
    """Return what the template is filled with."""
    settings = site.settings
    words, stage = str(fields.get("words", ""))[:200], str(fields.get("stage", ""))
    number = str(fields.get("page", ""))
    at = min(int(number), MOST_PAGES) if number.isdecimal() and len(number) < 8 else 0
    now = site.database.now()
    with site.database.reading() as session:
        found = listing.worklist(
            session,
            now,
            words=words,
            stage=stage,
            limit=PAGE,
            offset=at * PAGE,
            priors_wait_seconds=settings.priors_wait_seconds,
        )
        asked = workitems.of_studies(session, [one.study.study_instance_uid for one in found.rows])
        counts = listing.counts(session)
        told, pulls = listing.not_here(session)
    return {
        "rows": [(one, said(one, now, settings)) for one in found.rows],
        "asked": asked,
        "stoppable": workitems.STOPPABLE,
        "total": found.total,
        "first": at * PAGE + 1,
        "at": at,
        "has_more": found.has_more,
        "counts": counts,
        "stage": stage if stage in STAGES else "",
        "words": words,
        "stages": WORDS,
        "not_here": told,
        "pulls": pulls,
        "now": now,
        "links": links,
        "ae_title": settings.ae_title,
        "dicom_port": settings.dicom_port if settings.plain_dicom else settings.tls_port,
    }


__all__ = ["router"]

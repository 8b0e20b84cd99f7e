"""The page of the cohort: whom it shows, how they responded, and every number that was measured."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from node.reckoning import Reckoner
from node.report.longitudinal import words
from node.report.overlays import pretty_unit
from node.web import links, plots
from node.web.access import allow
from node.web.cohort_filter import Asked, query_of
from node.web.patient import CriteriaName
from node.web.site import Site
from store import measured
from store.cohort import Order, members
from store.progression import followed, kaplan_meier
from store.response.criteria import CRITERIA

ROWS: Final = 50
FIRST_SECONDS, NEXT_SECONDS = 0.2, 1.0
"""How long courses are reckoned before the page is there, and each time that it asks how far they are."""
Number = Annotated[int, Query(ge=1, le=1_000_000)]


def router(site: Site) -> APIRouter:
    """Return the routes under `/cohort`."""
    made = APIRouter(include_in_schema=False)
    reckoner = Reckoner(site.database, site.objects)

    @made.get("/cohort")
    @allow("viewer")
    def page(
        request: Request,
        chosen: Asked,
        order: Order = "change",
        sort: measured.Sort = "newest",
        people: Number = 1,
        page: Number = 1,
    ) -> Response:
        """Give the page."""
        progress = reckoner.reckon(chosen.criteria, FIRST_SECONDS)
        with site.database.reading() as session:
            found = members(session, chosen, order)
            start = ROWS * (page - 1)
            numbers = measured.page(session, chosen, site.objects, sort=sort, limit=ROWS + 1, offset=start)
            total = measured.count(session, chosen)
            offered = measured.offered(session, chosen.criteria)
        shown = {"order": order, "sort": sort, "people": people, "page": page}
        return site.frame.page(
            request,
            "cohort.html",
            chosen=chosen,
            offered=offered,
            progress=progress,
            persons=found[ROWS * (people - 1) : ROWS * people],
            found=len(found),
            judged=sum(bool(one.short.best_overall) for one in found),
            last_people=max(1, -(-len(found) // ROWS)),
            numbers=numbers[:ROWS],
            total=total,
            last_page=max(1, -(-total // ROWS)),
            shown=shown,
            address=lambda **more: "/cohort?" + query_of(chosen, **{**shown, **more}),
            source="/api/cohort/patients?" + query_of(chosen, limit=1000),
            query=query_of(chosen),
            criteria=list(CRITERIA),
            made_by=measured.made_by,
            pretty_unit=pretty_unit,
            words=words,
            links=links,
            estimate=kaplan_meier(one for member in found if (one := followed(member.short)) is not None),
            plotted=plots.progression,
        )

    @made.get("/cohort/progress")
    @allow("viewer")
    def progress(request: Request, criteria: CriteriaName = "recist1.1") -> Response:
        """Reckon on for a moment, and say how far it has come."""
        come = reckoner.reckon(criteria, NEXT_SECONDS)
        made = site.frame.page(request, "cohort_progress.html", progress=come, criteria=criteria)
        if not come.left:
            made.headers["HX-Trigger"] = '{"reckoned": ""}'
        return made

    return made


__all__ = ["router"]

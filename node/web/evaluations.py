"""The report of one evaluation of a model, drawn for its reader: figures beside the card, groups, charts, every case.

What was judged on this node may name its patients and its documents hold pictures of them: whoever reads it is in the
audit trail, as with the pictures of a study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from node import audit_events, evaluations, model_overview, model_view
from node.evaluation_form import Cases
from node.evaluations import DOCUMENTS, RELEASE
from node.web import links
from node.web.access import allow
from node.web.models import PAPER_POLICY
from node.web.run_words import STANDING
from node.web.site import Site

ROWS = 25
OfTask = Annotated[int, Query(alias="of", ge=0, le=9)]
SortedBy = Annotated[str, Query(alias="sort", pattern=r"^-?[0-9]{1,2}$|^$")]
PageNumber = Annotated[int, Query(alias="page", ge=1, le=100_000)]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One page of a table of cases."""

    place: int
    """Which table of the report, from 0."""
    table: Cases
    """All of it."""
    rows: tuple[tuple[Any, ...], ...]
    """The rows of this page, as JSON has them."""
    sort: str
    """Number of the column that they are ordered by, with a minus for falling; empty for the order of the data."""
    page: int
    """From 1."""
    pages: int
    """How many there are."""

    def query(self, *, column: int | None = None, page: int = 1) -> str:
        """Return the query of another order, or of another page of this one."""
        sort = self.sort if column is None else f"-{column}" if self.sort == str(column) else str(column)
        return urlencode({"of": self.place, "sort": sort, "page": page})

    def order(self, column: int) -> str:
        """Return what `aria-sort` says of a column; empty when it is not the one."""
        return {str(column): "ascending", f"-{column}": "descending"}.get(self.sort, "")


def shown(place: int, table: Cases, sort: str = "", page: int = 1) -> Shown:
    """Return a page of a table in an order; cases that have no such value come last, whichever way."""
    rows = [tuple(row) for row in table.rows]
    column = abs(int(sort)) if sort else -1
    if 0 <= column < len(table.columns):
        there = [row for row in rows if row[column] is not None]
        there.sort(key=lambda row: _key(row[column]), reverse=sort.startswith("-"))
        rows = [*there, *(row for row in rows if row[column] is None)]
    pages = max(1, -(-len(rows) // ROWS))
    page = min(page, pages)
    part = tuple(rows[(page - 1) * ROWS : page * ROWS])
    return Shown(place=place, table=table, rows=part, sort=sort, page=page, pages=pages)


def _key(value: object) -> tuple[bool, Any]:
    return isinstance(value, str), value


def address(family: str, number: int | str, key: str) -> str:
    """Return the address of an evaluation's page."""
    return f"{links.model(family, number)}/evaluations/{key}"


def router(site: Site) -> APIRouter:
    """Return the routes of the page, of its tables and of its files."""
    made, pages = APIRouter(include_in_schema=False), _Pages(site)

    @made.get("/models/{family}/{number}/evaluations/{key}")
    @allow("viewer")
    def evaluation(
        request: Request,
        family: str,
        number: str,
        key: str,
        of: OfTask = 0,
        sort: SortedBy = "",
        page: PageNumber = 1,
    ) -> Response:
        """Show one evaluation."""
        return pages.report(request, (family, number, key), of, sort, page)

    @made.get("/models/{family}/{number}/evaluations/{key}/cases")
    @allow("viewer")
    def cases(
        request: Request,
        family: str,
        number: str,
        key: str,
        of: OfTask = 0,
        sort: SortedBy = "",
        page: PageNumber = 1,
    ) -> Response:
        """Give a page of a table of cases."""
        return pages.cases(request, (family, number, key), of, sort, page)

    @made.get("/models/{family}/{number}/evaluations/{key}/files/{name}")
    @allow("viewer")
    def document(request: Request, family: str, number: str, key: str, name: str) -> Response:
        """Give a file of an evaluation, as a page that may run nothing, or to take away."""
        return pages.document(request, (family, number, key), name)

    return made


class Reading:
    """Tells the audit trail who read an evaluation that was made on this node."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def tell(self, request: Request, place: tuple[str, str, str], what: str) -> None:
        """Tell that somebody read `what` (`as a page`) of an evaluation; of the release's nothing is told."""
        family, number, key = place
        if key == RELEASE:
            return
        name, address = request.state.identity.name, request.state.address
        told = f"evaluation {key} of {family}/{number} {what}"
        self._site.record(
            audit_events.exported(name, address, told), once=("evaluation", name, address, told)
        )


class _Pages:
    def __init__(self, site: Site) -> None:
        self._site, self._reading = site, Reading(site)

    def report(
        self, request: Request, place: tuple[str, str, str], of: int, sort: str, page: int
    ) -> Response:
        family, number, key = place
        with self._site.database.reading() as session:
            model = evaluations.model_of(session, family, number)
            about, report = evaluations.opened(session, self._site.settings, model, key)
            told = model_view.details(session, self._site.settings, family, model.number)
            card = model_overview.card_of(session, self._site.settings, family, told)
        self._reading.tell(request, place, "as a page")
        tables = [shown(n, table, *((sort, page) if n == of else ())) for n, table in enumerate(report.cases)]
        return self._page(
            request,
            "model_evaluation.html",
            place,
            model=model,
            about=about,
            report=report,
            tables=tables,
            beside=evaluations.beside(report, card),
            differing=evaluations.differing(report, card),
            card=card,
            standing=STANDING,
        )

    def cases(self, request: Request, place: tuple[str, str, str], of: int, sort: str, page: int) -> Response:
        family, number, key = place
        with self._site.database.reading() as session:
            model = evaluations.model_of(session, family, number)
            _, report = evaluations.opened(session, self._site.settings, model, key)
        self._reading.tell(request, place, "as a page")
        place_of = min(of, len(report.cases) - 1)
        table = shown(place_of, report.cases[place_of], sort, page) if report.cases else None
        return self._page(request, "model_evaluation_cases.html", place, table=table)

    def document(self, request: Request, place: tuple[str, str, str], name: str) -> Response:
        family, number, key = place
        with self._site.database.reading() as session:
            model = evaluations.model_of(session, family, number)
            content = evaluations.document(session, self._site.settings, model, key, name)
        self._reading.tell(request, place, f"as {name}")
        headers = {"Content-Disposition": f'attachment; filename="{family}-{number}-{key}-{name}"'}
        if name.endswith(".html"):
            headers = {"Content-Security-Policy": PAPER_POLICY}
        return Response(content, media_type=DOCUMENTS[name], headers=headers)

    def _page(self, request: Request, template: str, place: tuple[str, str, str], **values: Any) -> Response:
        shared: Mapping[str, Any] = {"link": links.model, "here": address(*place)}
        return self._site.frame.page(request, template, **shared, **values)


__all__ = ["Reading", "address", "router"]

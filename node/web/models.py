"""The models page: which model of each family counts, what waits for a person, what runs, and whether input drifts.

A physicist lets a model count or takes it back: whether what measures is fit to measure is his to judge, and an
administrator's, who may do what a physicist may. To let a run compute is an administrator's, because it takes the
machine. Both go through the same door as the commands (`node.model_decision`, `store.asked_runs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from node import audit_events, evaluations, model_decision, model_overview, model_view
from node.drift_view import courses_of_family
from node.model_documents import DOCUMENTS, document_of, documents_of
from node.web import links
from node.web.access import allow
from node.web.api.form import MOST_PK
from node.web.fields import Fields
from node.web.problem import status_of
from node.web.run_words import OUTCOME, STANDING, run_chip, stages_done
from node.web.site import Site
from node.web.week_plots import HEIGHT, WIDTH, plots
from plugins.errors import Refused
from store import asked_runs, registry, runs
from store.database import Database

WEEKS = 16
LAST_RUNS = 20
NOTE_CHARACTERS = 2000
PAPER_POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Of the documents that runs write: pages that stand alone, with styles of their own; no script of theirs ever runs."""


def router(site: Site) -> APIRouter:
    """Return the routes of the pages."""
    made = APIRouter(include_in_schema=False)
    _reading(made, _Pages(site))
    _deciding(made, _Pages(site))
    return made


def _reading(made: APIRouter, pages: _Pages) -> None:
    @made.get("/models")
    @allow("viewer")
    def models(request: Request) -> Response:
        """Show every family."""
        return pages.families(request)

    @made.get("/models/labels")
    @allow("viewer")
    def labels(request: Request) -> Response:
        """Give the part that counts what people drew; it reads what they sent, so the page does not wait for it."""
        return pages.labels(request)

    @made.get("/models/{family}")
    @allow("viewer")
    def family(request: Request, family: str) -> Response:
        """Show one family."""
        return pages.family(request, family)

    @made.get("/models/{family}/runs")
    @allow("viewer")
    def family_runs(request: Request, family: str) -> Response:
        """Give the part that shows the runs; it asks again while one goes on."""
        return pages.runs(request, family)

    @made.get("/models/{family}/drift")
    @allow("viewer")
    def drift(request: Request, family: str) -> Response:
        """Give the part that shows drift over the weeks."""
        return pages.drift(request, family)

    @made.get("/models/{family}/{number}")
    @allow("viewer")
    def model(request: Request, family: str, number: str) -> Response:
        """Show one model."""
        return pages.model(request, family, number)

    @made.get("/models/{family}/runs/{run}/{name}")
    @allow("viewer")
    def document(request: Request, family: str, run: int, name: str) -> Response:
        """Give a document that a run wrote, as a page that may run nothing, or as a file."""
        return pages.document(request, family, run, name)


def _deciding(made: APIRouter, pages: _Pages) -> None:
    @made.post("/models/{family}/rollback")
    @allow("physicist")
    def rollback(request: Request, family: str, given: Fields) -> Response:
        """Let the model before count again."""
        return pages.rollback(request, family, given)

    @made.post("/models/{family}/retrain")
    @allow("administrator")
    def retrain(request: Request, family: str) -> Response:
        """Ask the scheduler for a run now."""
        return pages.retrain(request, family)

    @made.post("/models/{family}/{number}/approve")
    @allow("physicist")
    def approve(request: Request, family: str, number: str, given: Fields) -> Response:
        """Let a model count."""
        return pages.approve(request, family, number, given)


class _Pages:
    """Makes the pages and does what they ask for."""

    def __init__(self, site: Site) -> None:
        self._site, self._settings, self._frame = site, site.settings, site.frame
        self._database: Database = site.database

    def families(self, request: Request) -> Response:
        now = self._database.now()
        with self._database.reading() as session:
            found = model_overview.overview(session, self._settings, now)
        return self._page(request, "models.html", families=found)

    def labels(self, request: Request) -> Response:
        with self._database.reading() as session:
            found = model_overview.waiting(session, self._settings)
        return self._page(request, "model_labels.html", waiting=found)

    def family(self, request: Request, family: str, problem: str = "", status: int = 200) -> Response:
        now = self._database.now()
        with self._database.reading() as session:
            (found,) = model_overview.overview(session, self._settings, now, family)
            past = registry.history(session, family)
            plates = registry.stack(past)
        numbers = {registry.RELEASE: model_view.SHIPPED} | {
            one.manifest_sha256: str(one.number) for one in found.models if one.number != model_view.SHIPPED
        }
        return self._page(
            request,
            "model_family.html",
            status,
            family=found,
            past=past[::-1],
            numbers=numbers,
            before=numbers.get(plates[-2]) if len(plates) > 1 else None,
            done=model_view.DONE,
            problem=problem,
            **self._runs(family),
        )

    def runs(self, request: Request, family: str) -> Response:
        return self._page(request, "model_runs.html", **self._runs(family))

    def _runs(self, family: str) -> dict[str, Any]:
        now = self._database.now()
        with self._database.reading() as session:
            model_view.require_family(session, family)
            found = runs.list_runs(session, family)[: -LAST_RUNS - 1 : -1]
            asked = asked_runs.asked(session, family)
            made = {one.run_pk: one.number for one in registry.versions(session, family)}
            due = model_overview.next_run(session, family)
        return {
            "name": family,
            "runs": found,
            "asked": asked,
            "next_run": due,
            "made": made,
            "alive": {run.id for run in found if runs.is_alive(run, now)},
            "documents": {run.id: documents_of(self._settings.home, run) for run in found},
            "now": now,
            "most_runs": LAST_RUNS,
        }

    def drift(self, request: Request, family: str) -> Response:
        from training.drift_told import alarms, left_out, newest, state

        with self._database.reading() as session:
            found = courses_of_family(session, self._settings, self._database.now(), family)
        shown = [
            {
                "plugin": course.plugin,
                "weeks": [(week, state(week)) for week in course.last(WEEKS)],
                "alarms": newest(alarms(course, course.last(WEEKS))),
                "plots": plots(course, course.last(WEEKS)),
                "left_out": left_out(course),
            }
            for course in found
        ]
        return self._page(request, "model_drift.html", courses=shown, width=WIDTH, height=HEIGHT)

    def model(
        self, request: Request, family: str, number: str, problem: str = "", status: int = 200
    ) -> Response:
        with self._database.reading() as session:
            told = model_view.details(session, self._settings, family, _number(number))
            run = runs.get(session, told["run"]) if told.get("run") else None
            card = model_overview.card_of(session, self._settings, family, told)
            entry = evaluations.model_of(session, family, number)
            judged, none_of_release = evaluations.listed(session, self._settings, entry)
        return self._page(
            request,
            "model.html",
            status,
            told=told,
            card=card,
            figures=model_overview.figures_of(card),
            run=run,
            documents=[] if run is None else documents_of(self._settings.home, run),
            evaluations=judged,
            none_of_release=none_of_release,
            problem=problem,
        )

    def document(self, request: Request, family: str, run: int, name: str) -> Response:
        with self._database.reading() as session:
            row = runs.get(session, min(run, MOST_PK))
        content = document_of(self._settings.home, row, family, name)
        # It holds pictures of patients of this node.
        what = f"{name} of run {row.id} of {family}"
        self._site.record(audit_events.exported(_author(request), request.state.address, what))
        if name.endswith(".html"):
            return Response(
                content, media_type="text/html", headers={"Content-Security-Policy": PAPER_POLICY}
            )
        kind = "application/pdf" if name.endswith(".pdf") else "application/json"
        attached = f'attachment; filename="{family}-run{row.id}-{name}"'
        return Response(content, media_type=kind, headers={"Content-Disposition": attached})

    def approve(self, request: Request, family: str, number: str, given: Mapping[str, str]) -> Response:
        try:
            _require_confirmed(given, f"{family} {number}")
            model_decision.approve(
                self._database, self._settings, family, _whole(number), **_by(request, given)
            )
        except Refused as refused:
            return self.model(request, family, number, refused.sentence, status_of(refused.code))
        return RedirectResponse(links.model(family), 303)

    def rollback(self, request: Request, family: str, given: Mapping[str, str]) -> Response:
        try:
            _require_confirmed(given, family)
            about = _by(request, given) | {"in_place_of": given.get("in_place_of", "")}
            to_release = given.get("to") == model_view.SHIPPED
            model_decision.rollback(self._database, self._settings, family, to_release=to_release, **about)
        except Refused as refused:
            if refused.code == "no-family":
                raise
            return self.family(request, family, refused.sentence, status_of(refused.code))
        return RedirectResponse(links.model(family), 303)

    def retrain(self, request: Request, family: str) -> Response:
        try:
            model_decision.ask_for_run(self._database, self._settings, family, _author(request))
        except Refused as refused:
            if refused.code == "no-family":
                raise
            return self.family(request, family, refused.sentence, status_of(refused.code))
        return RedirectResponse(f"{links.model(family)}#runs", 303)

    def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        shared = {
            "link": links.model,
            "standing": STANDING,
            "outcome": OUTCOME,
            "run_chip": run_chip,
            "stages_done": stages_done,
            "document_names": DOCUMENTS,
        }
        return self._frame.page(request, template, status, **shared, **values)


def _number(said: str) -> int | str:
    """Return the number of a model as an address says it. Refuses `no-such-model`."""
    return said if said == model_view.SHIPPED else _whole(said)


def _whole(said: str) -> int:
    if not (said.isascii() and said.isdecimal() and int(said) <= MOST_PK):
        raise Refused("no-such-model", f"there is no model '{said[:32]}'; models have numbers")
    return int(said)


def _author(request: Request) -> str:
    return str(request.state.identity.name)


def _by(request: Request, given: Mapping[str, str]) -> dict[str, str]:
    return {"author": _author(request), "note": given.get("note", "").strip()[:NOTE_CHARACTERS]}


def _require_confirmed(given: Mapping[str, str], wanted: str) -> None:
    """Refuse (`not-confirmed`) what was not typed as it is called."""
    if " ".join(given.get("confirm", "").split()) != wanted:
        raise Refused("not-confirmed", f"nothing was changed: type '{wanted}' to confirm")


__all__ = ["router"]

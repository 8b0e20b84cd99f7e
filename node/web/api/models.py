"""Learned models as JSON: which there are, which count, what the gate said, runs, drift; and a person's decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from node import model_decision, model_overview, model_view
from node.drift_view import courses_of_family
from node.model_documents import documents_of
from node.model_view import Entry
from node.web.access import allow
from node.web.api import form
from node.web.site import Site
from store import runs
from store.model_tables import TrainingRun

FamilyName = Annotated[
    str,
    Path(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="Which models by their purpose: nodule_segmenter"),
]
ModelNumber = Annotated[
    str, Path(pattern=r"^(shipped|[1-9][0-9]{0,9})$", description="Its number in the family, or `shipped`")
]
Weeks = Annotated[int, Query(ge=1, le=520, description="So many of the newest weeks")]


class ModelEntry(BaseModel):
    """One model of a family."""

    model_config = ConfigDict(from_attributes=True)

    family: str
    number: int | str = Field(description="From 1; `shipped` for the one of the release")
    version: str = Field(description="Empty when its files cannot be read")
    state: Literal["active", "proposed", "refused", "overtaken", "retired", "replaced"] = Field(
        description="`active` counts, `proposed` may be approved, `overtaken` was judged against a former champion"
    )
    manifest_sha256: str
    made_at: form.Instant | None
    decided_at: form.Instant | None = Field(description="When a person last let it count")
    decided: str = Field(description="approved or rolled back; empty")
    by: str
    why: str = Field(description="The note of an approval, or what the gate said")


class FamilyRow(BaseModel):
    """One family of models."""

    family: str
    counts: ModelEntry | None = Field(description="The model that analyses use; null when there is none")
    proposed: list[ModelEntry]
    alarms: list[str] = Field(description="What changed in the last three weeks, in sentences")
    can_learn: bool = Field(description="Whether it can be retrained here")
    is_running: bool
    next_run: form.Instant | None


class Families(form.Listed):
    """Every family."""

    families: list[FamilyRow]


class Models(form.Listed):
    """The models of a family."""

    models: list[ModelEntry]


class Check(BaseModel):
    """One thing that the gate asked."""

    model_config = ConfigDict(extra="ignore")

    name: str
    title: str
    outcome: str
    sentence: str
    champion: float | None
    challenger: float | None
    limit: float | None
    difference: dict[str, float | int | None] | None = Field(
        description="Challenger minus champion: `value`, `low`, `high`, `cases`, `patients`"
    )


class ModelDetails(ModelEntry):
    """Everything that is known of one model."""

    is_usable: bool = Field(description="Whether every file is as its manifest says")
    files: str
    card: dict[str, Any] = Field(description="What it is, what it learned from, its limits and its figures")
    because: str = Field(description="What the gate said; empty for the model of the release")
    judged_against: str = Field(description="Number of the champion of its run; empty for the release")
    run: int | None
    checks: list[Check] = Field(description="What the gate asked, one by one")
    devices: list[dict[str, str]] = Field(description="Each analysis with this model, as results name it")


class RunRow(BaseModel):
    """One run of retraining."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    family: str
    state: str
    begun_at: form.Instant
    ended_at: form.Instant | None
    labels: int = Field(description="Masks of people that it could learn from")
    new_labels: int = Field(description="Of them those that no earlier run had")
    said: str = Field(description="What is being done, then how it ended")
    is_running: bool = False
    documents: list[str] = Field(
        default=[], description="At `/models/{family}/runs/{id}/NAME.html`, .pdf, .json"
    )


class Runs(form.Listed):
    """Runs of a family, the newest first."""

    runs: list[RunRow]


class Shift(BaseModel):
    """How one quantity of a week differs from the reference."""

    what: str
    statistic: Literal["PSI", "KS"]
    value: float
    limit: float
    p: float
    change: str = Field(description="From what to what, in words")
    weeks: int = Field(description="How many weeks, up to this one, were looked at together")
    studies: int
    is_alarm: bool
    since: str | None = Field(description="First of the weeks in a row with this alarm")


class Week(BaseModel):
    """One ISO week of an analysis."""

    week: str = Field(description="2026-W47")
    studies: int
    is_reference: bool
    not_judged: str | None
    quartiles: dict[str, tuple[float, float, float]] = Field(
        description="Lower quartile, median and upper quartile of each number"
    )
    shifts: list[Shift]


class Alarm(BaseModel):
    """That something of a week is not as it was."""

    week: str
    what: str
    sentence: str


class Course(BaseModel):
    """The weeks of one analysis with the models that count."""

    plugin: str
    families: list[str]
    reference: list[str] = Field(description="The weeks that the others are compared with")
    reference_studies: int
    dated_ahead: int = Field(description="Studies left out: their results bear a date that has not come yet")
    weeks: list[Week]
    alarms: list[Alarm]


class Drift(BaseModel):
    """Every analysis that uses a family."""

    analyses: list[Course]


class Decision(BaseModel):
    """Why a person decides."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field(default="", max_length=2000, description="For the history")


class Rollback(Decision):
    """How far back."""

    to_release: bool = Field(default=False, description="To the model of the release at once")
    in_place_of: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64})?$",
        description="`manifest_sha256` of the model that counted when you looked; refused when another counts by now",
    )


class Counting(BaseModel):
    """Which model of a family counts from now on."""

    counts: ModelEntry | None


class Asked(BaseModel):
    """That a run was asked for."""

    status: Literal["asked"] = "asked"


def router(site: Site) -> APIRouter:
    """Return the routes `/api/models` and below."""
    made = form.routes("models")
    _runs(made, site)  # before `/{number}`, which would take `runs` for one
    _reading(made, site)
    _deciding(made, site)
    return made


def _reading(made: APIRouter, site: Site) -> None:
    @made.get("/models")
    @allow("viewer", scopes=("api",))
    def list_families() -> Families:
        """List the families of models, each with the one that counts."""
        now = site.database.now()
        with site.database.reading() as session:
            found = [_family(one) for one in model_overview.overview(session, site.settings, now)]
        return Families(families=found, total=len(found))

    @made.get("/models/{family}", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def list_models(family: FamilyName) -> Models:
        """List the models of a family: the one of the release, then those made here."""
        with site.database.reading() as session:
            found = [ModelEntry.model_validate(one) for one in model_view.entries(session, family)]
        return Models(models=found, total=len(found))

    @made.get("/models/{family}/drift", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def show_drift(family: FamilyName, weeks: Weeks = 12) -> Drift:
        """Show, week by week, whether input and results of a family's analyses are as they were."""
        from training.drift_told import plain

        with site.database.reading() as session:
            found = courses_of_family(session, site.settings, site.database.now(), family)
        return Drift(analyses=[Course.model_validate(plain(course, course.last(weeks))) for course in found])

    @made.get("/models/{family}/{number}", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def show_model(family: FamilyName, number: ModelNumber) -> ModelDetails:
        """Show everything that is known of one model."""
        asked = int(number) if number.isdecimal() else number
        with site.database.reading() as session:
            told = model_view.details(session, site.settings, family, asked)
            card = model_overview.card_of(session, site.settings, family, told)
        figures = told.get("figures")
        shown = {"intended_use", "input", "training_data", "limits", "licence", "figures"}
        return ModelDetails(
            **{name: told[name] for name in ModelEntry.model_fields},
            is_usable=told["is_usable"],
            files=told["files"],
            card={key: value for key, value in card.items() if key in shown},
            because=told.get("because", ""),
            judged_against=told.get("judged_against", ""),
            run=told.get("run"),
            checks=figures.get("checks", []) if isinstance(figures, dict) else [],
            devices=told["devices"],
        )


def _runs(made: APIRouter, site: Site) -> None:
    @made.get("/models/{family}/runs", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def list_runs(family: FamilyName, limit: form.Limit = 100, cursor: form.Cursor = "") -> Runs:
        """List the runs of retraining of a family, the newest first."""
        (before,) = form.values_of(cursor, int) or (None,)
        now = site.database.now()
        with site.database.reading() as session:
            model_view.require_family(session, family)
            every = runs.list_runs(session, family)[::-1]
            found = [run for run in every if before is None or (run.id or 0) < before]
            shown = [_run(site, run, now) for run in found[:limit]]
        more = form.cursor_of(shown[-1].id) if len(found) > limit else None
        return Runs(runs=shown, total=len(every), next=more)

    @made.post("/models/{family}/runs", status_code=202, responses=form.problems(400, 404, 409))
    @allow("administrator")
    def ask_for_run(request: Request, family: FamilyName) -> Asked:
        """Ask the scheduler to retrain a family now."""
        by = request.state.identity.name
        model_decision.ask_for_run(site.database, site.settings, family, by)
        return Asked()


def _deciding(made: APIRouter, site: Site) -> None:
    @made.post("/models/{family}/rollback", responses=form.problems(404, 409))
    @allow("physicist")
    def roll_back(request: Request, family: FamilyName, said: Rollback) -> Counting:
        """Let the model count again that counted before."""
        by = request.state.identity.name
        entry = model_decision.rollback(site.database, site.settings, family, author=by, **said.model_dump())
        return _counting(entry)

    @made.post("/models/{family}/{number}/approve", responses=form.problems(400, 404, 409))
    @allow("physicist")
    def approve(
        request: Request,
        family: FamilyName,
        number: Annotated[int, Path(ge=1, le=form.MOST_PK, description="Its number in the family")],
        said: Decision,
    ) -> Counting:
        """Let a model count that the gate proposed."""
        by = request.state.identity.name
        entry = model_decision.approve(
            site.database, site.settings, family, number, author=by, note=said.note
        )
        return _counting(entry)


def _counting(entry: Entry | None) -> Counting:
    return Counting(counts=None if entry is None else ModelEntry.model_validate(entry))


def _family(one: model_overview.Family) -> FamilyRow:
    return FamilyRow(
        family=one.name,
        counts=None if one.counts is None else ModelEntry.model_validate(one.counts),
        proposed=[ModelEntry.model_validate(entry) for entry in one.proposed],
        alarms=[alarm.sentence for alarm in one.alarms],
        can_learn=one.can_learn,
        is_running=one.is_running,
        next_run=one.next_run,
    )


def _run(site: Site, run: TrainingRun, now: datetime) -> RunRow:
    row = RunRow.model_validate(run)
    return row.model_copy(
        update={
            "is_running": runs.is_alive(run, now),
            "documents": documents_of(site.settings.home, run),
        }
    )


__all__ = ["router"]

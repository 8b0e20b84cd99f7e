"""Evaluations of models as JSON: which there are of a model, and each with its figures, groups, charts and cases."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from node import evaluations
from node.evaluation_form import Report
from node.web.access import allow
from node.web.api import form
from node.web.api.models import FamilyName, ModelNumber
from node.web.evaluations import Reading
from node.web.site import Site

Key = Annotated[
    str,
    Path(pattern=r"^(release|[1-9][0-9]{0,17})$", description="`key` of the list: a number, or `release`"),
]


class EvaluationRow(BaseModel):
    """One evaluation of a model."""

    model_config = ConfigDict(from_attributes=True)

    key: str = Field(description="Its number on this node; `release` for the one that comes with the release")
    data: str = Field(description="Name of the data")
    data_sha256: str = Field(description="Hash of the manifest of the data")
    cases: int
    patients: int
    made_at: form.Instant
    author: str = Field(description="Who kept it; empty for the release")
    files: list[str] = Field(description="At `/models/{family}/{number}/evaluations/{key}/files/NAME`")


class Evaluations(form.Listed):
    """The evaluations of a model, the newest of this node first."""

    evaluations: list[EvaluationRow]
    none_of_release: str = Field(
        description="Why a shipped model shows no evaluation of the release; else empty"
    )


def router(site: Site) -> APIRouter:
    """Return the routes `/api/models/{family}/{number}/evaluations` and below."""
    made, reading = form.routes("models"), Reading(site)

    @made.get("/models/{family}/{number}/evaluations", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def list_evaluations(family: FamilyName, number: ModelNumber) -> Evaluations:
        """List the evaluations of a model: those kept on this node, and the one of the release."""
        with site.database.reading() as session:
            model = evaluations.model_of(session, family, number)
            found, none_of_release = evaluations.listed(session, site.settings, model)
        rows = [EvaluationRow.model_validate(one) for one in found]
        return Evaluations(evaluations=rows, total=len(rows), none_of_release=none_of_release)

    @made.get("/models/{family}/{number}/evaluations/{key}", responses=form.problems(400, 404))
    @allow("viewer", scopes=("api",))
    def show_evaluation(request: Request, family: FamilyName, number: ModelNumber, key: Key) -> Report:
        """Show one evaluation: figures with intervals, groups, charts and every case; refused for other weights."""
        with site.database.reading() as session:
            model = evaluations.model_of(session, family, number)
            _, report = evaluations.opened(session, site.settings, model, key)
        reading.tell(request, (family, number, key), "as JSON")
        return report

    return made


__all__ = ["router"]

"""The plan of a family: its three documents in one folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from models.shipped import Model
from training.plan.document import write_document
from training.plan.impact import impact
from training.plan.modification import modification
from training.plan.protocol import Settings, protocol
from training.plan.run import ToldRun
from training.recipe import Recipe


def write_plan(
    model: Model,
    recipe: Recipe,
    folder: Path,
    *,
    made_at: datetime,
    schedule: Settings | None = None,
    run: ToldRun | None = None,
) -> tuple[Path, ...]:
    """Write modification, protocol and impact (each as JSON, page and PDF) into a folder and return the nine paths.

    `model` is the one that counts, or that counted when `run` began; what an earlier plan left there is replaced.
    """
    documents = (
        modification(model, recipe.family, made_at=made_at),
        protocol(model, recipe, made_at=made_at, schedule=schedule),
        impact(model, recipe, made_at=made_at, run=run),
    )
    return tuple(path for document in documents for path in write_document(document, folder))


__all__ = ["write_plan"]

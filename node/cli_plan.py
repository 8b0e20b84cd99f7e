"""The command `nadir models plan`: what may be changed of a model, how, and what a change does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database
from node.flags import load_settings
from plugins.errors import Refused

if TYPE_CHECKING:
    from sqlmodel import Session

    from models.shipped import Model
    from node.retraining import RetrainSettings
    from training.plan.protocol import Settings

LARGEST_ROW = 2**63 - 1
"""The largest number that a row of SQL can have."""
RunNumber = Annotated[
    int | None,
    typer.Option(
        "--run",
        min=1,
        max=LARGEST_ROW,
        help="A run of retraining whose result is told.",
        show_default=False,
    ),
]


def plan(
    family: Annotated[str, typer.Argument(help="Model by its purpose: nodule_segmenter or petct_multitask.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the documents.")],
    run: RunNumber = None,
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write description of modifications, protocol and impact assessment of a model, as pages, PDF and JSON.

    They follow from the settings that a run uses. Laid out like a predetermined change control plan; for research use
    only, and no clearance is claimed. Without a node they are of the model of the release.
    """
    from dataclasses import replace

    from training.plan.plan import write_plan
    from training.recipe import FAMILIES

    settings = load_settings(config, {"home": home})
    if family not in FAMILIES:
        raise Refused(
            "unknown-family", f"nobody knows how to retrain '{family}'; known: {', '.join(FAMILIES)}"
        )
    recipe, schedule = settings.retrain.recipe(family), schedule_of(settings.retrain)
    told, counts = None, ""
    has_database = bool(settings.database_url) or (settings.home / "nadir.sqlite").is_file()
    if run is None and home is None and not has_database:
        model = _model(None, settings.home, family, counts)
    else:
        from training.plan.run import told_run

        with open_database(home, config) as database, database.transaction() as session:
            if run is not None:
                told = told_run(session, settings.home, family, run)
                counts = told.champion_sha256
                if told.verdict is not None:
                    recipe = replace(recipe, margins=told.verdict.margins)
            model = _model(session, settings.home, family, counts)
    paths = write_plan(model, recipe, out, made_at=datetime.now(UTC), schedule=schedule, run=told)
    if as_json:
        printing.print_json({"files": [str(path) for path in paths]})
        return
    for path in paths:
        printing.say(path)


def schedule_of(settings: RetrainSettings) -> Settings:
    """Return the settings that are no part of a recipe, with value and words, as the protocol tells them."""
    from training.recipe import Recipe

    known = {*Recipe.__dataclass_fields__, "data"}  # the recipe calls the folders of data `replay`
    plain = settings.model_dump(mode="json")
    return {
        name: (_words(plain[name]), field.description or "")
        for name, field in type(settings).model_fields.items()
        if name not in known
    }


def _words(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _model(session: Session | None, home: Path, family: str, sha256: str) -> Model:
    """Return the model of a hash, or the one that counts when it is empty. Refuses what is not as it was."""
    from datetime import date

    from models.files import BadModel
    from models.place import open_current
    from models.shipped import VOUCHED, open_model
    from store.registry import active, versions

    try:
        if session is None or sha256 == VOUCHED.get(family):
            return open_current(family)
        if not sha256:
            return open_current(family, active(session, home))
        for version in versions(session, family):
            if version.manifest_sha256 == sha256:
                return open_model(home / version.folder, {sha256}, date.min)
    except BadModel as bad:
        raise Refused(bad.code, bad.sentence) from bad
    raise Refused("no-such-model", f"the model {sha256[:12]} of {family} is not here any more")


__all__ = ["plan", "schedule_of"]

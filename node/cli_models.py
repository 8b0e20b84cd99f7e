"""The command `nadir models ...`: which learned models there are, which count, and their files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node import printing
from node.cli_author import Author, Note, who
from node.cli_labels import labels
from node.cli_options import AsJson, Config, Home, open_database
from node.flags import load_settings
from node.model_lines import print_decisions, print_model, print_models

if TYPE_CHECKING:
    from node.model_view import Entry

models_app = typer.Typer(help="Learned models: which there are, and which count.", no_args_is_help=True)
models_app.command("labels")(labels)
Family = Annotated[
    str, typer.Argument(help="Which model by its purpose: nodule_segmenter, petct_multitask, ...")
]


@models_app.command("list")
def models_list(
    family: Annotated[
        str | None, typer.Argument(help="Only this family: nodule_segmenter, ...", show_default=False)
    ] = None,
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the models of the release and those made here: which counts, which wait for a person, which do not.

    Of one family also who decided what, oldest first.
    """
    with open_database(home, config) as database:
        from node import model_view

        with database.reading() as session:
            found = model_view.entries(session, family)
            past = [] if family is None else model_view.decisions(session, family, found)
    if as_json:
        printing.print_json([model_view.plain(entry) for entry in found])
    else:
        print_models(found)
        print_decisions(past)


@models_app.command("show")
def models_show(
    family: Family,
    number: Annotated[str, typer.Argument(help="Its number in the list, or 'shipped'.")],
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show what is known of a model: what it learned from, what the gate said, who approved it, what results say."""
    with open_database(home, config) as database:
        from node import model_view

        settings = load_settings(config, {"home": home})
        with database.reading() as session:
            told = model_view.details(session, settings, family, _number(number))
    if as_json:
        printing.print_json(told)
    else:
        print_model(told)


@models_app.command("approve")
def models_approve(
    family: Family,
    number: Annotated[int, typer.Argument(help="Its number in the list.", min=1)],
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a model count from now on: the next job uses it, also in a node that runs.

    Only one that the gate proposed, whose files are as they were judged, and that was judged against the model that
    counts now.
    """
    from node import model_decision

    with open_database(home, config) as database:
        settings = load_settings(config, {"home": home})
        made = model_decision.approve(database, settings, family, number, author=who(author), note=note)
    _print_decided(family, made, as_json)


@models_app.command("rollback")
def models_rollback(
    family: Family,
    to_release: Annotated[
        bool, typer.Option("--shipped", help="To the model of the release at once, however many lie between.")
    ] = False,
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let the model count again that counted before the present one was approved; once more goes further back."""
    from node import model_decision

    with open_database(home, config) as database:
        settings = load_settings(config, {"home": home})
        made = model_decision.rollback(
            database, settings, family, author=who(author), note=note, to_release=to_release
        )
    _print_decided(family, made, as_json)


def _print_decided(family: str, entry: Entry | None, as_json: bool) -> None:
    """Print which model counts from now on."""
    if as_json:
        from node import model_view

        printing.print_json(entry and model_view.plain(entry))
    elif entry is None:
        printing.say(f"no {family} counts from now on: none comes with the release")
    else:
        said = f"{family} {entry.number} (version {entry.version}) counts from now on"
        printing.say(f"{said}; 'nadir models list {family}' shows who decided what")


def _number(said: str) -> int | str:
    return int(said) if said.isdecimal() else said


@models_app.command("verify")
def models_verify(
    folder: Annotated[Path, typer.Argument(help="Folder of one model, with its manifest.json.")],
    trust: Annotated[
        list[str],
        typer.Option(help="sha256 of a manifest that you vouch for (repeatable).", show_default=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Hold every file of a model against its manifest, and the manifest against what you vouch for; load nothing."""
    from models.files import BadModel, verify
    from plugins.errors import Refused

    try:
        manifest = verify(folder, trust, datetime.now(UTC).date())
    except BadModel as bad:
        raise Refused(bad.code, bad.sentence) from bad
    if as_json:
        printing.print_json({"name": manifest.name, "version": manifest.version, "sha256": manifest.sha256})
    else:
        printing.say(f"{manifest.name} {manifest.version}: {len(manifest.files)} files as the manifest says")


@models_app.command("hash")
def models_hash(
    folder: Annotated[Path, typer.Argument(help="Folder of a MONAI bundle, an nnU-Net or other model.")],
    as_json: AsJson = False,
) -> None:
    """Tell the sha256 of a folder, for the setting `trusted` of an adapter; nothing in it is run."""
    from models.files import BadModel
    from models.tree import tree_sha256
    from plugins.errors import Refused

    try:
        sha256 = tree_sha256(folder)
    except BadModel as bad:
        raise Refused(bad.code, bad.sentence) from bad
    if as_json:
        printing.print_json({"folder": str(folder), "sha256": sha256})
    else:
        printing.say(sha256)

"""What several commands share: options, and the database of a node that exists."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.flags import load_settings
from node.rows_place import require_no_node, require_own_place
from plugins.errors import Refused

if TYPE_CHECKING:
    from models.place import Places
    from store.database import Database

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the node, ~/.nadir by default.", show_default=False),
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).", show_default=False)]
HomeOfModels = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Folder of a node: with the models that count there, else with those of the release.",
        show_default=False,
    ),
]
TlsFile = Annotated[Path | None, typer.Option(help="PEM file, as the setting.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value for a program to read.")]

MOST_LISTED = 200
"""Rows of a table that would hold the whole history, when nobody asks for more."""


def newest_option(said: str) -> Any:
    """Return the option `--at-most` of a list whose table ends at the newest, given its words of help."""
    return typer.Option(min=1, max=2**31 - 1, help=said, show_default=False)


def models_of(home: Path | None, config: Path | None) -> Places:
    """Return the models that count in the node that is named by flag, settings file or environment; none without one.

    Refuses `no-database` when the flag names a folder without a node.
    """
    settings = load_settings(config, {"home": home})
    has_database = bool(settings.database_url) or (settings.home / "nadir.sqlite").is_file()
    is_named = settings.model_fields_set & {"home", "database_url"}
    if home is None and not (is_named and has_database):
        return {}
    with open_database(home, config) as database, database.reading() as session:
        from store.registry import active

        return active(session, settings.home)


def end(*, ok: bool) -> None:
    """End the command with status 1 unless all is well."""
    if not ok:
        raise typer.Exit(1)


def operator() -> str:
    """Return who runs the command, as the system knows them."""
    try:
        return f"{getpass.getuser()} at the command line"
    except (KeyError, OSError):
        return "the command line"


def tell_exported(
    database: Database,
    home: Path | None,
    config: Path | None,
    what: str,
    whose: Iterable[tuple[str, str]] = (),
) -> None:
    """Tell the audit trail that who runs the command takes data away; `whose` are issuers and PatientIDs."""
    from node import audit_events
    from node.audit import named
    from store import audit

    settings = load_settings(config, {"home": home})
    message = audit_events.exported(operator(), "", what, named(settings, whose))
    with database.transaction() as session:
        now = database.now()
        audit.append(session, [(now, message.xml(now, settings.ae_title))])


@contextmanager
def open_database(home: Path | None, config: Path | None) -> Iterator[Database]:
    """Give the database of a node that exists already, brought up to date when a newer version reads it first.

    Refuses `no-database` and `other-database`: the rows of this home are in another one.
    """
    settings = load_settings(config, {"home": home})
    url = settings.sql_url
    if not settings.database_url and not (settings.home / "nadir.sqlite").is_file():
        require_no_node(settings.home)
        raise Refused("no-database", f"there is no node in {settings.home}; name its folder with --home")
    from store.database import Database

    database = Database(url)
    try:
        if not database.is_current():
            if database.is_empty():
                require_own_place(settings, database.where)
            database.upgrade()
        yield database
    finally:
        database.dispose()

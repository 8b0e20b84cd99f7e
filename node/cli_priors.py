"""The commands `nadir priors ...`: which earlier studies were asked for, where, and what came of it."""

from __future__ import annotations

from typing import Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database

priors_app = typer.Typer(help="Patients' earlier studies.", no_args_is_help=True)
COLUMNS = {
    "for_study": "for study",
    "source": "from",
    "study_instance_uid": "earlier study",
    "state": "state",
    "attempt": "tries",
    "error_text": "reason",
}


@priors_app.command("list")
def priors_list(
    home: Home = None,
    config: Config = None,
    state: Annotated[
        str | None, typer.Option(help="Only waiting, done or parked ones.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the searches for earlier studies, after each what it found, oldest first."""
    with open_database(home, config) as database:
        from store.priors import listed

        with database.reading() as session:
            rows = listed(session, state)
    if as_json:
        printing.print_json(rows)
    else:
        printing.print_table(rows, COLUMNS, numbers=("attempt",), wrapped=("error_text",))


@priors_app.command("retry")
def priors_retry(home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Ask again for everything that is parked."""
    with open_database(home, config) as database:
        from store.priors import retry_parked

        with database.transaction() as session:
            count = retry_parked(session, database.now())
    if as_json:
        printing.print_json({"asked_again": count})
    else:
        printing.say(f"{count} asked for again")

"""The commands `nadir priors ...`: which earlier studies were asked for, where, and what came of it."""

from __future__ import annotations

from typing import Annotated

import typer

from node import printing
from node.cli_options import MOST_LISTED, AsJson, Config, Home, newest_option, open_database

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
    at_most: Annotated[
        int | None,
        newest_option(f"So many of the newest searches; {MOST_LISTED}, with --json all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the searches for earlier studies, after each what it found, oldest first; the table has the newest."""
    most = at_most or (None if as_json else MOST_LISTED)
    with open_database(home, config) as database:
        from store.priors import how_many, listed

        with database.reading() as session:
            rows = listed(session, state, most)
            total = how_many(session, state)
    if as_json:
        printing.print_json(rows)
    else:
        printing.print_table(rows, COLUMNS, numbers=("attempt",), wrapped=("error_text",))
        printing.complain_of_more(total - (most or total), "searches")


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

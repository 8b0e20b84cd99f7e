"""The commands `nadir pulls ...`: the studies of which the PACS told, and what became of each."""

from __future__ import annotations

from typing import Annotated

import typer

from node import printing
from node.cli_options import MOST_LISTED, AsJson, Config, Home, newest_option, open_database

pulls_app = typer.Typer(help="Studies of which the PACS told.", no_args_is_help=True)
COLUMNS = {"study_instance_uid": "study", "state": "state", "attempt": "tries", "error_text": "reason"}


@pulls_app.command("list")
def pulls_list(
    home: Home = None,
    config: Config = None,
    state: Annotated[
        str | None, typer.Option(help="Only waiting, pulled or parked ones.", show_default=False)
    ] = None,
    at_most: Annotated[
        int | None,
        newest_option(f"So many of the newest; {MOST_LISTED}, with --json all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the studies of which the PACS told, those that were told last at the end; the table has the newest."""
    most = at_most or (None if as_json else MOST_LISTED)
    with open_database(home, config) as database:
        from store.pulls import how_many, listed

        with database.reading() as session:
            rows = listed(session, state, most)
            total = how_many(session, state)
    if as_json:
        printing.print_json(rows)
    else:
        printing.print_table(rows, COLUMNS, numbers=("attempt",), wrapped=("error_text",))
        printing.complain_of_more(total - len(rows), "studies")


@pulls_app.command("retry")
def pulls_retry(home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Fetch again every study that was given up."""
    with open_database(home, config) as database:
        from store.pulls import retry_parked

        with database.transaction() as session:
            count = retry_parked(session, database.now())
    if as_json:
        printing.print_json({"asked_again": count})
    else:
        printing.say(f"{count} asked for again")

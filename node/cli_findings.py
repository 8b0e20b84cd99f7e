"""The command `nadir findings`: what was found and measured, out of SQL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node import printing
from node.cli_options import MOST_LISTED, AsJson, Config, Home, newest_option, open_database, tell_exported

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from store.database import Database


def findings(
    home: Home = None,
    config: Config = None,
    patient: Annotated[str | None, typer.Option(help="Only this PatientID.", show_default=False)] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one row a measurement.")] = False,
    as_json: AsJson = False,
    superseded: Annotated[bool, typer.Option(help="Also what a newer revision has replaced.")] = False,
    at_most: Annotated[
        int | None,
        newest_option(f"So many of the newest; {MOST_LISTED}, with --csv and --json all."),
    ] = None,
) -> None:
    """List what was found and measured, out of SQL: by patient and date, the newest findings alone in the table."""
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other")
    with open_database(home, config) as database:
        from store.findings import Wanted, finding_pks, how_many, whose

        wanted = Wanted(patient_id=patient, superseded=superseded)
        listed = replace(wanted, newest=at_most or (None if as_csv or as_json else MOST_LISTED))
        with database.reading() as session:
            pks, people = finding_pks(session, listed), whose(session, listed)
            total = how_many(session, wanted)
        kind = "CSV" if as_csv else "JSON" if as_json else "a table"
        tell_exported(database, home, config, f"findings as {kind}", people)
        rows = _rows(database, pks)
        if as_json:
            printing.print_json_rows(rows)
        elif as_csv:
            printing.print_csv(rows)
        else:
            printing.print_findings(rows)
            printing.complain_of_more(total - len(pks), "findings")


def _rows(database: Database, pks: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of findings, some hundreds at a time, each from a reading of its own.

    What is found while it runs is left out; what is superseded meanwhile is in it and says so.
    """
    from store.findings import rows_of, stretches

    for some in stretches(pks):
        with database.reading() as session:
            rows = rows_of(session, some)
        yield from rows


__all__ = ["findings"]

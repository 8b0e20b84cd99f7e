"""The command `nadir findings`: what was found and measured, out of SQL."""

from __future__ import annotations

from typing import Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database, tell_exported


def findings(
    home: Home = None,
    config: Config = None,
    patient: Annotated[str | None, typer.Option(help="Only this PatientID.", show_default=False)] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one row a measurement.")] = False,
    as_json: AsJson = False,
    superseded: Annotated[bool, typer.Option(help="Also what a newer revision has replaced.")] = False,
) -> None:
    """List what was found and measured, out of SQL."""
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other")
    with open_database(home, config) as database:
        from store.findings import list_findings

        with database.reading() as session:
            rows = list_findings(session, patient_id=patient, superseded=superseded)
        kind = "CSV" if as_csv else "JSON" if as_json else "a table"
        whose = {(row["issuer"], row["patient_id"]) for row in rows}
        tell_exported(database, home, config, f"findings as {kind}", whose)
    if as_json:
        printing.print_json(rows)
    elif as_csv:
        printing.print_csv(rows)
    else:
        printing.print_findings(rows)


__all__ = ["findings"]

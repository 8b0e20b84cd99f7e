"""The commands `nadir workitems ...`: what a worklist of the PACS asked for, how it stands, and ending one."""

from __future__ import annotations

from typing import Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database, operator
from node.flags import load_settings

workitems_app = typer.Typer(help="Tasks that a worklist of the PACS gave this node.", no_args_is_help=True)
Number = Annotated[
    int, typer.Argument(metavar="WORKITEM", min=1, max=2**31 - 1, help="Number of the workitem.")
]
COLUMNS = {
    "id": "workitem",
    "label": "label",
    "asked_for": "asks for",
    "study_instance_uid": "study",
    "state": "state",
    "progress": "%",
    "told": "how it stands",
}


@workitems_app.command("list")
def workitems_list(
    home: Home = None,
    config: Config = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="Only claiming, claimed, fetching, analysing, completing, cancelling, completed, cancelled, lost or "
            "forgotten ones.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the workitems and how they stand, the newest first."""
    with open_database(home, config) as database:
        from store.workitems import listed, shown

        with database.reading() as session:
            rows = [shown(row) for row in listed(session, state)]
    if as_json:
        printing.print_json(rows)
    else:
        told = [{**row, "asked_for": ", ".join(row["asked"])} for row in rows]
        printing.print_table(told, COLUMNS, numbers=("id", "progress"), wrapped=("told",))


@workitems_app.command("show")
def workitems_show(
    workitem: Number, home: Home = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Show one workitem."""
    with open_database(home, config) as database:
        from store.workitems import get, shown

        with database.reading() as session:
            row = shown(get(session, workitem))
    if as_json:
        printing.print_json(row)
        return
    for name, value in row.items():
        told = ", ".join(value) if isinstance(value, list) else value
        printing.say(f"{name.replace('_', ' ')}: {'' if told is None else told}")


@workitems_app.command("cancel")
def workitems_cancel(
    workitem: Number,
    why: Annotated[
        str, typer.Option(help="The reason, as the worklist is told it.")
    ] = "It is no longer wanted.",
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Stop what only this workitem asked for, and tell the worklist that it is CANCELED."""
    settings = load_settings(config, {"home": home})
    with open_database(home, config) as database:
        from node import audit_events
        from store import audit
        from store.workitems import shown, stop

        with database.transaction() as session:
            now = database.now()
            told = f"{operator()} cancelled it: {why}"
            row = stop(session, workitem, now, reason="requested", told=told)
            subject = row.study_instance_uid or row.workitem_uid
            message = audit_events.operated(f"workitem {workitem} cancelled", subject, operator())
            audit.append(session, [(now, message.xml(now, settings.ae_title))])
            plain = shown(row)
    if as_json:
        printing.print_json(plain)
    else:
        printing.say(f"workitem {workitem} is being cancelled")

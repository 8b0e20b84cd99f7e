"""The commands `nadir jobs ...`: the ledger of analyses."""

from __future__ import annotations

from typing import Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database
from node.flags import load_settings
from plugins.errors import Refused

jobs_app = typer.Typer(help="The ledger of analyses.", no_args_is_help=True)
JobNumber = Annotated[int, typer.Argument(metavar="JOB", min=1, max=2**31 - 1, help="Number of the job.")]


@jobs_app.command("list")
def jobs_list(
    home: Home = None,
    config: Config = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="Only queued, running, delivering, done, dead or superseded ones.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the analyses and where they stand, oldest first."""
    with open_database(home, config) as database:
        from store.ledger import overview

        with database.reading() as session:
            rows = overview(session, state=state)
    if as_json:
        printing.print_json(rows)
    else:
        printing.print_jobs(rows)


@jobs_app.command("show")
def jobs_show(job: JobNumber, home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show one analysis with its reasons, results and deliveries."""
    from store.ledger import details

    with open_database(home, config) as database, database.reading() as session:
        row = details(session, job)
    if as_json:
        printing.print_json(row)
    else:
        printing.print_job(row)


@jobs_app.command("retry")
def jobs_retry(job: JobNumber, home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Put a dead analysis, or the parked deliveries of one, back into the queue."""
    with open_database(home, config) as database:
        from store import jobs, outbox
        from store.ledger import details

        with database.transaction() as session:
            now = database.now()
            deliveries = outbox.retry_parked(session, now, job_pk=job)
            if not deliveries:
                jobs.retry(session, job, now)
            row = details(session, job)
    if as_json:
        printing.print_json(row)
    else:
        what = f"{deliveries} deliveries of job {job} wait" if deliveries else f"job {job} waits"
        printing.say(f"{what} in the queue again")


@jobs_app.command("abandon")
def jobs_abandon(
    destination: Annotated[str, typer.Argument(help="AE@host:port or URL, as the ledger shows it.")],
    home: Home = None,
    config: Config = None,
    job: Annotated[
        int | None, typer.Option(help="Only the deliveries of this job.", min=1, show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give up what waits for a destination that was taken out of the settings; jobs that waited only for it are done.

    What was given up stays in the ledger as abandoned, with its time; the results themselves stay in the store.
    """
    from node.deliveries import key_of

    key = key_of(destination)
    settings = load_settings(config, {"home": home})
    if key in map(key_of, settings.destinations):
        raise Refused("destination-in-use", f"{key} is a destination of the settings: take it out first")
    with open_database(home, config) as database:
        from store import outbox

        with database.transaction() as session:
            count = outbox.abandon(session, key, database.now(), job_pk=job)
    if as_json:
        printing.print_json({"destination": key, "abandoned": count})
    else:
        printing.say(f"{count} deliveries to {key} are abandoned")

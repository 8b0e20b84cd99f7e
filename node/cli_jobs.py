"""The commands `nadir jobs ...`: the ledger of analyses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database

if TYPE_CHECKING:
    from sqlmodel import Session

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
    with open_database(home, config) as database, database.reading() as session:
        row = _details(session, job)
    if as_json:
        printing.print_json(row)
    else:
        printing.print_job(row)


@jobs_app.command("retry")
def jobs_retry(job: JobNumber, home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Put a dead analysis, or the parked deliveries of one, back into the queue."""
    with open_database(home, config) as database:
        from store import jobs, outbox

        with database.transaction() as session:
            now = database.now()
            deliveries = outbox.retry_parked(session, now, job_pk=job)
            if not deliveries:
                jobs.retry(session, job, now)
            row = _details(session, job)
    if as_json:
        printing.print_json(row)
    else:
        what = f"{deliveries} deliveries of job {job} wait" if deliveries else f"job {job} waits"
        printing.say(f"{what} in the queue again")


def _details(session: Session, job: int) -> dict[str, Any]:
    """Return what the ledger tells of a job, its destinations without passwords."""
    from node.pacs import without_credentials
    from store.ledger import details

    row = details(session, job)
    for delivery in row["deliveries"]:
        delivery["destination"] = without_credentials(delivery["destination"])
    return row

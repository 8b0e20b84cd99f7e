"""The commands `nadir jobs ...`: the ledger of analyses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node import printing
from node.cli_options import MOST_LISTED, AsJson, Config, Home, newest_option, open_database, operator
from node.flags import load_settings
from plugins.errors import Refused

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
            help="Only queued, running, delivering, done, dead, superseded or parked ones.",
            show_default=False,
        ),
    ] = None,
    at_most: Annotated[
        int | None,
        newest_option(f"So many of the newest; {MOST_LISTED}, with --json all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the analyses and where they stand, newest first (with --json oldest first)."""
    most = at_most or (None if as_json else MOST_LISTED)
    with open_database(home, config) as database:
        from store.ledger import how_many, overview

        with database.reading() as session:
            rows = overview(session, state, most)
            total = how_many(session, state)
    if as_json:
        printing.print_json(rows)
    else:
        printing.print_jobs(rows[::-1])
        printing.complain_of_more(total - len(rows), "jobs")


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


@jobs_app.command("rerun")
def jobs_rerun(job: JobNumber, home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Run an analysis that is done once more; its results supersede those before when it ends."""
    from store.rerun import rerun

    with _operating(home, config) as (session, now, tell):
        made = rerun(session, job, now, load_settings(config, {"home": home}).max_attempts)
        tell(f"job {job} is run again as job {made.id}", job)
    if as_json:
        printing.print_json({"job": job, "again": made.id})
    else:
        printing.say(f"job {made.id} runs the analysis of job {job} again")


OneJob = Annotated[
    int | None,
    typer.Argument(metavar="[JOB]", min=1, max=2**31 - 1, help="Number of the job.", show_default=False),
]
OfStudy = Annotated[
    str | None,
    typer.Option("--study", help="Study Instance UID, for all analyses of it.", show_default=False),
]


@jobs_app.command("park")
def jobs_park(job: OneJob = None, study: OfStudy = None, home: Home = None, config: Config = None) -> None:
    """Let an analysis, or a study with all its analyses, not run until it is unparked."""
    from store.parking import park_job, park_study

    _require_one(job, study)
    with _operating(home, config) as (session, now, tell):
        if study is not None:
            count = park_study(session, study, operator(), now)
            tell("study parked", study)
        elif job is not None:
            park_job(session, job, operator())
            tell(f"job {job} parked", job)
    printing.say(f"the study is parked with {count} jobs" if study is not None else f"job {job} is parked")


@jobs_app.command("unpark")
def jobs_unpark(job: OneJob = None, study: OfStudy = None, home: Home = None, config: Config = None) -> None:
    """Put an analysis, or all those of a study, back into the queue."""
    from store.parking import unpark_job, unpark_study

    _require_one(job, study)
    with _operating(home, config) as (session, now, tell):
        if study is not None:
            count = unpark_study(session, study, now)
            tell("study unparked", study)
        elif job is not None:
            unpark_job(session, job, now)
            tell(f"job {job} unparked", job)
    printing.say(f"{count} jobs wait in the queue again" if study is not None else f"job {job} waits again")


def _require_one(job: int | None, study: str | None) -> None:
    if (job is None) == (study is None):
        raise Refused("bad-command", "name either a job or --study with its Study Instance UID")


@contextmanager
def _operating(
    home: Path | None, config: Path | None
) -> Iterator[tuple[Session, datetime, Callable[[str, int | str], None]]]:
    """Give a transaction, its time, and how to tell the audit trail of what was done with a job or study."""
    from node import audit_events
    from store import audit
    from store.ledger import details

    settings = load_settings(config, {"home": home})
    with open_database(home, config) as database, database.transaction() as session:
        now = database.now()

        def tell(what: str, subject: int | str) -> None:
            study = subject if isinstance(subject, str) else details(session, subject)["study_instance_uid"]
            message = audit_events.operated(what, study, operator()).xml(now, settings.ae_title)
            audit.append(session, [(now, message)])

        yield session, now, tell


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
            outbox.require_delivery(session, key, job)
            count = outbox.abandon(session, key, database.now(), job_pk=job)
    if as_json:
        printing.print_json({"destination": key, "abandoned": count})
    else:
        printing.say(f"{count} deliveries to {key} are abandoned")

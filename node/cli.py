"""The command `nadir`: each command reads its settings, calls one function of the rooms, and prints what came back.

Exit status 0 only on success, 1 when something was refused or unreachable, 2 for a command line that is wrong.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.table import Table

from node.settings import Settings, parse_destination
from plugins.errors import Broken, NadirError, Refused

app = typer.Typer(
    name="nadir",
    help="A DICOM network node that measures tumours and follows them over time. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
jobs_app = typer.Typer(help="The ledger of analyses.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True, highlight=False)

Home = Annotated[
    Path | None, typer.Option("--home", help="Folder for bytes, SQL and temporary files.", show_default=False)
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a program to read.")]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="Only this analysis (repeatable).", show_default=False)
]


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("nadir-demo"),
    data: Annotated[
        Path | None, typer.Option(help="A real folder of DICOM instead of the phantom.", show_default=False)
    ] = None,
) -> None:
    """Send a phantom with known truth through the whole node and show truth beside measurement."""
    from node.demo import run_demo

    code = run_demo(folder, data=data, console=out)
    raise typer.Exit(code)


@app.command()
def serve(
    home: Home = None,
    config: Config = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="listener, worker, sender or web (repeatable); all when not given.", show_default=False
        ),
    ] = None,
    ae_title: Annotated[str | None, typer.Option(help="AE title of this node.", show_default=False)] = None,
    dicom_host: Annotated[
        str | None, typer.Option(help="Address of the DICOM port.", show_default=False)
    ] = None,
    dicom_port: Annotated[int | None, typer.Option(help="DICOM port.", show_default=False)] = None,
    http_host: Annotated[
        str | None, typer.Option(help="Address of the HTTP port.", show_default=False)
    ] = None,
    http_port: Annotated[int | None, typer.Option(help="HTTP port.", show_default=False)] = None,
    destination: Annotated[
        list[str] | None,
        typer.Option(
            help="Where results go: AE@host:port or a DICOMweb URL (repeatable).", show_default=False
        ),
    ] = None,
    caller: Annotated[
        list[str] | None,
        typer.Option(help="Who may send: AE, AE@address or *@address (repeatable).", show_default=False),
    ] = None,
    accept_any: Annotated[
        bool | None,
        typer.Option("--accept-any", help="Accept every AE title from everywhere.", show_default=False),
    ] = None,
    quiet_seconds: Annotated[
        float | None, typer.Option(help="Quiet time after which a study is whole.", show_default=False)
    ] = None,
    pacs_url: Annotated[
        str | None, typer.Option(help="DICOMweb root that studies are pulled from.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Jobs that run at one time.", show_default=False)
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL; SQLite in the home folder by default.", show_default=False),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", show_default=False)
    ] = None,
) -> None:
    """Run the node until it is told to stop (SIGTERM or Ctrl-C), then finish what is under way."""
    from node.serve import serve as run

    settings = Settings.load(
        config,
        home=home,
        ae_title=ae_title,
        dicom_host=dicom_host,
        dicom_port=dicom_port,
        http_host=http_host,
        http_port=http_port,
        destinations=tuple(destination) if destination else None,
        callers=tuple(caller) if caller else None,
        accept_any=accept_any,
        quiet_seconds=quiet_seconds,
        pacs_url=pacs_url,
        workers=workers,
        database_url=database_url,
        log_level=log_level,
    )
    run(settings, tuple(role or ()))


@app.command()
def send(
    path: Annotated[Path, typer.Argument(help="A DICOM file or a folder of them.")],
    to: Annotated[str, typer.Option("--to", help="AE@host:port.")],
    calling_ae: Annotated[str, typer.Option(help="Our AE title.")] = "NADIR",
    associations: Annotated[int, typer.Option(min=1, max=64, help="Associations at one time.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Send DICOM files by C-STORE and check the status of each."""
    from node.scu import send_files

    try:
        target = parse_destination(to)
    except ValueError as error:
        raise Refused("bad-destination", str(error)) from error
    if isinstance(target, str):
        raise Refused("bad-destination", f"'{to}' is a URL; send speaks C-STORE: write AE@host:port")
    ae_title, host, port = target
    files = _files(path)
    sent = send_files(
        files, ae_title=ae_title, host=host, port=port, calling_ae=calling_ae, associations=associations
    )
    failed = [s for s in sent if not s.ok]
    if as_json:
        _print_json({"sent": len(sent) - len(failed), "failed": [_sent(s) for s in failed]})
    else:
        for s in failed:
            err.print(f"nadir: {s.path.name}: {_sent(s)['reason']}", markup=False)
        out.print(f"{len(sent) - len(failed)} of {len(sent)} sent to {to}")
    if failed or not sent:
        raise typer.Exit(1)


@app.command()
def analyse(
    path: Annotated[
        Path, typer.Argument(help="A folder of DICOM files (one or several studies), or a file.")
    ],
    folder: Annotated[Path, typer.Option("--out", help="Folder for SEG, SR, pictures, CSV and page.")],
    plugin: Plugins = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Analyse a folder of DICOM as the node would, with files instead of the network."""
    from node.offline import analyse_folder

    settings = Settings.load(config)
    with err.status("analysing", spinner="dots"):
        report = analyse_folder(path, folder, settings, plugins=plugin)
    if as_json:
        _print_json(report)
    else:
        _print_findings(report)
    if report["failed"]:
        raise typer.Exit(1)


@app.command()
def measure(
    path: Annotated[Path, typer.Argument(help="The folder of DICOM images.")],
    mask: Annotated[Path, typer.Option("--mask", help="SEG, RTSTRUCT or NIfTI label image on those images.")],
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Measure the regions of a mask on a series of images."""
    from node.offline import measure_mask

    report = measure_mask(path, mask, Settings.load(config))
    if as_json:
        _print_json(report)
    else:
        _print_findings(report)
    if report["failed"]:
        raise typer.Exit(1)


@app.command()
def findings(
    home: Home = None,
    config: Config = None,
    patient: Annotated[str | None, typer.Option(help="Only this PatientID.", show_default=False)] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one row a measurement.")] = False,
    as_json: AsJson = False,
    superseded: Annotated[bool, typer.Option(help="Also what a newer revision has replaced.")] = False,
) -> None:
    """List every measurement in SQL."""
    from store.findings import list_findings

    database = _database(home, config)
    with database.reading() as session:
        rows = list_findings(session, patient_id=patient, superseded=superseded)
    if as_json:
        _print_json(rows)
    elif as_csv:
        _print_csv(rows)
    else:
        columns = ("patient_id", "study_date", "plugin", "label", "name", "value", "unit")
        _print_table(rows, columns, empty="no findings")


@jobs_app.command("list")
def jobs_list(
    home: Home = None,
    config: Config = None,
    state: Annotated[str | None, typer.Option(help="Only this state.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the analyses and where they stand."""
    from store import jobs

    with _database(home, config).reading() as session:
        rows = [_job(job) for job in jobs.list_jobs(session, state=state)]
    if as_json:
        _print_json(rows)
    else:
        _print_table(rows, ("id", "plugin", "state", "attempt", "error_code", "error_text"), empty="no jobs")


@jobs_app.command("show")
def jobs_show(job_id: int, home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show one analysis with its reasons, results and deliveries."""
    from store import jobs

    with _database(home, config).reading() as session:
        row = {**_job(jobs.get(session, job_id)), **jobs.details(session, job_id)}
    if as_json:
        _print_json(row)
    else:
        for name, value in row.items():
            out.print(f"{name}: {value}", markup=False)


@jobs_app.command("retry")
def jobs_retry(job_id: int, home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Put a dead analysis, or the parked deliveries of one, back into the queue."""
    from store import jobs, outbox

    database = _database(home, config)
    with database.transaction() as session:
        now = database.now()
        deliveries = outbox.retry_parked(session, now, job_pk=job_id)
        if not deliveries:
            jobs.retry(session, job_id, now)
        row = _job(jobs.get(session, job_id))
    if as_json:
        _print_json(row)
    else:
        what = f"{deliveries} deliveries of job {job_id} are" if deliveries else f"job {job_id} is"
        out.print(f"{what} queued again")


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="SEG and SR files; give an SR together with its SEG.")],
    as_json: AsJson = False,
) -> None:
    """Check SEG and SR files against the rules that viewers and PACS rely on."""
    from store.dicom.rules import check_files

    results = check_files(files)
    if as_json:
        _print_json(
            [
                {
                    "file": str(path),
                    "violations": [
                        {"rule": v.rule, "where": v.where, "sentence": v.sentence} for v in violations
                    ],
                }
                for path, violations in results
            ]
        )
    else:
        for path, violations in results:
            out.print(f"{path}: {'ok' if not violations else f'{len(violations)} violations'}", markup=False)
            for v in violations:
                out.print(f"  {v.rule} at {v.where}: {v.sentence}", markup=False)
    if any(violations for _, violations in results):
        raise typer.Exit(1)


@app.command()
def doctor(home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """Tell what is installed, reachable and writable, and whether a GPU is used."""
    from node.doctor import examine

    lines = examine(Settings.load(config, home=home))
    if as_json:
        _print_json([{"what": i.what, "ok": i.ok, "says": i.says} for i in lines])
    else:
        for i in lines:
            mark = "[green]ok  [/]" if i.ok else ("[red]FAIL[/]" if i.needed else "[yellow]no  [/]")
            out.print(f"{mark} {i.what}: {i.says}")
    if any(i.needed and not i.ok for i in lines):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; every error is one line that says what to do."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        err.print(f"nadir: {error.format_message()}", markup=False)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Refused as refusal:
        err.print(f"nadir: {refusal.sentence} ({refusal.code})", markup=False)
        sys.exit(1)
    except NadirError as error:
        err.print(f"nadir: {error}", markup=False)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("NADIR_DEBUG"):
            raise
        err.print(
            f"nadir: a fault of its own: {type(error).__name__}: {error} (NADIR_DEBUG=1 shows where)",
            markup=False,
        )
        sys.exit(70)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise Refused("no-such-path", f"{path} does not exist")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise Refused("no-files", f"{path} holds no files")
    return files


def _database(home: Path | None, config: Path | None) -> Any:
    from store.database import Database

    settings = Settings.load(config, home=home)
    if not settings.database_url and not (settings.home / "nadir.sqlite").exists():
        raise Refused("no-database", f"there is no node in {settings.home}; name its folder with --home")
    database = Database(settings.sql_url)
    database.upgrade()
    return database


def _job(job: Any) -> dict[str, object]:
    return dict(job.model_dump(mode="json"))


def _sent(sent: Any) -> dict[str, object]:
    return {"file": str(sent.path), "sop_instance_uid": sent.sop_instance_uid, "reason": sent.reason}


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str, allow_nan=False) + "\n")


def _print_csv(rows: Sequence[Mapping[str, object]]) -> None:
    from node.report.table import FIELDS, safe_cell

    writer = csv.writer(sys.stdout)
    writer.writerow(FIELDS)
    writer.writerows([safe_cell(row.get(field)) for field in FIELDS] for row in rows)


def _print_findings(report: Mapping[str, Any]) -> None:
    rows = [
        {
            "finding": f["label"],
            "plugin": f["plugin"],
            "measured": name,
            "value": m["value"],
            "unit": m["unit"],
        }
        for f in report["findings"]
        for name, m in f["measurements"].items()
    ]
    _print_table(rows, ("finding", "plugin", "measured", "value", "unit"), empty="nothing found")
    for refusal in report["refused"]:
        err.print(f"refused: {refusal['sentence']} ({refusal['code']})", markup=False)
    for path in report["outputs"]:
        out.print(path, markup=False)


def _print_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, empty: str) -> None:
    if not rows:
        out.print(empty)
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    out.print(table)


def _cell(value: object) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else escape(str(value))


__all__ = ["Broken", "app", "main"]

"""The command `nadir`: each command reads its settings, calls one function of the rooms, and prints what came back.

Exit status 0 only on success, 1 when something was refused or unreachable, 2 for a command line that is wrong, 70 for
a fault of Nadir's own, 130 when it was interrupted. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from node import printing
from node.cli_access import audit_app, tokens_app, users_app
from node.cli_backup import backup, restore
from node.cli_checks import check, doctor, fsck
from node.cli_curate import curate_app
from node.cli_curate_lidc import lidc
from node.cli_download import idc, tcia
from node.cli_drift import drift
from node.cli_help import arrange
from node.cli_init import init
from node.cli_jobs import jobs_app
from node.cli_lesions import lesions_app
from node.cli_models import models_app
from node.cli_options import AsJson, Config, Home, HomeOfModels, TlsFile, end, models_of, open_database
from node.cli_patients import patients_app
from node.cli_plan import plan
from node.cli_priors import priors_app
from node.cli_report import report
from node.cli_response import response
from node.cli_retrain import retrain, runs
from node.cli_segment import segment
from node.cli_studies import studies
from node.cli_training import evaluate, train
from node.cli_workitems import workitems_app
from node.flags import load_settings, with_setting_flags
from plugins.errors import NadirError, Refused

app = typer.Typer(
    name="nadir",
    help="A DICOM network node that measures tumours and follows them over time. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
curate_app.command()(lidc)
curate_app.command()(tcia)
curate_app.command()(idc)
models_app.command()(drift)
models_app.command()(plan)
models_app.command()(retrain)
models_app.command()(runs)
app.add_typer(curate_app, name="curate")
app.add_typer(jobs_app, name="jobs")
app.add_typer(lesions_app, name="lesions")
app.add_typer(models_app, name="models")
app.add_typer(patients_app, name="patients")
app.add_typer(priors_app, name="priors")
app.add_typer(workitems_app, name="workitems")
app.add_typer(users_app, name="users")
app.add_typer(tokens_app, name="tokens")
app.add_typer(audit_app, name="audit")
app.command()(init)
app.command()(backup)
app.command()(restore)
app.command()(check)
app.command()(doctor)
app.command()(fsck)
app.command()(segment)
app.command()(studies)
app.command()(response)
app.command()(report)
app.command()(train)
app.command()(evaluate)

Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="Only this analysis (repeatable).", show_default=False)
]


@app.callback(invoke_without_command=True)
def _common(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if show_version:
        printing.say(f"nadir {version('nadir')}")
        raise typer.Exit


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("nadir-demo"),
    data: Annotated[
        Path | None, typer.Option(help="A real folder of DICOM instead of the phantom.", show_default=False)
    ] = None,
) -> None:
    """Send a phantom with known truth through the whole node and show truth beside measurement."""
    from node.demo import run_demo

    raise typer.Exit(run_demo(folder, data=data, console=printing.console()))


@app.command()
@with_setting_flags
def serve(
    config: Config = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="listener, worker, sender, web or scheduler (repeatable); all when not given.",
            show_default=False,
        ),
    ] = None,
    **flags: Any,
) -> None:
    """Run the node until it is told to stop (SIGTERM or Ctrl-C), then finish what is under way.

    Every flag may also stand in the settings file (dicom_port = 11112) or in the environment
    (NADIR_DICOM_PORT=11112); a flag wins over the environment, and that over the file.
    """
    settings = load_settings(config, flags)
    from node.serve import serve as run

    run(settings, tuple(role or ()))


@app.command()
def send(
    path: Annotated[Path, typer.Argument(help="A DICOM file or a folder of them.")],
    to: Annotated[str, typer.Option("--to", help="AE@host:port.")],
    calling_ae: Annotated[str, typer.Option(help="Our AE title.")] = "NADIR",
    associations: Annotated[int, typer.Option(min=1, max=64, help="Associations at one time.")] = 1,
    by_tls: Annotated[bool, typer.Option("--tls", help="By TLS, as the tls_ settings say.")] = False,
    tls_certificate: TlsFile = None,
    tls_key: TlsFile = None,
    tls_ca: TlsFile = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Send DICOM files by C-STORE as they are, and check the status of each.

    Files in a folder that are not DICOM are passed over.
    """
    from node.send import send_folder
    from node.tls import client_context

    files = {"tls_certificate": tls_certificate, "tls_key": tls_key, "tls_ca": tls_ca}
    tls = client_context(load_settings(config, files)) if by_tls else None
    with printing.busy("sending"):
        sent = send_folder(path, to, calling_ae=calling_ae, associations=associations, tls=tls)
    if as_json:
        printing.print_json(sent)
    else:
        if sent["passed_over"]:
            printing.complain(f"nadir: {len(sent['passed_over'])} files that are not DICOM were passed over")
        for failed in sent["failed"]:
            printing.complain(f"nadir: {failed['file']}: {failed['reason']}")
        printing.say(f"{sent['sent']} of {sent['sent'] + len(sent['failed'])} sent to {to}")
    end(ok=not sent["failed"])


@app.command()
def analyse(
    path: Annotated[
        Path, typer.Argument(help="A folder of DICOM files (one or several studies), or a file.")
    ],
    folder: Annotated[Path, typer.Option("--out", help="Folder for SEG, SR, pictures, CSV and page.")],
    plugin: Plugins = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Also key images or a report as DICOM objects: capture, pdf (repeatable).",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="A point X,Y,Z in mm, LPS, at which a lesion is to be drawn (repeatable); then only that is done.",
            show_default=False,
        ),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="A folder with earlier studies of the patient and their results: lesions keep their identity.",
            show_default=False,
        ),
    ] = None,
    home: HomeOfModels = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Analyse a folder of DICOM as the node would, with files instead of the network.

    Results of an earlier run in the same folder are written over; nothing is deleted. Of several studies each has
    a folder of its own there. The exit status is 0 when every study has a result. The models are those of the release,
    or those that count in the node that --home, the settings file or the environment names.
    """
    settings = load_settings(config, {"home": home})
    from node.offline import analyse_folder
    from node.points import point_of

    how: dict[str, Any] = {
        "marks": [point_of(text) for text in at or ()],
        "prior": prior,
        "models": models_of(home, config),
    }
    with printing.busy("analysing"):
        report = analyse_folder(path, folder, settings, plugins=plugin, also=also or (), **how)
    _show(report, as_json)


@app.command()
def measure(
    path: Annotated[Path, typer.Argument(help="The folder of DICOM images.")],
    mask: Annotated[Path, typer.Option("--mask", help="SEG, RTSTRUCT or NIfTI label image on those images.")],
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Measure the regions of a mask on the images that they were drawn on."""
    settings = load_settings(config, {})
    from node.offline import measure_mask

    with printing.busy("measuring"):
        report = measure_mask(path, mask, settings)
    _show(report, as_json)


@app.command()
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
    if as_json:
        printing.print_json(rows)
    elif as_csv:
        printing.print_csv(rows)
    else:
        printing.print_findings(rows)


def main() -> None:
    """Run the command line; every error is one line that says what to do."""
    arrange(app)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        status = int(app(standalone_mode=False) or 0)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough; without this the interpreter would complain when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (typer.Abort, KeyboardInterrupt):
        status = 130
    except Exception as error:
        status = _told(error)
    if status == 130:
        printing.complain("nadir: interrupted")
    sys.exit(status)


def _told(error: Exception) -> int:
    """Print what went wrong in one line and return the exit status for it."""
    if os.environ.get("NADIR_DEBUG"):
        raise error
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        if said := error.format_message():  # no command at all has been answered with the help already
            how = f"{context.command_path if context else 'nadir'} --help"
            printing.complain(f"nadir: {said.rstrip('.')}; '{how}' shows how")
        return 2
    if isinstance(error, Refused):
        printing.complain(f"nadir: {error.sentence} ({error.code})")
        return 1
    if isinstance(error, NadirError):
        printing.complain(f"nadir: {error}")
        return 1
    if isinstance(error, OSError):
        printing.complain(f"nadir: {error.filename or 'the output'}: {error.strerror or error}")
        return 1
    kind = f"{type(error).__name__}: {error}"
    printing.complain(f"nadir: a fault of its own: {kind} (NADIR_DEBUG=1 shows where)")
    return 70


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        printing.print_json(report)
    else:
        printing.print_report(report)
    if report["failed"] or not as_json:
        printing.print_refused(report)
    end(ok=not report["failed"])

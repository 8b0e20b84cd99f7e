"""The command `nadir`: each command reads its settings, calls one function of the rooms, and prints what came back.

Exit status 0 only on success, 1 when something was refused or unreachable, 2 for a command line that is wrong, 70 for
a fault of Nadir's own, 130 when it was interrupted. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from node import printing
from node.cli_commands import Commands
from plugins.errors import NadirError, Refused

app = typer.Typer(
    name="nadir",
    cls=Commands,
    help="A DICOM network node that measures tumours and follows them over time. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _common(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if show_version:
        from importlib.metadata import version

        printing.say(f"nadir {version('nadir')}")
        raise typer.Exit


def main() -> None:
    """Run the command line; every error is one line that says what to do."""
    _open_streams()
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


def _open_streams() -> None:
    """Put the null device where a standard stream is closed.

    In this order each takes its own number, so that no file that is opened later stands in its place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - as long as the process
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


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
    from models.files import BadModel

    if isinstance(error, BadModel):
        printing.complain(f"nadir: {error.sentence} ({error.code})")
        return 1
    kind = f"{type(error).__name__}: {error}"
    printing.complain(f"nadir: a fault of its own: {kind} (NADIR_DEBUG=1 shows where)")
    return 70

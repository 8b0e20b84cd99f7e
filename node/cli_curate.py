"""The commands `nadir curate ...`: what others drew, brought into the form that models learn from."""

from __future__ import annotations

import typer

curate_app = typer.Typer(help="Data sets to learn from: made, divided, looked at.", no_args_is_help=True)


@curate_app.callback()
def _curate() -> None:
    """Keep the name of the group, however many commands there are."""

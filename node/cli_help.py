"""The help of the command line: paragraphs that flow with the screen, commands of a group in an order that helps."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import typer

ORDER = {
    "curate": ("tcia", "idc", "lidc", "rtstruct", "seg", "nifti", "split", "show"),
    "models": (
        *("list", "show", "approve", "rollback", "labels", "retrain", "runs", "plan", "drift"),
        *("verify", "hash"),
    ),
}
"""Commands of a group as they are shown; others come last, as they were registered."""


def arrange(app: typer.Typer, name: str) -> None:
    """Put the commands of a group in order, and let the lines of their docstrings flow."""
    order = ORDER.get(name, ())
    for command in app.registered_commands:
        assert command.callback is not None
        command.name = command.name or command.callback.__name__
        command.help = flowing(command.callback)
    app.registered_commands.sort(key=lambda one: order.index(one.name) if one.name in order else len(order))


def flowing(command: Callable[..., object]) -> str:
    """Return the docstring of a command as its help: paragraphs without the ends of their lines."""
    # A bracket would be markup.
    paragraphs = (inspect.getdoc(command) or "").replace("[", r"\[").split("\n\n")
    return "\n\n".join(" ".join(one.split()) for one in paragraphs)


__all__ = ["arrange", "flowing"]

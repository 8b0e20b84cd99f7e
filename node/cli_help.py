"""The help of the command line: paragraphs that flow with the screen, commands in an order that helps."""

from __future__ import annotations

import inspect

import typer

ORDER = {
    "nadir": (
        *(
            "demo",
            "init",
            "serve",
            "doctor",
            "fsck",
            "backup",
            "restore",
            "send",
            "analyse",
            "segment",
            "measure",
            "check",
        ),
        *("studies", "findings", "report", "response", "train", "evaluate"),
    ),
    "curate": ("tcia", "idc", "lidc", "rtstruct", "seg", "nifti", "split", "show"),
    "models": (
        *("list", "show", "approve", "rollback", "labels", "retrain", "runs", "plan", "drift"),
        *("verify", "hash"),
    ),
}
"""Commands of a group as they are shown; others come last, as they were registered."""


def arrange(app: typer.Typer, name: str = "nadir") -> None:
    """Put the commands of a group and of the groups in it in order, and let the lines of their docstrings flow."""
    order = ORDER.get(name, ())
    for command in app.registered_commands:
        told = inspect.getdoc(command.callback) if command.callback else None
        if told and command.callback:
            command.name = command.name or command.callback.__name__
            paragraphs = told.replace("[", r"\[").split("\n\n")  # a bracket would be markup
            command.help = "\n\n".join(" ".join(one.split()) for one in paragraphs)
    app.registered_commands.sort(key=lambda one: order.index(one.name) if one.name in order else len(order))
    for group in app.registered_groups:
        if group.typer_instance:
            arrange(group.typer_instance, str(group.name))


__all__ = ["arrange"]

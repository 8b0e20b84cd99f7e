"""The help of the command line: paragraphs that flow with the screen, commands of a group in an order that helps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

ORDER = {
    "curate": ("tcia", "idc", "lidc", "rtstruct", "seg", "nifti", "split", "show"),
    "models": (
        *("list", "show", "approve", "rollback", "labels", "retrain", "runs", "plan", "drift"),
        *("verify", "hash"),
    ),
}
"""Commands of a group as they are shown; others come last, as they were registered."""
SURROGATES = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes on a command line that are not UTF-8."""


class PlainCommand(TyperCommand):
    """A command whose help has no frames, in which long names of options would be cut, and whose text is text."""

    def __init__(self, *args: Any, **about: Any) -> None:
        super().__init__(*args, **{**about, "rich_markup_mode": None})

    def invoke(self, ctx: Any) -> Any:
        """Return what the command returns. Raises BadParameter for bytes that are no text; a path may be any."""
        for parameter in self.params:
            given = ctx.params.get(parameter.name)
            texts = given if isinstance(given, (list, tuple)) else [given]
            if any(isinstance(text, str) and SURROGATES.search(text) for text in texts):
                sentence = "this text is not UTF-8"
                raise typer.BadParameter(sentence, ctx=ctx, param=parameter)  # type: ignore[arg-type]
        return super().invoke(ctx)


def arrange(app: typer.Typer, name: str) -> None:
    """Put the commands of a group in order, and let the lines of their docstrings flow."""
    order = ORDER.get(name, ())
    for command in app.registered_commands:
        assert command.callback is not None
        command.name = command.name or command.callback.__name__
        command.help = flowing(command.callback)
        # In the list of a group a bracket would be markup.
        command.short_help = command.help.split("\n\n")[0].replace("[", r"\[")
        command.cls = PlainCommand
    app.registered_commands.sort(key=lambda one: order.index(one.name) if one.name in order else len(order))


def flowing(command: Callable[..., object]) -> str:
    """Return the docstring of a command as its help: paragraphs without the ends of their lines."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(one.split()) for one in paragraphs)


__all__ = ["PlainCommand", "arrange", "flowing"]

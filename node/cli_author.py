"""Who decides by a command, and why."""

from __future__ import annotations

from typing import Annotated

import typer

Author = Annotated[
    str | None, typer.Option(help="Who decides; the login name by default.", show_default=False)
]
Note = Annotated[str, typer.Option(help="Why, in words.")]


def who(author: str | None) -> str:
    """Return who decides: as it was said, else the login name; empty when that is not known."""
    if author is not None:
        return author
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return ""


__all__ = ["Author", "Note", "who"]

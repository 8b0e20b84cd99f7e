"""The command `nadir init`: four questions, and a settings file with the answers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from node import printing
from plugins.errors import Refused

QUESTIONS: dict[str, tuple[str, str]] = {
    "home": ("Folder for images, results and the database", str(Path("~") / ".nadir")),
    "callers": ("Who may send images? AE or AE@address, with commas; nothing for nobody yet", ""),
    "destinations": ("Where do results go? AE@host:port or a DICOMweb URL; nothing for nowhere yet", ""),
    "pacs_url": ("DICOMweb root of the PACS, for its viewer, its priors and its hook; nothing for none", ""),
}
"""What is asked, and the answer when nothing is typed, by the name of the setting."""
LISTS = ("callers", "destinations")


def init(
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("nadir.toml"),
    home: Annotated[
        str | None, typer.Option(help="Answer to the first question.", show_default=False)
    ] = None,
    callers: Annotated[str | None, typer.Option(help="To the second.", show_default=False)] = None,
    destinations: Annotated[str | None, typer.Option(help="To the third.", show_default=False)] = None,
    pacs_url: Annotated[str | None, typer.Option(help="To the fourth.", show_default=False)] = None,
    usual: Annotated[bool, typer.Option("--yes", help="Ask nothing: what is not given is as usual.")] = False,
) -> None:
    """Write a commented settings file from the answers to four questions.

    A wrong answer is told at once and asked again. Nothing else is changed; an existing file is never written over.
    """
    from node.settings_file import settings_text, write_settings

    if out.exists():
        raise Refused("file-there", f"{out} is there already; name another file with --out")
    given = {"home": home, "callers": callers, "destinations": destinations, "pacs_url": pacs_url}
    answers: dict[str, Any] = {"ae_title": "NADIR", "dicom_port": 11112}
    for name, (question, default) in QUESTIONS.items():
        said = default if given[name] is None and usual else given[name]
        answers[name] = _asked(name, question, default) if said is None else _checked(name, said)
    write_settings(out, settings_text(answers, out))
    config = shlex.quote(str(out))
    printing.say(f"written: {out}")
    printing.say(f"next: nadir doctor --config {config}, then nadir serve --config {config}")


def _asked(name: str, question: str, default: str) -> Any:
    while True:
        said = typer.prompt(question, default=default, show_default=bool(default))
        try:
            return _checked(name, said)
        except Refused as refused:
            printing.complain(refused.sentence)


def _checked(name: str, said: str) -> Any:
    """Return an answer as the setting holds it. Refuses `bad-settings` with the setting's own sentence."""
    from node.settings import Settings

    value: Any = [part.strip() for part in said.split(",") if part.strip()] if name in LISTS else said.strip()
    return getattr(Settings.load(None, **{name: value}), name)


__all__ = ["init"]

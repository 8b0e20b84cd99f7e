"""A command that is told of a folder without a node says so, and leaves the folder as it was."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from node.cli import app
from plugins.errors import Refused

ASKING = (
    "fsck",
    "backup backups",
    "studies",
    "studies --by teaching",
    "findings",
    "report --patient P1",
    "report --cohort",
    "response --patient P1",
    "jobs list",
    "jobs show 1",
    "jobs retry 1",
    "jobs rerun 1",
    "jobs park 1",
    "jobs unpark 1",
    "jobs abandon PACS@h:104",
    "lesions list --patient P1",
    "lesions relink --patient P1 --lesion 1 --study 1 --to 2",
    "lesions mark --patient P1 --lesion 1 --role target",
    "lesions reject --patient P1 --lesion 1",
    "lesions confirm --patient P1 --lesion 1",
    "lesions undo --patient P1 --choice 1",
    "lesions reference --patient P1 --study 1 --liver-mean 1",
    "lesions history --patient P1",
    "models list",
    "models show nodule_segmenter 1",
    "models approve nodule_segmenter 1",
    "models rollback nodule_segmenter",
    "models labels",
    "models retrain nodule_segmenter",
    "models runs",
    "models drift",
    "patients merge P1 P2",
    "patients part P1",
    "patients list",
    "pulls list",
    "pulls retry",
    "priors list",
    "priors retry",
    "workitems list",
    "workitems show 1",
    "workitems cancel 1",
    "users list",
    "users password ANNA",
    "users disable ANNA",
    "tokens list",
    "tokens revoke reader",
    "audit verify",
    "audit export",
)
OTHERS = {
    "init", "serve", "doctor", "restore", "analyse", "segment", "evaluate", "models plan",
    "users add", "tokens add",
}  # fmt: skip
"""What takes a home and needs no node: it makes one, or works without."""


def with_home(command: Any, *names: str) -> Iterator[str]:
    """Give each command that takes the folder of a node."""
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from with_home(command.get_command(context, name), *names, name)
    elif "home" in {parameter.name for parameter in command.get_params(typer.Context(command))}:
        yield " ".join(names)


def test_every_command_with_a_home_is_asked_here() -> None:
    for name in with_home(get_command(app)):
        assert name in OTHERS or any(f"{asked} ".startswith(f"{name} ") for asked in ASKING), name


@pytest.mark.parametrize("asked", ASKING)
def test_where_there_is_no_node_a_command_says_so_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "nowhere"
    done = CliRunner().invoke(app, [*shlex.split(asked), "--home", str(home)])
    assert isinstance(done.exception, Refused), (done.output, done.exception)
    assert done.exception.sentence == f"there is no node in {home}; name its folder with --home"
    assert list(tmp_path.iterdir()) == []

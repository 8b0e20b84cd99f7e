"""Every command of `nadir` and where it is found: its file is read when somebody asks for it, and no sooner."""

from __future__ import annotations

from collections import UserDict
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from node.cli_help import arrange

COMMANDS = {
    "demo": "cli_demo:demo",
    "init": "cli_init:init",
    "serve": "cli_serve:serve",
    "doctor": "cli_checks:doctor",
    "fsck": "cli_checks:fsck",
    "backup": "cli_backup:backup",
    "restore": "cli_backup:restore",
    "send": "cli_send:send",
    "analyse": "cli_offline:analyse",
    "segment": "cli_segment:segment",
    "measure": "cli_offline:measure",
    "check": "cli_checks:check",
    "studies": "cli_studies:studies",
    "findings": "cli_findings:findings",
    "report": "cli_report:report",
    "response": "cli_response:response",
    "train": "cli_training:train",
    "evaluate": "cli_training:evaluate",
    "curate": "cli_curate:curate_app",
    "jobs": "cli_jobs:jobs_app",
    "lesions": "cli_lesions:lesions_app",
    "models": "cli_models:models_app",
    "patients": "cli_patients:patients_app",
    "pulls": "cli_pulls:pulls_app",
    "priors": "cli_priors:priors_app",
    "workitems": "cli_workitems:workitems_app",
    "users": "cli_access:users_app",
    "tokens": "cli_access:tokens_app",
    "audit": "cli_access:audit_app",
}
"""Each command and group, as file and name in it, in the order of the help."""
JOINING = {
    "curate": ("cli_curate_lidc:lidc", "cli_download:tcia", "cli_download:idc"),
    "models": ("cli_drift:drift", "cli_plan:plan", "cli_retrain:retrain", "cli_retrain:runs"),
}
"""Commands of a group that have a file of their own."""


class Commands(TyperGroup):
    """The group `nadir`, which knows its commands by name."""

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.commands = _Found(COMMANDS)

    def invoke(self, ctx: Any) -> Any:
        """Return what a command returns. Raises RuntimeError for an EOFError, which Typer takes for an interruption."""
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise RuntimeError(f"something ended too early: {error}") from error


class _Found(UserDict[str, Any]):
    """The commands as Typer makes them, by name."""

    def __getitem__(self, name: str) -> Any:
        return _made(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a command, or the default for a name that there is not; a KeyError of a command's file is raised."""
        return _made(name) if name in self else default


@cache
def _made(name: str) -> Any:
    """Return a command, or a group with all of its commands."""
    found = _read(COMMANDS[name])
    if isinstance(found, TyperCommand):
        return found
    if isinstance(found, typer.Typer):
        for joining in JOINING.get(name, ()):
            found.command()(_read(joining))
        arrange(found, name)
        group = get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    arrange(alone, name)
    return get_command(alone)


def _read(place: str) -> Any:
    file, _, name = place.partition(":")
    return getattr(import_module(f"node.{file}"), name)


__all__ = ["Commands"]

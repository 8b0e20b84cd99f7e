"""One flag of the command line for each setting, so that a new setting has its flag at once."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

from node.cli_help import PlainCommand, flowing
from plugins.errors import Refused

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from node.settings import Settings

SINGULAR = {
    "destinations": "--destination",
    "callers": "--caller",
    "caller_certificates": "--caller-certificate",
    "http_names": "--http-name",
    "http_proxies": "--http-proxy",
    "priors_from": "--priors-from",
    "priors_modalities": "--priors-modality",
    "enabled": "--plugin",
    "plugins": "--plugin-setting",
    "delivery": "--delivery-setting",
    "commitment_callers": "--commitment-caller",
    "retrain": "--retrain-setting",
    "worklist": "--worklist-setting",
    "oidc": "--oidc-setting",
}
"""Flags that may be given several times are named for one of what they hold."""


class SettingsCommand(PlainCommand):
    """A command with a flag for each setting, in place of its `**flags`.

    The flags are made when they are asked for: loading the settings takes as long as all else of the help of `nadir`.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        super().__init__(function.__name__, help=flowing(function))
        self._function = function

    def get_params(self, ctx: Any) -> list[Any]:
        """Return its own parameters and those of the settings."""
        if self.callback is None:
            alone = typer.Typer(add_completion=False)
            alone.command()(_with_flags(self._function))
            whole = get_command(alone)
            self.params, self.callback = whole.params, whole.callback
        return super().get_params(ctx)


def load_settings(config: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Return the settings of file, environment and flags as `SettingsCommand` gives them. Refuses `bad-settings`."""
    from node.secrets import holds_password
    from node.settings import Settings
    from node.variables import foreign

    foreign()
    values = dict(flags)
    for name, value in values.items():
        if holds_password(value):
            how = f"give it in NADIR_{name.upper()}, NADIR_{name.upper()}_FILE or the settings file"
            raise Refused(
                "bad-settings", f"{name}: every user of this machine sees a password in a flag; {how}"
            )
    if pairs := values.pop("plugins", None):
        values["plugins"] = _nested(pairs, "plugin")
    if pairs := values.pop("delivery", None):
        values["delivery"] = _nested(pairs, "delivery")
    for group in ("retrain", "worklist", "oidc"):
        if pairs := values.pop(group, None):
            values[group] = _nested([f"{group}.{pair}" for pair in pairs], group)[group]
    return Settings.load(
        config, **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    )


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    from node.secrets import is_secret
    from node.settings import Settings

    fixed = [
        p
        for p in inspect.signature(command, eval_str=True).parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]
    # A secret as a flag would stand in the list of processes for everybody to read.
    offered = {name: field for name, field in Settings.model_fields.items() if not is_secret(field)}
    flags = [_parameter(name, field) for name, field in offered.items()]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*fixed, *flags)]
    # Typer reads a command's options from these two, and nothing else can tell it of options made at run time.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    flag = SINGULAR.get(name, f"--{name.replace('_', '-')}")
    kind = field.annotation
    description = field.description or ""
    annotation: Any
    if name in SINGULAR:
        words = {
            "plugins": "NAME.FIELD=VALUE: one setting of a plugin",
            "delivery": "DESTINATION.FIELD=VALUE: one setting of a destination",
            "retrain": "FIELD=VALUE: one setting of retraining",
            "worklist": "FIELD=VALUE: one setting of the worklist",
            "oidc": "FIELD=VALUE: one setting of the provider that says who people are",
        }.get(name, description)
        option = typer.Option(flag, help=f"{words} (repeatable).", show_default=False)
        annotation = Annotated[list[str] | None, option]
    elif kind is bool:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
        annotation = Annotated[bool | None, typer.Option(flag, help=f"{description}.", show_default=False)]
    else:
        option = typer.Option(flag, help=f"{description}{_default(field)}.", show_default=False)
        annotation = Annotated[typing.cast(Any, kind) | types.NoneType, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return ", ~/.nadir by default"
    default = field.default
    if isinstance(default, int) and default and default % (1 << 20) == 0:
        return f", {default >> 20} MiB by default"
    if isinstance(default, (int, float)):
        return f", {default:g} by default"
    return f", {default} by default" if default and isinstance(default, str) else ""


def _nested(pairs: Sequence[str], what: str) -> dict[str, dict[str, Any]]:
    """Return NAME.FIELD=VALUE as a mapping; a value is JSON where it can be, and text otherwise."""
    settings: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        # A destination's address has dots, the name of a plugin has none.
        name, dot, field = path.rpartition(".") if what == "delivery" else path.partition(".")
        if not (name and dot and field and equals):
            raise Refused("bad-settings", f"'{pair}' is not a {what} setting: write NAME.FIELD=VALUE")
        try:
            settings.setdefault(name, {})[field] = json.loads(value)
        except ValueError:
            settings.setdefault(name, {})[field] = value
    return settings

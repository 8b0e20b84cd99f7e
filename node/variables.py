"""Variables of the environment that look like settings and are none, so that a misspelt one is not passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from node.flags import SINGULAR
from node.secrets import has_file
from node.settings import Settings
from plugins.errors import Refused

PREFIX = "NADIR_"
OTHERS = {
    f"{PREFIX}{name}"
    for name in (
        "DEBUG", "FAILPOINT", "SECRETS_GROUP", "TEST_DATA", "TOKEN", "TOKEN_FILE", "URL", "VERSION",
    )
}  # fmt: skip
"""Variables of ours that are no settings: of the hook, of `compose.yaml`, of faults and tests."""
LIKENESS = 0.85
"""So like a setting a misspelt one is, and none that Kubernetes makes for a service (NADIR_SERVICE_HOST)."""


def foreign(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the `NADIR_` variables that are no setting, in order.

    Refuses `bad-settings` for one that is nearly the name of a setting, or the name of a flag.
    """
    fields = Settings.model_fields
    names = {name for field in fields.items() for name in _names(*field)}
    groups = tuple(f"{PREFIX}{name}__".upper() for name, field in fields.items() if _has_parts(field))
    flags = {_variable(flag.removeprefix("--")): _variable(name) for name, flag in SINGULAR.items()}
    given = sorted(os.environ if environment is None else environment)
    ours = [name for name in given if name.upper().startswith(PREFIX)]
    unknown = [n for n in ours if n.upper() not in names | OTHERS and not n.upper().startswith(groups)]
    for name in unknown:
        if meant := flags.get(name.upper()) or _nearest(name.upper(), names):
            raise Refused("bad-settings", f"{name}: there is no such setting; {meant} is the nearest")
    return unknown


def _nearest(unknown: str, names: set[str]) -> str:
    """Return the setting that a variable is most like, also one whose value no file may give; empty for none."""
    if (plain := unknown.removesuffix("_FILE")) in names:
        return plain
    return next(iter(get_close_matches(unknown, names, 1, LIKENESS)), "")


def _variable(name: str) -> str:
    return f"{PREFIX}{name}".replace("-", "_").upper()


def _names(name: str, field: FieldInfo) -> Iterator[str]:
    """Yield the variables that give a setting as a whole, its file, or one of its parts."""
    yield _variable(name)
    if has_file(name, field):
        yield _variable(f"{name}_file")
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        yield from (_variable(f"{name}__{part}") for part in field.annotation.model_fields)


def _has_parts(field: FieldInfo) -> bool:
    kind = get_origin(field.annotation) or field.annotation
    return isinstance(kind, type) and issubclass(kind, dict | BaseModel)


__all__ = ["foreign"]

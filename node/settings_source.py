"""The settings file as a source of settings, and what is said of what cannot be one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from node.secrets import hidden_in, require_private_settings
from plugins.errors import Refused

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def what_is_wrong(error: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> str:
    """Return in words what pydantic says of a setting, without its value; `fields` are all settings."""
    name = ".".join(map(str, error["loc"])) or "settings"
    if error["type"] == "extra_forbidden":
        known = _fields_of(fields.get(str(error["loc"][0]))) if len(error["loc"]) > 1 else ()
        there = f"; {'.'.join(map(str, error['loc'][:-1]))} has {', '.join(known)}" if known else ""
        return f"{name}: there is no such setting{there}"
    return f"{name}: {hidden_in(error['msg'].removeprefix('Value error, '))}"


def _fields_of(field: FieldInfo | None) -> tuple[str, ...]:
    """Return the names of the settings in a group, or in each table of one; none for any other setting."""
    kind = field.annotation if field is not None else None
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return tuple(one.model_fields)
    return ()


def not_json(said: str) -> str:
    """Return what pydantic-settings says of a variable that is no JSON, so that a person knows which it is."""
    field = re.search(r'field "(\w+)"', said)
    if field is None:
        return said
    name = f"NADIR_{field[1].upper()}"
    return f"{field[1]}: what {name} or a variable {name}__... holds is not JSON, as it has to be"


def with_file(cls: type[SettingsT], toml: Path) -> type[SettingsT]:
    """Return the settings class with a TOML file as its lowest source."""
    if not toml.is_file():
        raise Refused("bad-settings", f"the settings file {toml} does not exist")

    class WithFile(cls):  # type: ignore[valid-type,misc]
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            # Some editors begin a file with a byte order mark, which is no TOML.
            file = InitSettingsSource(settings_cls, tomllib.loads(toml.read_bytes().decode("utf-8-sig")))
            require_private_settings(toml, settings_cls.model_fields, file())
            return (*super().settings_customise_sources(settings_cls, *sources, **named), file)

    return WithFile


__all__ = ["not_json", "what_is_wrong", "with_file"]

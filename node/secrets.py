"""Secrets: which settings hold one, the files they may come from, and how they stay out of what is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from plugins.errors import Refused

LONGEST_BYTES = 1 << 16
WITH_PASSWORDS = ("database_url", "destinations", "pacs_url")
"""Settings that are no secret, and may hold a password in a URL."""
CREDENTIALS = re.compile(r"(?<=:)//(?:(?!/)[^,]*@|[^/@\s]*@)")
"""User and password up to the last @, whatever they hold; behind a comma another address begins."""
IN_A_SENTENCE = re.compile(r"(?<=:)//[^@\s']*@")


class Secret:
    """Marks a setting that is a secret as a whole: `Annotated[str, SECRET]`."""


SECRET = Secret()


def is_secret(field: FieldInfo) -> bool:
    """Return True for a setting that is marked."""
    return any(isinstance(mark, Secret) for mark in field.metadata)


def has_file(name: str, field: FieldInfo) -> bool:
    """Return True for a setting that may come out of the file that `NADIR_..._FILE` names."""
    return is_secret(field) or name in WITH_PASSWORDS


def hidden(value: Any) -> Any:
    """Return a value without the credentials of the URLs in it."""
    if isinstance(value, str):
        return CREDENTIALS.sub("//", value)
    if isinstance(value, Mapping):
        return {hidden(key): hidden(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(hidden(inner) for inner in value)
    return value


def hidden_in(sentence: str) -> str:
    """Return a sentence without the credentials of the URLs that it quotes."""
    return IN_A_SENTENCE.sub("//", sentence)


def holds_password(value: Any) -> bool:
    """Return True when a URL in it has a password; a user alone is no secret."""
    if isinstance(value, str):
        return any(":" in credentials for credentials in CREDENTIALS.findall(value))
    if isinstance(value, Mapping):
        return any(map(holds_password, (*value, *value.values())))
    return isinstance(value, list | tuple) and any(map(holds_password, value))


def read_secret(path: Path, what: str) -> str:
    """Return what a file holds, without the blanks around it and a byte order mark before it.

    Refuses `bad-secret-file`: it cannot be read, is empty or too long, or everybody on the machine may read it.
    """
    require_private(path, what)
    try:
        text = path.read_text(encoding="utf-8-sig")[: LONGEST_BYTES + 1].strip()
    except (OSError, ValueError) as error:
        raise Refused("bad-secret-file", f"the file {path} of {what} cannot be read") from error
    if not text or len(text) > LONGEST_BYTES:
        raise Refused("bad-secret-file", f"the file {path} of {what} is empty or too long")
    return text


def require_private(path: Path, what: str) -> None:
    """Return when not everybody on the machine may read a file. Refuses `bad-secret-file`."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise Refused("bad-secret-file", f"the file {path} of {what} cannot be read") from error
    if mode & 0o007:
        sentence = f"the file {path} holds a secret ({what}) and is open to everybody: chmod o-rwx {path}"
        raise Refused("bad-secret-file", sentence)


class SecretFiles(PydanticBaseSettingsSource):
    """Gives settings out of the files that `NADIR_..._FILE` names, as container platforms hand secrets over."""

    def __init__(
        self, settings_cls: type[BaseSettings], environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(settings_cls)
        self._environment = os.environ if environment is None else environment

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of one setting; None without a file. Refuses `bad-secret-file` and `bad-settings`."""
        name = f"{self.config.get('env_prefix', '')}{field_name}".upper()
        path = self._environment.get(f"{name}_FILE", "")
        if not path or not has_file(field_name, field):
            return None, field_name, False
        if self._environment.get(name):
            raise Refused("bad-settings", f"{name} and {name}_FILE are both set; keep one of them")
        return read_secret(Path(path), field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return every setting that has a file."""
        fields = self.settings_cls.model_fields.items()
        found = {name: self.get_field_value(field, name)[0] for name, field in fields}
        return {name: value for name, value in found.items() if value is not None}


def require_private_settings(path: Path, fields: Mapping[str, FieldInfo], values: Mapping[str, Any]) -> None:
    """Return when a settings file holds no secret, or not for everybody to read. Refuses `bad-secret-file`."""
    for name, value in values.items():
        field = fields.get(name)
        if value and ((field is not None and is_secret(field)) or holds_password(value)):
            require_private(path, name)


__all__ = [
    "SECRET",
    "SecretFiles",
    "has_file",
    "hidden",
    "hidden_in",
    "holds_password",
    "is_secret",
    "read_secret",
    "require_private",
    "require_private_settings",
]

"""A settings file to begin with: what was answered, and every other setting as a comment with its default."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from node.oidc_settings import OidcSettings
from node.secrets import is_secret
from node.settings import Settings
from plugins.errors import Refused, Unavailable
from store.secret_file import write_new

HEAD = """\
# Settings of a Nadir node: nadir serve --config {path}
# Each may also be given in the environment (ae_title is NADIR_AE_TITLE) or as a flag; a flag wins over the environment,
# and that over this file. Secrets are better kept out of here: NADIR_HOOK_TOKEN_FILE names a file that holds one.
# `nadir doctor --config {path}` tells what is missing and what to do next.
"""
TABLES = """\
# How each destination is served, one table a destination:
# [delivery."PACS@10.0.0.5:104"]
# tls = true                      # never plain instead
# results = ["pdf", "capture"]    # for viewers that show neither SEG nor SR
# commitment = "query"            # how it proves to keep what it got: auto, query or off

# Settings of an analysis, one table an analysis:
# [plugins.pet_lesion]
# threshold = "percist"

# When models are retrained, and of what:
# [retrain]
# families = ["nodule_segmenter"]
# cron = "0 2 * * 6"

# A provider that says who people are; people return from it to https://NODE/oidc/callback:
"""


def settings_text(answers: Mapping[str, Any], path: Path) -> str:
    """Return a settings file in TOML with these settings, and all others commented out with what they mean."""
    lines = [HEAD.format(path=path)]
    fields = Settings.model_fields.items()
    lines += [_entry(name, field, answers[name]) for name, field in fields if name in answers]
    secrets = ", ".join(name for name, field in fields if is_secret(field))
    lines.append(f"# Secrets, each a file that a variable as NADIR_HOOK_TOKEN_FILE names: {secrets}\n")
    lines.append("# Everything else but tables, with its default.\n")
    lines += [_comment(name, field) for name, field in fields if name not in answers and _is_plain(field)]
    return "\n".join([*lines, TABLES]) + _table("oidc", OidcSettings)


def write_settings(path: Path, text: str) -> None:
    """Write a new file that only its owner may read, whole or not at all. Refuses `file-there`; raises Unavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            raise FileExistsError
        write_new(path, text)
    except FileExistsError as error:
        raise Refused("file-there", f"{path} is there already; name another file with --out") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}") from error


def _is_plain(field: FieldInfo) -> bool:
    """Return False for what has a table of its own, and for secrets."""
    default = _default(field)
    return not is_secret(field) and not isinstance(default, dict) and not hasattr(default, "model_dump")


def _entry(name: str, field: FieldInfo, value: Any) -> str:
    return f"# {field.description}\n{name} = {_toml(value)}\n"


def _comment(name: str, field: FieldInfo) -> str:
    default = _default(field)
    shown = "..." if default is None else _toml(default)
    return f"# {field.description}\n# {name} = {shown}\n"


def _table(name: str, group: type[BaseModel]) -> str:
    """Return a group of settings as a table in comments, each field with its default and what it means."""
    entries = [_comment(one, field) for one, field in group.model_fields.items()]
    return f"# [{name}]\n" + "".join(entries)


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True, validated_data={})
    return None if default is PydanticUndefined else default


def _toml(value: Any) -> str:
    """Return a plain value as TOML writes it: for strings, numbers, booleans and lists of them as JSON does."""
    plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return json.dumps(plain, ensure_ascii=False)


__all__ = ["settings_text", "write_settings"]

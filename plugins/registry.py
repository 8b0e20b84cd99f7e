"""Which analyses are installed: found through one entry-point group, the built-in ones like any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

from plugins.contract import Plugin, plugin_settings
from plugins.errors import Refused

GROUP = "nadir.plugins"


def load_plugins(
    settings: Mapping[str, Mapping[str, object]] | None = None, names: Sequence[str] | None = None
) -> tuple[Plugin, ...]:
    """Return the installed plugins, by name, each made with its settings.

    `settings` maps a plugin's name to the values of its fields; `names` keeps only those plugins.
    Refuses (`unknown-plugin`, `broken-plugin`, `bad-plugin-settings`).
    """
    found = {e.name: e for e in sorted(entry_points(group=GROUP), key=lambda e: e.name)}
    wanted = list(found) if names is None else list(dict.fromkeys(names))
    for name in [*wanted, *(settings or {})]:
        if name not in found:
            raise Refused(
                "unknown-plugin", f"there is no plugin '{name}'; installed are: {', '.join(found) or 'none'}"
            )
    return tuple(_make(found[name], (settings or {}).get(name, {})) for name in wanted)


def _make(entry: EntryPoint, values: Mapping[str, object]) -> Plugin:
    try:
        factory = entry.load()
    except Exception as error:
        raise Refused(
            "broken-plugin", f"plugin '{entry.name}' ({entry.value}) cannot be loaded: {error}"
        ) from error
    try:
        plugin = factory(**values)
    except (TypeError, ValueError) as error:
        raise Refused(
            "bad-plugin-settings", f"plugin '{entry.name}' does not take these settings: {error}"
        ) from error
    if not isinstance(plugin, Plugin):
        raise Refused(
            "broken-plugin", f"plugin '{entry.name}' ({entry.value}) does not follow plugins.contract.Plugin"
        )
    return plugin


def config_sha256(plugin: Plugin) -> str:
    """Return the hash of a plugin's settings, equal for equal settings."""
    return hashlib.sha256(
        json.dumps(plugin_settings(plugin), sort_keys=True, default=str).encode()
    ).hexdigest()

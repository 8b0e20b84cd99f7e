"""Which analyses are there: found through one entry-point group, the built-in ones like any other.

A second group holds adapters, which make an analysis of a foreign model. Such an analysis is there when the settings
name it: `[plugins.spleen]` with `adapter = "monai_bundle"`, as often as there are models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points

from models.files import BadModel
from models.place import NOWHERE, UNREACHABLE, Places, open_current
from plugins.contract import Plugin, plugin_settings
from plugins.errors import Refused, Unavailable

GROUP = "nadir.plugins"
ADAPTERS = "nadir.adapters"
BROKEN = "broken-plugin"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What is installed and works, and what does not."""

    plugins: tuple[Plugin, ...]
    """The plugins, by name."""
    broken: tuple[Refused, ...]
    """Why each of the others cannot be used."""


def load_plugins(
    settings: Mapping[str, Mapping[str, object]] | None = None,
    names: Sequence[str] | None = None,
    models: Places = NOWHERE,
) -> tuple[Plugin, ...]:
    """Return the installed plugins, by name, each made with its settings.

    `settings` maps a plugin's name to the values of its fields; `names` keeps only those plugins. `models` are those
    made here that count: a plugin that uses their family gets them, held against their hashes, and no others instead.
    Refuses (`unknown-plugin`, `broken-plugin`, `bad-plugin-settings`, `changed-model`). Raises Unavailable when the
    folder of a model cannot be looked into.
    """
    return tuple(_make(entry, values, models) for entry, values in _wanted(settings, names))


def load_working(
    settings: Mapping[str, Mapping[str, object]] | None = None, names: Sequence[str] | None = None
) -> Loaded:
    """Return the plugins as `load_plugins` does, and beside them why some cannot be loaded.

    For a node, where one foreign plugin that is broken holds no other back. Refuses what the administrator wrote
    wrongly (`unknown-plugin`, `bad-plugin-settings`), and `broken-plugin` when none is left.
    """
    plugins, broken = [], []
    for entry, values in _wanted(settings, names):
        try:
            plugins.append(_make(entry, values))
        except Refused as refused:
            if refused.code != BROKEN:
                raise
            broken.append(refused)
    if broken and not plugins:
        raise broken[0]
    return Loaded(plugins=tuple(plugins), broken=tuple(broken))


def _wanted(
    settings: Mapping[str, Mapping[str, object]] | None, names: Sequence[str] | None
) -> list[tuple[EntryPoint, Mapping[str, object]]]:
    found = {e.name: e for e in sorted(entry_points(group=GROUP), key=lambda e: e.name)}
    adapted = {
        name: _adapter(name, v)
        for name, v in (settings or {}).items()
        if "adapter" in v and name not in found
    }
    wanted = [*found, *adapted] if names is None else list(dict.fromkeys(names))
    for name in [*wanted, *(settings or {})]:
        if name not in found and name not in adapted:
            installed = ", ".join([*found, *adapted]) or "none"
            raise Refused("unknown-plugin", f"there is no plugin '{name}'; installed are: {installed}")
    return [
        adapted[name] if name in adapted else (found[name], (settings or {}).get(name, {})) for name in wanted
    ]


def _adapter(name: str, values: Mapping[str, object]) -> tuple[EntryPoint, Mapping[str, object]]:
    """Return what makes a foreign model an analysis of this name, and its settings."""
    adapters = {e.name: e for e in entry_points(group=ADAPTERS)}
    entry = adapters.get(str(values["adapter"]))
    if entry is None:
        known = ", ".join(sorted(adapters)) or "none"
        raise Refused(
            "unknown-adapter", f"plugin '{name}' names no adapter that is installed; there are: {known}"
        )
    return entry, {**{key: value for key, value in values.items() if key != "adapter"}, "name": name}


def _make(entry: EntryPoint, values: Mapping[str, object], models: Places = NOWHERE) -> Plugin:
    try:
        factory = entry.load()
    except Exception as error:  # a border: foreign code may raise anything when it is imported
        raise _broken(entry, f"cannot be loaded: {error}") from error
    try:
        plugin: Plugin = factory(**values)
    except Exception as error:  # a border, likewise
        if values and isinstance(error, (TypeError, ValueError)):
            raise Refused(
                "bad-plugin-settings", f"plugin '{entry.name}' does not take these settings: {error}"
            ) from error
        raise _broken(entry, f"cannot be made: {_said(error)}") from error
    plugin = _with_models(plugin, values, models)
    try:
        is_plugin = isinstance(plugin, Plugin)
        plugin.model  # noqa: B018 - a property that may read a file
    except Exception as error:  # a border, likewise
        is_plugin, why = False, f"has no model that can be used: {_said(error)}"
    else:
        why = "does not follow plugins.contract.Plugin"
    if not is_plugin:
        raise _broken(entry, why)
    return plugin


def _with_models(plugin: Plugin, values: Mapping[str, object], models: Places) -> Plugin:
    """Return a plugin with those of the models that it uses, after each was opened once."""
    families: tuple[str, ...] = getattr(plugin, "families", ())
    if families and "models" in values:
        sentence = f"which models '{plugin.name}' uses is no setting; 'nadir models approve' decides it"
        raise Refused("bad-plugin-settings", sentence)
    used = {family: models[family] for family in families if family in models}
    for family in used:
        try:
            open_current(family, used)
        except BadModel as bad:
            if bad.code == UNREACHABLE:
                raise Unavailable(bad.sentence) from bad
            raise Refused("changed-model", bad.sentence) from bad
    return replace(plugin, models=used) if used else plugin  # type: ignore[type-var]


def _broken(entry: EntryPoint, why: str) -> Refused:
    return Refused(BROKEN, f"plugin '{entry.name}' ({entry.value}) {why}")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def config_sha256(plugin: Plugin) -> str:
    """Return the hash of a plugin's settings, equal for equal settings."""
    return hashlib.sha256(
        json.dumps(plugin_settings(plugin), sort_keys=True, default=str).encode()
    ).hexdigest()

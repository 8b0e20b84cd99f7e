"""Which analyses are there: found through one entry-point group, the built-in ones like any other.

A second group holds adapters, which make an analysis of a foreign model. Such an analysis is there when the settings
name it: `[plugins.spleen]` with `adapter = "monai_bundle"`, as often as there are models.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import TypeGuard

from models.files import BadModel
from models.place import NOWHERE, UNREACHABLE, Places, open_current
from plugins.contract import Plugin, plugin_settings
from plugins.errors import Refused, Unavailable

GROUP = "nadir.plugins"
ADAPTERS = "nadir.adapters"
BROKEN = "broken-plugin"
_PRINTING = threading.RLock()
"""Standard output is one for all threads: who puts another in its place has it alone."""
MODALITY = re.compile(r"[A-Z0-9 _]{1,16}")


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """An analysis before it is made."""

    name: str
    """Its name: of the entry point, or of its table in the settings when an adapter makes it."""
    entries: tuple[EntryPoint, ...]
    """What makes it; several when packages claim the same name."""
    values: Mapping[str, object]
    """The values of its fields."""


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
    return tuple(_make(wanted, models) for wanted in _wanted(settings, names))


def load_working(
    settings: Mapping[str, Mapping[str, object]] | None = None, names: Sequence[str] | None = None
) -> Loaded:
    """Return the plugins as `load_plugins` does, and beside them why some cannot be loaded.

    For a node, where one foreign plugin that is broken holds no other back. Refuses what the administrator wrote
    wrongly (`unknown-plugin`, `bad-plugin-settings`), and `broken-plugin` when none is left.
    """
    plugins, broken = [], []
    for wanted in _wanted(settings, names):
        try:
            plugins.append(_make(wanted))
        except Refused as refused:
            if refused.code != BROKEN:
                raise
            broken.append(refused)
    if broken and not plugins:
        raise broken[0]
    return Loaded(plugins=tuple(plugins), broken=tuple(broken))


def _wanted(
    settings: Mapping[str, Mapping[str, object]] | None, names: Sequence[str] | None
) -> list[_Wanted]:
    given = settings or {}
    known = {
        name: _Wanted(name=name, entries=entries, values=given.get(name, {}))
        for name, entries in _installed(GROUP).items()
    }
    known |= {name: _adapted(name, v) for name, v in given.items() if "adapter" in v and name not in known}
    wanted = list(known) if names is None else list(dict.fromkeys(names))
    for name in [*wanted, *given]:
        if name not in known:
            installed = ", ".join(known) or "none"
            raise Refused("unknown-plugin", f"there is no plugin '{name}'; installed are: {installed}")
    return [known[name] for name in wanted]


def _installed(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Return the entry points of a group by name, in its order; the same one of an editable install counts once."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in sorted(entry_points(group=group), key=lambda e: (e.name, e.value)):
        found.setdefault(entry.name, {}).setdefault(entry.value, entry)
    return {name: tuple(entries.values()) for name, entries in found.items()}


def _adapted(name: str, values: Mapping[str, object]) -> _Wanted:
    """Return a foreign model as an analysis of this name."""
    adapters = _installed(ADAPTERS)
    entries = adapters.get(str(values["adapter"]))
    if entries is None:
        known = ", ".join(adapters) or "none"
        raise Refused(
            "unknown-adapter", f"plugin '{name}' names no adapter that is installed; there are: {known}"
        )
    fields = {key: value for key, value in values.items() if key != "adapter"}
    return _Wanted(name=name, entries=entries, values={**fields, "name": name})


def _make(wanted: _Wanted, models: Places = NOWHERE) -> Plugin:
    entry, values = _only(wanted), wanted.values
    with _border(wanted, "cannot be loaded"):
        factory = entry.load()
    try:
        with _border(wanted, "cannot be made"):
            made: Plugin = factory(**values)
    except Refused as broken:
        if values and isinstance(error := broken.__cause__, (TypeError, ValueError)):
            raise Refused(
                "bad-plugin-settings", f"plugin '{wanted.name}' does not take these settings: {error}"
            ) from error
        raise
    _require_form(wanted, made, LISTS)
    plugin = _with_models(wanted, made, models)
    with _border(wanted, "tells no settings, as the fields of a dataclass do"):
        config_sha256(plugin)
    with _border(wanted, "has no model that can be used"):
        is_plugin = isinstance(plugin, Plugin)
        plugin.model  # noqa: B018 - a property that may read a file
    if not is_plugin:
        raise _broken(wanted, "does not follow plugins.contract.Plugin")
    _require_form(wanted, plugin, TEXTS)
    if plugin.name != wanted.name:
        raise _broken(wanted, f"calls itself '{plugin.name}': its 'name' must be '{wanted.name}'")
    return plugin


def _require_form(wanted: _Wanted, plugin: Plugin, forms: Mapping[str, _Form]) -> None:
    """Refuse (`broken-plugin`) what a plugin says of itself in another form than the contract's."""
    for what, (is_right, form) in forms.items():
        with _border(wanted, f"cannot say what its '{what}' is"):
            is_good = not hasattr(plugin, what) or is_right(getattr(plugin, what))
            why = "" if is_good else f"has {what} = {getattr(plugin, what)!r}, which is to be {form}"
        if why:
            raise _broken(wanted, why)


def _is_text(said: object) -> bool:
    return isinstance(said, str)


def _are_names(said: object) -> TypeGuard[Collection[str]]:
    return isinstance(said, Collection) and not isinstance(said, str) and all(map(_is_text, said))


def _are_modalities(said: object) -> bool:
    return said is None or (_are_names(said) and all(MODALITY.fullmatch(one) for one in said))


_Form = tuple[Callable[[object], bool], str]
"""Whether something has a form, and the form in words."""
TEXTS: Mapping[str, _Form] = {what: (_is_text, "a text") for what in ("name", "version", "title")}
LISTS: Mapping[str, _Form] = {
    "needs": (_are_modalities, "a tuple of modalities as images name them, such as ('CT',)"),
    "families": (_are_names, "a tuple of names"),
}


@contextmanager
def _border(wanted: _Wanted, what: str) -> Iterator[None]:
    """Let foreign code run, which may raise anything, and exit: all but Ctrl-C is `broken-plugin`.

    What it prints goes to standard error, as a command may owe its output to a program.
    """
    try:
        with _PRINTING, redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _broken(wanted, f"{what}: {_said(error)}") from error


def _only(wanted: _Wanted) -> EntryPoint:
    """Return the one entry point of an analysis. Refuses `broken-plugin` when several packages have it."""
    if len(wanted.entries) > 1:
        rivals = " and ".join(f"{e.dist.name if e.dist else '?'} ({e.value})" for e in wanted.entries)
        raise Refused(BROKEN, f"plugin '{wanted.name}' is claimed by {rivals}; uninstall all but one of them")
    return wanted.entries[0]


def _with_models(wanted: _Wanted, plugin: Plugin, models: Places) -> Plugin:
    """Return a plugin with those of the models that it uses, after each was opened once."""
    families: tuple[str, ...] = getattr(plugin, "families", ())
    if families and "models" in wanted.values:
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
    with _border(wanted, "cannot be given its models"):
        return replace(plugin, models=used) if used else plugin  # type: ignore[type-var]


def _broken(wanted: _Wanted, why: str) -> Refused:
    return Refused(BROKEN, f"plugin '{wanted.name}' ({wanted.entries[0].value}) {why}")


def _said(error: BaseException) -> str:
    """Return what an error says, and of a refusal where, unless it says so itself; how one exits or gives up."""
    said, kind = str(error), type(error).__name__
    if not isinstance(error, Exception):
        return f"{kind} ({said})" if said else kind
    said = said or kind
    where = error.where if isinstance(error, Refused) else None
    return f"{said} ({where})" if where and where not in said else said


def config_sha256(plugin: Plugin) -> str:
    """Return the hash of a plugin's settings, equal for equal settings."""
    return hashlib.sha256(
        json.dumps(plugin_settings(plugin), sort_keys=True, default=str).encode()
    ).hexdigest()

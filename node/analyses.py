"""The analyses of a node as they are now: as they were when it started, with the models that count at the moment."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import replace

from sqlmodel import Session

from models.place import ModelPlace, Places
from node.logs import line
from node.settings import Settings
from node.task import Identity
from plugins.errors import NadirError
from plugins.registry import load_plugins
from store.registry import active

log = logging.getLogger(__name__)


class Analyses:
    """Tells what each analysis is with the models that count; one small question a time, so a promotion shows at once.

    Parameters
    ----------
    settings
        Of the node.
    identities
        The analyses as they are with the models of the release.

    """

    def __init__(self, settings: Settings, identities: Iterable[Identity]) -> None:
        self._settings = settings
        self._released = {identity.plugin: identity for identity in identities}
        self._known: dict[tuple[str, frozenset[tuple[str, ModelPlace]]], Identity] = {}

    def places(self, session: Session) -> Places:
        """Return the models made here that count, by family."""
        return active(session, self._settings.home)

    def identity(self, plugin: str, places: Places) -> Identity | None:
        """Return an analysis with these models, None for one that is not installed or not enabled.

        Refuses and raises as `plugins.registry.load_plugins` does for a model that cannot be used.
        """
        if plugin not in self._released or not places:
            return self._released.get(plugin)
        key = (plugin, frozenset(places.items()))
        if key not in self._known:
            (made,) = load_plugins(self._settings.plugins, (plugin,), places)
            self._known[key] = Identity.of(made)
        return self._known[key]

    def present(self, session: Session) -> tuple[Identity, ...]:
        """Return every analysis with the models that count now.

        Where a model cannot be used a stand-in asks for the work: no study is lost, and its job says what is wrong.
        """
        places = self.places(session)
        return tuple(self._present(released, places) for released in self._released.values())

    def _present(self, released: Identity, places: Places) -> Identity:
        try:
            return self.identity(released.plugin, places) or released
        except NadirError as error:
            log.error(line("model-not-usable", plugin=released.plugin, error=str(error)))
            wanted = json.dumps(
                [released.config_sha256, {family: place.sha256 for family, place in places.items()}],
                sort_keys=True,
            )
            return replace(released, config_sha256=hashlib.sha256(wanted.encode()).hexdigest())


__all__ = ["Analyses"]

"""The loops of a node that a worklist drives: one claims and tells, one fetches input, one hears events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from node.audit import Audit
from node.intake import Intake
from node.prior_sources import PriorSource, open_source
from node.receipts import Receipts
from node.settings import Settings
from node.tls_renewed import calling_to
from node.ups_rs import Worklist
from node.workitem_choice import installed
from node.workitem_events import Events
from node.workitem_input import InputFetcher
from node.workitems import Performer
from store.database import Database
from store.objects import ObjectStore

IDLE_SECONDS = 1.0


class Performing:
    """What works off the worklist of the settings.

    Parameters
    ----------
    settings, database, objects, intake
        Of the node.
    owner
        Name of this process: only one works off a worklist at a time.
    audit
        The trail that is told what input came.

    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        objects: ObjectStore,
        intake: Intake,
        *,
        owner: str,
        audit: Audit | None = None,
    ) -> None:
        listed = settings.worklist
        tls = calling_to(settings, listed.address)
        self._worklists = [
            Worklist(listed.address, settings.ae_title, events_url=listed.events_url, tls=tls)
            for _ in range(2)
        ]
        self._sources: list[PriorSource] = []
        for address in settings.input_sources:
            self._sources.append(open_source(address, settings, objects, tls=calling_to(settings, address)))
        known = installed(settings)
        self._performer = Performer(database, self._worklists[0], settings, known=known, owner=owner)
        self._fetcher = InputFetcher(
            database,
            intake,
            self._sources,
            worklist=settings.worklist.url,
            owner=owner,
            receipts=Receipts(audit, settings.ae_title, is_asked=True),
        )
        self._events: Events | None = None
        if settings.worklist.events or settings.worklist.triggered:
            new = self._performer.look_now
            self._events = Events(database, self._worklists[1], settings, something_new=new)
        self.ticks: list[tuple[str, Callable[[datetime], bool], float]] = [
            ("worklist", self._performer.tick, min(IDLE_SECONDS, settings.worklist.seconds)),
            ("worklist input", self._fetcher.tick, IDLE_SECONDS),
        ]
        if self._events is not None:
            self.ticks.append(("worklist events", self._events.tick, IDLE_SECONDS))

    def interrupt(self) -> None:
        """Let what is under way end soon; it is taken up again after the next start."""
        self._fetcher.interrupt()
        if self._events is not None:
            self._events.interrupt()

    def close(self) -> None:
        """Leave the worklist to whoever comes next, and close the connections."""
        self._performer.give_back()
        self._fetcher.give_back()
        for worklist in self._worklists:
            worklist.close()
        for source in self._sources:
            source.close()


__all__ = ["Performing"]

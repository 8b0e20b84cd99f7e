"""A node that delivers, asks whether what it delivered is kept, and takes reports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from small_node import SmallNode
from sqlmodel import select

from node.confirmer import Confirmer
from node.deliveries import DeliverySettings
from node.listener import Listener
from node.reporters import Reporters
from node.sender import Sender
from node.settings import Settings
from store.tables import Delivery, Event

AT_ONCE = DeliverySettings(confirm_seconds=0)


class Rig:
    """A node of a sender, a confirmer and a listener, and one destination."""

    def __init__(
        self, folder: Path, destination: str, port: int, settings: DeliverySettings, path: str
    ) -> None:
        self.small = SmallNode.make(folder)
        self.settings = Settings(
            destinations=(destination,), delivery={destination: settings}, home=folder, ae_title="NADIR"
        )
        self.listener = Listener(
            self.small.database,
            self.small.objects,
            host="127.0.0.1",
            port=port,
            receive_path=path,
            reporters=Reporters(self.small.database, self.settings),
        )
        self.sender = Sender(self.small.database, self.small.objects, destination, settings=settings)
        self.confirmer = Confirmer.of(self.small.database, destination, settings, calling_ae="NADIR")
        self.now = self.small.database.now()

    def deliver(self, after: timedelta = timedelta(0)) -> None:
        self.now = max(self.now, self.small.database.now()) + after
        while self.sender.tick(self.now):
            pass

    def confirm(self, after: timedelta = timedelta(seconds=1)) -> None:
        self.now += after
        self.confirmer.tick(self.now + timedelta(seconds=60))

    def rows(self) -> list[Delivery]:
        with self.small.database.reading() as session:
            return list(session.exec(select(Delivery).order_by(Delivery.id)))  # type: ignore[arg-type]

    def states(self) -> list[str]:
        return [row.state for row in self.rows()]

    def wait_for(self, states: list[str], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while self.states() != states:
            assert time.monotonic() < deadline, [(r.state, r.confirm_error) for r in self.rows()]
            time.sleep(0.05)

    def events(self) -> list[tuple[str, str]]:
        return [(e.kind, e.subject) for e in self.small.rows(Event)]


@contextmanager
def rig(
    folder: Path, destination: str, *, port: int = 0, settings: DeliverySettings = AT_ONCE, path: str = "fast"
) -> Iterator[Rig]:
    made = Rig(folder, destination, port, settings, path)
    made.listener.start()
    try:
        yield made
    finally:
        made.listener.stop()
        made.sender.close()
        made.confirmer.close()
        made.small.database.dispose()

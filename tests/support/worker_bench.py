"""A node whose settler and workers are stepped by hand, with the troublesome plugin."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from small_node import SmallNode
from sqlmodel import col, select

from node.intake import Intake
from node.settings import Settings
from node.settle import Settler
from node.task import Identity
from node.worker import Worker
from plugins.registry import load_plugins
from store.tables import Job

DESTINATION = "PACS@127.0.0.1:104"


class Bench:
    """A node's rows and bytes, a settler and workers, stepped by hand."""

    def __init__(self, home: Path, journal: Path) -> None:
        self.node = SmallNode.make(home)
        self.journal = journal
        self.mode = "box"

    def settings(self, **changes: Any) -> Settings:
        own = {"mode": self.mode, "journal": str(self.journal), "gate": str(self.journal) + ".gate"}
        values: dict[str, Any] = {
            "home": self.node.home,
            "destinations": (DESTINATION,),
            "enabled": ("trouble",),
            "plugins": {"trouble": own},
            "lease_seconds": 600.0,
        }
        return Settings(**{**values, **changes})

    def identities(self, settings: Settings) -> list[Identity]:
        return [Identity.of(plugin) for plugin in load_plugins(settings.plugins, settings.enabled)]

    def worker(self, owner: str = "w", **changes: Any) -> Worker:
        settings = self.settings(**changes)
        return Worker(self.node.database, self.node.objects, settings, self.identities(settings), owner=owner)

    def arrive(self, files: Sequence[Path]) -> None:
        intake = Intake(self.node.database, self.node.objects)
        for file in files:
            temporary = self.node.objects.temporary()
            temporary.write_bytes(file.read_bytes())
            intake.take(temporary, source="CT1@127.0.0.1")

    def settle(self, **changes: Any) -> int:
        """Settle what came; return how many jobs that made."""
        settings = self.settings(**changes)
        settler = Settler(
            self.node.database,
            self.identities(settings),
            quiet_seconds=0,
            hard_cap_seconds=settings.hard_cap_seconds,
            max_attempts=3,
            objects=self.node.objects,
        )
        return sum(settled.jobs for settled in settler.tick(self.now()))

    def now(self) -> datetime:
        return self.node.database.now()

    def work(self, *, later: float = 0.0, **changes: Any) -> bool:
        return self.worker(**changes).tick(self.now() + timedelta(seconds=later))

    def jobs(self) -> Sequence[Job]:
        with self.node.database.reading() as session:
            return session.exec(select(Job).order_by(col(Job.id))).all()

    def rows(self, table: type) -> list[Any]:
        return list(self.node.rows(table))

    def runs(self) -> int:
        return len(self.journal.read_text().splitlines()) if self.journal.is_file() else 0

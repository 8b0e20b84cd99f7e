"""A node that asks an archive on paper for the earlier studies of its patients."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from dicom_series import make_series
from paper_archive import PaperArchive
from pydicom import dcmread
from small_node import SmallNode
from sqlmodel import select
from whole_node import ANALYSIS

from node.intake import Intake
from node.priors import PriorFetcher, Wanted
from node.settle import Settler
from store import priors
from store.tables import Event, Study

TODAY = "20260301"
ANALYSES = tuple(replace(ANALYSIS, plugin=name) for name in "ab")


class Bench:
    """A node, an archive on paper, and what a patient's studies are made of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = SmallNode.make(folder / "node")
        self.intake = Intake(self.node.database, self.node.objects)
        self.archive = PaperArchive(folder)
        self.now = self.node.database.now()

    def series(self, name: str, *, count: int = 2, **more: Any) -> list[Path]:
        return make_series(self.folder / name, np.zeros((count, 8, 8)), **more)

    def receive(self, paths: list[Path]) -> None:
        """Take in files as a scanner sends them."""
        for path in paths:
            copy = self.node.objects.temporary()
            copy.write_bytes(path.read_bytes())
            self.intake.take(copy, source="CT1@127.0.0.1")

    def settle(self) -> int:
        """Settle what was received, and return how many jobs were enqueued."""
        settler = Settler(self.node.database, ANALYSES, quiet_seconds=0, prior_sources=(self.archive.name,))
        self.now = self.node.database.now() + timedelta(seconds=1)
        return sum(one.jobs for one in settler.tick(self.now))

    def fetch(self, now: datetime | None = None, *, analysed: bool = False, **wanted: Any) -> int:
        """Work off the list as it is due; return how many rounds it took."""
        fetcher = PriorFetcher(
            self.node.database,
            self.intake,
            self.archive,
            wanted=Wanted(**wanted) if wanted else None,
            analysed=analysed,
        )
        rounds = 0
        while fetcher.tick(now or self.now):
            rounds += 1
        return rounds

    def later(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now

    def earlier(self) -> tuple[priors.EarlierStudy, ...]:
        """Return what is here of the earlier studies of today's study."""
        with self.node.database.reading() as session:
            today = session.exec(select(Study).where(~Study.prior).order_by(Study.id)).first()  # type: ignore[arg-type]
            assert today is not None
            return priors.earlier(session, int(today.id or 0))

    def dates(self) -> list[str]:
        return [f"{one.study_date:%Y%m%d}" for one in self.earlier()]

    def events(self) -> list[str]:
        return [event.kind for event in self.node.rows(Event)]


def uids(paths: list[Path]) -> set[str]:
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}

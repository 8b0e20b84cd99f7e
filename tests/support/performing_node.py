"""A node that a worklist drives, without processes: every step is the node's own function, on real rows and files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlmodel import select
from whole_node import ANALYSIS, START, WholeNode, image
from worklist_manager import WorklistManager

from node.intake import Intake
from node.pacs import HeldInstance, HeldSeries, PatientStudy
from node.settings import Settings
from node.settle import Settler
from node.task import Identity
from node.transport import Answer, Parcel
from node.ups_rs import Worklist
from node.workitem_input import InputFetcher
from node.workitems import Performer
from store.database import Database
from store.objects import ObjectStore
from store.tables import Job, Result
from store.workitems import OPEN, Workitem

PACS = "http://pacs/dicom-web"
DESTINATION = "PACS@pacs:104"


class Archive:
    """An archive with one study of images that `whole_node.image` makes."""

    def __init__(self, objects: ObjectStore, study: int = 7, images: int = 3, name: str = PACS) -> None:
        self.name = name
        self.study = f"1.2.{study}"
        self.files = {f"1.2.{study}.1.{n}": image(study, n) for n in range(1, images + 1)}
        self.asked: list[str] = []
        self.gives: Callable[[str], bytes | None] = self.files.get
        self._objects = objects

    def patient_studies(self, *_: Any) -> Sequence[PatientStudy]:
        raise AssertionError("no patient is asked for")

    def study_series(self, study: str) -> tuple[HeldSeries, ...]:
        self.asked.append(study)
        if study != self.study:
            return ()
        return (HeldSeries(series_instance_uid=f"{study}.1", modality="CT"),)

    def series_instances(self, study: str, series: str) -> tuple[HeldInstance, ...]:
        return tuple(
            HeldInstance(series_instance_uid=series, sop_instance_uid=uid, sop_class_uid="1")
            for uid in self.files
        )

    def fetch(
        self,
        study: str,
        series: HeldSeries,
        instances: Sequence[HeldInstance],
        *,
        whole: bool,
        keep: Callable[[Path], None],
        missing: Callable[[], frozenset[str]],
    ) -> None:
        for one in instances:
            data = self.gives(one.sop_instance_uid)
            if data is None:
                continue
            path = self._objects.temporary()
            path.write_bytes(data)
            keep(path)

    def close(self) -> None:
        pass


UID = "1.2.3.4"
"""Of the workitem that a test is about."""


class PerformingNode:
    """One node and what it keeps; `again` is the same node after its process was killed."""

    def __init__(
        self,
        home: Path,
        manager: WorklistManager,
        template: Path,
        *,
        ae_title: str = "NADIR",
        **worklist: Any,
    ) -> None:
        self.home, self.manager = home, manager
        self.settings = Settings(
            home=home,
            ae_title=ae_title,
            destinations=(DESTINATION,),
            worklist={"url": "http://manager/rs", "seconds": 10, **worklist},
        )
        shutil.copy(template, home / "nadir.sqlite")
        self.database = Database(f"sqlite:///{home / 'nadir.sqlite'}", sync=False)
        self.objects = ObjectStore(home / "store", sync=False)
        self.whole = WholeNode(database=self.database, objects=self.objects, destinations=(DESTINATION,))
        self.archive = Archive(self.objects)
        self.sources = [self.archive]
        self.now = START
        self.analyses: list[Identity] = [ANALYSIS]
        self.statuses: dict[str, int] = {}
        self.begin()

    def begin(self) -> None:
        """Start the loops, as a new process would."""
        worklist = Worklist("http://manager/rs", self.settings.ae_title, client=self.manager.client())
        known = [analysis.plugin for analysis in self.analyses]
        self.performer = Performer(self.database, worklist, self.settings, known=known, owner="test")
        self.fetcher = InputFetcher(
            self.database,
            Intake(self.database, self.objects, clock=lambda: self.now),
            self.sources,
            worklist=self.settings.worklist.url,
            owner="test",
        )

    def round(self, seconds: float = 11) -> None:
        """Let time pass, and each loop have one round."""
        self.now += timedelta(seconds=seconds)
        while self.performer.tick(self.now):
            pass
        while self.fetcher.tick(self.now):
            pass
        self.settle()
        self.whole.analyse(self.now)
        self.send()

    def take_up(self) -> None:
        """Claim the step, fetch its input and settle it; nothing is analysed yet."""
        self.now += timedelta(seconds=1)
        for _ in range(3):
            self.performer.tick(self.now)
        self.fetcher.tick(self.now)
        self.settle()

    def settle(self) -> None:
        Settler(self.database, self.analyses, quiet_seconds=60, hard_cap_seconds=5400).tick(self.now)

    def send(self) -> None:
        while self.whole.send(self.now, self._take):
            pass

    def _take(self, parcel: Parcel) -> Answer:
        return Answer(status=self.statuses.get("store", 0x0000))

    def rounds(self, count: int = 12) -> None:
        """Have so many rounds, or fewer when no workitem is open any more."""
        for _ in range(count):
            self.round()
            rows = self.rows()
            if rows and all(row.state not in OPEN for row in rows):
                return

    @property
    def row(self) -> Workitem:
        """Return the only workitem."""
        (row,) = self.rows()
        return row

    def rows(self) -> Sequence[Workitem]:
        with self.database.reading() as session:
            return session.exec(select(Workitem)).all()

    def jobs(self) -> Sequence[Job]:
        with self.database.reading() as session:
            return session.exec(select(Job).order_by(Job.id)).all()  # type: ignore[arg-type]

    def close(self) -> None:
        self.database.dispose()


MakeNode = Callable[..., PerformingNode]


def results(node: PerformingNode) -> list[str]:
    """Return the SOP Instance UIDs of what a node made."""
    with node.database.reading() as session:
        return sorted(session.exec(select(Result.sop_instance_uid)))

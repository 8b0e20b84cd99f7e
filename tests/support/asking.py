"""A node that asks a peer for a patient's earlier studies, with a port where they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from dicom_series import make_series
from patience import PATIENT
from ports import free_port
from pydicom import dcmread
from small_node import SmallNode

from node.intake import Intake
from node.listener import Listener
from node.priors import PriorFetcher, request
from node.query_retrieve import Called, QueryRetrieve
from node.scu import Timeouts
from store.prior_tables import Prior
from store.tables import Event, Instance


class Asking:
    """A node with a listener, that asks one peer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = SmallNode.make(folder / "node")
        self.intake = Intake(self.node.database, self.node.objects)
        self.listener = Listener(
            self.node.database, self.node.objects, host="127.0.0.1", port=free_port(), accept_any=True,
            reserve_bytes=0,
        )  # fmt: skip
        self.listener.start()

    def files(self, name: str, count: int = 3, **more: Any) -> list[Path]:
        return make_series(self.folder / name, np.zeros((count, 8, 8)), **more)

    def client(self, port: int, timeouts: Timeouts = PATIENT, **more: Any) -> QueryRetrieve:
        """Return a client of a peer on this machine."""
        values = {"free_bytes": self.node.objects.free_bytes, **more}
        called = Called(ae_title="PACS", host="127.0.0.1", port=port, timeouts=timeouts)
        return QueryRetrieve(called, new_file=self.node.objects.temporary, **values)

    def asked(self, source: str) -> None:
        """Take in today's study of P1 and ask for its past."""
        for path in self.files("today", 1, study_date="20260301"):
            copy = self.node.objects.temporary()
            copy.write_bytes(path.read_bytes())
            study = self.intake.take(copy, source="CT1").study_pk
        with self.node.database.transaction() as session:
            request(session, study, [source], now=self.node.database.now())

    def fetch(self, source: QueryRetrieve) -> list[tuple[str, str | None]]:
        """Work the list off once, and return state and code of each study found."""
        fetcher = PriorFetcher(self.node.database, self.intake, source)
        now = self.node.database.now()
        while fetcher.tick(now):
            pass
        return [(row.state, row.error_code) for row in self.node.rows(Prior)]

    def held(self) -> set[str]:
        """Return what is held besides today's study."""
        today = {str(h.SOPInstanceUID) for h in map(dcmread, (self.folder / "today").glob("*"))}
        return {row.sop_instance_uid for row in self.node.rows(Instance)} - today

    def codes(self) -> list[str]:
        return [event.text.split()[0] for event in self.node.rows(Event)]

    def stop(self) -> None:
        self.listener.stop()
        self.node.database.dispose()


def uids(paths: list[Path]) -> set[str]:
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}

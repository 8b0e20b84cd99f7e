"""A node's folder with the parts that speak with a PACS, and studies that a PACS may have."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
from dicom_series import make_series
from empty_database import empty_database
from pydicom import dcmread
from sqlmodel import select

from node import pull
from node.intake import Intake
from node.pacs import DicomWeb
from node.pull import Puller
from store.database import Database
from store.objects import ObjectStore
from store.tables import Instance, Pull, Study

TODAY = f"{datetime.now(UTC):%Y%m%d}"
NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)


class Home:
    """What a node keeps, and the parts of it that speak with a PACS."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder
        self.database = Database(url) if url else empty_database(folder)
        if url:
            self.database.upgrade()
        self.objects = ObjectStore(folder / "store")
        self.intake = Intake(self.database, self.objects)
        self.clients: list[DicomWeb] = []

    def pacs(self, url: str, client: httpx.Client | None = None) -> DicomWeb:
        self.clients.append(DicomWeb(url, client=client))
        return self.clients[-1]

    def puller(self, pacs: DicomWeb, reserve_bytes: int = 0) -> Puller:
        return Puller(self.database, self.objects, self.intake, pacs, reserve_bytes=reserve_bytes)

    def request(self, uid: str, now: datetime = NOW, *, everything: bool = False) -> None:
        with self.database.transaction() as session:
            pull.request(session, uid, now=now, everything=everything)

    def wish(self, uid: str) -> Pull:
        with self.database.reading() as session:
            return session.get_one(Pull, uid)

    def wishes(self) -> list[str]:
        with self.database.reading() as session:
            return sorted(session.exec(select(Pull.study_instance_uid)))

    def held(self) -> list[str]:
        with self.database.reading() as session:
            return sorted(session.exec(select(Instance.sop_instance_uid).where(Instance.current)))

    def study(self) -> Study:
        with self.database.reading() as session:
            return session.exec(select(Study)).one()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.database.dispose()


def series(folder: Path, patient_id: str, count: int = 3, **more: object) -> list[Path]:
    """Return the files of a series of today."""
    return make_series(
        folder / patient_id, np.zeros((count, 8, 8)), patient_id=patient_id, study_date=TODAY, **more
    )


def uids(paths: list[Path]) -> list[str]:
    """Return the SOP Instance UIDs of files."""
    return sorted(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths)


def study_uid(paths: list[Path]) -> str:
    """Return the Study Instance UID of files."""
    return str(dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)


def work_off(puller: Puller, now: datetime) -> int:
    """Let a puller pull until nothing is due; return how many rounds that took."""
    rounds = 0
    while puller.tick(now):
        rounds += 1
    return rounds

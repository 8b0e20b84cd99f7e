"""A node whose jobs run in this process, and patients with balls for lesions who come again and again."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import balls_plugin
import numpy as np
import pytest
from dicom_series import make_series
from pydicom import Dataset, dcmread
from small_node import SmallNode
from sqlmodel import col, select
from thorax import Ball, Thorax, thorax

from node import offline
from node import worker as worker_module
from node.intake import Intake
from node.pipeline import analyse
from node.settings import Settings
from node.settle import Settler
from node.task import Identity, Task
from node.worker import Worker
from plugins.contract import Volume
from plugins.registry import load_plugins
from store.tables import Finding, Job, LesionLink, Patient, Refusal, Result, Revision, Study
from store.tracking import brought
from store.tracking.motion import Motion, Quality, Trust

SPACING = (8.0, 4.0, 4.0)
SHIFTS: dict[str, tuple[float, float, float]] = {}
"""How patients lay, by the first image."""
A, B, C = (-75.0, 20.0, 30.0), (75.0, -20.0, -30.0), (-70.0, -30.0, -70.0)
D = (70.0, 30.0, 50.0)
"""Where lesions are."""


QUALITY = Quality(
    trust=Trust.GOOD,
    sentence="",
    confidence=0.95,
    similarity_before=1.0,
    similarity_rigid=1.0,
    similarity=1.0,
    overlap=1.0,
    translation_mm=0.0,
    rotation_deg=0.0,
)


def ball(centre: tuple[float, float, float], diameter_mm: float) -> Ball:
    """Return a lesion."""
    return Ball(centre_mm=centre, diameter_mm=diameter_mm, hu=250.0)


@lru_cache
def body(balls: tuple[Ball, ...]) -> Thorax:
    """Return a chest with these lesions."""
    return thorax(spacing_mm=SPACING, balls=balls)


@cache
def empty_home() -> Path:
    """Return the folder of a node with nothing in it, so that tables are made once."""
    home = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, home)
    SmallNode.make(home / "node").database.dispose()
    return home / "node"


class Clinic:
    """A node whose jobs run in this process, and its patients."""

    def __init__(self, home: Path) -> None:
        shutil.copytree(empty_home(), home / "node")
        self.node = SmallNode.make(home / "node")
        self.files = home / "files"
        self.seconds_ahead = 2
        """How far the clock of the worker is ahead."""

    def study(
        self,
        date: str,
        *balls: Ball,
        patient_id: str = "P1",
        shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
        slices: slice = slice(None),
    ) -> list[Path]:
        """Return the files of a study of a date; `shift_mm` is how else the patient lies."""
        made = body(balls)
        first = slices.start or 0
        origin = made.affine[:3, 3] + first * made.affine[:3, 0] + shift_mm
        folder = self.files / patient_id / date / str(len(balls))
        files = make_series(
            folder,
            made.hu[slices],
            spacing_mm=SPACING,
            origin_mm=tuple(origin),
            study_date=date,
            patient_id=patient_id,
        )
        SHIFTS[dcmread(files[0], stop_before_pixels=True).SOPInstanceUID] = shift_mm
        return files

    def send(self, date: str, *balls: Ball, **how: Any) -> None:
        """Send a study."""
        intake = Intake(self.node.database, self.node.objects)
        for file in self.study(date, *balls, **how):
            temporary = self.node.objects.temporary()
            temporary.write_bytes(file.read_bytes())
            intake.take(temporary, source="CT1@127.0.0.1")

    def settle(self) -> list[Identity]:
        """Settle what came; return the analyses."""
        identities = [Identity.of(plugin) for plugin in load_plugins({"balls": {}}, ("balls",))]
        now = self.node.database.now() + timedelta(seconds=1)
        Settler(self.node.database, identities, quiet_seconds=0, objects=self.node.objects).tick(now)
        return identities

    def work(self, **changes: Any) -> None:
        """Settle what came, and work until nothing is left."""
        settings = Settings(home=self.node.home, response_criteria="off", **changes)
        identities = self.settle()
        now = self.node.database.now() + timedelta(seconds=self.seconds_ahead)
        worker = Worker(self.node.database, self.node.objects, settings, identities, owner="w")
        while worker.tick(now):
            pass

    def examine(self, date: str, *balls: Ball, **how: Any) -> dict[str, str]:
        """Send and analyse a study; return its Tracking IDs with their UIDs."""
        self.send(date, *balls, **how)
        self.work()
        return self.named(date, how.get("patient_id", "P1"))

    def named(self, date: str, patient_id: str = "P1") -> dict[str, str]:
        return {f.tracking_identifier: f.tracking_uid for f in self.findings(date, patient_id)}

    def job(self, date: str, patient_id: str = "P1") -> Job:
        with self.node.database.reading() as session:
            wanted = (
                select(Job)
                .join(Revision, col(Job.revision_pk) == col(Revision.id))
                .join(Study, col(Study.id) == col(Revision.study_pk))
            )
            found = [
                job
                for job in session.exec(wanted.order_by(col(Job.id)))
                for study in [session.get_one(Study, session.get_one(Revision, job.revision_pk).study_pk)]
                if f"{study.study_date:%Y%m%d}" == date and self._patient(session, study) == patient_id
            ]
        assert found[-1].state == "done", found[-1].error_text
        return found[-1]

    def _patient(self, session: Any, study: Study) -> str:
        return session.get_one(Patient, study.patient_pk).patient_id

    def _rows(self, table: Any, date: str, patient_id: str = "P1") -> list[Any]:
        return [row for row in self.node.rows(table) if row.job_pk == self.job(date, patient_id).id]

    def findings(self, date: str, patient_id: str = "P1") -> list[Finding]:
        return self._rows(Finding, date, patient_id)

    def links(self, date: str, patient_id: str = "P1") -> dict[str, LesionLink]:
        return {link.tracking_identifier: link for link in self._rows(LesionLink, date, patient_id)}

    def told(self, date: str) -> list[str]:
        return [row.code for row in self._rows(Refusal, date)]

    def written(self, date: str, kind: str) -> Dataset:
        (result,) = [r for r in self._rows(Result, date) if r.kind == kind]
        return dcmread(self.node.objects.path(result.sha256))


@contextmanager
def clinic_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    """Give a clinic that takes the motion from how patients were laid; registering is judged by its own tests."""
    monkeypatch.syspath_prepend(str(balls_plugin.install(folder / "plugins")))
    monkeypatch.delitem(__import__("sys").modules, "balls", raising=False)

    def here(task_json: str, folder: Path, **_: object) -> dict[str, Any]:
        return json.loads(json.dumps(analyse(Task.from_json(task_json)).to_json()))

    def register(fixed: Volume, moving: Volume) -> Motion:
        matrix = np.eye(4)
        new, old = (SHIFTS[v.sop_instance_uids[0]] for v in (fixed, moving))
        matrix[:3, 3] = np.subtract(new, old)
        return Motion(matrix=matrix, deformation=None, quality=QUALITY)

    monkeypatch.setattr(worker_module, "run_in_child", here)
    monkeypatch.setattr(offline, "run_in_child", here)
    monkeypatch.setattr(brought, "register", register)
    made = Clinic(folder)
    yield made
    made.node.database.dispose()

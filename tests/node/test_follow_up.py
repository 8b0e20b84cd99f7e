"""Lesions of a patient over several studies, worked off by the worker: who is who, in SEG, SR and rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import balls_plugin
import numpy as np
import pytest
from dicom_series import make_series
from pydicom import Dataset, dcmread
from small_node import SmallNode
from sqlmodel import col, select
from thorax import Ball, thorax

from node import worker as worker_module
from node.intake import Intake
from node.pipeline import analyse
from node.settings import Settings
from node.settle import Settler
from node.task import Identity, Task
from node.worker import Worker
from plugins.registry import load_plugins
from store.tables import Finding, Job, LesionLink, Refusal, Result, Revision, Study

SPACING = (5.0, 4.0, 4.0)
A, B, C = (-75.0, 20.0, 30.0), (75.0, -20.0, -30.0), (-70.0, -30.0, -70.0)
D = (70.0, 30.0, 50.0)


def ball(centre: tuple[float, float, float], diameter_mm: float) -> Ball:
    return Ball(centre_mm=centre, diameter_mm=diameter_mm, hu=250.0)


class Clinic:
    """A node whose jobs run in this process, and its patients."""

    def __init__(self, home: Path) -> None:
        self.node = SmallNode.make(home / "node")
        self.files = home / "files"
        self.settings = Settings(home=self.node.home, enabled=("balls",), plugins={"balls": {}})
        plugins = load_plugins(self.settings.plugins, ("balls",))
        self.identities = [Identity.of(plugin) for plugin in plugins]

    def send(
        self,
        date: str,
        *balls: Ball,
        patient_id: str = "P1",
        shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
        slices: slice = slice(None),
        **attributes: Any,
    ) -> None:
        """Send a study of a date; `shift_mm` is how else the patient lies."""
        made = thorax(spacing_mm=SPACING, balls=balls, vessels=True, noise_hu=5.0)
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
            **attributes,
        )
        intake = Intake(self.node.database, self.node.objects)
        for file in files:
            temporary = self.node.objects.temporary()
            temporary.write_bytes(file.read_bytes())
            intake.take(temporary, source="CT1@127.0.0.1")

    def work(self) -> None:
        """Settle what came, and work until nothing is left."""
        now = self.node.database.now() + timedelta(seconds=1)
        Settler(self.node.database, self.identities, quiet_seconds=0).tick(now)
        worker = Worker(self.node.database, self.node.objects, self.settings, self.identities, owner="w")
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
        from store.tables import Patient

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


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    monkeypatch.syspath_prepend(str(balls_plugin.install(tmp_path / "plugins")))
    monkeypatch.delitem(__import__("sys").modules, "balls", raising=False)

    def here(task_json: str, folder: Path, **_: object) -> dict[str, Any]:
        return json.loads(json.dumps(analyse(Task.from_json(task_json)).to_json()))

    monkeypatch.setattr(worker_module, "run_in_child", here)
    made = Clinic(tmp_path)
    yield made
    made.node.database.dispose()


def _segments(seg: Dataset) -> dict[str, str]:
    return {s.TrackingID: s.TrackingUID for s in seg.SegmentSequence}


def test_lesions_keep_their_identity_when_they_grow_vanish_come_back_and_leave_the_view(
    clinic: Clinic,
) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18), ball(C, 16))
    assert list(first) == ["Nodule 1", "Nodule 2", "Nodule 3", "Body"]
    assert clinic.links("20250101") == {}

    second = clinic.examine("20250401", ball(A, 18), ball(C, 16), ball(D, 26), shift_mm=(14.0, -9.0, 11.0))
    assert list(second) == ["Nodule 4", "Nodule 1", "Nodule 3", "Body"]
    assert {n: second[n] for n in ("Nodule 1", "Nodule 3", "Body")} == {
        n: first[n] for n in ("Nodule 1", "Nodule 3", "Body")
    }
    assert second["Nodule 4"] not in first.values()
    assert {n: link.kind for n, link in clinic.links("20250401").items()} == {
        "Nodule 4": "new",
        "Nodule 1": "same",
        "Nodule 3": "same",
        "Nodule 2": "disappeared",
    }
    seg = clinic.written("20250401", "seg")
    assert _segments(seg) == second
    assert [s.SegmentLabel for s in seg.SegmentSequence] == list(second)
    for kind in ("sr-volumetric", "sr-planar"):
        assert _tracking_uids(clinic.written("20250401", kind)) == set(second.values())
    assert {"lesion-new", "lesion-disappeared"} <= set(clinic.told("20250401"))

    third = clinic.examine(
        "20250701", ball(A, 26), ball(B, 18), ball(D, 22), slices=slice(12, None), shift_mm=(-6.0, 4.0, 0.0)
    )
    assert third == {n: {**first, **second}[n] for n in ("Nodule 1", "Nodule 4", "Nodule 2", "Body")}
    kinds = {n: link.kind for n, link in clinic.links("20250701").items()}
    assert kinds == {
        "Nodule 1": "same",
        "Nodule 2": "same",
        "Nodule 4": "same",
        "Nodule 3": "outside-field-of-view",
    }


def _tracking_uids(report: Dataset) -> set[str]:
    found: set[str] = set()

    def visit(item: Dataset) -> None:
        for child in item.get("ContentSequence", []):
            if child.ValueType == "UIDREF" and child.ConceptNameCodeSequence[0].CodeValue == "112040":
                found.add(str(child.UID))
            visit(child)

    visit(report)
    return found

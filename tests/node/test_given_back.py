"""A study that was sent under a wrong PatientID goes to its right patient, and leaves nothing of the first behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clinic import A, B, Clinic, ball, clinic_in
from pydicom import Dataset, dcmread
from sqlmodel import col, select

from node import worker as worker_module
from node.decisions import left
from node.intake import Intake
from node.response_job import SR_KIND, ResponseTask
from node.response_report import write_response
from node.settings import Settings
from node.settle import Settler
from node.task import Identity
from node.worker import Worker
from plugins.registry import load_plugins
from store import response_jobs
from store.course import course
from store.patients import find_patient
from store.tables import Job, Result

FIRST, SECOND, THIRD = "20250101", "20250301", "20250501"
TAKEN_BACK = "response withdrawn"


class Ward(Clinic):
    """A clinic that tells the response as well."""

    def work(self, **changes: Any) -> None:
        settings = Settings(home=self.node.home, **changes)
        identities = [Identity.of(plugin) for plugin in load_plugins({"balls": {}}, ("balls",))]
        now = self.node.database.now() + timedelta(seconds=1)
        settler = Settler(
            self.node.database, identities, quiet_seconds=0, objects=self.node.objects, left=left(settings)
        )
        settler.tick(now)
        worker = Worker(self.node.database, self.node.objects, settings, identities, owner="w")
        while worker.tick(self.node.database.now() + timedelta(seconds=2)):
            pass
        assert {job.state for job in self.node.rows(Job)} <= {"done", "superseded"}

    def give(self, date: str, patient_id: str, *balls: Any, was: str = "P1") -> None:
        """Send a study again, whole, as that of another patient."""
        intake = Intake(self.node.database, self.node.objects)
        for file in self.study(date, *balls, patient_id=was):
            dataset = dcmread(file)
            dataset.PatientID = patient_id
            temporary = self.node.objects.temporary()
            dataset.save_as(temporary)
            intake.take(temporary, source="CT1@127.0.0.1")
        self.work()

    def reports(self) -> list[Dataset]:
        """Return the reports on response, oldest first."""
        with self.node.database.reading() as session:
            kept = session.exec(select(Result).where(col(Result.kind) == SR_KIND).order_by(col(Result.id)))
            return [dcmread(self.node.objects.path(one.sha256)) for one in kept]

    def told(self) -> list[tuple[str, str, bool]]:
        """Return of each report its patient, the date of its study, and whether it takes another one back."""
        return [
            (str(one.PatientID), str(one.StudyDate), TAKEN_BACK in one.SeriesDescription)
            for one in self.reports()
        ]

    def pages(self) -> list[str]:
        return sorted(one.name for one in (self.node.home / "reports").iterdir())

    def uids(self, patient_id: str) -> dict[str, set[str]]:
        """Return the Tracking UIDs that count of a patient, by date."""
        with self.node.database.reading() as session:
            known = course(session, int(find_patient(session, patient_id).id or 0), self.node.objects)
        found: dict[str, set[str]] = {}
        for one in known.sightings:
            found.setdefault(f"{one.date:%Y%m%d}", set()).add(one.tracking_uid)
        return found


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    with clinic_in(tmp_path, monkeypatch):
        pass_on = worker_module.run_in_child

        def here(task_json: str, folder: Path, **more: object) -> dict[str, Any]:
            if json.loads(task_json).get("task") == "response":
                answer = write_response(ResponseTask.from_json(task_json))
                return json.loads(json.dumps(answer.to_json()))
            return pass_on(task_json, folder, **more)

        monkeypatch.setattr(worker_module, "run_in_child", here)
        yield Ward(tmp_path / "ward")


def test_a_follow_up_that_was_another_patients_takes_its_report_along_and_the_one_before_is_told_anew(
    ward: Ward,
) -> None:
    for date, size in ((FIRST, 24), (SECOND, 16), (THIRD, 30)):
        ward.examine(date, ball(A, size))
    assert ward.told() == [("P1", SECOND, False), ("P1", THIRD, False)]

    ward.give(THIRD, "P2", ball(A, 30))

    assert sorted(ward.told()[2:]) == [("P1", SECOND, False), ("P2", THIRD, True)]
    back = next(one for one in ward.reports() if TAKEN_BACK in one.SeriesDescription)
    (said,) = back.PredecessorDocumentsSequence
    old = said.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert old == ward.reports()[1].SOPInstanceUID
    assert list(ward.uids("P1")) == [FIRST, SECOND]
    assert list(ward.uids("P2")) == [THIRD]
    assert not set.union(*ward.uids("P1").values()) & ward.uids("P2")[THIRD]
    assert ward.pages() == ["patient-1.html"]
    jobs = len(ward.node.rows(Job))
    ward.work()
    assert len(ward.node.rows(Job)) == jobs


def test_a_baseline_that_was_another_patients_leaves_a_response_under_the_next_one_and_names_of_its_own(
    ward: Ward,
) -> None:
    for date, balls in (
        (FIRST, (ball(A, 24), ball(B, 20))),
        (SECOND, (ball(A, 16),)),
        (THIRD, (ball(A, 30),)),
    ):
        ward.examine(date, *balls)
    before = ward.uids("P1")
    assert len(before[SECOND]) == 2  # one is gone since the baseline

    ward.give(FIRST, "P2", ball(A, 24), ball(B, 20))

    after = ward.uids("P1")
    assert list(after) == [SECOND, THIRD]
    assert after[SECOND] == after[THIRD] == {next(iter(after[SECOND]))} < before[SECOND]
    assert not ward.uids("P2")[FIRST] & before[FIRST]
    assert sorted(ward.told()[2:]) == [("P1", SECOND, True), ("P1", THIRD, False)]
    newest = [one for one in ward.reports() if one.StudyDate == THIRD][-1]
    assert "2025-01-01" not in str(newest) and "2025-03-01" in str(newest)
    assert ward.pages() == ["patient-1.html"]


def test_when_the_lesions_of_one_date_alone_are_left_the_report_is_taken_back(ward: Ward) -> None:
    ward.examine(FIRST, ball(A, 24))
    ward.examine(SECOND, ball(A, 16))
    assert ward.pages() == ["patient-1.html"]

    ward.give(FIRST, "P2", ball(A, 24))

    assert ward.told() == [("P1", SECOND, False), ("P1", SECOND, True)]
    assert ward.pages() == []
    with ward.node.database.transaction() as session:
        assert response_jobs.ask(session, 1, ward.node.database.now(), objects=ward.node.objects) is None
    ward.work()
    assert len(ward.told()) == 2

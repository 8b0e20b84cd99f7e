"""Lesions of a patient over several studies, worked off by the worker: who is who, in SEG, SR and rows."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache, lru_cache
from itertools import count
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
from node.decisions import decided
from node.intake import Intake
from node.pipeline import analyse
from node.settings import Settings
from node.settle import Settler
from node.task import Identity, Task
from node.worker import Worker
from plugins.contract import Volume
from plugins.errors import Refused
from plugins.registry import load_plugins
from store import choices
from store.prior_tables import Prior, PriorSearch
from store.tables import Finding, Job, LesionLink, Patient, Refusal, Result, Revision, Study
from store.tracking import brought
from store.tracking.motion import Motion, Quality, Trust

SPACING = (8.0, 4.0, 4.0)
SHIFTS: dict[str, tuple[float, float, float]] = {}
"""How patients lay, by the first image."""
A, B, C = (-75.0, 20.0, 30.0), (75.0, -20.0, -30.0), (-70.0, -30.0, -70.0)
D = (70.0, 30.0, 50.0)


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
    return Ball(centre_mm=centre, diameter_mm=diameter_mm, hu=250.0)


@lru_cache
def body(balls: tuple[Ball, ...]) -> Thorax:
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
        Settler(self.node.database, identities, quiet_seconds=0).tick(now)
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


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    monkeypatch.syspath_prepend(str(balls_plugin.install(tmp_path / "plugins")))
    monkeypatch.delitem(__import__("sys").modules, "balls", raising=False)

    def here(task_json: str, folder: Path, **_: object) -> dict[str, Any]:
        return json.loads(json.dumps(analyse(Task.from_json(task_json)).to_json()))

    monkeypatch.setattr(worker_module, "run_in_child", here)
    monkeypatch.setattr(offline, "run_in_child", here)
    made = Clinic(tmp_path)
    yield made
    made.node.database.dispose()


@pytest.fixture(autouse=True)
def known_motion(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the motion from how the patients were laid; registering is judged by its own tests."""

    def register(fixed: Volume, moving: Volume) -> Motion:
        matrix = np.eye(4)
        new, old = (SHIFTS[v.sop_instance_uids[0]] for v in (fixed, moving))
        matrix[:3, 3] = np.subtract(new, old)
        return Motion(matrix=matrix, deformation=None, quality=QUALITY)

    monkeypatch.setattr(brought, "register", register)


def ask_for(clinic: Clinic, study_pk: int, prior_uid: str) -> None:
    """Write down that a search found an earlier study, which is still to come."""
    now = clinic.node.database.now()
    with clinic.node.database.transaction() as session:
        search = PriorSearch(study_pk=study_pk, source="PACS", state="done", run_after=now, requested_at=now)
        session.add(search)
        session.flush()
        session.add(
            Prior(search_pk=search.id or 0, study_instance_uid=prior_uid, run_after=now, requested_at=now)
        )


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
        "20250701", ball(A, 26), ball(B, 18), ball(D, 22), slices=slice(8, None), shift_mm=(-6.0, 4.0, 0.0)
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


def test_another_patient_of_the_same_shape_has_other_lesions(clinic: Clinic) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18))
    other = clinic.examine("20250401", ball(A, 22), ball(B, 18), patient_id="P2")
    assert not set(first.values()) & set(other.values())
    assert list(other) == list(first)
    assert clinic.links("20250401", "P2") == {}


def test_a_study_that_gets_late_images_calls_its_lesions_as_before(clinic: Clinic) -> None:
    clinic.examine("20250101", ball(A, 22))
    before = clinic.examine("20250401", ball(A, 18), ball(B, 22), slices=slice(0, 28))
    assert list(before) == ["Nodule 2", "Nodule 1", "Body"]
    clinic.send("20250401", ball(A, 18), ball(B, 22))
    clinic.work()
    again = clinic.named("20250401")
    assert again == before
    kinds = {n: link.kind for n, link in clinic.links("20250401").items()}
    assert kinds == {"Nodule 2": "new", "Nodule 1": "same"}
    counting = [link for link in clinic.node.rows(LesionLink) if not link.superseded]
    assert len(counting) == 2


def test_a_first_study_that_gets_late_images_calls_its_lesions_as_before(clinic: Clinic) -> None:
    # The largest comes with the late images, so that numbers would go to others.
    before = clinic.examine("20250101", ball(B, 18), slices=slice(0, 16))
    assert list(before) == ["Nodule 1", "Body"]
    clinic.send("20250101", ball(B, 18), ball(A, 26))
    clinic.work()
    again = clinic.named("20250101")
    assert list(again) == ["Nodule 2", "Nodule 1", "Body"]
    assert {n: again[n] for n in before} == before
    assert clinic.links("20250101") == {}


def test_an_older_study_that_comes_later_takes_over_the_names(clinic: Clinic) -> None:
    newer = clinic.examine("20250401", ball(A, 22), ball(B, 18))
    older = clinic.examine("20250101", ball(A, 16), ball(B, 18), ball(C, 20))
    assert list(older) == ["Nodule 3", "Nodule 2", "Nodule 1", "Body"]
    assert {n: older[n] for n in newer} == newer
    assert clinic.links("20250101") == {}


def passing(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ten seconds pass between any two questions for the time, so that what comes later is later."""
    real, asked = clinic.node.database.now, count()
    clinic.seconds_ahead = 100
    monkeypatch.setattr(clinic.node.database, "now", lambda: real() + timedelta(seconds=10 * next(asked)))


@pytest.mark.long
def test_studies_that_come_in_the_wrong_order_are_tracked_again_by_their_dates(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing(clinic, monkeypatch)
    # What lies in C is seen on the last and on the first day alone; in between it is out of view.
    clinic.examine("20250701", ball(A, 22), ball(C, 16))
    clinic.examine("20250401", ball(A, 20), slices=slice(14, None))
    assert len(clinic.node.rows(Job)) == 3
    first = clinic.examine("20250101", ball(A, 18), ball(C, 16), ball(D, 20))
    jobs = [(job.plugin, job.run, job.state) for job in clinic.node.rows(Job)]
    assert jobs == [("balls", run, "done") for run in (0, 0, 1, 0, 1, 2)]
    kinds = [{n: k.kind for n, k in clinic.links(date).items()} for date in ("20250401", "20250701")]
    known = {uid: name for name, uid in first.items()}
    assert {known[k.tracking_uid] for k in clinic.links("20250701").values()} <= set(first)
    assert sorted(kinds[0].values()) == ["disappeared", "outside-field-of-view", "same"]
    assert sorted(kinds[1].values()) == ["disappeared", "same", "same"]
    clinic.work()
    assert len(clinic.node.rows(Job)) == 6


def test_a_follow_up_without_lesions_tells_what_is_gone(clinic: Clinic) -> None:
    first = clinic.examine("20250101", ball(A, 22))
    assert clinic.examine("20250401") == {"Body": first["Body"]}
    (link,) = clinic.links("20250401").values()
    assert (link.kind, link.tracking_uid, link.finding_pk) == ("disappeared", first["Nodule 1"], None)
    assert json.loads(link.earlier) == [first["Nodule 1"]]
    assert "lesion-disappeared" in clinic.told("20250401")


def test_what_a_person_relinked_is_found_under_its_new_name(clinic: Clinic) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18))
    second = clinic.examine("20250401", ball(A, 22), ball(B, 18))
    assert second == first
    with clinic.node.database.transaction() as session:
        choices.swap(
            session,
            1,
            first["Nodule 1"],
            first["Nodule 2"],
            author="Dr Who",
            now=clinic.node.database.now(),
            study_instance_uid=clinic.written("20250401", "seg").StudyInstanceUID,
        )
    third = clinic.examine("20250701", ball(A, 26), ball(B, 18))
    by_size = [f.tracking_uid for f in clinic.findings("20250701")]
    assert by_size == [first["Nodule 2"], first["Nodule 1"], first["Body"]]
    assert third == first


def decide(clinic: Clinic, *made: Any, undone: tuple[int, ...] = (), **said: Any) -> list[Job]:
    """Keep a choice of a person after all that was done, and return the jobs that wait then."""
    clinic.seconds_ahead += 100
    about: dict[str, Any] = {
        "author": "Dr Who",
        "now": clinic.node.database.now() + timedelta(seconds=clinic.seconds_ahead - 20),
    }
    with clinic.node.database.transaction() as session:
        kept = [choices.undo(session, 1, number, **about) for number in undone]
        if said:
            kept.append(choices.choose(session, 1, "relink", **said, **about))
        if made:
            kept += choices.swap(session, 1, *made[:2], study_instance_uid=made[2], **about)
        decided(session, Settings(home=clinic.node.home, response_criteria="off"), 1, kept, about["now"])
    return [job for job in clinic.node.rows(Job) if job.state == "queued"]


@pytest.mark.long
def test_a_relink_is_written_once_more_in_every_study_that_it_changes_and_can_be_taken_back(
    clinic: Clinic,
) -> None:
    dates = ("20250101", "20250401", "20250701")
    first, *_ = (clinic.examine(date, ball(A, 22), ball(B, 18)) for date in dates)
    (one, other) = (first["Nodule 1"], first["Nodule 2"])
    before = {date: clinic.written(date, "sr-planar") for date in dates}
    second = before["20250401"].StudyInstanceUID

    assert len(decide(clinic, one, other, second)) == 2
    clinic.work()
    by_size = [[f.tracking_uid for f in clinic.findings(date)][:2] for date in dates]
    assert by_size == [[one, other], [other, one], [other, one]]
    for date in dates[1:]:
        segments = clinic.written(date, "seg").SegmentSequence
        assert [(s.TrackingID, s.TrackingUID) for s in segments[:2]] == [
            ("Nodule 2", other),
            ("Nodule 1", one),
        ]
        report = clinic.written(date, "sr-planar")
        (named,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert named.ReferencedSOPInstanceUID == before[date].SOPInstanceUID
    assert {link.reason.partition(";")[0] for link in clinic.links("20250401").values()} == {
        "as a person said"
    }
    assert clinic.written("20250101", "sr-planar").SOPInstanceUID == before["20250101"].SOPInstanceUID
    clinic.work()
    assert len(clinic.node.rows(Job)) == 5

    assert len(decide(clinic, undone=(1, 2))) == 2
    clinic.work()
    assert [clinic.named(date) for date in dates] == [first] * 3

    assert len(decide(clinic, tracking_uid=one, value="new", study_instance_uid=second)) == 2
    clinic.work()
    named = [clinic.named(date) for date in dates]
    assert list(named[1]) == list(named[2]) == ["Nodule 3", "Nodule 2", "Body"]
    assert named[1] == named[2] and named[1]["Nodule 3"] not in first.values()
    assert clinic.links("20250401")["Nodule 3"].kind == "new"


def test_what_cannot_be_laid_on_the_earlier_images_is_neither_gone_nor_surely_new(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = clinic.examine("20250101", ball(A, 22))
    motion = Motion(matrix=np.eye(4), deformation=None, quality=replace(QUALITY, trust=Trust.FAILED))
    monkeypatch.setattr(brought, "register", lambda fixed, moving: motion)
    second = clinic.examine("20250401", ball(A, 22))
    assert set(first.values()) & set(second.values()) == {first["Body"]}
    links = clinic.links("20250401")
    assert {n: link.kind for n, link in links.items()} == {
        "Nodule 1": "outside-field-of-view",
        "Nodule 2": "new",
    }
    assert links["Nodule 2"].confidence == pytest.approx(0.3)
    assert "earlier-not-compared" in clinic.told("20250401")


def test_a_lesion_that_was_missed_and_is_still_visible_is_drawn_at_its_place(clinic: Clinic) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18))
    # Too faint to be found, and plainly there.
    second = clinic.examine("20250401", Ball(centre_mm=A, diameter_mm=20, hu=60.0), ball(B, 18))
    assert second == first
    assert list(second) == ["Nodule 2", "Body", "Nodule 1"]
    link = clinic.links("20250401")["Nodule 1"]
    found = next(f for f in clinic.findings("20250401") if f.tracking_identifier == "Nodule 1")
    assert (link.kind, link.finding_pk) == ("re-segmented", found.id)
    assert found.centroid_x_mm == pytest.approx(A[0], abs=2)
    assert "lesion-redrawn" in clinic.told("20250401")
    assert _segments(clinic.written("20250401", "seg")) == second


def test_a_fault_in_what_was_before_costs_the_study_no_result(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.examine("20250101", ball(A, 22))

    def fault(fixed: Volume, moving: Volume) -> Motion:
        raise ValueError("of a patient whose name must not be told")

    monkeypatch.setattr(brought, "register", fault)
    second = clinic.examine("20250401", ball(A, 22))
    assert list(second) == ["Nodule 1", "Body"]
    assert clinic.told("20250401") == ["not-followed"]
    assert not any("name" in row.sentence for row in clinic.node.rows(Refusal))


def test_a_folder_with_the_earlier_study_and_its_results_gives_lesions_their_names(
    clinic: Clinic, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path)
    earlier, later = (
        clinic.study(date, *balls)[0].parent
        for date, balls in (
            ("20250101", (ball(A, 22), ball(B, 18))),
            ("20250401", (ball(A, 14), ball(B, 20))),
        )
    )
    first = offline.analyse_folder(earlier, earlier / "out", settings, plugins=("balls",))
    second = offline.analyse_folder(later, tmp_path / "out", settings, plugins=("balls",), prior=earlier)
    names = [{f["label"]: f["tracking_uid"] for f in report["findings"]} for report in (first, second)]
    assert list(names[1]) == ["Nodule 2", "Nodule 1", "Body"]
    assert names[1] == names[0]
    assert [f.get("link") for f in second["findings"]] == ["same", "same", None]
    stranger = clinic.study("20250501", ball(A, 22), patient_id="P2")[0].parent
    with pytest.raises(Refused, match="not of this patient"):
        offline.analyse_folder(stranger, tmp_path / "out", settings, plugins=("balls",), prior=earlier)


def test_an_earlier_study_that_an_archive_gives_with_its_results_is_waited_for_and_compared(
    clinic: Clinic, tmp_path: Path
) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18))
    images = clinic.study("20250101", ball(A, 22), ball(B, 18))
    results = [clinic.node.objects.path(row.sha256) for row in clinic.node.rows(Result)]
    elsewhere = Clinic(tmp_path / "elsewhere")
    elsewhere.send("20250401", ball(A, 14), ball(B, 20))
    elsewhere.settle()
    ask_for(elsewhere, 1, dcmread(images[0]).StudyInstanceUID)
    elsewhere.work()
    assert [(job.state, job.attempt) for job in elsewhere.node.rows(Job)] == [("queued", 0)]
    intake = Intake(elsewhere.node.database, elsewhere.node.objects)
    for file in (*images, *results):
        temporary = elsewhere.node.objects.temporary()
        temporary.write_bytes(file.read_bytes())
        intake.take(temporary, source="PACS", coming="fetched")
    elsewhere.work(priors_wait_seconds=0)
    assert elsewhere.named("20250401") == first
    assert {link.kind for link in elsewhere.links("20250401").values()} == {"same"}
    assert "priors-not-here" in elsewhere.told("20250401")
    assert len(elsewhere.node.rows(Job)) == 1
    elsewhere.node.database.dispose()

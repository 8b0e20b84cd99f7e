"""From a correction to a promoted model: results go out, a reader edits them, and the next study is drawn better."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series
from edited_seg import edited, masks_of
from marked_images import group, report, scoord
from node_process import NodeProcess, nadir_json
from numpy.typing import NDArray
from orthanc_server import OrthancServer, orthanc
from ports import free_port
from pydicom import Dataset, dcmread
from sqlmodel import col, select
from tiny_champion import install

from store.database import Database
from store.tables import Instance, Series

pytestmark = [pytest.mark.xdist_group("correction"), pytest.mark.long]

FAMILY = "nodule_segmenter"
SETTINGS = """
[retrain]
families = ["nodule_segmenter"]
cron = "off"
drift_cron = "off"
fewest_new_labels = 3
steps = 150
batch = 4
learning_rate = 0.01

[retrain.margins]
fewest_patients = 3
fewest_cases = 3
latency_ratio = 10
"""
SALT = "salt-1"
"""With it the lots of the six patients are: three are learned from, three are judged on."""
SPACING = (2.0, 0.8, 0.8)
SHAPE = (20, 60, 64)
DIAMETERS_MM = (8.0, 9.0, 14.5, 9.5, 11.5, 10.5)
"""Of the nodule of each patient that is corrected; those that are judged on are alike, so three tell enough."""


def ball(diameter_mm: float) -> NDArray[np.bool_]:
    at = (np.indices(SHAPE).reshape(3, -1).T - (9, 31, 27)) * SPACING
    return np.asarray(np.linalg.norm(at, axis=1) <= diameter_mm / 2).reshape(SHAPE)


def write_study(folder: Path, number: int, diameter_mm: float) -> list[Path]:
    """Write a CT of lung with a nodule, and the report in which somebody pointed at it."""
    noise = np.random.default_rng(number).normal(0.0, 20.0, SHAPE)
    hu = np.where(ball(diameter_mm), 40.0, -850.0) + noise
    patient = f"CORRECTED-{number}"
    slices = make_series(folder, hu, spacing_mm=SPACING, patient_id=patient, ConvolutionKernel="B30f")
    mark = report(folder / "mark.dcm", slices[9], [group("Lesion", scoord(slices[9], "POINT", [27.5, 31.5]))])
    return [*slices, mark]


def device(result: Dataset) -> str:
    (uid,) = [item.DeviceUID for item in result.ContributingEquipmentSequence if "DeviceUID" in item]
    return str(uid)


@dataclass
class Round:
    """A node, its PACS, and the studies that were sent."""

    node: NodeProcess
    pacs: OrthancServer
    config: Path
    folder: Path
    studies: dict[int, list[Path]] = field(default_factory=dict)
    """Files of each patient's study; images first."""

    def send(self, number: int) -> None:
        diameter_mm = DIAMETERS_MM[number % len(DIAMETERS_MM)]
        self.studies[number] = write_study(self.folder / f"study{number}", number, diameter_mm)
        for path in self.studies[number]:
            self.pacs.upload(path)

    def images(self, number: int) -> list[Dataset]:
        return [dcmread(path) for path in self.studies[number][:-1]]

    def results(self, number: int, modality: str) -> list[Dataset]:
        """Return what Nadir sent to the PACS of a study."""
        study = self.images(number)[0].StudyInstanceUID
        found = []
        for series in self.pacs.get("/series?expand"):
            parent = self.pacs.get(f"/studies/{series['ParentStudy']}")["MainDicomTags"]
            if parent["StudyInstanceUID"] == study and series["MainDicomTags"]["Modality"] == modality:
                found += [dcmread(io.BytesIO(self.pacs.file(i))) for i in series["Instances"]]
        return [one for one in found if one.Manufacturer == "Nadir"]

    def wait_for_results(self, numbers: Sequence[int], seconds: float = 180) -> dict[int, Dataset]:
        """Return the SEG of each study once it is there."""
        found: dict[int, Dataset] = {}
        deadline = time.monotonic() + seconds
        while missing := [n for n in numbers if n not in found]:
            assert time.monotonic() < deadline, f"no SEG of {missing}\n{''.join(self.node.log[-40:])}"
            for number in missing:
                if segs := self.results(number, "SEG"):
                    found[number] = segs[0]
            time.sleep(0.5)
        return found

    def dice(self, number: int, seg: Dataset) -> float:
        drawn = masks_of(seg, self.images(number))[..., 0]
        truth = ball(DIAMETERS_MM[number % len(DIAMETERS_MM)])
        return float(2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()))

    def edit(self, number: int, seg: Dataset) -> None:
        """Store the SEG back with the true outline, as a viewer would."""
        truth = ball(DIAMETERS_MM[number % len(DIAMETERS_MM)])[..., None]
        path = self.folder / f"edited{number}.dcm"
        edited(seg, self.images(number), lambda _: truth).save_as(path)
        self.pacs.upload(path)

    def models(self, *arguments: str) -> Any:
        home = ("--home", str(self.node.home), "--config", str(self.config))
        return nadir_json("models", *arguments, *home)

    def wait_for_corrections(self, count: int, seconds: float = 120) -> None:
        """Return once the node holds so many SEGs of somebody else."""
        database = Database(f"sqlite:///{self.node.home / 'nadir.sqlite'}")
        deadline = time.monotonic() + seconds
        statement = select(Instance.id).join(Series).where(Series.modality == "SEG", ~col(Instance.own))
        while True:
            with database.reading() as session:
                found = len(session.exec(statement).all())
            if found >= count:
                break
            assert time.monotonic() < deadline, f"{found} corrections\n{''.join(self.node.log[-40:])}"
            time.sleep(0.5)
        database.dispose()


@dataclass(frozen=True)
class Loop:
    """What happened, once, from the first study to the rollback."""

    round: Round
    champion: str
    """Hash of the model that counted at first."""
    first: dict[int, Dataset]
    """The SEGs before anything was learned, by patient."""
    run: dict[str, Any]
    """What the command that retrains said."""
    again: dict[str, Any]
    """What it said when it was asked again."""
    unasked: Dataset
    """A SEG after the run and before the approval."""
    approved: Dataset
    """A SEG after the approval."""
    rolled_back: Dataset
    """A SEG after the rollback."""


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("correction")
    home, config = folder / "home", folder / "nadir.toml"
    home.mkdir(mode=0o700)
    (home / "sides.salt").write_text(SALT)
    config.write_text(SETTINGS)
    champion = install(home, folder / "champion", steps=12)
    http_port = free_port()
    with orthanc(node_url=f"http://127.0.0.1:{http_port}", stable_seconds=1) as pacs:
        process = NodeProcess(
            home,
            *("--config", str(config), "--accept-any", "--quiet-seconds", "1", "--reserve-bytes", "0"),
            *("--destination", f"ORTHANC@127.0.0.1:{pacs.dicom_port}", "--pacs-url", pacs.dicomweb),
            *("--plugin", "marked_lesion", "--response-criteria", "off"),
        )
        process.http_port = http_port
        try:
            process.start()
            yield went_round(Round(process, pacs, config, folder), champion)
        finally:
            process.kill()


def went_round(round_: Round, champion: str) -> Loop:
    """Send, correct, retrain, approve and roll back; nothing is judged here."""
    patients = range(len(DIAMETERS_MM))
    for number in patients:
        round_.send(number)
    first = round_.wait_for_results(patients)
    for number, seg in first.items():
        round_.edit(number, seg)
    round_.wait_for_corrections(len(patients))
    run = round_.models("retrain", FAMILY)
    again = round_.models("retrain", FAMILY)
    segs = []
    for number, change in ((100, ()), (101, ("approve", FAMILY, "2")), (102, ("rollback", FAMILY))):
        if change:
            round_.models(*change, "--author", "Dr. Second")
        round_.send(number)
        segs.append(round_.wait_for_results([number])[number])
    return Loop(round_, champion, first, run, again, *segs)


def test_a_run_learns_from_the_corrections_and_proposes_but_nothing_changes_by_itself(loop: Loop) -> None:
    assert loop.run["state"] == "proposed"
    assert device(loop.unasked) == device(loop.first[0])


def test_a_second_run_finds_nothing_new_and_trains_nothing(loop: Loop) -> None:
    assert loop.again["state"] == "too-few"


def test_what_a_person_approved_draws_the_next_study_better_under_a_device_uid_of_its_own(loop: Loop) -> None:
    before = loop.round.dice(100, loop.unasked)
    assert loop.round.dice(101, loop.approved) > before + 0.03
    assert device(loop.approved) != device(loop.unasked)
    (sr, *_) = loop.round.results(101, "SR")
    assert device(sr) == device(loop.approved)


def test_the_rollback_brings_back_the_very_device_that_was_before(loop: Loop) -> None:
    assert device(loop.rolled_back) == device(loop.unasked)

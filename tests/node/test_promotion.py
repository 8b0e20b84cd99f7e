"""A promotion in a node that runs: the next job uses the new model, one result each, and back again."""

from __future__ import annotations

import json
import os
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import promoted_plugin
import pytest
from dicom_series import make_series
from made_models import register_model, write_model
from pydicom import Dataset, dcmread
from small_node import SmallNode
from sqlmodel import col, select
from typer.testing import CliRunner

from models.nodule_segmenter import NAME
from models.place import ModelPlace
from models.shipped import VOUCHED
from node import worker as worker_module
from node.analyses import Analyses
from node.cli import app
from node.cli_options import models_of
from node.cli_retrain import _record
from node.intake import Intake
from node.pipeline import analyse
from node.settings import Settings
from node.settle import Settler
from node.task import Identity, Task
from node.worker import Worker
from plugins.errors import Refused
from plugins.registry import load_plugins
from store.audit_tables import AuditRecord
from store.model_tables import ModelVersion
from store.registry import counts_now
from store.tables import Job, Result


class Clinic:
    """A node whose jobs run in this process; its settler and its worker are those of its start."""

    def __init__(self, home: Path) -> None:
        self.node = SmallNode.make(home)
        settings = Settings(home=home, enabled=("promoted",), response_criteria="off")
        identities = [Identity.of(plugin) for plugin in load_plugins({}, ("promoted",))]
        self.analyses = Analyses(settings, identities)
        self.settler = Settler(self.node.database, identities, quiet_seconds=0, present=self.analyses.present)
        self.worker = Worker(self.node.database, self.node.objects, settings, identities, owner="w")
        self.home, self.sent = home, 0

    def send(self) -> None:
        """Let a study come and settle."""
        self.sent += 1
        uid, hu = f"1.2.3.{self.sent}", np.zeros((6, 20, 20))
        intake = Intake(self.node.database, self.node.objects)
        for file in make_series(self.home / "files" / uid, hu, study_uid=uid, patient_id=f"P{self.sent}"):
            temporary = self.node.objects.temporary()
            temporary.write_bytes(file.read_bytes())
            intake.take(temporary, source="CT1@127.0.0.1")
        self.settler.tick(self.node.database.now() + timedelta(seconds=1))

    def work(self) -> int:
        """Work until nothing is due; return how many jobs were taken."""
        taken, later = 0, self.node.database.now() + timedelta(hours=1)
        while self.worker.tick(later):
            taken += 1
        return taken

    def jobs(self) -> list[tuple[str, str | None]]:
        with self.node.database.reading() as session:
            return [(job.state, job.error_code) for job in session.exec(select(Job).order_by(col(Job.id)))]

    def results(self) -> list[Dataset]:
        """Return every SEG, the oldest first."""
        rows = [row for row in self.node.rows(Result) if row.kind == "seg"]
        return [dcmread(self.node.objects.path(row.sha256)) for row in rows]

    def register(self, seed: int, **how: Any) -> None:
        register_model(self.node.database, self.home, seed, **how)

    def cli(self, *words: str) -> Any:
        """Return what `nadir models ...` prints as JSON."""
        said = CliRunner().invoke(app, ["models", *words, "--home", str(self.home), "--json"])
        if isinstance(said.exception, Exception):
            raise said.exception
        return json.loads(said.stdout)

    def approve(self, number: int) -> None:
        self.cli("approve", NAME, str(number), "--author", "Dr. Abel", "--note", "better")

    def rollback(self) -> None:
        self.cli("rollback", NAME, "--author", "Dr. Abel")


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    monkeypatch.syspath_prepend(str(promoted_plugin.install(tmp_path / "plugins")))
    monkeypatch.delitem(__import__("sys").modules, "promoted", raising=False)

    def here(task_json: str, *_: object, **__: object) -> dict[str, Any]:
        return json.loads(json.dumps(analyse(Task.from_json(task_json)).to_json()))

    monkeypatch.setattr(worker_module, "run_in_child", here)
    made = Clinic(tmp_path / "home")
    yield made
    made.node.database.dispose()


def algorithm(dataset: Dataset) -> Dataset:
    """Return the item that names the algorithm: the one with a Device UID."""
    (own,) = (item for item in dataset.ContributingEquipmentSequence if "DeviceUID" in item)
    return own


def label(dataset: Dataset) -> str:
    return dataset.SegmentSequence[0].SegmentLabel


def test_the_next_job_of_a_running_node_uses_what_was_approved_and_after_a_rollback_what_was_before(
    clinic: Clinic,
) -> None:
    clinic.register(5)
    clinic.send()
    clinic.work()
    clinic.approve(1)
    clinic.send()
    clinic.work()
    clinic.rollback()
    clinic.send()
    clinic.work()
    assert clinic.jobs() == [("done", None)] * 3
    first, second, third = clinic.results()
    assert [label(one) for one in (first, second, third)] == ["1 wide", "5 wide", "1 wide"]
    devices = [algorithm(one).DeviceUID for one in (first, second, third)]
    assert devices[0] == devices[2] != devices[1]
    assert first.DeviceSerialNumber == third.DeviceSerialNumber != second.DeviceSerialNumber
    assert f"{NAME} 1.5.0" in algorithm(second).SoftwareVersions
    models = [job.model_sha256 for job in clinic.node.rows(Job)]
    assert models[0] == models[2] != models[1]
    for one, model in zip((first, second, third), models, strict=True):
        assert model in algorithm(one).ContributionDescription
    for number, device in (("1", devices[1]), ("shipped", devices[0])):
        shown = clinic.cli("show", NAME, number)["devices"]
        assert [one["device_uid"] for one in shown if one["analysis"] == "promoted 1"] == [device]


def test_the_report_names_the_same_device_as_the_segmentation(clinic: Clinic) -> None:
    clinic.register(5)
    clinic.approve(1)
    clinic.send()
    clinic.work()
    (seg,) = clinic.results()
    reports = [row for row in clinic.node.rows(Result) if row.kind.startswith("sr-")]
    assert reports
    for row in reports:
        report = dcmread(clinic.node.objects.path(row.sha256))
        assert algorithm(report).DeviceUID == algorithm(seg).DeviceUID
        assert algorithm(seg).DeviceUID in str(report.ContentSequence)


def test_a_job_that_waited_runs_once_with_the_model_that_counts_when_its_turn_comes(clinic: Clinic) -> None:
    clinic.register(5)
    clinic.send()
    clinic.approve(1)
    clinic.work()
    assert clinic.jobs() == [("superseded", "plugin-changed"), ("done", None)]
    assert [label(one) for one in clinic.results()] == ["5 wide"]
    assert clinic.work() == 0


def test_a_job_that_gave_way_comes_back_when_the_promotion_is_rolled_back_before_its_successor_ran(
    clinic: Clinic,
) -> None:
    clinic.register(5)
    clinic.send()
    clinic.approve(1)
    later = clinic.node.database.now() + timedelta(hours=1)
    assert clinic.worker.tick(later)
    clinic.rollback()
    clinic.work()
    assert clinic.jobs() == [("done", None), ("superseded", "plugin-changed")]
    assert [label(one) for one in clinic.results()] == ["1 wide"]
    clinic.approve(1)
    clinic.send()
    clinic.work()
    assert clinic.jobs()[2:] == [("done", None)]


def test_no_study_is_lost_while_a_model_cannot_be_read_and_each_has_one_result_after_it(
    clinic: Clinic,
) -> None:
    clinic.register(5)
    clinic.approve(1)
    (folder,) = (clinic.home / "models" / NAME).iterdir()
    away = shutil.move(folder, clinic.home / "away")
    clinic.send()
    later = clinic.node.database.now() + timedelta(hours=1)
    assert clinic.worker.tick(later)
    (job,) = clinic.node.rows(Job)
    assert (job.state, job.error_code) == ("queued", "unavailable")
    assert "which cannot be read here: No such file or directory" in str(job.error_text)
    shutil.move(away, folder)
    assert clinic.worker.tick(later + timedelta(hours=1))
    clinic.work()
    assert clinic.jobs() == [("superseded", "plugin-changed"), ("done", None)]
    assert [label(one) for one in clinic.results()] == ["5 wide"]


def test_changed_weights_stop_the_job_with_the_reason_though_they_were_good_when_it_was_queued(
    clinic: Clinic,
) -> None:
    clinic.register(5)
    clinic.approve(1)
    clinic.send()
    (weights,) = (clinic.home / "models" / NAME).glob("*/fold0.safetensors")
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert clinic.worker.tick(clinic.node.database.now() + timedelta(hours=1))
    (job,) = clinic.node.rows(Job)
    assert (job.state, job.error_code) == ("queued", "changed-model")
    assert "'fold0.safetensors' is not the file" in str(job.error_text)
    clinic.rollback()
    clinic.work()
    assert [label(one) for one in clinic.results()] == ["1 wide"]


def test_the_list_shows_who_decided_what_and_the_audit_trail_knows_it(clinic: Clinic) -> None:
    clinic.register(5)
    clinic.register(6, proposed=False)
    clinic.approve(1)
    listed = {(one["family"], one["number"]): one for one in clinic.cli("list")}
    assert listed[(NAME, "shipped")]["state"] == "replaced"
    assert (listed[(NAME, 1)]["state"], listed[(NAME, 1)]["by"]) == ("active", "Dr. Abel")
    assert listed[(NAME, 1)]["why"] == "better"
    assert listed[(NAME, 2)]["state"] == "refused"
    assert listed[("petct_multitask", "shipped")]["state"] == "active"
    clinic.rollback()
    shown = clinic.cli("show", NAME, "1")
    assert (shown["source_commit"], shown["data_sha256"]) == ("c" * 40, "d" * 64)
    assert [(done["done"], done["to"]) for done in shown["history"]] == [
        ("approved", "1"),
        ("rolled back", "shipped"),
    ]
    told = [row.message for row in clinic.node.rows(AuditRecord)]
    assert len(told) == 2
    assert all("Software Configuration" in xml and 'UserID="Dr. Abel"' in xml for xml in told)
    said = CliRunner().invoke(app, ["models", "show", NAME, "2", "--home", str(clinic.home)])
    assert "did not propose it. It is worse for nodules below 6 mm." in said.stdout
    assert "Device UID 2.25." in said.stdout


def test_after_a_rollback_its_reason_stands_in_the_history_and_not_at_the_model_that_counts_again(
    clinic: Clinic,
) -> None:
    clinic.register(5)
    clinic.cli("approve", NAME, "1", "--author", "Dr. First")
    with clinic.node.database.reading() as session:
        champion = counts_now(session, NAME)
    clinic.register(6, champion=champion)
    clinic.cli("approve", NAME, "2", "--author", "Dr. Second", "--note", "finer")
    clinic.cli("rollback", NAME, "--author", "Dr. Third", "--note", "bad")
    first, second = clinic.cli("list", NAME)[1:]
    assert (first["state"], first["decided"], first["by"]) == ("active", "rolled back", "Dr. Third")
    assert first["why"] == "It is better. It is worse in nothing."
    assert (second["state"], second["by"], second["why"]) == ("proposed", "Dr. Second", "finer")
    listed = CliRunner().invoke(app, ["models", "list", NAME, "--home", str(clinic.home)]).stdout
    models, decisions = listed.split("Who decided what")
    assert "bad" not in models
    rows = [re.split(r" {2,}", line.strip())[1:] for line in decisions.strip().splitlines()[2:]]
    assert rows == [
        ["approved", "1", "shipped", "Dr. First"],
        ["approved", "2", "1", "Dr. Second", "finer"],
        ["rolled back", "1", "2", "Dr. Third", "bad"],
    ]
    shown = CliRunner().invoke(app, ["models", "show", NAME, "2", "--home", str(clinic.home)]).stdout
    assert "rolled back by Dr. Third: 1 counts in place of 2 (bad)" in shown
    clinic.cli("rollback", NAME, "--author", "Dr. Third", "--note", "worse")
    assert clinic.cli("list", NAME)[0]["why"] == ""
    every = CliRunner().invoke(app, ["models", "list", "--home", str(clinic.home)]).stdout
    assert "Who decided what" not in every and "worse" not in every


def test_a_family_that_the_release_has_not_counts_no_more_after_a_rollback(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(VOUCHED, "nodule_detector", raising=False)  # type: ignore[arg-type]
    clinic.register(5, family="nodule_detector")
    clinic.cli("approve", "nodule_detector", "1", "--author", "Dr. Abel")
    assert clinic.cli("rollback", "nodule_detector", "--shipped", "--author", "Dr. Abel") is None
    with pytest.raises(Refused, match="no-family: there is no model of 'liver'"):
        clinic.cli("rollback", "liver")


def test_a_registration_by_a_run_is_in_the_audit_trail(clinic: Clinic) -> None:
    clinic.register(5)
    (model,) = clinic.node.rows(ModelVersion)
    with clinic.node.database.transaction() as session:
        _record("NADIR", session, model)
    (row,) = clinic.node.rows(AuditRecord)
    assert 'ParticipantObjectID="models/nodule_segmenter/1"' in row.message
    assert b64encode(b"registered, proposed").decode() in row.message


def test_the_commands_on_files_draw_with_the_models_of_the_node_that_is_named(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.offline.run_in_child", worker_module.run_in_child)
    clinic.register(5)
    clinic.approve(1)
    named = models_of(clinic.home, None)
    assert [Path(place.folder).parent.name for place in named.values()] == [NAME]
    assert models_of(None, None) == {}
    config = tmp_path / "nadir.toml"
    config.write_text(f'home = "{clinic.home}"')
    assert models_of(None, config) == named
    with pytest.raises(Refused, match="no-database"):
        models_of(tmp_path / "nowhere", None)
    study = make_series(tmp_path / "study", np.zeros((6, 20, 20)))[0].parent
    for number, more in enumerate(([], ["--home", str(clinic.home)])):
        words = [
            "analyse",
            str(study),
            "--out",
            str(tmp_path / f"out{number}"),
            "--plugin",
            "promoted",
            "--json",
        ]
        said = CliRunner().invoke(app, [*words, *more])
        assert json.loads(said.stdout)["findings"][0]["label"] == ("1 wide", "5 wide")[number]


@pytest.mark.long
def test_the_shipped_analyses_draw_with_another_network_under_another_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", os.devnull)  # no trial of runtimes: torch computes
    at = (np.indices((20, 60, 64)).reshape(3, -1).T - (9, 31, 27)) * (2.0, 0.8, 0.8)
    inside = (np.linalg.norm(at, axis=1) <= 6.0).reshape(20, 60, 64)
    files = make_series(
        tmp_path / "study",
        np.where(inside, 40.0, -850.0),
        spacing_mm=(2.0, 0.8, 0.8),
        origin_mm=(-20.0, 10.0, 100.0),
    )
    seen = {}
    for seed in (1, 2):
        folder, out = tmp_path / str(seed), tmp_path / f"out{seed}"
        out.mkdir()
        place = ModelPlace(folder=str(folder), sha256=write_model(folder, seed, runs=True, levels=[0.0]))
        task = Task(
            files=tuple(map(str, files)),
            manifest_sha256="0" * 64,
            plugins=("marked_lesion",),
            plugin_settings={},
            out=str(out),
            started_at="2026-03-01T08:00:00+00:00",
            predecessors={},
            marks=((1.6, 34.8, 118.0),),
            models={NAME: place},
        )
        (analysed,) = analyse(Task.from_json(task.to_json())).analysed
        assert analysed.results.found, analysed
        seg = dcmread(next(w.path for w in analysed.results.written if w.kind == "seg"))
        seen[analysed.job_key] = algorithm(seg).DeviceUID
        assert f"{NAME} 1.{seed}.0" in algorithm(seg).SoftwareVersions
    assert len(set(seen.values())) == len(seen) == 2

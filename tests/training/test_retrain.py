"""A run of retraining from labels to a proposal: what is written when, what stops it, and what a kill leaves."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from label_crops import (
    FAMILY,
    JUDGES,
    LEARNERS,
    RECIPE,
    database_of,
    gather,
    make_node,
    retrain,
    write_labels,
)
from safetensors.torch import load_file
from sqlmodel import select
from typer.testing import CliRunner

from models.files import verify
from node.cli import app
from plugins.errors import Refused, Unavailable
from store import patients, registry, runs
from store.database import Database
from store.failpoint import KILLED
from store.model_folders import unnamed
from store.model_tables import ModelVersion, Promotion, TrainingRun
from store.patient_key import patient_key
from store.runs import Overtaken, State
from store.sides import assign
from store.tables import Patient
from training.fit import Progress
from training.frozen import Gathered, fold_of
from training.promotion import require_still_apart
from training.retrain import Ended

UNDERTRAINED = 8
STAGES = (
    "retrain-begun", "retrain-collected", "retrain-frozen", "retrain-step:1", "retrain-step:30", "retrain-fold",
    "retrain-packed", "retrain-judged", "retrain-staged", "model-folder-named", "retrain-registered",
)  # fmt: skip
"""Places before the end of a run, in their order."""


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a node whose champion learned too little."""
    home = tmp_path_factory.mktemp("node") / "home"
    make_node(home, UNDERTRAINED)
    return home


@pytest.fixture
def home(node: Path, tmp_path: Path) -> Path:
    shutil.copytree(node, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    made = database_of(home)
    yield made
    made.dispose()


@dataclass
class Done:
    """A run that was stopped in the middle, and the next one."""

    home: Path
    database: Database
    ended: Ended
    steps: list[int]
    """Steps that the second one took."""

    def rows(self) -> tuple[list[TrainingRun], list[ModelVersion]]:
        with self.database.reading() as session:
            return runs.list_runs(session), list(registry.versions(session, FAMILY))


@pytest.fixture(scope="module")
def done(node: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    home = tmp_path_factory.mktemp("done") / "home"
    shutil.copytree(node, home)
    database, steps = database_of(home), []

    def stop(now: Progress) -> None:
        if now.step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain(home, database, tell=stop)
    ended = retrain(home, database, tell=lambda now: steps.append(now.step))
    yield Done(home, database, ended, steps)
    database.dispose()


def test_a_champion_that_learned_too_little_is_outdone_and_the_challenger_only_proposed(done: Done) -> None:
    rows, models = done.rows()
    assert [row.state for row in rows] == [State.ABANDONED, State.PROPOSED]
    last, made = rows[-1], models[-1]
    assert (last.labels, last.new_labels, last.slot) == (8, 8, None)
    assert (made.is_proposed, made.run_pk, made.number) == (True, last.id, done.ended.model)
    assert (made.data_sha256, made.judged_sha256) == (last.data_sha256, last.judged_sha256)
    assert made.champion_sha256 == last.champion_sha256 == models[0].manifest_sha256
    assert (
        len(made.source_commit) == 40 and "torch" in made.environment and json.loads(made.seeds) == {"0": 0}
    )
    assert json.loads(made.figures)["is_proposed"] is True
    with done.database.reading() as session:
        assert registry.counts_now(session, FAMILY) == models[0].manifest_sha256
        assert len(list(session.exec(select(Promotion)))) == 1


def test_a_run_that_was_stopped_is_gone_on_with_from_its_checkpoint(done: Done) -> None:
    rows, _ = done.rows()
    assert rows[0].folder == rows[1].folder == f"training/{FAMILY}/1"
    assert done.steps[0] > 20 and done.steps[-1] == RECIPE.steps


def test_the_card_says_what_is_new_and_what_is_the_champions(done: Done) -> None:
    _, (first, made) = done.rows()
    verify(done.home / made.folder, {made.manifest_sha256}, done.database.now().date())
    cards = [json.loads((done.home / one.folder / "card.json").read_text()) for one in (first, made)]
    assert cards[1]["version"] == "tiny+2"
    assert all(
        cards[0][name] == cards[1][name] for name in ("levels", "mirrors", "doubt", "view", "architecture")
    )
    assert "8 masks of 8 patients of this site" in cards[1]["training_data"]
    assert any(
        "quantiles of its intervals are those of version tiny" in limit for limit in cards[1]["limits"]
    )
    assert any("new masks alone" in limit for limit in cards[1]["limits"])
    assert str(done.home) not in json.dumps(cards[1])
    held_out = cards[1]["held_out"]
    assert cards[0]["held_out"].items() <= held_out.items()
    assert {patient_key(patient_key(name)) for name in LEARNERS} <= held_out.keys()
    assert not {patient_key(patient_key(name)) for name in JUDGES} & held_out.keys()


def test_the_documents_of_the_plan_lie_with_the_run(done: Done) -> None:
    folder = done.home / "training" / FAMILY / "1" / "plan"
    assert {path.stem for path in folder.iterdir()} == {"modification", "protocol", "impact"}
    assert json.loads((folder / "impact.json").read_text())["run"]["state"] == "proposed"


def test_the_same_labels_again_train_nothing(done: Done) -> None:
    ended = retrain(done.home, done.database, gather((*LEARNERS, "L8", "L9")))
    assert (ended.state, ended.model) == (State.TOO_FEW, None)
    assert ended.said.startswith("2 masks to learn from are new since the last run, and 4 are asked for")
    assert not (done.home / "training" / FAMILY / str(ended.number)).exists()
    assert len(done.rows()[1]) == 2


@pytest.mark.parametrize(
    ("learners", "judges", "says"),
    [
        ((), JUDGES, "0 masks"),
        (LEARNERS, (), "0 patients are on the hold-out"),
        (LEARNERS, JUDGES[:4], "needs 5"),
        (tuple(f"S{n}" for n in range(40) if fold_of(f"S{n}", {}) == 0)[:4], JUDGES, "of fold 0"),
    ],
)
def test_too_little_to_learn_from_or_to_judge_on_trains_nothing(
    home: Path, database: Database, learners: tuple[str, ...], judges: tuple[str, ...], says: str
) -> None:
    ended = retrain(home, database, gather(learners, judges))
    assert ended.state == State.TOO_FEW
    assert says in ended.said


def test_images_of_the_hold_out_under_another_patient_are_left_out_and_told(
    home: Path, database: Database
) -> None:
    def same(folder: Path, _: object) -> Gathered:
        return Gathered(
            learn=write_labels(folder / "learn", "labels", LEARNERS),
            judge=write_labels(folder / "judge", "hold-out", JUDGES),
        )

    ended = retrain(home, database, same)
    assert ended.state == State.TOO_FEW
    assert ended.said.startswith("2 masks to learn from are new since the last run, and 4 are asked for")
    assert ended.left_out == (
        "6 masks are not learned from: their images are, byte for byte, those of another patient; let them be one",
    )


def test_a_challenger_that_answers_as_the_champion_does_is_refused(home: Path, database: Database) -> None:
    recipe = replace(RECIPE, steps=1, learning_rate=0.0)
    ended = retrain(home, database, recipe=recipe)
    assert ended.state == State.REFUSED
    with database.reading() as session:
        made = registry.version_of(session, FAMILY, 2)
        assert not made.is_proposed and made.because == ended.said
        with pytest.raises(Refused, match="not-proposed"):
            registry.approve(session, home, FAMILY, 2, author="somebody", now=database.now())


def test_a_second_run_at_the_same_time_is_refused_and_one_that_lost_its_place_writes_nothing(
    home: Path, database: Database
) -> None:
    def overtaken(text: str) -> None:
        if text.startswith("learning"):
            with pytest.raises(Refused, match="test:1 has been retraining"):
                retrain(home, database, owner="test:2")
            with database.transaction() as session:  # long after, as if this one had been asleep
                late = database.now().replace(year=database.now().year + 1)
                runs.begin(session, FAMILY, "test:2", late, 60)

    with pytest.raises(Overtaken):
        retrain(home, database, say=overtaken, recipe=replace(RECIPE, steps=1))
    with database.reading() as session:
        assert [(run.owner, run.state) for run in runs.list_runs(session)] == [
            ("test:1", State.ABANDONED),
            ("test:2", State.COLLECTING),
        ]
        assert len(registry.versions(session)) == 1


def declare_one(database: Database) -> None:
    """Declare somebody who is learned from and somebody who is judged on to be one person."""
    with database.transaction() as session:
        pks = []
        for patient_id in ("L1", "J1"):
            session.add(row := Patient(patient_id=patient_id))
            session.flush()
            pks.append(int(row.id or 0))
        assign(session, pks, salt=b"", now=database.now())
        patients.merge(session, pks[0], pks[1], "Admin", database.now())


def test_a_model_is_not_approved_when_persons_of_both_sides_turned_out_to_be_one_since(
    done: Done, tmp_path: Path
) -> None:
    done.database.dispose()
    shutil.copytree(done.home, tmp_path / "home")
    database = database_of(tmp_path / "home")
    with database.reading() as session:
        version = registry.version_of(session, FAMILY, done.ended.model or 0)
        require_still_apart(session, tmp_path / "home", version)
    declare_one(database)
    database.dispose()
    words = ["approve", FAMILY, str(version.number), "--author", "Dr. Abel", "--home", str(tmp_path / "home")]
    said = CliRunner().invoke(app, ["models", *words])
    assert isinstance(said.exception, Refused) and said.exception.code == "patient-on-both-sides"


def test_a_model_is_not_registered_when_persons_of_both_sides_turn_out_to_be_one_meanwhile(
    home: Path, database: Database
) -> None:
    def merge(text: str) -> None:
        if text.startswith("judging"):
            declare_one(database)

    with pytest.raises(Refused, match="on the hold-out and learned from"):
        retrain(home, database, say=merge, recipe=replace(RECIPE, steps=1))
    with database.reading() as session:
        (run,) = runs.list_runs(session)
        named = [version.folder for version in registry.versions(session)]
    assert (run.state, run.slot, len(named)) == (State.FAILED, None, 1)
    assert unnamed(home, named) == []


@pytest.mark.long
def test_the_next_run_keeps_what_finished_ones_left_and_begins_anew_after_a_failed_one(
    home: Path, database: Database
) -> None:
    folder = home / "training" / FAMILY
    short = replace(RECIPE, steps=4)

    def stop(now: Progress) -> None:
        if now.step == 2:
            raise KeyboardInterrupt

    def again(error: type[BaseException], **changed: Any) -> None:
        with pytest.raises(error):
            retrain(home, database, recipe=short, **changed)

    again(KeyboardInterrupt, tell=stop)
    (folder / "1" / "fit" / "fold0" / "checkpoint.pt").write_bytes(b"")  # as a power cut leaves it
    again(Refused)
    again(KeyboardInterrupt, tell=stop)
    assert [path.name for path in folder.iterdir()] == ["3"]
    assert retrain(home, database, recipe=short).number == 4
    four = gather((*LEARNERS, "L8", "L9", "L10", "L11"))
    again(KeyboardInterrupt, gathers=four, tell=stop)
    assert sorted(path.name for path in folder.iterdir()) == ["3", "5"]  # 4 went on in 3


def test_what_fails_is_written_down_and_frees_its_place(home: Path, database: Database) -> None:
    def broken(folder: Path, _: object) -> Gathered:
        raise Refused("disk", "the labels cannot be read")

    with pytest.raises(Refused, match="cannot be read"):
        retrain(home, database, broken)
    with database.reading() as session:
        (run,) = runs.list_runs(session)
    assert (run.state, run.slot) == (State.FAILED, None)
    assert "the labels cannot be read" in run.said


def test_a_challenger_that_diverged_is_told_as_one(home: Path, database: Database) -> None:
    with pytest.raises(Refused, match="diverged"):
        retrain(home, database, recipe=replace(RECIPE, steps=4, learning_rate=1e9))
    with database.reading() as session:
        (run,) = runs.list_runs(session)
        assert len(registry.versions(session)) == 1
    assert (run.state, run.slot) == (State.FAILED, None)
    assert "lower retrain.learning_rate" in run.said


def test_a_disk_that_is_full_is_told_as_one(home: Path, database: Database) -> None:
    def fill(text: str) -> None:
        if text.startswith("learning"):
            (fold := home / "training" / FAMILY / "1" / "fit" / "fold0").mkdir(parents=True)
            (fold / "checkpoint.half").symlink_to("/dev/full")

    with pytest.raises(Unavailable, match="No space left on device"):
        retrain(home, database, say=fill, recipe=replace(RECIPE, steps=2))
    with database.reading() as session:
        (run,) = runs.list_runs(session)
    assert (run.state, run.slot) == (State.ABANDONED, None)
    assert "No space left on device" in run.said


def test_a_run_that_found_the_disk_full_is_gone_on_with_from_its_last_checkpoint(
    home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, steps = Path.write_bytes, [0]

    def full(path: Path, content: bytes) -> int:
        if path.name == "checkpoint.half" and steps[-1] == 29:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        Unavailable, match=r"checkpoint\.pt cannot be written: No space left .* goes on from the last"
    ):
        retrain(home, database, tell=lambda now: steps.append(now.step))
    monkeypatch.undo()

    def stop(now: Progress) -> None:
        steps.append(now.step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain(home, database, tell=stop)
    assert steps == [*range(30), 29]  # the checkpoint of step 28 is the last one
    with database.reading() as session:
        assert [run.folder for run in runs.list_runs(session)] == [f"training/{FAMILY}/1"] * 2


def test_a_disk_that_fails_elsewhere_is_told_and_the_next_run_goes_on(
    home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("training.retrain.pack", full)
        with pytest.raises(Unavailable, match=r"The disk or a file failed \(No space left on device\)"):
            retrain(home, database, recipe=replace(RECIPE, steps=2))
    told: list[str] = []
    ended = retrain(home, database, recipe=replace(RECIPE, steps=2), say=told.append)
    assert "going on with what 1 left" in told
    with database.reading() as session:
        (first, second) = runs.list_runs(session)
    assert (first.state, first.folder, ended.number) == (State.ABANDONED, second.folder, second.id)


def killed_at(home: Path, place: str, number: int) -> int:
    """Run a retraining in a process of its own that ends at a place; return its exit status."""
    environment = {
        **os.environ,
        "NADIR_FAILPOINT": place,
        "PYTHONPATH": ".:tests/support",
        "OMP_NUM_THREADS": "1",
    }
    program = Path("tests/support/label_crops.py").resolve()
    command = [sys.executable, str(program), str(home), str(number), "1"]
    return subprocess.run(command, env=environment, check=False, capture_output=True, timeout=120).returncode


def registered(home: Path) -> tuple[list[ModelVersion], list[str]]:
    """Return the models of the registry, and folders that no row names."""
    database = database_of(home)
    with database.reading() as session:
        models = list(registry.versions(session, FAMILY))
        assert len(list(session.exec(select(Promotion)))) == 1
    database.dispose()
    for model in models:
        verify(home / model.folder, {model.manifest_sha256}, database.now().date())
    return models, unnamed(home, [model.folder for model in models])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_run_killed_at_every_stage_leaves_the_registry_and_the_next_makes_the_very_same(
    node: Path, tmp_path: Path
) -> None:
    home, whole = tmp_path / "home", tmp_path / "whole"
    shutil.copytree(node, home)
    for number, place in enumerate(STAGES):
        assert killed_at(home, place, number) == KILLED, place
        assert len(registered(home)[0]) == 1, place
        time.sleep(1.0)  # until its lease has ended
    database = database_of(home)
    with database.reading() as session:
        left = runs.list_runs(session)
    assert [run.state for run in left[:-1]] == [State.ABANDONED] * (len(STAGES) - 1)
    assert killed_at(home, "retrain-ended", 99) == KILLED
    models, stray = registered(home)
    assert (len(models), stray) == (2, [])
    with database.reading() as session:
        *gone, last = runs.list_runs(session)
    assert last.state == State.PROPOSED and models[-1].run_pk == last.id
    assert {run.state for run in gone} == {State.ABANDONED}
    assert sorted(path.name for path in (home / "training" / FAMILY).iterdir()) == [Path(last.folder).name]
    assert killed_at(home, "", 100) == 0
    assert len(registered(home)[0]) == 2
    database.dispose()

    shutil.copytree(node, whole)
    unharmed = database_of(whole)
    ended = retrain(whole, unharmed)
    with unharmed.reading() as session:
        same = registry.version_of(session, FAMILY, ended.model or 0)
    unharmed.dispose()
    undisturbed, resumed = (
        load_file(place / "fold0.safetensors") for place in (whole / same.folder, home / models[-1].folder)
    )
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)

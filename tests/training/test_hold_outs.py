"""`nadir fsck` on what runs of retraining judged on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from label_crops import FAMILY, LEARNERS, RECIPE, database_of, gather, make_node, retrain
from sqlmodel import col, update

from store.database import Database
from store.file_hash import sha256_of
from store.fsck.check import check
from store.fsck.fault import Fault
from store.model_tables import TrainingRun
from store.objects import ObjectStore

FOLDER = f"training/{FAMILY}/{{}}/judge"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home of a node after two runs that judged."""
    home = tmp_path_factory.mktemp("held") / "home"
    make_node(home, 8)
    database = database_of(home)
    recipe = replace(RECIPE, steps=1)
    for learners in (LEARNERS, (*LEARNERS, "L8", "L9", "L10", "L11")):
        retrain(home, database, gather(learners), recipe=recipe)
    database.dispose()
    return home


@pytest.fixture
def home(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "home"))


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    made = database_of(home)
    yield made
    made.dispose()


def found(database: Database, home: Path, *, quick: bool = False) -> list[Fault]:
    return check(database, ObjectStore(home / "store", sync=False), now=database.now(), quick=quick)


def a_mask(folder: Path) -> Path:
    return min((folder / "masks").iterdir())


def changed_mask(folder: Path) -> Path:
    a_mask(folder).write_bytes(b"x")
    return a_mask(folder)


def missing_mask(folder: Path) -> Path:
    path = a_mask(folder)
    path.unlink()
    return path


def missing_manifest(folder: Path) -> Path:
    (folder / "manifest.json").unlink()
    return folder / "manifest.json"


def manifest_of_another_file(folder: Path) -> Path:
    path, mask = folder / "manifest.json", changed_mask(folder)
    said = json.loads(path.read_text())
    for case in said["cases"]:
        if case["files"]["mask"] == mask.relative_to(folder).as_posix():
            case["sha256"]["mask"] = sha256_of(mask)
    path.write_text(json.dumps(said))
    return path


def no_manifest_at_all(folder: Path) -> Path:
    (folder / "manifest.json").write_text("[]")
    return folder / "manifest.json"


@pytest.mark.parametrize(
    "damage", [changed_mask, missing_mask, missing_manifest, manifest_of_another_file, no_manifest_at_all]
)
def test_a_hold_out_that_is_not_what_was_judged_on_is_named_with_what_to_do(
    home: Path, database: Database, damage: Callable[[Path], Path]
) -> None:
    assert found(database, home) == []
    newest = FOLDER.format(2)
    victim = damage(home / newest)
    (fault,) = found(database, home)
    assert (fault.invariant, fault.code, fault.subject) == ("training", "hold-out-damaged", newest)
    name = victim.relative_to(home / newest)
    assert fault.sentence == f"{name} is not there as models were judged on it: {FAMILY} is not retrained."
    assert fault.todo.startswith(f"bring {newest} back from another backup, or remove it")
    assert len(found(database, home, quick=True)) == (damage is not changed_mask)
    shutil.rmtree(home / newest)
    assert found(database, home) == []


def test_only_the_newest_hold_out_of_a_run_that_judged_is_looked_at(home: Path, database: Database) -> None:
    missing_mask(home / FOLDER.format(1))
    assert found(database, home) == []
    with database.transaction() as session:
        session.execute(update(TrainingRun).where(col(TrainingRun.id) == 2).values(state="failed"))
    assert [fault.subject for fault in found(database, home)] == [FOLDER.format(1)]

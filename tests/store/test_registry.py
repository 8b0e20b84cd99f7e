"""The registry of models: what counts after which decisions, with files that change and two people at one time."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from empty_database import empty_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_models import NOON, register_model, write_model
from sqlmodel import select

from models.files import BadModel
from models.nodule_segmenter import NAME
from models.place import open_current
from models.shipped import VOUCHED
from plugins.errors import Refused
from store import model_folders, registry
from store.database import Database
from store.failpoint import KILLED
from store.fsck.models import check_models
from store.model_tables import ModelVersion, Promotion

WHO = {"author": "Dr. Abel", "now": NOON}
JUDGED = registry.Judged(
    champion_sha256="", is_proposed=True, because="-", data_sha256="", judged_sha256="", figures={}
)


def counting(database: Database, home: Path) -> str:
    """Return the hash of the model that counts, as a job sees it; empty for that of the release."""
    with database.reading() as session:
        place = registry.active(session, home).get(NAME)
        assert registry.counts_now(session, NAME) == (place.sha256 if place else VOUCHED[NAME])
    return place.sha256 if place else ""


def approve(database: Database, home: Path, number: int, family: str = NAME) -> None:
    with database.transaction() as session:
        registry.approve(session, home, family, number, **WHO)


def rollback(database: Database, home: Path, **how: bool) -> None:
    with database.transaction() as session:
        registry.rollback(session, home, NAME, **WHO, **how)


def standings(database: Database) -> list[str]:
    with database.reading() as session:
        past = registry.history(session, NAME)
        return [registry.standing(one, past) for one in registry.versions(session, NAME)]


def test_a_model_is_registered_with_what_made_it_and_counts_when_a_person_says_so(
    database: Database, tmp_path: Path
) -> None:
    one = register_model(database, tmp_path, 1)
    assert (one.number, one.version, one.source_commit) == (1, "1.1.0", "c" * 40)
    assert (one.environment, one.seeds) == ('{"torch": "2.13.0"}', '{"0": 1}')
    assert one.folder == f"models/{NAME}/1-{one.manifest_sha256[:12]}"
    assert counting(database, tmp_path) == ""
    assert standings(database) == ["proposed"]
    approve(database, tmp_path, 1)
    assert counting(database, tmp_path) == one.manifest_sha256
    with database.reading() as session:
        place = registry.active(session, tmp_path)[NAME]
    assert open_current(NAME, {NAME: place}).weights(0)["w"].tolist() == [1.0] * 4
    with database.reading() as session:
        (row,) = registry.history(session, NAME)
    assert (row.kind, row.author, row.at) == ("approve", "Dr. Abel", NOON)


def test_what_may_not_count_is_refused_with_the_reason(database: Database, tmp_path: Path) -> None:
    register_model(database, tmp_path, 1)
    register_model(database, tmp_path, 2)
    register_model(database, tmp_path, 3, proposed=False)
    with pytest.raises(Refused, match="no-author"), database.transaction() as session:
        registry.approve(session, tmp_path, NAME, 1, author=" ", now=NOON)
    with pytest.raises(Refused, match=r"not-proposed: .* below 6 mm"):
        approve(database, tmp_path, 3)
    with pytest.raises(Refused, match="no-such-model"):
        approve(database, tmp_path, 9)
    with pytest.raises(Refused, match="nothing-before"):
        rollback(database, tmp_path)
    approve(database, tmp_path, 1)
    with pytest.raises(Refused, match="already-active"):
        approve(database, tmp_path, 1)
    with pytest.raises(Refused, match=r"overtaken.*counts no longer"):
        approve(database, tmp_path, 2)
    assert standings(database) == ["active", "overtaken", "refused"]
    rollback(database, tmp_path)
    assert standings(database) == ["proposed", "proposed", "refused"]


def test_families_do_not_meet(database: Database, tmp_path: Path) -> None:
    register_model(database, tmp_path, 1)
    other = register_model(database, tmp_path, 2, family="nodule_detector")
    assert other.number == 1
    approve(database, tmp_path, 1, "nodule_detector")
    assert counting(database, tmp_path) == ""
    with database.reading() as session:
        assert list(registry.active(session, tmp_path)) == ["nodule_detector"]


def test_changed_weights_are_neither_approved_nor_rolled_back_to_nor_replaced_by_others(
    database: Database, tmp_path: Path
) -> None:
    one = register_model(database, tmp_path, 1)
    two = register_model(database, tmp_path, 2, champion=one.manifest_sha256)
    approve(database, tmp_path, 1)
    weights = tmp_path / one.folder / "fold0.safetensors"
    kept = weights.read_bytes()
    weights.chmod(0o600)
    weights.write_bytes(kept[:-1] + b"\x01")
    with database.reading() as session:
        places = registry.active(session, tmp_path)
        codes = [fault.code for fault in check_models(session, tmp_path, now=NOON, quick=False)]
    assert codes.count("model-damaged") == 1
    with pytest.raises(BadModel, match=r"not as it was judged: 'fold0\.safetensors'"):
        open_current(NAME, places)
    approve(database, tmp_path, 2)
    assert counting(database, tmp_path) == two.manifest_sha256
    with pytest.raises(
        Refused, match="changed-file: the files of nodule_segmenter 1 are not what was judged"
    ):
        rollback(database, tmp_path)
    rollback(database, tmp_path, to_release=True)
    assert counting(database, tmp_path) == ""
    with pytest.raises(Refused, match="changed-file"):
        approve(database, tmp_path, 1)
    weights.write_bytes(kept)
    approve(database, tmp_path, 1)
    assert counting(database, tmp_path) == one.manifest_sha256


@pytest.mark.parametrize("function", ["listdir", "open"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_model_that_cannot_be_read_is_not_called_damaged(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    one = register_model(database, tmp_path, 1)

    def failing(path: Path, *_: int) -> None:
        raise OSError(number, os.strerror(number), str(path))

    with database.reading() as session, monkeypatch.context() as patched:
        patched.setattr(os, function, failing)
        (fault,) = check_models(session, tmp_path, now=NOON, quick=False)
    assert (fault.code, fault.subject) == ("unreadable", one.folder)
    assert os.strerror(number) in fault.sentence


def test_a_folder_of_a_model_that_is_a_link_to_itself_is_told(database: Database, tmp_path: Path) -> None:
    one = register_model(database, tmp_path, 1)
    (tmp_path / one.folder).rename(tmp_path / "elsewhere")
    (tmp_path / one.folder).symlink_to(tmp_path / one.folder)
    with database.reading() as session:
        faults = list(check_models(session, tmp_path, now=NOON, quick=True))
    assert ("unreadable", one.folder) in [(fault.code, fault.subject) for fault in faults]


def test_of_two_approvals_at_one_time_one_is_told_that_it_was_overtaken(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    one, two = (register_model(database, tmp_path, seed) for seed in (1, 2))
    other, refused = Database(database_url), []

    def second() -> None:
        try:
            approve(other, tmp_path, 2)
        except Refused as refusal:
            refused.append(refusal.code)

    late = threading.Thread(target=second)
    with database.transaction() as session:
        registry.approve(session, tmp_path, NAME, 1, **WHO)
        late.start()
        late.join(0.5)
        assert late.is_alive()
    late.join(60)
    other.dispose()
    assert refused == ["overtaken"]
    assert counting(database, tmp_path) == one.manifest_sha256 != two.manifest_sha256


def test_who_is_killed_while_he_approves_has_approved_nothing(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "nadir.sqlite")
    database = Database(f"sqlite:///{tmp_path / 'nadir.sqlite'}")
    register_model(database, tmp_path, 1)
    words = ["models", "approve", NAME, "1", "--author", "Dr. Abel", "--home", str(tmp_path)]
    killed = subprocess.run(
        [sys.executable, "-c", "from node.cli import main; main()", *words],
        env={**os.environ, "NADIR_FAILPOINT": "promotion-made"},
        check=False,
    )
    assert killed.returncode == KILLED
    assert (counting(database, tmp_path), standings(database)) == ("", ["proposed"])
    approve(database, tmp_path, 1)
    assert standings(database) == ["active"]
    database.dispose()


def test_a_run_that_ends_between_folder_and_row_leaves_the_registry_as_it_was(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model_folders, "reach", killed)
        with pytest.raises(KeyboardInterrupt):
            register_model(database, tmp_path, 1)
    with database.reading() as session:
        assert registry.versions(session) == ()
        (fault,) = check_models(session, tmp_path, now=NOON, quick=True)
    assert fault.code == "model-unnamed"
    assert fault.subject.startswith(f"models/{NAME}/1-")
    again = model_folders.stage(tmp_path, NAME, tmp_path / "made-1")
    for _ in range(2):  # a run that is told twice to end
        with database.transaction() as session:
            assert registry.register(session, again, JUDGED, now=NOON).number == 1
    with database.reading() as session:
        assert list(check_models(session, tmp_path, now=NOON, quick=False)) == []
        assert len(session.exec(select(ModelVersion)).all()) == 1


def test_what_is_no_model_of_the_family_is_not_taken(tmp_path: Path) -> None:
    write_model(tmp_path / "detector", 1, family="nodule_detector")
    with pytest.raises(Refused, match="other-family"):
        model_folders.stage(tmp_path, NAME, tmp_path / "detector")
    with pytest.raises(Refused, match="bad-family"):
        model_folders.stage(tmp_path, "../x", tmp_path / "detector")
    with pytest.raises(Refused, match="missing-file"):
        model_folders.stage(tmp_path, NAME, tmp_path)


def test_the_same_model_is_not_registered_by_two_runs(database: Database, tmp_path: Path) -> None:
    register_model(database, tmp_path, 1)
    again = model_folders.stage(tmp_path, NAME, tmp_path / "made-1")
    with (
        pytest.raises(Refused, match="known-model: this very model is nodule_segmenter 1 already"),
        database.transaction() as session,
    ):
        registry.register(session, again, JUDGED, now=NOON, run_pk=7)


CHAMPIONS = (None, None, 0, 2, 1)
"""Whom the models 1 to 5 were judged against: the shipped one, or an earlier one of them."""
STEPS = st.lists(st.sampled_from(["1", "2", "3", "4", "5", "rollback", "release"]), max_size=12)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> tuple[Database, Path, list[str]]:
    home = tmp_path_factory.mktemp("five")
    database = empty_database(home)
    hashes: list[str] = []
    for seed, against in enumerate(CHAMPIONS, start=1):
        champion = None if against is None else hashes[against]
        hashes.append(register_model(database, home, seed, champion=champion).manifest_sha256)
    return database, home, hashes


class _Undone(Exception):
    """Takes back all that an example did."""


@given(steps=STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decisions_in_any_order_are_those_of_a_stack(
    steps: list[str], five: tuple[Database, Path, list[str]]
) -> None:
    database, home, hashes = five
    plates: list[int | None] = [None]
    with pytest.raises(_Undone), database.transaction() as session:
        for step in steps:
            if step.isdecimal():
                number = int(step)
                allowed = CHAMPIONS[number - 1] == (None if plates[-1] is None else plates[-1] - 1)
                after = [*plates, number]
            else:
                allowed = len(plates) > 1
                after = plates[:-1] if step == "rollback" else plates[:1]
            try:
                if step.isdecimal():
                    registry.approve(session, home, NAME, int(step), **WHO)
                else:
                    registry.rollback(session, home, NAME, **WHO, to_release=step == "release")
            except Refused as refused:
                assert not allowed
                assert refused.code in ("overtaken", "already-active", "nothing-before")
            else:
                assert allowed
                plates = after
            top = plates[-1]
            place = registry.active(session, home).get(NAME)
            assert (place.sha256 if place else None) == (None if top is None else hashes[top - 1])
        numbers = [row.number for row in session.exec(select(Promotion).order_by(Promotion.number))]  # type: ignore[arg-type]
        assert numbers == list(range(1, len(numbers) + 1))
        raise _Undone

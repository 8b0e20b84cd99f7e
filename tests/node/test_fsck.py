"""`nadir fsck` as people and programs run it, also beside a live node."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from empty_database import empty_database
from node_process import NADIR, nadir
from programs import bound_by_modes
from sqlmodel import select
from whole_node import START, WholeNode, image

from store.objects import ObjectStore
from store.tables import Instance

DEAD_PROCESS = 2**22 + 1


@pytest.fixture
def node(tmp_path: Path) -> WholeNode:
    database = empty_database(tmp_path)
    node = WholeNode(database=database, objects=ObjectStore(tmp_path / "store"))
    for number in (1, 2, 3):
        node.take(image(1, number))
    node.settle(START + timedelta(minutes=5))
    node.analyse(START + timedelta(minutes=5))
    return node


def fsck(node: WholeNode, *flags: str) -> tuple[int, list[dict[str, str]]]:
    done = nadir("fsck", "--home", str(node.objects.root.parent), "--json", *flags)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_fsck_is_silent_about_a_sound_node_and_names_what_is_lost_and_what_to_do(node: WholeNode) -> None:
    done = nadir("fsck", "--home", str(node.objects.root.parent))
    assert (done.returncode, done.stdout) == (0, "clean\n")
    with node.database.reading() as session:
        sha256 = session.exec(select(Instance.sha256).order_by(Instance.id)).all()[0]  # type: ignore[arg-type]
    node.objects.path(sha256).unlink()
    assert fsck(node, "--repair") == (
        1,
        [
            {
                "invariant": "I1",
                "code": "object-missing",
                "subject": sha256,
                "sentence": "The bytes of instance 1 are not there.",
                "mended": "",
                "todo": "send it again from CT1@127.0.0.1",
            }
        ],
    )


def test_fsck_repairs_what_is_safe_and_says_that_nothing_is_left(node: WholeNode) -> None:
    with node.database.reading() as session:
        sha256 = session.exec(select(Instance.sha256).order_by(Instance.id)).all()[0]  # type: ignore[arg-type]
    node.objects.path(sha256).chmod(0o644)
    status, (fault,) = fsck(node)
    assert (status, fault["code"], fault["todo"]) == (1, "wrong-mode", "run nadir fsck --repair")
    status, (fault,) = fsck(node, "--repair")
    assert (status, fault["mended"], fault["todo"]) == (0, "set right", "")
    assert fsck(node, "--quick") == (0, [])


@pytest.mark.parametrize("flags", [(), ("--repair",)])
def test_a_database_that_is_none_any_more_is_a_fault_like_the_others(
    tmp_path: Path, flags: tuple[str]
) -> None:
    path = tmp_path / "nadir.sqlite"
    path.write_bytes(b"no database at all" * 300)
    done = nadir("fsck", "--home", str(tmp_path), "--json", *flags)
    (fault,) = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert (fault["invariant"], fault["code"], fault["mended"]) == ("database", "database-damaged", "")
    assert fault["todo"] == "restore the database from a copy"
    assert fault["sentence"].startswith(f"The database cannot be read: The database file {path} is damaged")
    assert path.read_bytes() == b"no database at all" * 300


def test_fsck_tells_of_an_object_that_it_moved_aside_that_its_mode_needs_no_mending(node: WholeNode) -> None:
    with node.database.reading() as session:
        sha256 = session.exec(select(Instance.sha256).order_by(Instance.id)).all()[0]  # type: ignore[arg-type]
    path = node.objects.path(sha256)
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    _, faults = fsck(node, "--repair")
    told = {fault["code"]: (fault["mended"], fault["todo"]) for fault in faults}
    assert told["wrong-mode"] == ("moved to quarantine, for another fault of it", "")
    assert told["object-damaged"][1].startswith("the damaged bytes were moved to quarantine/")


@pytest.mark.parametrize(
    "unreadable",
    ["evaluations", "evaluations/nodule_segmenter", "models/nodule_segmenter", "store/incoming",
     "store/objects/00", "store/quarantine"],
)  # fmt: skip
def test_a_folder_that_cannot_be_read_is_named_with_what_to_do_and_is_not_called_clean(
    node: WholeNode, unreadable: str
) -> None:
    home = node.objects.root.parent
    (home / unreadable).mkdir(parents=True, exist_ok=True)
    (home / unreadable).chmod(0)
    done = bound_by_modes(str(NADIR), "fsck", "--home", str(home), "--json")
    (home / unreadable).chmod(0o700)
    (fault,) = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert (fault["invariant"], fault["code"]) == ("disk", "unreadable")
    assert fault["subject"] == unreadable.removeprefix("store/")
    assert (
        fault["sentence"]
        == f"{home / unreadable} cannot be read (Permission denied): what lies there is not known."
    )
    assert fault["todo"] == "let the user that runs nadir read it (chown or chmod), then run nadir fsck again"


def test_objects_that_may_not_be_read_are_neither_missing_nor_damaged_for_that(node: WholeNode) -> None:
    with node.database.reading() as session:
        first, second, _ = sorted(session.exec(select(Instance.sha256)).all())
    assert first[:2] != second[:2]
    node.objects.path(first).chmod(0)
    node.objects.path(second).parent.chmod(0)
    done = bound_by_modes(str(NADIR), "fsck", "--home", str(node.objects.root.parent), "--json")
    node.objects.path(second).parent.chmod(0o700)
    told = {(fault["code"], fault["subject"]) for fault in json.loads(done.stdout)}
    assert told == {("unreadable", first), ("unreadable", f"objects/{second[:2]}")}


@pytest.mark.parametrize("name", ["incoming", "quarantine"])
def test_a_folder_that_may_be_listed_and_not_entered_is_told_once_and_nothing_in_it_is_judged(
    node: WholeNode, name: str
) -> None:
    folder = node.objects.root / name
    for content in (b"one", b"two"):
        temporary = node.objects.root / "incoming" / f"{DEAD_PROCESS}-{content.hex():0>32}.part"
        temporary.write_bytes(content)
        if name == "quarantine":
            node.objects.quarantine(temporary, "not-dicom")
    folder.chmod(0o400)
    done = bound_by_modes(str(NADIR), "fsck", "--home", str(node.objects.root.parent), "--json")
    folder.chmod(0o700)
    (fault,) = json.loads(done.stdout)
    assert (fault["code"], fault["subject"]) == ("unreadable", name)
    assert fault["sentence"] == f"{folder} cannot be read (Permission denied): what lies there is not known."


def test_a_file_in_quarantine_that_may_not_be_read_is_not_called_damaged(node: WholeNode) -> None:
    temporary = node.objects.temporary()
    temporary.write_bytes(b"one")
    aside = node.objects.quarantine(temporary, "not-dicom")
    aside.chmod(0)
    done = bound_by_modes(str(NADIR), "fsck", "--home", str(node.objects.root.parent), "--json")
    (fault,) = json.loads(done.stdout)
    assert (fault["code"], fault["subject"]) == ("unreadable", f"quarantine/{aside.name}")


def test_objects_that_may_not_be_looked_at_are_told_once_also_where_python_only_answers_false(
    tmp_path: Path,
) -> None:
    """Before Python 3.14 `Path.is_dir` and `Path.is_symlink` raise for what they answer False to from then on."""
    script = """
import os, sys
from pathlib import Path
from store.fsck.files import check_files
from store.objects import ObjectStore
Path.is_dir, Path.is_symlink = lambda self, **_: os.path.isdir(self), lambda self: os.path.islink(self)
store = ObjectStore(Path(sys.argv[1]))
(store.root / "objects").chmod(0o600)
print([(fault.code, fault.subject) for fault in check_files(store, {}, now=0.0)])
"""
    done = bound_by_modes(sys.executable, "-c", script, str(tmp_path / "store"))
    (tmp_path / "store" / "objects").chmod(0o700)
    assert (done.stdout, done.stderr) == ("[('unreadable', 'objects')]\n", "")


def test_a_store_that_may_not_be_read_is_named_with_what_to_do(node: WholeNode) -> None:
    folder = node.objects.root / "objects"
    folder.chmod(0)
    done = bound_by_modes(str(NADIR), "fsck", "--home", str(node.objects.root.parent))
    folder.chmod(0o700)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"nadir: The object store in {node.objects.root} cannot be written or read (Permission denied); "
        "let the user that runs nadir read and write it (chown or chmod).\n"
    )

"""`nadir fsck` as people and programs run it, also beside a live node."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from empty_database import empty_database
from node_process import nadir
from sqlmodel import select
from whole_node import START, WholeNode, image

from store.objects import ObjectStore
from store.tables import Instance


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

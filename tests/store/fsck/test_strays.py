"""What lies in a node's folders and no row names: taken in, moved aside, removed once nobody can be at it, or told."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fsck_faults import codes, found, mended
from sqlmodel import col, select, update
from whole_node import WholeNode, encoded, image, seg

from node.fsck import look
from store import evaluations
from store.fsck.fault import unreadable
from store.tables import Instance

DEAD_PROCESS = 2**22 + 1


def old(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file be too old for a live node to be at it."""
    monkeypatch.setattr("store.fsck.files.YOUNG_SECONDS", 0.0)
    assert path.exists()


def test_an_object_without_a_row_is_taken_in_so_that_nothing_is_lost(
    node: WholeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = node.objects.put(_normal(node, image(3, 1)))
    (fault,) = found(node)
    assert (fault.code, fault.subject, fault.young) == ("orphan", kept.sha256, True)
    old(kept.path, monkeypatch)
    assert [one.mended for one in mended(node)] == ["taken in, as if it came now"]
    assert found(node) == []
    with node.database.reading() as session:
        assert kept.sha256 in session.exec(select(Instance.sha256)).all()


def test_an_object_without_a_row_that_is_no_dicom_goes_to_quarantine(node: WholeNode) -> None:
    kept = node.objects.put(b"no DICOM at all")
    (one,) = mended(node)
    assert one.mended.startswith("moved to quarantine")
    assert not kept.path.exists()
    assert (node.objects.root / "quarantine" / kept.path.name).read_bytes() == b"no DICOM at all"
    assert found(node) == []


def test_a_result_that_a_killed_worker_left_is_moved_aside_once_no_worker_can_be_at_it(
    node: WholeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = seg("1.2.1", "P1", "a key", ["1.2.1.1.1"], 7)
    kept = node.objects.put(encoded(dataset))
    (left,) = mended(node)
    assert left.mended == ""
    assert kept.path.exists()
    old(kept.path, monkeypatch)
    (one,) = mended(node)
    assert one.mended == "a result that no job recorded was moved to quarantine"
    assert found(node) == []


def test_temporaries_of_dead_processes_are_removed_and_those_of_live_ones_left(node: WholeNode) -> None:
    dead = node.objects.root / "incoming" / f"{DEAD_PROCESS}-{'0' * 32}.part"
    live = node.objects.root / "incoming" / f"{os.getppid()}-{'0' * 32}.part"
    for path in (dead, live):
        path.write_bytes(b"half an image")
    assert codes(node) == [("disk", "dead-temporary")]
    assert [one.mended for one in mended(node)] == ["removed"]
    assert (dead.exists(), live.exists()) == (False, True)


@pytest.mark.parametrize(
    ("process", "host", "hours", "is_left"),
    [
        (os.getppid(), "", 0, True),
        (DEAD_PROCESS, "", 0, False),
        (DEAD_PROCESS, "another", 5, True),
        (os.getppid(), "another", 7, False),
    ],
)
def test_what_a_node_is_receiving_is_no_stray_file_and_what_it_left_is_removed(
    node: WholeNode, monkeypatch: pytest.MonkeyPatch, process: int, host: str, hours: int, is_left: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process)
        if host:
            patch.setattr(socket, "gethostname", lambda: host)
        arriving = node.objects.temporary()
    arriving.write_bytes(b"half an image")
    written = time.time() - 3600 * hours
    os.utime(arriving, (written, written))
    assert codes(node) == ([] if is_left else [("disk", "dead-temporary")])
    assert [one.mended for one in mended(node)] == ([] if is_left else ["removed"])
    assert arriving.exists() == is_left


def test_a_file_in_quarantine_gets_a_reason_and_a_reason_without_its_file_goes(node: WholeNode) -> None:
    temporary = node.objects.temporary()
    temporary.write_bytes(b"strange")
    aside = node.objects.quarantine(temporary, "not-part10")
    aside.with_suffix(".json").unlink()
    (aside.parent / f"{'0' * 64}.json").write_text("{}")
    assert sorted(codes(node)) == [("disk", "no-reason"), ("disk", "reason-without-file")]
    assert all(one.mended for one in mended(node))
    assert aside.read_bytes() == b"strange"
    assert json.loads(aside.with_suffix(".json").read_text()) == {"sha256": aside.stem, "reason": "unknown"}
    assert found(node) == []


def test_a_damaged_file_in_quarantine_is_told_with_what_to_do_and_not_touched(node: WholeNode) -> None:
    temporary = node.objects.temporary()
    temporary.write_bytes(b"strange")
    aside = node.objects.quarantine(temporary, "not-part10")
    aside.chmod(0o640)
    aside.write_bytes(b"altered")
    (fault,) = look(node.database, node.objects, patience_seconds=0.01)
    assert (fault.code, fault.subject, fault.young) == ("quarantine-damaged", aside.stem, False)
    assert (
        fault.todo == f"delete quarantine/{aside.stem}.dcm and .json; if it is wanted, send the object again"
    )
    assert [one.mended for one in mended(node)] == [""]
    assert aside.read_bytes() == b"altered"


def test_a_report_of_an_evaluation_that_no_row_names_is_told_and_left(
    node: WholeNode, tmp_path: Path
) -> None:
    now = node.database.now()
    kept, lost = (
        evaluations.stage(tmp_path, "nodule_segmenter", {"evaluation.json": b"{}"}, now) for _ in range(2)
    )
    model = {
        "family": "nodule_segmenter",
        "manifest_sha256": "a" * 64,
        "folder": kept,
        "kept_sha256": "c" * 64,
    }
    data = {"data_name": "ours", "data_sha256": "b" * 64, "cases": 1, "patients": 1}
    with node.database.transaction() as session:
        row = evaluations.KeptEvaluation(**model, **data, made_at=now, kept_at=now, author="x")
        evaluations.add(session, row)
    (fault,) = found(node, quick=True)
    assert (fault.invariant, fault.code, fault.subject) == ("evaluations", "evaluation-unnamed", lost)
    assert fault.young  # whoever keeps it may be about to write the row
    (left,) = mended(node)
    assert left.plain()["mended"] == "" and left.plain()["todo"].startswith("delete it")
    (tmp_path / lost / "evaluation.json").unlink()
    (tmp_path / lost).rmdir()
    assert found(node) == []


def test_a_disk_that_fails_is_not_told_as_a_matter_of_modes() -> None:
    fault = unreadable("objects/a\nb", OSError(errno.EIO, os.strerror(errno.EIO)))
    assert fault.subject == r"objects/a\nb"
    assert (
        fault.sentence == r"objects/a\nb cannot be read (Input/output error): what lies there is not known."
    )
    assert fault.todo == "look whether its disk is sound and mounted, then run nadir fsck again"


@pytest.mark.parametrize("root", ["evaluations", "models"])
def test_a_file_beside_the_folders_of_evaluations_and_models_is_told_as_a_file(
    node: WholeNode, tmp_path: Path, root: str
) -> None:
    (tmp_path / root / "nodule_segmenter").mkdir(parents=True)
    for stray in ("notes\n.txt", "nodule_segmenter/.DS_Store"):
        (tmp_path / root / stray).write_text("")
    faults = found(node, quick=True)
    assert {(fault.invariant, fault.code, fault.subject) for fault in faults} == {
        (root, "unknown-file", rf"{root}/notes\n.txt"),
        (root, "unknown-file", f"{root}/nodule_segmenter/.DS_Store"),
    }
    assert {fault.sentence for fault in faults} == {
        "Something that the node did not make lies in its folder."
    }
    assert not any(fault.young for fault in faults)


def plug(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, plug])
@pytest.mark.parametrize(
    "where",
    [
        f"incoming/{DEAD_PROCESS}-{'0' * 32}.part",
        f"objects/ab/{'ab' * 32}.dcm",
        f"quarantine/{'ab' * 32}.dcm",
        f"quarantine/{'ab' * 32}.json",
    ],
)
def test_what_is_no_file_under_a_name_of_ours_is_told_once_and_not_touched(
    node: WholeNode, monkeypatch: pytest.MonkeyPatch, where: str, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(node.objects.root)
    make(node.objects.root / where)
    for quick in (True, False):
        (fault,) = found(node, quick=quick)
        assert (fault.invariant, fault.code, fault.subject) == ("I4", "unknown-file", where)
        assert fault.sentence == "Something that is no file and that the node did not make lies in its store."
    assert [one.mended for one in mended(node)] == [""]
    assert node.objects.sweep() == (0 if make is os.mkdir or "incoming" not in where else 1)
    assert (node.objects.root / where).exists() == (make is os.mkdir or "incoming" not in where)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, plug])
def test_what_is_no_file_in_the_place_of_an_object_is_told_and_that_the_object_is_not_there(
    node: WholeNode, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    with node.database.reading() as session:
        pk, sha256 = session.exec(select(Instance.id, Instance.sha256)).all()[0]
    path = node.objects.path(sha256)
    path.unlink()
    monkeypatch.chdir(path.parent)
    make(path)
    with node.database.transaction() as session:  # as long as what lies there
        session.execute(update(Instance).where(col(Instance.id) == pk).values(size_bytes=path.stat().st_size))
    for quick in (True, False):
        assert [(fault.code, fault.subject) for fault in found(node, quick=quick)] == [
            ("object-missing", sha256),
            ("unknown-file", f"objects/{sha256[:2]}/{sha256}.dcm"),
        ]
    assert [one.mended for one in mended(node)] == ["", ""]


def test_a_race_with_a_live_node_is_no_fault(node: WholeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _normal(node, image(3, 1))
    node.objects.put(data)
    looks: list[Callable[[], object]] = [lambda: node.take(image(3, 1))]
    monkeypatch.setattr("node.fsck.time.sleep", lambda seconds: looks.pop()())
    assert look(node.database, node.objects) == []


def _normal(node: WholeNode, data: bytes) -> bytes:
    """Return a file as the intake keeps it."""
    from store.part10 import normalise

    source, target = node.objects.root.parent / "in.dcm", node.objects.root.parent / "out.dcm"
    source.write_bytes(data)
    normalise(source, target)
    return target.read_bytes()

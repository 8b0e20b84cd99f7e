"""I1, what the rows name lies on disk whole: damaged, gone, exchanged and misnamed by hand, and brought back."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsck_faults import an_object, codes, execute, found, mended
from sqlmodel import select
from whole_node import WholeNode, image

from node.fsck import repair
from store.tables import Result


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o640)
    path.write_bytes(data)
    path.chmod(0o440)


def test_i1_an_object_that_is_gone_is_found_and_is_for_the_source_to_send_again(node: WholeNode) -> None:
    an_object(node).unlink()
    assert codes(node) == [("I1", "object-missing")]
    (left,) = mended(node)
    assert (left.mended, left.fault.todo) == ("", "send it again from CT1@127.0.0.1")
    node.take(image(1, 1))
    assert found(node) == []


def test_i1_an_object_that_is_gone_comes_back_from_quarantine(node: WholeNode) -> None:
    path = an_object(node)
    path.rename(node.objects.root / "quarantine" / path.name)
    assert ("I1", "object-missing") in codes(node)
    assert all(one.mended for one in mended(node))
    assert found(node) == []
    assert path.stat().st_mode & 0o777 == 0o440


def test_i1_damaged_bytes_of_the_same_length_are_moved_aside_and_healed_by_the_next_sending(
    node: WholeNode,
) -> None:
    path = an_object(node)
    data = path.read_bytes()
    overwrite(path, data[:-1] + bytes([data[-1] ^ 1]))
    assert codes(node, quick=True) == []
    assert codes(node) == [("I1", "object-damaged")]
    (left,) = mended(node)
    assert left.mended == ""
    assert "moved to quarantine/" in left.fault.todo
    assert codes(node) == [("I1", "object-missing")]
    node.take(image(1, 1))
    assert found(node) == []


def test_i1_damaged_bytes_of_the_same_length_are_healed_by_the_next_sending_alone(node: WholeNode) -> None:
    path = an_object(node)
    data = path.read_bytes()
    overwrite(path, data[:-1] + bytes([data[-1] ^ 1]))
    node.take(image(1, 1))
    assert path.read_bytes() == data
    assert found(node) == []


def test_i1_a_truncated_object_is_found_without_reading_it(node: WholeNode) -> None:
    overwrite(an_object(node), b"half")
    assert codes(node, quick=True) == [("I1", "object-damaged")]


@pytest.mark.parametrize("table", ["instance", "result"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_row_that_says_a_wrong_length_of_whole_bytes_gets_the_right_one(
    node: WholeNode, table: str, quick: bool
) -> None:
    execute(node, f"UPDATE {table} SET size_bytes = size_bytes + 1 WHERE id = 1")
    (fault,) = found(node, quick=quick)
    assert (fault.invariant, fault.code, fault.todo) == ("ledger", "row-size", "run nadir fsck --repair")
    path = node.objects.path(fault.subject)
    length = path.stat().st_size
    assert (
        fault.sentence
        == f"The row of {table} 1 says {length + 1} bytes; the object is whole and has {length}."
    )
    assert [one.mended for one in mended(node)] == [f"the row says {length} bytes now"]
    assert found(node) == []
    assert path.is_file() and not list((node.objects.root / "quarantine").iterdir())


def test_an_object_that_was_whole_again_when_its_turn_came_stays_where_it_is(node: WholeNode) -> None:
    path = an_object(node)
    data = path.read_bytes()
    overwrite(path, b"half")
    faults = found(node)
    overwrite(path, data)
    assert [one.mended for one in repair(node.database, node.objects, faults)] == [
        "its bytes are whole by now"
    ]
    assert found(node) == []


def test_i1_an_object_under_another_name_is_brought_back_in_one_go(node: WholeNode) -> None:
    path = an_object(node)
    other = node.objects.path("0" * 64)
    path.rename(other)
    assert codes(node) == [("I1", "object-missing"), ("disk", "orphan")]
    assert sorted(one.mended for one in mended(node)) == [
        "brought back from quarantine",
        "moved to quarantine: its bytes have another hash",
    ]
    assert found(node) == []
    assert not other.exists()


@pytest.mark.parametrize("count", [2, 3])
def test_i1_objects_that_lie_in_each_others_place_are_brought_back_in_one_go(
    node: WholeNode, count: int
) -> None:
    paths = [an_object(node, number) for number in range(count)]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        overwrite(path, content)
    assert codes(node) == [("I1", "object-damaged")] * count
    assert [one.mended for one in mended(node)] == ["brought back from quarantine"] * count
    assert found(node) == []
    assert [path.read_bytes() for path in paths] == contents
    assert not list((node.objects.root / "quarantine").iterdir())


def test_i1_an_object_whose_bytes_lie_in_quarantine_is_for_fsck_to_bring_back(node: WholeNode) -> None:
    path = an_object(node)
    aside = node.objects.root / "quarantine" / path.name
    path.rename(aside)
    missing = {fault.code: fault.todo for fault in found(node, quick=True)}["object-missing"]
    assert missing == "run nadir fsck --repair"
    overwrite(aside, b"half")
    missing = {fault.code: fault.todo for fault in found(node, quick=True)}["object-missing"]
    assert missing == "send it again from CT1@127.0.0.1"


def test_i1_a_result_whose_bytes_are_gone_is_found(node: WholeNode) -> None:
    with node.database.reading() as session:
        sha256 = session.exec(select(Result.sha256)).all()[0]
    node.objects.path(sha256).unlink()
    assert codes(node) == [("I1", "object-missing")]
    assert mended(node)[0].fault.todo == "restore the store from a copy"


@pytest.mark.parametrize("table", ["instance", "result"])
@pytest.mark.parametrize("sha256", ["../../../etc/passwd", "", "A" * 64])
def test_i1_a_row_whose_hash_is_none_is_told_as_one_fault_beside_all_others(
    node: WholeNode, table: str, sha256: str
) -> None:
    lost = an_object(node, 1)
    lost.unlink()
    execute(node, f"UPDATE {table} SET sha256 = :sha256 WHERE id = 1", sha256=sha256)
    faults = {fault.code: fault for fault in found(node)}
    told = faults["row-without-hash"]
    assert (told.invariant, told.subject, told.todo) == (
        "I1",
        f"{table} 1",
        "restore the database from a copy",
    )
    assert faults["object-missing"].subject == lost.stem
    left = {one.fault.code: one.mended for one in mended(node)}
    assert left["row-without-hash"] == left["object-missing"] == ""
    if table == "instance":
        assert left["orphan"].startswith("taken in")
        assert not list((node.objects.root / "quarantine").iterdir())

"""What a C-STORE is answered, and what is then on the disk and in the rows: kept, set aside or refused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from patience import PATIENCE_SECONDS, eventually
from pydicom import dcmread
from pytest import MonkeyPatch
from raw_peer import CT, RawPeer
from small_node import SmallNode
from sqlalchemy import event as sql_event
from started_listeners import Start, series, starting

import node.listener as listener_module
from node.fastpath import FastAssociation
from node.scu import send_files
from node.spool import SpoolingDimse
from store.tables import Association, Event, Instance


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    node = SmallNode.make(tmp_path / "node")
    yield node
    node.database.dispose()


@pytest.fixture(params=["fast", "pynetdicom"])
def receive_path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(small: SmallNode, receive_path: str) -> Iterator[Start]:
    with starting(small, receive_path) as begin:
        yield begin


def test_an_identical_resend_is_answered_with_success_and_changes_nothing(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    port = start().port
    paths = series(tmp_path / "in", 3)
    for _ in range(2):
        assert {s.status for s in send_files(paths, ae_title="NADIR", host="127.0.0.1", port=port)} == {
            0x0000
        }

    assert small.check_whole() == 3


def test_an_object_cut_within_its_pixel_data_is_refused_and_the_whole_one_counts_on(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    port = start().port
    paths = series(tmp_path / "in", 4)
    assert {s.status for s in send_files(paths, ae_title="NADIR", host="127.0.0.1", port=port)} == {0x0000}
    whole = [path.read_bytes() for path in paths]
    for path, data in zip(paths, whole, strict=True):
        path.write_bytes(data[:-100])
    assert {s.status for s in send_files(paths, ae_title="NADIR", host="127.0.0.1", port=port)} == {0xC000}
    assert small.check_whole() == 4
    events = {(row.kind, row.text.partition(" ")[0]) for row in small.rows(Event)}
    assert events == {("quarantine", "truncated")}
    for path, data in zip(paths, whole, strict=True):
        path.write_bytes(data + b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0\0\0\0\0")
    assert {s.status for s in send_files(paths, ae_title="NADIR", host="127.0.0.1", port=port)} == {0x0000}


def test_other_content_under_the_same_uid_becomes_current_and_is_told(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    port = start().port
    (path,) = series(tmp_path / "in", 1)
    for name in ("first", "second"):
        ds = dcmread(path)
        ds.SeriesDescription = name
        ds.save_as(path)
        assert send_files([path], ae_title="NADIR", host="127.0.0.1", port=port)[0].status == 0x0000

    assert [row.current for row in sorted(small.rows(Instance), key=lambda row: row.id or 0)] == [False, True]
    assert [row.kind for row in small.rows(Event)] == ["conflict"]


def test_success_is_answered_only_after_file_name_folder_and_row_are_durable(
    small: SmallNode, start: Start, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module._Clerk, "_recover", lambda self: None)
    port = start().port
    paths = series(tmp_path / "in", 2)
    assert send_files(paths[:1], ae_title="NADIR", host="127.0.0.1", port=port)[0].status == 0x0000
    # The first association writes that it ended; that commit must not fall among those that are looked at.
    assert eventually(lambda: all(row.closed_at is not None for row in small.rows(Association)))
    seen: list[str] = []
    real_fsync, real_link, real_answer = os.fsync, os.link, SpoolingDimse.send_msg
    real_fast_answer = FastAssociation._answer

    def fsync(descriptor: int) -> None:
        seen.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")
        real_fsync(descriptor)

    def link(source: Path, target: Path) -> None:
        seen.append("link")
        real_link(source, target)

    def answer(self: SpoolingDimse, primitive: object, context_id: int) -> None:
        seen.append("answer")
        real_answer(self, primitive, context_id)

    def fast_answer(self: FastAssociation, context_id: int, command: bytes) -> None:
        seen.append("answer")
        real_fast_answer(self, context_id, command)

    monkeypatch.setattr(FastAssociation, "_answer", fast_answer)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(SpoolingDimse, "send_msg", answer)
    engine = small.database._engine
    sql_event.listen(engine, "commit", lambda connection: seen.append("commit"))

    assert send_files(paths[1:], ae_title="NADIR", host="127.0.0.1", port=port)[0].status == 0x0000

    steps = seen[min(seen.index("fsync file"), seen.index("link")) : seen.index("answer") + 1]
    assert sorted(steps[:-2]) == ["fsync file", "fsync folder", "link"]
    assert steps.index("link") < steps.index("fsync folder")
    assert steps[-2:] == ["commit", "answer"]


def test_a_mismatch_of_command_and_dataset_is_answered_with_a900_and_set_aside(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    (path,) = series(tmp_path / "in", 1)
    data = path.read_bytes()[path.read_bytes().index(b"\x08\x00\x05\x00CS") :]
    uid = str(dcmread(path).SOPInstanceUID)
    with RawPeer(start().port) as peer:
        peer.associate()
        assert peer.store(CT, "9.9.9.9", data) == 0xA900
        assert peer.store("1.2.840.10008.5.1.4.1.1.4", uid, data) == 0xA900
        assert peer.store(CT, uid, data) == 0x0000
        peer.release()

    assert small.check_whole() == 1
    assert small.incoming() == []
    assert len(list((small.home / "store" / "quarantine").glob("*.dcm"))) == 2


@pytest.mark.filterwarnings("ignore:(Invalid value|The value length)")
@pytest.mark.parametrize(
    "evil", ["../../evil", "/tmp/evil", "..", "1.2\x003", "CON", "1.2\n3", "1." + "2" * 63], ids=repr
)
def test_a_uid_that_is_no_uid_is_refused_and_nothing_leaves_the_store(
    small: SmallNode, start: Start, tmp_path: Path, evil: str
) -> None:
    (path,) = series(tmp_path / "in", 1)
    raw = path.read_bytes()
    data = raw[raw.index(b"\x08\x00\x05\x00CS") :]
    good = str(dcmread(path).SOPInstanceUID).encode()
    padded = evil.encode() + b"\0" * (len(evil) % 2)
    at = data.index(b"\x08\x00\x18\x00UI")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    bad = data[: at + 6] + len(padded).to_bytes(2, "little") + padded + data[at + 8 + length :]
    before = {p for p in tmp_path.rglob("*") if "node" not in p.parts}
    with RawPeer(start().port) as peer:
        peer.associate()
        statuses = {peer.store(CT, good.decode(), bad)}
        for uid, payload in ((evil, data), (evil, bad)):
            with RawPeer(peer.socket.getpeername()[1]) as other:
                other.associate()
                statuses.add(other.store(CT, uid, payload))

    assert statuses <= {0xA900, 0xC000, None}
    assert statuses & {0xA900, 0xC000}
    assert small.rows(Instance) == []
    assert {p for p in tmp_path.rglob("*") if "node" not in p.parts} == before
    assert eventually(lambda: small.incoming() == [])
    assert all(path.stem.isalnum() for path in (small.home / "store" / "quarantine").iterdir())


def test_bytes_that_are_no_dataset_are_answered_with_c000_and_set_aside(
    small: SmallNode, start: Start
) -> None:
    with RawPeer(start().port) as peer:
        peer.associate()
        assert peer.store(CT, "1.2.3", b"no dataset at all " * 10) == 0xC000
        assert peer.echo() == 0x0000
        peer.release()

    assert small.rows(Instance) == []
    assert [row.kind for row in small.rows(Event)] == ["quarantine"]


def test_an_unexpected_error_is_answered_with_0110_and_the_association_goes_on(
    small: SmallNode, start: Start, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    paths = series(tmp_path / "in", 2)
    listener = start()

    def broken(*args: object, **keywords: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr("node.intake.record_all", broken)
        sent = send_files(paths, ae_title="NADIR", host="127.0.0.1", port=listener.port)
        assert [one.status for one in sent] == [0x0110, 0x0110]
    assert {s.status for s in send_files(paths, ae_title="NADIR", host="127.0.0.1", port=listener.port)} == {
        0
    }


def test_an_object_larger_than_the_bound_is_refused_and_the_next_is_taken(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    small_one, large_one = series(tmp_path / "a", 1)[0], tmp_path / "b"
    (large,) = make_series(large_one, np.zeros((1, 256, 256)), patient_id="P2")

    sent = send_files(
        [large, small_one], ae_title="NADIR", host="127.0.0.1", port=start(max_object_bytes=50_000).port
    )

    assert [one.status for one in sent] == [0xA700, 0x0000]


def test_the_kept_file_is_named_by_the_hash_of_its_bytes(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    paths = series(tmp_path / "in", 1)
    send_files(paths, ae_title="NADIR", host="127.0.0.1", port=start().port, calling_ae="SCANNER")
    (row,) = small.rows(Instance)
    data = small.objects.path(row.sha256).read_bytes()

    assert hashlib.sha256(data).hexdigest() == row.sha256
    assert len(data) == row.size_bytes
    assert row.source == "SCANNER@127.0.0.1"
    assert data[:128] == bytes(128)
    assert b"SCANNER" not in data


def test_without_sync_what_was_accepted_is_there_once_the_listener_has_drained(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    listener = start(sync=False)
    sent = send_files(series(tmp_path / "in", 20), ae_title="NADIR", host="127.0.0.1", port=listener.port)
    assert {one.status for one in sent} == {0x0000}
    assert listener.drain(PATIENCE_SECONDS)
    assert small.check_whole() == 20
    (association,) = small.rows(Association)
    assert association.closed_at is not None

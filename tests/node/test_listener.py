from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dcmtk_tools import dcmtk, run_dcmtk
from dicom_series import make_series
from patience import PATIENCE_SECONDS, PATIENT_LIMITS, eventually
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless, RLELossless
from pytest import MonkeyPatch
from raw_peer import CT, EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION, RawPeer
from small_node import SmallNode
from sqlalchemy import event as sql_event

import node.housekeeping as housekeeping
import node.listener as listener_module
from node.fastpath import FastAssociation
from node.listener import Listener
from node.scu import send_files
from node.spool import SpoolingDimse
from plugins.errors import Refused, Unavailable
from store.tables import Association, Event, Instance, Study

REJECTED, ACCEPTED = 0x03, 0x02
Start = Callable[..., Listener]


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
    running: list[Listener] = []

    def begin(**keywords: object) -> Listener:
        values = {"host": "127.0.0.1", "port": 0, "accept_any": True, "reserve_bytes": 0, **keywords}
        values.setdefault("receive_path", receive_path)
        values.setdefault("limits", PATIENT_LIMITS)
        listener = Listener(small.database, small.objects, **values)  # type: ignore[arg-type]
        listener.start()
        running.append(listener)
        return listener

    yield begin
    for listener in running:
        listener.stop()


def series(folder: Path, count: int = 4, **keywords: object) -> list[Path]:
    return make_series(folder, np.arange(count * 256.0).reshape(count, 16, 16), **keywords)  # type: ignore[arg-type]


def test_echoscu_of_dcmtk_gets_an_answer(start: Start) -> None:
    listener = start(accept_any=False, callers=("ECHOSCU@127.0.0.1",), ae_title="NADIR")

    done = run_dcmtk("echoscu", "-aec", "NADIR", "-aet", "ECHOSCU", "127.0.0.1", str(listener.port))

    assert done.returncode == 0, done.stderr


def test_an_echo_leaves_no_row(small: SmallNode, start: Start) -> None:
    listener = start()
    with RawPeer(listener.port) as peer:
        peer.associate()
        assert peer.echo() == 0x0000
        peer.release()
    listener.stop()

    assert small.rows(Association) == []


def test_storescu_of_dcmtk_sends_a_series_that_is_kept_with_its_dataset_unchanged(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    listener = start()
    paths = series(tmp_path / "in", 12)

    done = run_dcmtk("storescu", "-aec", "NADIR", "127.0.0.1", str(listener.port), *paths)

    assert done.returncode == 0, done.stderr
    assert small.check_whole() == 12
    by_uid = {row.sop_instance_uid: row for row in small.rows(Instance)}
    for path in paths:
        sent = dcmread(path)
        kept = dcmread(small.objects.path(by_uid[sent.SOPInstanceUID].sha256))
        assert kept == sent
        assert kept.file_meta.TransferSyntaxUID == EXPLICIT_LITTLE
    assert small.incoming() == []


@pytest.mark.parametrize(("syntax", "flag"), [(JPEGLSLossless, "-xt"), (RLELossless, "-xr")])
def test_compressed_images_are_stored_as_they_came(
    small: SmallNode, start: Start, tmp_path: Path, syntax: str, flag: str
) -> None:
    listener = start()
    paths = series(tmp_path / "in", 2, transfer_syntax=syntax)

    done = run_dcmtk("storescu", flag, "-aec", "NADIR", "127.0.0.1", str(listener.port), *paths)

    assert done.returncode == 0, done.stderr
    rows = small.rows(Instance)
    assert [row.transfer_syntax_uid for row in rows] == [syntax] * 2
    kept = {row.sop_instance_uid: dcmread(small.objects.path(row.sha256)).PixelData for row in rows}
    assert all(kept[sent.SOPInstanceUID] == sent.PixelData for sent in map(dcmread, paths))


def test_four_parallel_dcmsend_of_one_shuffled_study_give_one_study(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    listener = start()
    paths = series(tmp_path / "in", 40)
    random.Random(7).shuffle(paths)
    senders = [
        subprocess.Popen([dcmtk("dcmsend"), "-aec", "NADIR", "127.0.0.1", str(listener.port), *paths[k::4]])
        for k in range(4)
    ]

    assert [sender.wait(120) for sender in senders] == [0, 0, 0, 0]
    assert small.check_whole() == 40
    assert len(small.rows(Study)) == 1
    assert eventually(lambda: all(row.closed_at is not None for row in small.rows(Association)))
    assert len(small.rows(Association)) == 4


def test_a_private_storage_class_is_taken(small: SmallNode, start: Start, tmp_path: Path) -> None:
    private = "1.3.12.2.1107.5.9.1"
    paths = series(tmp_path / "in", 1, SOPClassUID=private)
    ds = dcmread(paths[0])
    ds.file_meta.MediaStorageSOPClassUID = private
    ds.save_as(paths[0])

    (sent,) = send_files(paths, ae_title="NADIR", host="127.0.0.1", port=start().port)

    assert sent.status == 0x0000
    assert [row.sop_class_uid for row in small.rows(Instance)] == [private]


def test_deflated_and_query_contexts_are_not_accepted(start: Start) -> None:
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    contexts = [(CT, "1.2.840.10008.1.2.1.99"), (find, IMPLICIT_LITTLE), (CT, EXPLICIT_LITTLE)]
    with RawPeer(start().port) as peer:
        answer = peer.associate(contexts=contexts)

    assert answer is not None
    kind, body = answer
    assert kind == ACCEPTED
    results = {
        body[at + 4]: body[at + 6]
        for at in range(len(body) - 8)
        if body[at : at + 2] == b"\x21\x00" and body[at + 8] == 0x40
    }
    assert results == {1: 4, 3: 3, 5: 0}


def test_nobody_may_send_by_default(small: SmallNode, start: Start) -> None:
    listener = start(accept_any=False)
    with RawPeer(listener.port) as peer:
        assert peer.ended_within()

    assert eventually(lambda: len(small.rows(Event)) == 1)
    assert (small.rows(Event)[0].kind, small.rows(Event)[0].text) == ("rejected", "address")


@pytest.mark.parametrize(
    ("called", "calling", "answer"),
    [
        ("NADIR", "CT1", None),
        ("NADIR", "CT2", (1, 1, 3)),
        ("nadir", "CT1", (1, 1, 7)),
        ("NADIR", "CT3", (1, 1, 3)),
        ("NADIR", "../x", (1, 1, 3)),
    ],
)
def test_ae_titles_are_checked_and_rejections_say_why(
    small: SmallNode, start: Start, called: str, calling: str, answer: tuple[int, int, int] | None
) -> None:
    listener = start(accept_any=False, callers=("CT1", "CT3@127.0.0.9"))
    with RawPeer(listener.port) as peer:
        got = peer.associate(called=called, calling=calling)
        assert got is not None
        if answer is None:
            assert got[0] == ACCEPTED
            return
        assert got == (REJECTED, bytes([0, *answer]))

    assert eventually(lambda: len(small.rows(Event)) == 1)
    assert small.rows(Event)[0].subject == f"{calling}@127.0.0.1"


def test_a_known_ae_title_from_an_unlisted_address_is_closed_unread(small: SmallNode, start: Start) -> None:
    listener = start(accept_any=False, callers=("CT1@127.0.0.2",))
    with RawPeer(listener.port, source="127.0.0.2") as peer:
        got = peer.associate(calling="CT1")
        assert got is not None
        assert got[0] == ACCEPTED
    with RawPeer(listener.port, source="127.0.0.3") as peer:
        assert peer.ended_within()


def test_a_caller_that_cannot_be_read_is_refused_at_once(small: SmallNode) -> None:
    for text in ("", "*", "A@", "AVERYLONGAETITLEINDEED", "A@no such host.invalid"):
        with pytest.raises(Refused, match="bad-caller"):
            Listener(small.database, small.objects, callers=(text,))


def test_a_port_that_is_taken_is_told_in_one_sentence(small: SmallNode, start: Start) -> None:
    taken = start().port
    with pytest.raises(Unavailable, match="choose another port"):
        Listener(small.database, small.objects, host="127.0.0.1", port=taken).start()


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

    order = [step for step in seen if step != "fsync folder"]
    start_of_store = order.index("fsync file")
    assert order[start_of_store : start_of_store + 4] == ["fsync file", "link", "commit", "answer"]
    after_link = seen[seen.index("link") :]
    assert "fsync folder" in after_link[: after_link.index("commit")]


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


def test_below_the_reserve_nobody_new_may_send_and_those_who_do_are_told_to_send_again(
    small: SmallNode, start: Start, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    (path,) = series(tmp_path / "in", 1)
    raw, uid = path.read_bytes(), str(dcmread(path).SOPInstanceUID)
    data = raw[raw.index(b"\x08\x00\x05\x00CS") :]
    listener = start(reserve_bytes=1 << 20)
    with RawPeer(listener.port) as sending, RawPeer(listener.port) as new, RawPeer(listener.port) as echoing:
        sending.associate()
        with monkeypatch.context() as full:
            full.setattr(small.objects, "free_bytes", lambda: (1 << 20) - 1)
            assert sending.store(CT, uid, data) == 0xA700
            assert new.associate() == (REJECTED, bytes([0, 2, 3, 2]))
            echoing.associate(contexts=[(VERIFICATION, IMPLICIT_LITTLE)])
            assert echoing.echo() == 0x0000
        assert sending.store(CT, uid, data) == 0x0000

    assert small.incoming() == []
    assert eventually(lambda: [row.text for row in small.rows(Event)] == ["disk-full"])


def test_an_object_larger_than_the_bound_is_refused_and_the_next_is_taken(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    small_one, large_one = series(tmp_path / "a", 1)[0], tmp_path / "b"
    (large,) = make_series(large_one, np.zeros((1, 256, 256)), patient_id="P2")

    sent = send_files(
        [large, small_one], ae_title="NADIR", host="127.0.0.1", port=start(max_object_bytes=50_000).port
    )

    assert [one.status for one in sent] == [0xA700, 0x0000]


def test_more_associations_than_allowed_are_rejected_for_now(start: Start) -> None:
    listener = start(max_associations=2)
    with RawPeer(listener.port) as one, RawPeer(listener.port) as two, RawPeer(listener.port) as three:
        assert [peer.associate()[0] for peer in (one, two)] == [ACCEPTED, ACCEPTED]  # type: ignore[index]
        assert three.associate() == (REJECTED, bytes([0, 2, 3, 2]))
        one.release()
        assert eventually(lambda: len(listener.peers) == 1)
        with RawPeer(listener.port) as four:
            got = four.associate()
            assert got is not None
            assert got[0] == ACCEPTED


def test_an_open_association_gives_signs_of_life(
    small: SmallNode, start: Start, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "BEAT_SECONDS", 0.1)
    (path,) = series(tmp_path / "in", 1)
    raw = path.read_bytes()
    with RawPeer(start().port) as peer:
        peer.associate(calling="CT")
        peer.store(CT, str(dcmread(path).SOPInstanceUID), raw[raw.index(b"\x08\x00\x05\x00CS") :])
        (row,) = small.rows(Association)
        assert (row.calling_ae, row.address, row.closed_at) == ("CT", "127.0.0.1", None)
        first = row.alive_at
        assert eventually(lambda: small.rows(Association)[0].alive_at > first)
        peer.release()
    assert eventually(lambda: small.rows(Association)[0].closed_at is not None)


def test_a_drain_lets_the_running_sender_finish_and_takes_no_other(
    small: SmallNode, start: Start, tmp_path: Path
) -> None:
    listener = start()
    paths = series(tmp_path / "in", 30)
    begun, ended = threading.Event(), threading.Event()
    results: list[int | None] = []

    def send() -> None:
        sent = send_files(
            paths, ae_title="NADIR", host="127.0.0.1", port=listener.port, on_progress=lambda one: begun.set()
        )
        results.extend(one.status for one in sent)
        ended.set()

    threading.Thread(target=send, daemon=True).start()
    assert begun.wait(PATIENCE_SECONDS)
    port = listener.port
    assert listener.drain(PATIENCE_SECONDS)
    assert ended.wait(PATIENCE_SECONDS)
    assert results == [0x0000] * 30
    with pytest.raises(OSError, match="refused"):
        RawPeer(port)


def test_a_stop_ends_idle_associations_at_once(start: Start) -> None:
    listener = start()
    with RawPeer(listener.port) as peer:
        peer.associate(contexts=[(VERIFICATION, IMPLICIT_LITTLE)])
        begun = time.monotonic()
        listener.stop()
        assert time.monotonic() - begun < PATIENT_LIMITS.idle_seconds / 2
        assert peer.ended_within()


def test_the_listener_imports_none_of_the_heavy_libraries() -> None:
    script = (
        "import json, sys, node.listener, node.archive, node.scu, node.settle;"
        "heavy = {'torch', 'monai', 'SimpleITK', 'skimage', 'scipy', 'matplotlib'};"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []


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

"""The listener: what dcmtk sends to it, who may call, how many at once, and how it drains and stops."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dcmtk_tools import dcmtk, run_dcmtk
from patience import PATIENCE_SECONDS, PATIENT_LIMITS, eventually
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless, RLELossless
from pytest import MonkeyPatch
from raw_peer import CT, EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION, RawPeer
from small_node import SmallNode
from started_listeners import Start, series, starting

import node.housekeeping as housekeeping
from node.listener import Listener
from node.scu import send_files
from plugins.errors import Refused, Unavailable
from store.tables import Association, Event, Instance, Study

REJECTED, ACCEPTED = 0x03, 0x02


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


def test_a_store_whose_folder_is_away_is_told_with_its_folder_and_not_as_a_full_disk(
    small: SmallNode, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "node.room")
    listener = start(reserve_bytes=1 << 20)
    root = small.objects.root
    elsewhere = root.rename(root.with_name("elsewhere"))
    with RawPeer(listener.port) as one, RawPeer(listener.port) as two, RawPeer(listener.port) as echoing:
        assert one.associate() == (REJECTED, bytes([0, 2, 3, 2]))
        assert two.associate() == (REJECTED, bytes([0, 2, 3, 2]))
        echoing.associate(contexts=[(VERIFICATION, IMPLICIT_LITTLE)])
        assert echoing.echo() == 0x0000
    elsewhere.rename(root)
    with RawPeer(listener.port) as sending:
        got = sending.associate()
        assert got is not None
        assert got[0] == ACCEPTED

    (told,) = [text for text in caplog.messages if "action=store-unavailable" in text]
    assert str(root) in told and "is its disk mounted?" in told
    assert len([text for text in caplog.messages if "action=store-works" in text]) == 1
    assert eventually(lambda: [row.text for row in small.rows(Event)] == ["store-unavailable"])


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

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from at_once import at_once
from ledger import arrive, kept

from plugins.errors import Refused, Unavailable
from store.database import Database
from store.objects import ObjectStore, is_named, strays


def leftovers(objects: ObjectStore) -> list[Path]:
    return list((objects.root / "incoming").iterdir())


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    """Give a store that waits for the disk, as a node's does."""
    return ObjectStore(tmp_path / "store")


def test_bytes_are_kept_under_their_hash(objects: ObjectStore) -> None:
    data = os.urandom(3_000_000)
    one = objects.put(data)
    sha256 = hashlib.sha256(data).hexdigest()
    assert (one.sha256, one.size_bytes) == (sha256, 3_000_000)
    assert one.path == objects.path(sha256) == objects.root / "objects" / sha256[:2] / f"{sha256}.dcm"
    assert one.path.read_bytes() == data
    assert leftovers(objects) == []
    assert objects.is_intact(sha256)


def test_the_same_bytes_twice_are_one_object(objects: ObjectStore) -> None:
    first, second = objects.put(b"x"), objects.put(b"x")
    assert first == second
    assert list(objects.names()) == [first.sha256]
    assert leftovers(objects) == []


class Recorder:
    """Writes down every call that makes something durable or visible."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        for name in ("fsync", "link", "replace"):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            where = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else str(arguments[1])
            self.calls.append((name, where))
            return real(*arguments, **keywords)

        return call


def test_file_name_and_folder_are_on_disk_when_an_object_is_kept(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = objects.temporary()
    temporary.write_bytes(b"data")
    recorder = Recorder(monkeypatch)
    one = objects.keep(temporary)
    name = [call for call in recorder.calls if call != ("fsync", str(temporary))]
    assert name == [("link", str(one.path)), ("fsync", str(one.path.parent))]
    assert len(recorder.calls) == 3


def test_an_object_gets_its_name_while_its_bytes_go_to_disk_and_is_kept_when_both_are_there(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, real_fsync, real_link, done = threading.Event(), os.fsync, os.link, []

    def fsync(descriptor: int) -> None:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            assert named.wait(30)
            time.sleep(0.05)
            done.append("bytes")
        real_fsync(descriptor)

    def link(source: Path, target: Path) -> None:
        real_link(source, target)
        named.set()

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    objects.put(b"data")
    assert done == ["bytes"]


def test_a_second_object_at_one_time_is_synced_before_it_is_named(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with objects._file_sync.unnamed(objects.put(b"first").path):
        recorder = Recorder(monkeypatch)
        second = objects.put(b"second")
    assert [name for name, _ in recorder.calls] == ["fsync", "link", "fsync"]
    assert second.path.read_bytes() == b"second"


def test_bytes_that_somebody_else_kept_stay_when_our_own_do_not_get_to_disk(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real, named, fails = ObjectStore(objects.root), os.fsync, threading.Event(), threading.Event()
    real_link = os.link

    def fsync(descriptor: int) -> None:
        if threading.current_thread().name.startswith("file-sync") and not fails.is_set():
            fails.set()
            assert named.wait(30)
            other.put(b"data")
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    def link(source: Path, target: Path) -> None:
        real_link(source, target)
        named.set()

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(Unavailable):
        objects.put(b"data")
    (name,) = objects.names()
    assert objects.is_intact(name)
    assert leftovers(objects) == []


def test_an_object_is_replaced_only_by_bytes_that_are_on_disk(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = objects.put(b"data")
    before = one.path.stat().st_ino

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unavailable):
        objects.put(b"data")
    assert one.path.stat().st_ino == before


def test_an_identical_resend_is_answered_only_after_the_folder_is_synced_again(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = objects.put(b"data")
    recorder = Recorder(monkeypatch)
    objects.put(b"data")
    assert recorder.calls[-1] == ("fsync", str(one.path.parent))


def test_a_folder_that_somebody_removed_is_made_again(objects: ObjectStore) -> None:
    one = objects.put(b"data")
    one.path.unlink()
    one.path.parent.rmdir()
    assert objects.put(b"data").path.read_bytes() == b"data"


def test_a_filesystem_without_hard_links_renames(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", no_links)
    assert objects.put(b"data").path.read_bytes() == b"data"
    assert leftovers(objects) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("step", ["sync of the file", "link", "sync of the folder"])
def test_a_disk_that_fails_is_unavailable_and_leaves_no_partial(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, code: int, step: str
) -> None:
    real = os.fsync

    def fail(*arguments: Any) -> None:
        is_folder = step != "link" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
        if step == "link" or is_folder == (step == "sync of the folder"):
            raise OSError(code, os.strerror(code))
        real(*arguments)

    monkeypatch.setattr(os, "link" if step == "link" else "fsync", fail)
    with pytest.raises(Unavailable):
        objects.put(b"data")
    assert leftovers(objects) == []
    # Only its name may not be on disk: the object is whole, and nobody was told that it is kept.
    assert all(objects.is_intact(name) for name in objects.names())
    assert len(list(objects.names())) == (step == "sync of the folder")
    monkeypatch.undo()
    assert objects.put(b"data").path.read_bytes() == b"data"


def test_a_full_disk_while_writing_is_unavailable(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:2])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Unavailable):
        objects.put(b"data")
    assert leftovers(objects) == []


def test_too_many_open_files_are_no_fault_of_the_disk(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unavailable) as caught:
        objects.put(b"data")
    assert str(caught.value) == (
        "The object store cannot be written or read (Too many open files); raise LimitNOFILE or ulimit -n."
    )
    assert leftovers(objects) == []


def test_a_truncated_object_is_healed_by_a_resend(objects: ObjectStore) -> None:
    one = objects.put(b"data")
    one.path.chmod(0o600)
    one.path.write_bytes(b"da")
    assert not objects.is_intact(one.sha256)
    objects.put(b"data")
    assert objects.is_intact(one.sha256)


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 65, "a" * 64 + "\n", "/" + "a" * 63]
)
def test_only_a_hash_is_a_name(objects: ObjectStore, name: str) -> None:
    with pytest.raises(Refused) as caught:
        objects.path(name)
    assert caught.value.code == "bad-object-name"


def test_the_sweep_deletes_temporaries_and_nothing_else(objects: ObjectStore) -> None:
    one = objects.put(b"kept")
    for _ in range(3):
        objects.temporary().write_bytes(b"partial")
    other = objects.root / "incoming" / f"{os.getppid()}-{'0' * 32}.part"
    other.write_bytes(b"another process is receiving this")
    assert objects.sweep() == 3
    assert other.exists()
    other.unlink()
    assert leftovers(objects) == []
    assert objects.is_intact(one.sha256)
    assert objects.sweep() == 0


def test_the_sweep_leaves_what_another_container_is_receiving(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    theirs = objects.temporary()
    theirs.write_bytes(b"its process number is the same as ours")
    monkeypatch.undo()
    assert objects.sweep() == 0 and theirs.exists()
    day_ago = time.time() - 86400
    os.utime(theirs, (day_ago, day_ago))
    assert objects.sweep() == 1


def test_a_refused_file_is_put_aside_with_its_reason(objects: ObjectStore) -> None:
    temporary = objects.temporary()
    temporary.write_bytes(b"evil")
    aside = objects.quarantine(temporary, 'no "DICM"\n')
    assert aside.parent == objects.root / "quarantine"
    assert aside.read_bytes() == b"evil"
    assert 'no \\"DICM\\"\\n' in aside.with_suffix(".json").read_text()
    assert leftovers(objects) == []
    assert list(objects.names()) == []


def test_many_threads_that_keep_the_same_bytes_make_one_object(objects: ObjectStore) -> None:
    def put(_: int) -> None:
        for number in range(10):
            objects.put(b"%d" % number)

    at_once(put, 8)
    assert len(list(objects.names())) == 10
    assert leftovers(objects) == []


def test_a_root_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        ObjectStore(tmp_path / "file" / "store")


@pytest.mark.parametrize("name", ["objects/02", "incoming"])
def test_a_file_in_the_place_of_a_folder_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    root = ObjectStore(tmp_path / "store", sync=False).root
    (root / name).rmdir()
    (root / name).write_text("")
    with pytest.raises(Unavailable) as caught:
        ObjectStore(root)
    said = "cannot be written or read (File exists); look what lies there and take it out."
    assert str(caught.value) == f"The object store at {root / name} {said}"
    assert caught.value.outside == f"The object store {said}"


def test_a_folder_in_the_place_of_an_object_is_named_with_what_to_do(objects: ObjectStore) -> None:
    path = objects.path(hashlib.sha256(b"data").hexdigest())
    path.mkdir()
    with pytest.raises(
        Unavailable, match=rf"at {path} .*\(Is a directory\); look what lies there and take it out"
    ):
        objects.put(b"data")
    assert leftovers(objects) == []


def test_free_space_is_told(objects: ObjectStore) -> None:
    assert 0 < objects.free_bytes() < 1 << 60


def test_objects_without_row_and_rows_without_object_are_found(
    objects: ObjectStore, database: Database
) -> None:
    lonely = objects.put(b"lonely")
    known, lost = objects.put(b"1.2.3.1.1"), kept("1.2.3.1.2")
    with database.transaction() as session:
        arrive(session, 1)
        arrive(session, 2)
        found = [strays(session, objects, f"{number:02x}") for number in range(256)]
        assert [one for orphans, _ in found for one in orphans] == [lonely.sha256]
        assert [one for _, missing in found for one in missing] == [lost.sha256]
        assert [is_named(session, one.sha256) for one in (known, lost, lonely)] == [True, True, False]


def test_what_was_refused_is_bounded_and_the_oldest_goes_first(tmp_path: Path) -> None:
    objects = ObjectStore(tmp_path / "store", quarantine_bytes=10 * 4096)
    refused: list[Path] = []
    for number in range(15):
        temporary = objects.temporary()
        temporary.write_bytes(b"%d" % number)
        refused.append(objects.quarantine(temporary, "no-dicom"))
        os.utime(refused[-1], (number, number))
        gone = objects.bound_quarantine()
        assert gone == (2 if number in (10, 12, 14) else 0)
    left = set((tmp_path / "store" / "quarantine").iterdir())
    assert left == {path for one in refused[6:] for path in (one, one.with_suffix(".json"))}


def test_without_sync_nothing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    one = ObjectStore(tmp_path / "store", sync=False).put(b"data")
    assert recorder.calls == [("link", str(one.path))]
    assert one.path.read_bytes() == b"data"

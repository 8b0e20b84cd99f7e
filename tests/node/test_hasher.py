from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch

from node import hasher as hasher_module
from node import spool as spool_module
from node.hasher import Hasher
from node.spool import Spool
from plugins.errors import Unavailable
from store.objects import ObjectStore

NewSpool = Callable[[str], Spool]


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    found = Hasher()
    yield found
    found.stop()


@pytest.fixture
def new_spool(tmp_path: Path, hasher: Hasher) -> NewSpool:
    def new(name: str) -> Spool:
        path = tmp_path / name
        path.unlink(missing_ok=True)
        return Spool(
            path, largest_bytes=1 << 20, free_bytes=lambda: 1 << 40, reserve_bytes=0, hasher=hasher
        ).begin(b"preamble")

    return new


def digest(spool: Spool) -> str:
    assert spool.sha256 is not None
    return spool.sha256()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.binary(max_size=5000), max_size=30))
def test_the_hash_is_that_of_the_file_however_it_came(
    new_spool: NewSpool, monkeypatch: MonkeyPatch, parts: list[bytes]
) -> None:
    monkeypatch.setattr(spool_module, "PIECE_BESIDE_BYTES", 4096)
    monkeypatch.setattr(hasher_module, "BUFFER_BYTES", 1000)
    spool = new_spool("x")
    for part in parts:
        spool.write(part)
    spool.close()
    spool.close()

    data = b"preamble" + b"".join(parts)
    assert digest(spool) == digest(spool) == sha256(data)
    assert spool.path.read_bytes() == data


def test_a_file_that_comes_while_another_is_hashed_is_hashed_by_who_writes_it(
    new_spool: NewSpool, hasher: Hasher
) -> None:
    first, second = new_spool("first"), new_spool("second")
    for spool in (second, first):
        spool.write(spool.name.encode())
        spool.close()
    assert [digest(spool) for spool in (first, second)] == [
        sha256(b"preamble" + spool.name.encode()) for spool in (first, second)
    ]


@pytest.mark.parametrize("end", ["close", "discard", "too long"])
def test_the_thread_is_free_again_and_holds_no_file_whatever_became_of_it(
    new_spool: NewSpool, hasher: Hasher, end: str
) -> None:
    before = open_files()
    for number in range(3):
        spool = new_spool(str(number))
        spool.write(b"data" if end != "too long" else bytes(1 << 21))
        spool.discard() if end == "discard" else spool.close()
        with spool.path.open("w+b") if end == "close" else open(os.devnull, "rb") as file:
            lent = hasher.lend(file.fileno())
            assert lent is not None
            lent.finish(0)
    hasher.stop()
    assert open_files() == before
    assert "hasher" not in {thread.name for thread in threading.enumerate()}


def test_a_thread_that_was_ended_begins_again(new_spool: NewSpool, hasher: Hasher) -> None:
    for name in ("before", "after"):
        spool = new_spool(name)
        spool.close()
        assert digest(spool) == sha256(b"preamble")
        hasher.stop()


def test_a_thread_is_not_ended_while_a_file_is_written(new_spool: NewSpool, hasher: Hasher) -> None:
    spool = new_spool("x")
    hasher.stop()
    spool.close()
    assert digest(spool) == sha256(b"preamble")


@pytest.mark.parametrize("fault", ["unreadable", "shorter"])
def test_a_file_whose_hash_cannot_be_had_is_not_kept(
    tmp_path: Path, new_spool: NewSpool, monkeypatch: MonkeyPatch, fault: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    if fault == "unreadable":
        monkeypatch.setattr(os, "preadv", fail)
    spool = new_spool("x")
    spool.write(b"data")
    if fault == "shorter":
        os.truncate(spool.path, 9)
    spool.close()

    objects = ObjectStore(tmp_path / "store")
    with pytest.raises(Unavailable, match="free or mend the disk"):
        objects.keep(spool.path, spool.sha256)
    assert (spool.path.exists(), list(objects.names())) == (False, [])


def test_a_descriptor_that_fails_as_it_is_closed_does_not_end_the_thread(
    new_spool: NewSpool, monkeypatch: MonkeyPatch
) -> None:
    close = os.close

    def fails(descriptor: int) -> None:
        close(descriptor)
        if threading.current_thread().name == "hasher":
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "close", fails)
    for name in ("x", "y"):
        spool = new_spool(name)
        spool.close()
        assert digest(spool) == sha256(b"preamble")


def test_without_a_descriptor_to_spare_the_file_is_hashed_by_who_writes_it(
    new_spool: NewSpool, monkeypatch: MonkeyPatch
) -> None:
    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "dup", none_left)
    for name in ("x", "y"):
        spool = new_spool(name)
        spool.close()
        assert digest(spool) == sha256(b"preamble")

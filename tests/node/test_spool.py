from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch

from node import spool as spool_module
from node.spool import HEAD_BYTES, Spool
from store.writeback import begin_writeback


def new_spool(folder: Path, *, hashing: bool = True) -> Spool:
    path = folder / "arriving.part"
    path.unlink(missing_ok=True)
    return Spool(path, largest_bytes=1 << 30, free_bytes=lambda: 1 << 40, reserve_bytes=0, hashing=hashing)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(preamble=st.binary(min_size=1, max_size=300), parts=st.lists(st.binary(max_size=5000), max_size=30))
def test_hash_head_and_size_are_those_of_the_file_however_it_came(
    tmp_path: Path, monkeypatch: MonkeyPatch, preamble: bytes, parts: list[bytes]
) -> None:
    monkeypatch.setattr(spool_module, "PIECE_BYTES", 4096)
    monkeypatch.setattr(spool_module, "READ_BYTES", 1000)
    spool = new_spool(tmp_path).begin(preamble)
    for part in parts:
        spool.write(memoryview(part))
    spool.close()
    spool.close()

    data = preamble + b"".join(parts)
    assert spool.path.read_bytes() == data
    assert spool.sha256() == hashlib.sha256(data).hexdigest()
    assert (spool.head, spool.size_bytes) == (data[:HEAD_BYTES], len(data))


def test_a_file_that_cannot_be_read_again_is_a_failure_and_is_gone(
    tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    spool = new_spool(tmp_path).begin(b"preamble")
    spool.write(b"data")
    monkeypatch.setattr(os, "preadv", fail)
    spool.close()
    assert isinstance(spool.failure, OSError)
    assert spool.sha256 is None
    assert not spool.path.exists()


def test_a_file_that_is_shorter_than_what_was_written_is_a_failure(tmp_path: Path) -> None:
    spool = new_spool(tmp_path).begin(b"preamble")
    spool.write(b"data")
    os.truncate(spool.path, 9)
    spool.close()
    assert isinstance(spool.failure, OSError)
    assert (spool.sha256, spool.path.exists()) == (None, False)


def test_without_a_hash_nothing_is_read_again(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv")
    spool = new_spool(tmp_path, hashing=False).begin(b"preamble")
    spool.write(b"data")
    spool.close()
    assert (spool.failure, spool.sha256, spool.path.read_bytes()) == (None, None, b"preambledata")


def test_to_begin_to_write_is_a_hint_and_never_an_error(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"data")
        begin_writeback(file.fileno(), 0, 4)
    begin_writeback(-1, 0, 4)


@pytest.mark.parametrize("failing", ["begin", "write"])
def test_what_cannot_be_written_is_remembered_and_nothing_is_left(tmp_path: Path, failing: str) -> None:
    folder = tmp_path / "gone" if failing == "begin" else tmp_path
    spool = Spool(folder / "x.part", largest_bytes=10, free_bytes=lambda: 1 << 40, reserve_bytes=0).begin(
        b"preamble"
    )
    spool.write(b"too long for the bound")
    spool.write(b"dropped")
    spool.close()
    assert isinstance(spool.failure, OSError)
    assert (spool.sha256, spool.path.exists()) == (None, False)

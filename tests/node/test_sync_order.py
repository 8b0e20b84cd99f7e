"""What the kernel saw before every success: the file, its name and its row were synced first."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from figures import write_figure
from listener_process import ListenerProcess
from small_node import instances_in

from node.scu import send_files

pytestmark = pytest.mark.fault

STORES = 20
CALLS = "fsync,fdatasync,syncfs,link,linkat,pwrite64,sendto,sendmsg"
PAGE_BYTES = "4096"
HEX = re.compile(r"\\x([0-9a-f]{2})")
CALL = re.compile(r"^(?P<name>\w+)\((?P<rest>.*)$")
DESCRIPTOR = re.compile(r"^\d+<(?P<path>[^>]*)>")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Call:
    """One system call; `begun` and `ended` are its places in the order of all."""

    name: str
    rest: str
    begun: int
    ended: int

    @cached_property
    def path(self) -> str:
        found = DESCRIPTOR.match(self.rest)
        return _text(found["path"]).decode() if found else ""

    @cached_property
    def texts(self) -> list[bytes]:
        return [_text(text) for text in TEXT.findall(self.rest)]


def _text(written: str) -> bytes:
    return bytes.fromhex("".join(HEX.findall(written)))


def calls(trace: Path) -> Iterator[Call]:
    """Give the calls that succeeded, in the order in which they ended."""
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(trace.read_text().splitlines()):
        thread, _, what = line.partition(" ")
        what = what.strip()
        if what.endswith("<unfinished ...>"):
            begun[thread] = (number, what.removesuffix("<unfinished ...>"))
            continue
        first = number
        if what.startswith("<... "):
            first, beginning = begun.pop(thread)
            what = beginning + what.partition(" resumed>")[2]
        match = CALL.match(what)
        if match and re.search(r"\) += \d+", what):
            yield Call(match["name"], match["rest"], first, number)


def success_of(data: bytes) -> str | None:
    """Return the SOP Instance UID that a C-STORE response with status 0000 is about (PS3.7 9.3.1.2)."""
    response, success = (b"\0\0" + bytes([low, high]) + b"\x02\0\0\0" for low, high in ((0, 1), (0, 9)))
    if data[:1] != b"\x04" or response + b"\x01\x80" not in data or success + b"\0\0" not in data:
        return None
    at = data.index(b"\0\0\0\x10") + 4
    length = int.from_bytes(data[at : at + 4], "little")
    return data[at + 4 : at + 4 + length].rstrip(b"\0").decode()


def permitted(tmp_path: Path) -> bool:
    if shutil.which("strace") is None:
        return False
    probe = ["strace", "-f", "-o", str(tmp_path / "probe"), "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("receive_path", ["fast", "pynetdicom"])
def test_every_success_comes_after_the_syncs_of_file_folder_and_row(
    tmp_path: Path, receive_path: str
) -> None:
    if not permitted(tmp_path):
        pytest.skip("strace is missing or may not trace here")
    home, trace = tmp_path / "node", tmp_path / "trace"
    paths = make_series(tmp_path / "in", np.random.default_rng(1).integers(0, 999, (STORES, 16, 16)))
    strace = (
        "strace",
        "-f",
        "--seccomp-bpf",
        "-y",
        "-xx",
        "-s",
        PAGE_BYTES,
        "-e",
        f"trace={CALLS}",
        "-o",
        str(trace),
    )
    with ListenerProcess(home, under=strace, receive_path=receive_path) as process:
        sent = send_files(paths, ae_title="NADIR", host="127.0.0.1", port=process.port, associations=2)
        assert {one.status for one in sent} == {0x0000}
        rows = instances_in(home)
        assert successes_seen(trace) == STORES
    seen = list(calls(trace))
    proved = [proof(seen, home, uid, sha256) for uid, sha256 in rows.items()]

    assert len(proved) == STORES
    assert all(proved)
    write_figure(f"order of syncs before every 0x0000, {receive_path}", stores=STORES, proved=sum(proved))


def successes_seen(trace: Path) -> int:
    """Return how many successes strace has written down, once they are all there."""
    deadline, count = time.monotonic() + 60, 0
    while count < STORES and time.monotonic() < deadline:
        count = sum(success_of(text) is not None for call in calls(trace) for text in call.texts)
        time.sleep(0.1)
    return count


def proof(seen: list[Call], home: Path, uid: str, sha256: str) -> bool:
    """Return True when the answer was begun after the row was synced, and the row after file and name were."""
    target = home / "store" / "objects" / sha256[:2] / f"{sha256}.dcm"
    answer = next(call for call in seen if any(success_of(text) == uid for text in call.texts))
    link = next(
        call for call in seen if call.name.startswith("link") and call.texts[-1] == str(target).encode()
    )
    temporary = link.texts[0].decode()

    def synced(path: str, after: int) -> int:
        """Return where a sync of this path ended that began after a place; beyond everything when there is none."""
        found = (
            call.ended for call in seen if "sync" in call.name and call.path == path and call.begun > after
        )
        return next(found, sys.maxsize)

    file = synced(temporary, -1)
    folder = synced(str(target.parent), link.ended)
    wal = f"{home / 'nadir.sqlite'}-wal"
    written = next(
        call for call in seen if call.path == wal and any(uid.encode() in text for text in call.texts)
    )
    row = synced(wal, written.ended)
    return max(file, folder) < written.begun < row < answer.begun

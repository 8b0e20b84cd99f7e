"""The thread that writes the log: whether anybody reads or not."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from patience import eventually

from node import scribe
from node.scribe import Scribe

TOLD = """
import logging, os, sys
from node.logs import configure
configure("INFO")
log = logging.getLogger("node.x")
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    yield reads, writes
    os.close(reads)
    os.close(writes)


@pytest.fixture
def writer(pipe: tuple[int, int]) -> Iterator[logging.Logger]:
    log = logging.Logger("node.x")
    log.addHandler(Scribe(pipe[1], lambda count: f"lost {count}"))
    yield log


def _run(code: str, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", TOLD + code]
    return subprocess.run(command, check=False, text=True, timeout=120, **how)  # type: ignore[call-overload, no-any-return]


def test_lines_come_out_in_their_order_and_all_before_the_process_ends() -> None:
    done = _run("for n in range(3000): log.info('n=%d', n)\nsys.exit(3)", capture_output=True)

    assert done.returncode == 3
    said = [line.rpartition(" ")[2] for line in done.stderr.splitlines()]
    assert said == [f"n={n}" for n in range(3000)]


def test_a_process_works_and_ends_though_nobody_reads_its_log(pipe: tuple[int, int]) -> None:
    code = "for n in range(30_000): log.info('n=%d', n)\nprint('worked')"

    done = _run(code, stdout=subprocess.PIPE, stderr=pipe[1])

    assert (done.returncode, done.stdout) == (0, "worked\n")


def test_what_is_lost_is_told_in_its_place_once_somebody_reads(
    pipe: tuple[int, int], writer: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribe, "MOST_LINES", 50)
    full = b"x" * 4095 + b"\n"
    os.write(pipe[1], full)
    writer.info(0)
    (handler,) = writer.handlers
    assert eventually(lambda: handler._is_writing)  # type: ignore[attr-defined]
    for n in range(1, 2000):
        writer.info(n)
    assert os.read(pipe[0], 4096) == full
    text = ""

    def read() -> bool:
        nonlocal text
        text += os.read(pipe[0], 4096).decode()
        return "lost" in text

    assert eventually(read)
    assert text.splitlines() == [*map(str, range(51)), "lost 1949"]
    writer.info("afterwards")
    assert os.read(pipe[0], 100) == b"afterwards\n"


def test_a_process_that_was_forked_off_writes_its_own_lines() -> None:
    code = (
        "log.info('parent')\nlogging.shutdown()\n"
        "child = os.fork()\nlog.info('child' if child == 0 else 'again')\n"
        "logging.shutdown()\nos._exit(0) if child == 0 else os.waitpid(child, 0)"
    )
    done = _run(code, capture_output=True)

    said = [line.rpartition(" ")[2] for line in done.stderr.splitlines()]
    assert (said[0], sorted(said[1:])) == ("parent", ["again", "child"])


def test_a_line_is_written_though_no_thread_can_be_started(
    pipe: tuple[int, int], writer: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        writer.info("first")
        assert os.read(pipe[0], 100) == b"first\n"
    writer.info("second")
    assert os.read(pipe[0], 100) == b"second\n"


def test_a_descriptor_that_is_not_to_block_gets_all_lines(
    pipe: tuple[int, int], writer: logging.Logger
) -> None:
    os.set_blocking(pipe[1], False)
    for n in range(500):
        writer.info("a line that is long enough to fill a pipe %04d", n)
    text = ""

    def read() -> bool:
        nonlocal text
        text += os.read(pipe[0], 1 << 16).decode()
        return text.count("\n") == 500

    assert eventually(read)
    assert [int(line[-4:]) for line in text.splitlines()] == list(range(500))

"""Mutated files through the intake and every reader: each ends in stored, refused or quarantined, and nothing else."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import file_mill
import pytest
from figures import write_figure

HANG_SECONDS = 10
MEMORY_KIB = 2 << 20
START_SECONDS = 120
SHARED_MEMORY = Path("/dev/shm")


class Mill:
    """One process that mills a range of seeds, and the clock beside it."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._folder, self._data = folder, data
        self.ended: list[dict[str, str]] = []
        self.slowest_seconds = 0.0
        self.rss_kib = 0
        self.crashes: list[int] = []
        self.hangs: list[int] = []

    def run(self, first: int, last: int) -> None:
        """Mill the seeds; a process that crashed or hung is replaced and goes on with the next seed."""
        root = Path(__file__).parents[3]
        environment = {
            "PYTHONPATH": f"{root}:{root / 'tests' / 'support'}",
            "OPENBLAS_NUM_THREADS": "1",
            "PATH": os.environ["PATH"],
        }
        while first < last:
            command = [
                sys.executable,
                file_mill.__file__,
                str(self._folder),
                str(self._data),
                str(first),
                str(last),
            ]
            process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE)
            try:
                first = self._watch(process, first, last)
            finally:
                process.kill()
                process.communicate()

    def _watch(self, process: subprocess.Popen[bytes], seed: int, last: int) -> int:
        """Return the seed to go on with."""
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        waiting, limit, began = b"", START_SECONDS, time.monotonic()
        while True:
            left = max(0.0, limit - (time.monotonic() - began))
            if not select.select([process.stdout], [], [], left)[0]:
                self.hangs.append(seed)
                return seed + 1
            if not (chunk := process.stdout.read(1 << 16)):
                break
            *lines, waiting = (waiting + chunk).split(b"\n")
            for line in lines:
                if line.startswith(b"start"):
                    seed, limit, began = int(line.split()[1]), HANG_SECONDS, time.monotonic()
                    continue
                said = json.loads(line)
                if "rss_kib" in said:
                    self.rss_kib = max(self.rss_kib, said["rss_kib"])
                    continue
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
                self.ended.append(said)
        if process.wait(HANG_SECONDS) == 0:
            return last
        self.crashes.append(seed)
        return seed + 1


def mill(folder: Path, data: Path, count: int, tier: str) -> None:
    """Mill the first seeds, judge how each ended, and write the figure."""
    one = Mill(folder, data)
    one.run(0, count)
    assert (one.crashes, one.hangs) == ([], [])
    assert len(one.ended) == count
    taken = Counter(said["taken"] for said in one.ended)
    read = Counter(said[what] for said in one.ended for what in ("read", "checked"))
    places = {said[place] for said in one.ended for place in ("place", "checked_place")} - {""}
    assert read["broken"] == 0, places
    assert one.rss_kib < MEMORY_KIB
    assert taken["stored"] > count // 5
    assert read["read"] > 0
    write_figure(
        "mutated DICOM files",
        tier=tier,
        files=count,
        crashes=0,
        hangs=0,
        stored=taken["stored"],
        quarantined=count - taken["stored"],
        refused_by_memory=read["memory"],
        slowest_seconds=round(one.slowest_seconds, 2),
        rss_mib=one.rss_kib >> 10,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder in memory, where nothing waits for a disk."""
    where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="nadir-mill-", dir=where) as folder:
        yield Path(folder)


@pytest.mark.sec
@pytest.mark.fault
def test_corpus_six_hundred_mutated_files_end_stored_refused_or_quarantined(folder: Path, data: Path) -> None:
    mill(folder, data, 600, "quick")


@pytest.mark.sec
@pytest.mark.fault
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_corpus_fifty_thousand_mutated_files_end_stored_refused_or_quarantined(
    folder: Path, data: Path
) -> None:
    mill(folder, data, 50_000, "long")

"""A node that is killed while it analyses and while it sends: every study's results are in every PACS, each once."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import trouble_plugin
from dicom_series import make_series
from figures import write_figure
from node_process import NADIR
from orthanc_server import OrthancServer, orthanc
from outbox_rows import waiting_results
from small_node import SmallNode
from sqlmodel import select

from node.intake import Intake
from store.failpoint import KILLED
from store.tables import Delivery, Job, Result

pytestmark = [pytest.mark.fault, pytest.mark.xdist_group("delivery-kills")]

IN_SENDER = (
    "sender-claimed", "sender-before-send", "sender-after-send", "sender-before-delivered", "sender-recorded",
)  # fmt: skip
IN_WORKER = ("worker-claimed", "worker-analysed", "worker-before-commit", "worker-stored")


@dataclass
class Pacs:
    """Two real Orthancs, one fed by C-STORE and one by STOW-RS."""

    by_store: OrthancServer
    by_stow: OrthancServer

    @property
    def destinations(self) -> tuple[str, str]:
        return (f"ORTHANC@127.0.0.1:{self.by_store.dicom_port}", self.by_stow.dicomweb)

    def held(self) -> list[Counter[str]]:
        """Return how often each SOP Instance UID is held, by PACS."""
        return [
            Counter(i["MainDicomTags"]["SOPInstanceUID"] for i in server.get("/instances?expand"))
            for server in (self.by_store, self.by_stow)
        ]


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    with orthanc() as one, orthanc() as two:
        yield Pacs(one, two)


class Killed:
    """A node in a folder, run again and again until it is killed or has nothing left to do."""

    def __init__(self, home: Path, roles: Sequence[str], pacs: Pacs, environment: dict[str, str]) -> None:
        self.small = SmallNode.make(home)
        flags = [f"--role={role}" for role in roles] + [f"--destination={to}" for to in pacs.destinations]
        more = ("--quiet-seconds=0", "--lease-seconds=1", "--workers=1", "--max-attempts=1000")
        self._command = [str(NADIR), "serve", "--home", str(home), *flags, *more]
        self._environment = {**os.environ, **environment}
        self.kills = 0

    @contextmanager
    def running(self, failpoint: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Run it, with one place at which it ends."""
        environment = {**self._environment, "NADIR_FAILPOINT": failpoint}
        with (self.small.home / "log.txt").open("ab") as log:
            process = subprocess.Popen(self._command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait(60)

    def kill_at(self, failpoint: str) -> None:
        """Run it until it reaches a place, and count the kill."""
        with self.running(failpoint) as process:
            assert process.wait(60) == KILLED, failpoint
        self.kills += 1

    def kill_after(self, seconds: float) -> None:
        """Run it for so long after it has begun to deliver."""
        with self.running() as process:
            began = sum(row.attempt for row in self.small.rows(Delivery))
            deadline = time.monotonic() + 60
            while sum(row.attempt for row in self.small.rows(Delivery)) == began:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
            time.sleep(seconds)
        self.kills += 1

    def finish(self, jobs: int, seconds: float = 600) -> None:
        """Run it unharmed until all jobs are done."""
        with self.running():
            deadline = time.monotonic() + seconds
            while [job.state for job in self.small.rows(Job)] != ["done"] * jobs:
                states = Counter(job.state for job in self.small.rows(Job))
                log = (self.small.home / "log.txt").read_text()[-3000:]
                assert time.monotonic() < deadline, (states, log)
                time.sleep(0.1)


def judge(node: Killed, pacs: Pacs, results: int) -> dict[str, float]:
    """Assert that every PACS has every result once, and return the figures."""
    with node.small.database.reading() as session:
        uids = set(session.exec(select(Result.sop_instance_uid)))
        attempts = sum(session.exec(select(Delivery.attempt)))
        states = set(session.exec(select(Delivery.state)))
    held = pacs.held()
    lost = sum(len(uids - set(one)) for one in held)
    extra = sum(sum(one.values()) - len(uids & set(one)) for one in held)
    node.small.database.dispose()
    assert (len(uids), lost, extra) == (results, 0, 0)
    assert states <= {"delivered", "confirmed"}
    return {"kills": node.kills, "results": results, "lost": lost, "duplicates": extra, "attempts": attempts}


def kill_senders(folder: Path, pacs: Pacs, kills: int) -> dict[str, float]:
    """Kill the sender at its named places and at random moments."""
    node = Killed(folder / "home", ["sender"], pacs, {})
    patients = max(4, kills)
    for number in range(patients):
        waiting_results(
            node.small.database,
            node.small.objects,
            folder,
            pacs.destinations,
            count=2,
            patient_id=f"S{number}",
        )
    chance, points = random.Random(kills), cycle(IN_SENDER)
    for number in range(kills):
        if number % 4 == 3:
            node.kill_after(chance.uniform(0.0, 0.2))
        else:
            node.kill_at(f"{next(points)}:{chance.randint(1, 2)}")
    node.finish(patients)
    return judge(node, pacs, 2 * patients)


def kill_workers(folder: Path, pacs: Pacs, kills: int) -> dict[str, float]:
    """Kill the worker at its named places while it analyses real studies."""
    plugin = trouble_plugin.install(folder / "trouble")
    node = Killed(folder / "home", ["worker", "sender"], pacs, trouble_plugin.environment(plugin, mode="box"))
    studies = max(2, kills // 2)
    intake = Intake(node.small.database, node.small.objects)
    noise = np.random.default_rng(1).integers(-100, 100, (4, 16, 16)).astype(float)
    for number in range(studies):
        for path in make_series(folder / f"W{number}", noise, patient_id=f"W{number}"):
            temporary = node.small.objects.temporary()
            temporary.write_bytes(path.read_bytes())
            intake.take(temporary, source="test")
    for _, point in zip(range(kills), cycle(IN_WORKER), strict=False):
        node.kill_at(f"{point}:1")
    node.finish(studies)
    return judge(node, pacs, 3 * studies)


def test_a_sender_that_is_killed_leaves_every_result_in_every_pacs_once(tmp_path: Path, pacs: Pacs) -> None:
    write_figure("kill -9 in the sender", **kill_senders(tmp_path, pacs, 6))


@pytest.mark.long  # test_jobs_under_kills kills workers of the ledger
def test_a_worker_that_is_killed_gives_one_result_a_study(tmp_path: Path, pacs: Pacs) -> None:
    write_figure("kill -9 in the worker", **kill_workers(tmp_path, pacs, 2))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_hundred_kills_of_the_sender(tmp_path: Path, pacs: Pacs) -> None:
    write_figure("kill -9 in the sender", tier="long", **kill_senders(tmp_path, pacs, 200))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_kills_of_the_worker(tmp_path: Path, pacs: Pacs) -> None:
    write_figure("kill -9 in the worker", tier="long", **kill_workers(tmp_path, pacs, 100))

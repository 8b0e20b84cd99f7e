"""Eight workers on one ledger, some of which are killed or fall asleep: `python ledger_workers.py URL FLAG SEED COUNT`.

They are forked from one process that has everything imported, so that a killed one is replaced at once. Each does what
a worker does in SQL: it claims, and in one transaction saves a finding and a result, adds the delivery and finishes.
They end when the ledger is empty and the file FLAG says that nothing more will come. The last line is how many were
killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from sqlmodel import select

from plugins.errors import Unavailable
from store import findings, jobs, outbox
from store.analysed import AnalysedFindings, Coded, Found, Written
from store.database import Database
from store.dicom.uids import derive_uid
from store.objects import Kept
from store.tables import Job

LEASE_SECONDS = 1.0
DESTINATION = "PACS@pacs:104"
NODULE = Coded(value="27925004", scheme="SCT", meaning="Nodule")


def work(database: Database, job: Job, sleepy: bool) -> None:
    """Do one job; a sleepy worker does it when its lease is long over."""
    if sleepy:
        time.sleep(1.5 * LEASE_SECONDS)
    uid = derive_uid(job.key, "seg")
    written = Written(kind="seg", sop_instance_uid=uid, sop_class_uid="1.2", series_instance_uid=uid, path="")
    found = Found(
        label="n",
        tracking_identifier="n",
        tracking_uid=derive_uid(job.key, "n"),
        series_instance_uid="1.2",
        segment_number=1,
        category=NODULE,
        type=NODULE,
        centroid_mm=(0.0, 0.0, 0.0),
    )
    kept = {uid: Kept(sha256="0" * 64, size_bytes=1, path=Path("none"))}
    with database.transaction() as session:
        now = database.now()
        for result in findings.save(
            session, job, AnalysedFindings(found=(found,), written=(written,)), kept, now
        ):
            outbox.add(session, result, [DESTINATION], now)
        jobs.finish(session, int(job.id or 0), job.attempt, jobs.DELIVERING, now)


def run(url: str, flag: Path, seed: int) -> None:
    """Work until nothing is left."""
    database, chance, parent = Database(url), random.Random(seed), os.getppid()
    while os.getppid() == parent:
        try:
            with database.transaction() as session:
                job = jobs.claim(session, str(os.getpid()), database.now(), LEASE_SECONDS)
            if job is not None:
                work(database, job, chance.random() < 0.002)
                continue
            with database.reading() as session:
                waiting = select(Job.id).where(Job.state.in_((jobs.QUEUED, jobs.RUNNING))).limit(1)  # type: ignore[attr-defined]
                if flag.exists() and session.exec(waiting).first() is None:
                    return
        except (jobs.Fenced, Unavailable):
            continue
        time.sleep(0.05)


def start(url: str, flag: Path, seed: int) -> int:
    """Return the process id of a new worker."""
    child = os.fork()
    if child:
        return child
    try:
        run(url, flag, seed)
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Keep the workers up, and kill one of them every now and then."""
    url, flag, seed, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    chance, killed, failed = random.Random(seed), 0, 0
    workers = {start(url, flag, chance.getrandbits(32)) for _ in range(count)}
    while workers:
        time.sleep(chance.uniform(0.2, 0.6))
        while workers:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if not ended:
                break
            workers.discard(ended)
            failed += status not in (0, signal.SIGKILL)
            if status == signal.SIGKILL:
                workers.add(start(url, flag, chance.getrandbits(32)))
        if len(workers) == count:
            os.kill(chance.choice(sorted(workers)), signal.SIGKILL)
            killed += 1
    print(killed, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

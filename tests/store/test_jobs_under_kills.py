"""Many worker processes on one ledger, killed at random, while studies settle: one result and one delivery a job."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import ledger_workers
import pytest
from figures import write_figure
from ledger import START, arrive
from postgres_server import PostgresServer
from sqlmodel import func, select

from node.settle import Settler
from node.task import Identity
from store import jobs, outbox
from store.database import Database
from store.fsck.rows import check_rows
from store.tables import Delivery, Finding, Job, Result

PLUGINS = 10
ENDLESS = 1000  # attempts: what is killed here is the worker's fault and not the study's
ANALYSES = [
    Identity(
        plugin=f"p{number}",
        plugin_version="1",
        model_name="m",
        model_version="1",
        model_sha256="a" * 64,
        config_sha256="b" * 64,
    )
    for number in range(PLUGINS)
]


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    name = postgres.create(postgres_template)
    yield postgres.url(name)
    postgres.drop(name)


def settle_meanwhile(url: str, studies: int) -> None:
    """Let studies arrive and settle, twice at once, as two nodes on one database do."""

    def settler() -> None:
        database = Database(url)
        for _ in range(2):
            Settler(database, ANALYSES, quiet_seconds=0, max_attempts=ENDLESS).tick(database.now())
        database.dispose()

    database = Database(url)
    for first in range(0, studies, 10):
        with database.transaction() as session:
            for study in range(first, min(first + 10, studies)):
                arrive(session, 1, study=f"1.2.{study + 1}")
        threads = [threading.Thread(target=settler) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    database.dispose()


def run(url: str, folder: Path, *, studies: int, workers: int, tier: str, engine: str) -> None:
    """Run the workers beside the settling, and count what they left."""
    flag, began = folder / "everything-is-there", time.monotonic()
    root = Path(jobs.__file__).parents[1]
    command = [sys.executable, ledger_workers.__file__, url, str(flag), "1", str(workers)]
    process = subprocess.Popen(
        command,
        cwd=root,
        env={"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        settle_meanwhile(url, studies)
        flag.touch()
        said, complaint = process.communicate(timeout=1500)
    finally:
        process.kill()
    assert process.returncode == 0, complaint
    seconds = time.monotonic() - began
    database, wanted = Database(url), studies * PLUGINS
    with database.reading() as session:
        assert Counter(session.exec(select(Job.state)).all()) == {jobs.DELIVERING: wanted}
        assert len(set(session.exec(select(Result.job_pk)).all())) == wanted
        count = {
            table.__name__: session.exec(select(func.count()).select_from(table)).one()
            for table in (Job, Result, Delivery, Finding)
        }
        assert count == {"Job": wanted, "Result": wanted, "Delivery": wanted, "Finding": wanted}
        assert set(session.exec(select(Delivery.state)).all()) == {outbox.PENDING}
        executions = session.exec(select(func.sum(Job.attempt))).one()
        assert check_rows(session, START) == []
    database.dispose()
    killed = int(said)
    write_figure(
        f"{engine}: {workers} workers, kills",
        tier=tier,
        jobs=wanted,
        results=count["Result"],
        outbox_rows=count["Delivery"],
        executions=int(executions),
        killed=killed,
        seconds=round(seconds, 1),
    )
    assert killed > 0


@pytest.mark.fault
@pytest.mark.postgres
def test_eight_workers_with_kills_on_postgresql_leave_one_result_and_one_delivery_a_job(
    postgres_url: str, tmp_path: Path
) -> None:
    run(postgres_url, tmp_path, studies=20, workers=8, tier="quick", engine="PostgreSQL")


@pytest.mark.fault
@pytest.mark.postgres
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_five_thousand_jobs_on_postgresql_leave_five_thousand_results_and_deliveries(
    postgres_url: str, tmp_path: Path
) -> None:
    run(postgres_url, tmp_path, studies=500, workers=8, tier="long", engine="PostgreSQL")


@pytest.mark.fault
def test_workers_with_kills_on_sqlite_leave_one_result_and_one_delivery_a_job(
    sqlite_template: Path, tmp_path: Path
) -> None:
    (tmp_path / "nadir.sqlite").write_bytes(sqlite_template.read_bytes())
    url = f"sqlite:///{tmp_path / 'nadir.sqlite'}"
    run(url, tmp_path, studies=15, workers=3, tier="quick", engine="SQLite")
